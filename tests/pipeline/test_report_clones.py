"""The report's part on generated clips: one hears who is cloned, what came of it, and that it is
synthetic."""

import base64
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipeline.report import ReportData, render_report
from pipeline.report_clones import CLONED_SAMPLES, CLONES_SHOWN, MOST_CLONES_BYTES, Clones
from schemas.arrow import SYNTHETIC, SYNTHETIC_VERDICTS
from schemas.synthetic import Synthetic, SyntheticVerdict
from stages.flac import flac_bytes
from tests.pipeline.test_report import (
    EVIL,
    NO_CLONES,
    Library,
    clip,
    data_of,
    frame,
    loud_noise,
    recording,
)

Judged = tuple[Synthetic, tuple[str, ...] | None]


def clone(name: str, of: str, reasons: tuple[str, ...] | None = (), **changes: Any) -> Judged:
    """A generated clip and why it is rejected; None: without a verdict."""
    made = Synthetic(
        clip_id=name,
        described_id=of,
        session_id="s",
        transcript_id="t",
        transcript_session_id="u",
        reference_ids=(of,),
        description=f"The voice of {of}.",
        model="nano",
        model_hash="m",
        seed=3,
        candidates=4,
        language="en",
        text=f"what {name} says",
        lexical_overlap=0.0,
        sample_rate=16_000,
        duration_s=2.0,
        audio=b"",
        watermark="w",
        watermark_score=0.97,
        stopped=True,
        text_asr=f"what {name} says",
        cer=0.12,
        cosine=0.81,
        dnsmos_ovrl=2.9,
        length_ratio=1.1,
        attempt=1,
    )
    return replace(made, **changes), reasons


def clones_of(judged: Sequence[Judged], library: Library, **changes: Any) -> Clones:
    verdicts = [
        SyntheticVerdict(
            clip_id=made.clip_id, accepted=not reasons, reasons=reasons, policy_hash="p"
        )
        for made, reasons in judged
        if reasons is not None
    ]
    made = frame(SYNTHETIC, [made for made, _ in judged]).drop("audio", "speaker_embedding")
    known = frame(SYNTHETIC_VERDICTS, verdicts)
    return Clones(
        synthetic=made.join(known, on="clip_id", how="left"), load_audio=library, **changes
    )


def corpus_of(sounds: dict[str, bytes], num: int = 6, rate: int = 16_000) -> ReportData:
    """Recorded clips of a session each."""
    clips = [clip(f"s{i}", i, 0, 2 * rate, rate, text=f"what number {i} says") for i in range(num)]
    recordings = [recording(f"s{i}", 2.0) for i in range(num)]
    sounds |= {made.clip_id: f"sound of {made.clip_id}".encode() for made in clips}
    return data_of(clips, recordings, Library(sounds))


def part_of(html: str) -> str:
    return html[html.index('<h2 id="clones">') : html.index('<h2 id="balance">')]


def sections_of(html: str) -> list[str]:
    return re.findall(r'<section class="voice".*?</section>', part_of(html), re.DOTALL)


def articles_of(section: str) -> list[str]:
    return re.findall(r"<article.*?</article>", section, re.DOTALL)


def heard(article: str) -> str:
    (sound,) = re.findall(r"base64,([A-Za-z0-9+/=]+)", article)
    return base64.b64decode(sound).decode()


@pytest.fixture
def shown() -> str:
    data = corpus_of({})
    names = data.clips.sort("clip_id")["clip_id"].to_list()
    judged = [
        clone("good", names[0]),
        clone("better", names[0], cer=0.02, text_asr="what butter says"),
        clone("bad", names[0], ("wrong_text", "short"), cer=0.9, cosine=None, dnsmos_ovrl=None),
        clone("worse", names[0], ("wrong_text",), cer=0.95),
        clone("new", names[1], None),
    ]
    library = Library({made.clip_id: f"clone {made.clip_id}".encode() for made, _ in judged})
    limits = {"cer": [("max", 0.3)]}
    return render_report(replace(data, clones=clones_of(judged, library, limits=limits)))


def test_a_description_stands_with_its_clip_and_its_clones(shown: str) -> None:
    first, second = sections_of(shown)
    source, *clones = articles_of(first)
    assert "The voice of s0-000." in first
    assert heard(source) == "sound of s0-000"
    assert "what number 0 says" in source
    assert ">recorded<" in source
    # The best accepted and the best rejected come before a second of either.
    assert [heard(article) for article in clones] == ["clone better", "clone good", "clone bad"]
    assert len(clones) == CLONES_SHOWN
    better, good, bad = clones
    assert "what better says" in better
    assert "heard as: what butter says" in better
    assert "heard as" not in good
    assert "CER 0.12 · cosine 0.81 · OVRL 2.90 · 2.0 s · the best of 4 · watermark 0.97" in good
    assert ">accepted<" in good
    assert ">accepted<" not in bad
    assert ">wrong_text<" in bad
    assert ">short<" in bad
    assert "CER 0.90 · 2.0 s" in bad
    assert "not judged yet" in articles_of(second)[1]


def test_every_generated_clip_is_marked_and_no_other(shown: str) -> None:
    articles = articles_of(part_of(shown))
    for article in articles:
        generated = "sound of" not in heard(article)
        assert ('data-synthetic="true"' in article) == generated
        assert (">synthetic</span>" in article) == generated
        assert ('aria-label="Synthetic clip' in article) == generated
    assert sum("data-synthetic" in article for article in articles) == 4
    assert "data-synthetic" not in shown.replace(part_of(shown), "")


def test_totals_are_told_by_reason_and_scores_are_drawn(shown: str) -> None:
    part = " ".join(part_of(shown).split())
    assert "5 synthetic clips of 2 described ones; 2 (40 %) are accepted" in part
    assert "2 wrong_text, 1 not judged yet, 1 short." in part
    assert "<b>2</b><span>synthetic clips accepted of 5</span>" in shown
    assert "CER of what is heard: 2 kept and 3 rejected clips" in part
    assert "max 0.3" in part
    assert "Cosine to the voice: 2 kept and 2 rejected clips" in part


def test_each_session_has_its_turn_and_those_with_a_good_clone_come_first() -> None:
    data = corpus_of({}, num=8)
    clips = data.clips.with_columns(
        session_id=pl.when(pl.col("session_id") < "s3").then(pl.lit("s")).otherwise("session_id")
    )
    names = clips.sort("clip_id")["clip_id"].to_list()
    judged = [clone(f"c{i}", name, () if i in (1, 4) else ("low",)) for i, name in enumerate(names)]
    judged.append(clone("stray", "a clip that is gone"))
    library = Library({made.clip_id: b"x" for made, _ in judged})
    html = render_report(replace(data, clips=clips, clones=clones_of(judged, library)))
    told = [re.findall(r"The voice of (\S+)\.", section)[0] for section in sections_of(html)]
    assert len(told) == CLONED_SAMPLES
    assert told[:2] == [names[1], names[4]]
    assert not {names[0], names[2]} & set(told)


def test_the_file_stays_light_whatever_is_cloned() -> None:
    rate = 48_000
    sound = flac_bytes(loud_noise(3.0, rate), rate)
    clips = [clip(f"s{i}", i, 0, 3 * rate, rate, snr_db=40.0 if i % 3 else 3.0) for i in range(40)]
    library = Library({made.clip_id: sound for made in clips})
    judged = [clone(f"{n}-{made.clip_id}", made.clip_id) for made in clips for n in range(5)]
    library.sounds |= {made.clip_id: sound for made, _ in judged}
    data = data_of(clips, [recording(f"s{i}", 10.0) for i in range(40)], library)
    html = render_report(replace(data, clones=clones_of(judged, library)))
    part = part_of(html)
    assert len(part) < MOST_CLONES_BYTES * 4 / 3 + 100_000
    assert "too long to embed" in part
    # Who is told of is heard before who is made up.
    assert all("<audio" in articles_of(section)[0] for section in sections_of(html))
    assert len(html) < 8_000_000
    # Nothing is read that is not shown.
    asked = [name for ids in library.asked for name in ids if "-s" in name]
    assert len(asked) <= CLONED_SAMPLES * CLONES_SHOWN


def test_without_clones_it_says_how_to_get_them(tmp_path: Path) -> None:
    html = render_report(replace(corpus_of({}), clones=NO_CLONES))
    assert "<code>voxquarry clone</code>" in part_of(html)
    assert "synthetic clips accepted" not in html


def test_what_comes_from_outside_stays_text() -> None:
    data = corpus_of({})
    of = data.clips["clip_id"][0]
    judged = [
        clone("a", of, (EVIL,), text=EVIL, text_asr=f"x{EVIL}", description=EVIL, language=EVIL)
    ]
    html = render_report(replace(data, clones=clones_of(judged, Library({"a": b"x"}))))
    assert "<img" not in html
    assert html.count("</script>") == 1
