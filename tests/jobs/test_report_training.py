"""`voxquarry report` tells what a trainer gets, and what listeners marked."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from jobs.judge import report_corpus
from jobs.run_compose import run_compose
from jobs.settings import Settings
from pipeline.reviews import mark_bad
from schemas.arrow import LATENTS, SAMPLES
from tests.jobs.composable_corpus import V2, Made, Said, make
from tests.pipeline.browser import needs_chromium, opened_browser


def report(made: Made) -> str:
    """The page, as text."""
    path = Path(made.root).parent / "report.html"
    report_corpus(made.root, made.policy, path, Console(file=io.StringIO()))
    return path.read_text()


def uncomposed(folder: Path) -> Made:
    """Four English clips and two French ones, with latents and references."""
    said = [
        Said(
            name=f"{language}{i}",
            recording=f"r{language}{i}",
            session=language,
            language=language,
            duration_s=16.0,
            references=(f"{language}{(i + 1) % number}",),
        )
        for language, number in (("en", 4), ("fr", 2))
        for i in range(number)
    ]
    return make(folder, said)


def compose(made: Made) -> None:
    run_compose(made.root, V2, Settings(), policy=made.policy, console=Console(quiet=True))


def test_samples_latents_and_marks_are_counted(tmp_path: Path) -> None:
    made = uncomposed(tmp_path)
    html = report(made)
    assert "6 clips have a latent (0 of them synthetic)" in html
    assert "<code>voxquarry compose</code>" in html
    assert "Marked as bad" not in html
    compose(made)
    mark_bad(made.corpus, "en0", "a dog <barks>")
    html = report(made)
    samples = made.corpus.read(SAMPLES)
    train = samples.filter(split="train")
    frames = made.corpus.read(LATENTS, ["frames"])["frames"].sum()
    assert f"{frames:,} frames" in html
    assert f"{samples.height} samples, {train.height} of them for training" in html
    for column in ("layout", "language"):
        chart = html[html.index(f"Samples by {column}: ") :].partition("</title>")[0]
        found = dict(re.findall(r"(\w+) (\d+)", chart))
        assert {name: int(n) for name, n in found.items() if n} == dict(
            train[column].value_counts().iter_rows()
        )
    rows = html[html.index("an epoch of stage") :].partition("<tbody>")[2].split("</tr>")
    for stage in range(3):
        weight = train["weights"].list.get(stage)
        hours = (weight * train["duration_s"]).sum() / 3600
        told = [str(stage + 1), str((weight > 0).sum()), f"{hours:.2f}"]
        assert re.findall(r">([\d.]+)", rows[stage])[:3] == told
    assert '<code>en0</code></td><td dir="auto">a dog &lt;barks&gt;</td>' in html


@pytest.mark.browser
@needs_chromium
def test_in_a_browser_nothing_goes_wrong(tmp_path: Path) -> None:
    made = uncomposed(tmp_path)
    compose(made)
    report(made)
    with opened_browser() as (page, faults):
        page.goto((tmp_path / "report.html").as_uri())
        page.get_by_role(
            "region", name="What an epoch of each stage sees"
        ).scroll_into_view_if_needed()
        seen = page.get_by_role("figure").filter(has_text="Samples by layout")
        assert seen.bounding_box()
        page.screenshot(path=tmp_path / "report.png", full_page=True)
    assert faults == []
