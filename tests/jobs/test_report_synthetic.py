"""`voxquarry report` on a corpus with clones: the audio that stands, by the verdicts that stand."""

import base64
import io
import re
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from jobs.judge import report_corpus
from pipeline.policy import load_synthetic_policy
from schemas.arrow import SYNTHETIC_VERDICTS
from schemas.synthetic import SyntheticVerdict
from tests.jobs.composable_corpus import Cloned, Made, Said, make, write_clones


def report(made: Made) -> str:
    """The page, as text."""
    path = Path(made.root).parent / "report.html"
    report_corpus(made.root, made.policy, path, Console(file=io.StringIO()))
    return path.read_text()


def sounds(html: str) -> set[bytes]:
    return {base64.b64decode(sound) for sound in re.findall(r"base64,([A-Za-z0-9+/=]+)", html)}


def test_the_last_generation_is_heard_and_the_policys_limits_are_drawn(tmp_path: Path) -> None:
    said = [Said(name=name, recording=name, session=name) for name in "ab"]
    said[0] = replace(said[0], description="A calm voice.")
    made = make(tmp_path, said)
    assert "<code>voxquarry clone</code>" in report(made)
    cloned = [Cloned(name="c", of="a", says="b", text="other words", accepted=False)]
    write_clones(made.corpus, cloned, audio=b"first")
    write_clones(made.corpus, cloned, audio=b"second", attempt=2)
    html = report(made)
    assert sounds(html) == {b"second"}
    assert "1 synthetic clips of 1 described ones" in html
    assert ">wrong_text<" in html
    drawn = html[html.index("CER of what is heard") :].partition("</figure>")[0]
    assert "stroke-dasharray" not in drawn, "whose limits these are is not known"
    shipped = load_synthetic_policy("synthetic")
    verdict = SyntheticVerdict(clip_id="c", accepted=True, reasons=(), policy_hash=shipped.hash)
    table = SYNTHETIC_VERDICTS
    made.corpus.write_current("filter-synthetic", table, table.to_arrow([verdict]))
    html = report(made)
    drawn = html[html.index("CER of what is heard") :].partition("</figure>")[0]
    assert "stroke-dasharray" in drawn
    assert ">accepted<" in html
