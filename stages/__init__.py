"""One step over a batch of rows each: a frozen config, pure functions, a class that wires them.

To add a measurement, write `stages/<noun>.py` and `tests/stages/test_<noun>.py`, and list the
stage in the phase that runs it (`jobs`). Stages measure; the filter policy decides.
"""
