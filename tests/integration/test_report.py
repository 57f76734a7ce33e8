"""The report, opened in a real browser: it stands alone, its players play, its tables sort."""

import re
import shutil
import subprocess
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from jobs.judge import report_corpus
from pipeline.report import render_report
from pipeline.storage import Corpus

pytestmark = [pytest.mark.ray, pytest.mark.slow]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

# The browser's clock runs ahead when the page is idle, and its media threads do not: keep it busy
# until every player has told its length.
LINGER = """
let turns = 0;
(function linger() {
  let sum = 0;
  for (let i = 0; i < 2e7; i++) sum += i;
  const ready = Number(document.body.dataset.playersReady || 0);
  if (ready < document.querySelectorAll("audio").length && turns++ < 500) setTimeout(linger, 10);
})();
"""


def browse(page: Path, profile: Path, *arguments: str) -> str:
    """The page's DOM after its scripts ran."""
    assert CHROMIUM is not None
    command = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
        *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
        *("--disable-sync", f"--user-data-dir={profile}", "--virtual-time-budget=15000"),
        *(*arguments, "--dump-dom", page.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_in_a_browser_its_players_play_and_its_tables_sort(corpus: Corpus, tmp_path: Path) -> None:
    text = (Path(corpus.path) / "report.html").read_text()
    click = "document.querySelector('[data-table=session] th:nth-child(4) button').click();"
    page = tmp_path / "report.html"
    page.write_text(text.replace("</body>", f"<script>{click}{LINGER}</script></body>"))
    dom = browse(page, tmp_path / "profile")
    players = len(re.findall(r"<audio", dom))
    durations = [float(value) for value in re.findall(r'data-duration="([\d.]+)"', dom)]
    assert players >= 12
    assert len(durations) == players
    assert min(durations) > 0.5
    table = dom[dom.index('data-table="session"') :].partition("</table>")[0]
    rows = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in table.split("<tr>")[1:]]
    kept = [int(cells[3]) for cells in rows if len(cells) == 7]
    assert len(kept) > 5
    assert kept == sorted(kept, reverse=True)
    assert 'aria-sort="descending"' in table


def test_it_fetches_nothing_and_holds_all_parts(corpus: Corpus) -> None:
    text = (Path(corpus.path) / "report.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!data:)""", text)
    assert len(text) < 8_000_000
    for part in ("funnel", "scores", "listen", "balance", "quarantine", "run"):
        assert f'id="{part}"' in text
    assert text.count("<svg") >= 10
    assert "stroke-dasharray" in text
    for reason in ("UndecodableAudio", "low_snr", "telephone_band", "no_speech"):
        assert reason in text


def test_what_comes_from_outside_is_escaped(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = {}
    monkeypatch.setattr("jobs.judge.write_report", lambda path, data: seen.update(data=data))
    report_corpus(corpus.root, "default", tmp_path / "x.html", Console(quiet=True))
    data = seen["data"]
    evil = "</script><img src=x onerror=alert(1)>"
    data = type(data)(
        **{name: getattr(data, name) for name in data.__dataclass_fields__}
        | {
            "clips": data.clips.with_columns(
                text=pl.lit(evil), speaker=pl.lit(evil), session_id=pl.lit(evil)
            ),
            "name": evil,
        }
    )
    html = render_report(data)
    assert evil not in html
    assert "&lt;/script&gt;&lt;img" in html
