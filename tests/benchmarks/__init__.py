"""What a curate run costs: beside a plain loop, beside a peer, and beside the bare models.

`python -m tests.benchmarks.bench_curate` times all of them in one run. Nothing here is a timed
test: machines differ, so the table shows the bars and the exit code only says whether it ran.
"""
