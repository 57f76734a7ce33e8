"""`voxquarry browse` in a real browser: filter, play, see the words, mark a clip as bad."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.reviews import read_reviews
from pipeline.storage import Corpus
from schemas.arrow import CLIPS
from tests.pipeline.browse_corpus import make_corpus
from tests.pipeline.browse_server import serving
from tests.pipeline.browser import needs_chromium, opened_browser

pytestmark = [pytest.mark.browser, needs_chromium]


@pytest.fixture
def corpus(devset: Path, tmp_path: Path) -> Corpus:
    return make_corpus(devset, tmp_path / "corpus")


@pytest.fixture
def address(corpus: Corpus) -> Iterator[str]:
    """Of a running server."""
    with serving(corpus) as running:
        yield running


def wait_until_played(audio: Any, seconds: float) -> None:
    """Asked again and again: the page forbids the evaluation that Playwright's own waiting needs."""
    deadline = time.monotonic() + 30
    while audio.evaluate("audio => audio.currentTime") < seconds:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_listener_filters_hears_and_marks(corpus: Corpus, address: str, tmp_path: Path) -> None:
    with opened_browser() as (page, faults):
        page.goto(address)
        assert page.locator("tbody tr").count() == 12
        page.get_by_label("Language").select_option("en")
        page.get_by_label("Column 1").select_option("dnsmos_ovrl")
        page.get_by_label("Condition 1").select_option("at least")
        page.get_by_label("Value 1").fill("3.1")
        page.get_by_label("Sort by").select_option("duration_s")
        page.get_by_role("button", name="Show").click()
        page.get_by_text("6 of 12 clips").wait_for()
        seconds = page.locator("tbody tr td:nth-child(8)").all_inner_texts()
        assert [float(one) for one in seconds] == sorted(float(one) for one in seconds)

        page.locator("button.play").nth(2).click()
        page.locator("[data-open=true]").wait_for()
        clip = page.locator("tr.current").get_attribute("data-clip")
        assert clip is not None
        audio = page.locator("audio")
        stored = corpus.read(CLIPS, ["clip_id", "duration_s"]).filter(clip_id=clip)
        length = audio.evaluate("audio => audio.duration")
        assert length == pytest.approx(stored["duration_s"].item(), abs=0.01)
        wait_until_played(audio, 0.2)

        words = page.locator("button.word")
        lefts = words.evaluate_all("all => all.map(word => word.offsetLeft)")
        assert lefts == sorted(lefts)
        assert len(set(lefts)) == words.count()
        drawn = page.locator("canvas").evaluate(
            "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v > 0)"
        )
        assert drawn
        words.nth(1).click()
        start = float(words.nth(1).get_attribute("data-start") or "nan")
        wait_until_played(audio, start)
        page.locator(".word.now").first.wait_for()

        page.keyboard.press("b")
        page.keyboard.type("cut word <b>&")
        page.keyboard.press("Enter")
        page.get_by_text("Marked as bad: cut word <b>&").wait_for()
        assert page.locator("tr.bad").get_attribute("data-clip") == clip
        page.locator("tr.current .tag.bad").wait_for()
        page.screenshot(path=tmp_path / "browse.png")
        marks = read_reviews(corpus).select("clip_id", "review").rows()
        assert marks == [(clip, "cut word <b>&")]

        page.get_by_role("button", name="Take the mark back").click()
        page.get_by_text("The mark is taken back.").wait_for()
        assert read_reviews(corpus).is_empty()

        page.keyboard.press("j")
        following = f".panel[data-open=true]:not([data-clip='{clip}'])"
        page.locator(following).wait_for()
        page.locator("tr.current .text a").click()
        page.locator("[data-open=true]").wait_for()
        assert page.locator("dl.columns div").count() > 60
        page.screenshot(path=tmp_path / "clip.png", full_page=True)
        page.goto(f"{address}/synthetic")
        page.locator("button.play").click()
        page.locator("[data-open=true]").wait_for()
        page.screenshot(path=tmp_path / "synthetic.png")
    assert faults == []


def test_every_control_has_a_name_and_a_place_in_the_order_of_keys(address: str) -> None:
    with opened_browser(width=420, height=800) as (page, faults):
        page.goto(address)
        page.locator("button.play").first.click()
        page.locator("[data-open=true]").wait_for()
        nameless = page.evaluate(
            """() => [...document.querySelectorAll("button, a[href], input, select, audio")]
                .filter((one) => !one.hidden && !(one.getAttribute("aria-label")
                    || one.textContent.trim() || one.labels?.length))
                .map((one) => one.outerHTML)"""
        )
        assert nameless == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 420
        page.reload()
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
    assert faults == []
