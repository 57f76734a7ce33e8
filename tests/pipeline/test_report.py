"""The report: one light file that stands alone, whatever the corpus holds."""

import base64
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import soundfile as sf

from pipeline.charts import histogram
from pipeline.ledger import Item
from pipeline.policy import judge, load_policy
from pipeline.report import (
    MOST_GROUPS,
    MOST_ROWS,
    SAMPLES_HEARD,
    ReportData,
    render_report,
    write_report,
)
from pipeline.report_clones import Clones
from pipeline.report_training import Training
from pipeline.report_voices import DESCRIBED_SAMPLES, MOST_DESCRIBED_BYTES, Voices
from pipeline.summary import account
from schemas.arrow import (
    ATTRIBUTES,
    CLIPS,
    DESCRIPTIONS,
    LATENTS,
    QUARANTINE,
    RECORDINGS,
    REFERENCES,
    REVIEWS,
    SAMPLES,
    SYNTHETIC,
    SYNTHETIC_VERDICTS,
    Table,
)
from schemas.attributes import Attributes
from schemas.descriptions import AttributeVerdict, Claim, Description
from schemas.references import Reference
from schemas.rows import Clip, Quarantined, Recording, Wave
from stages.flac import flac_bytes

SOURCES: dict[str, dict[str, Any]] = {
    # Recording, a session of its own: what the signal scores say of it.
    "en_allison_s1": {"snr_db": 41.0},
    "en_allison_s1__music5": {"snr_db": 8.0, "dnsmos_ovrl": 1.9},
    "en_allison_s3__clip": {"snr_db": 35.0, "clipping": 0.01, "screened": "clipping"},
    "en_allison_s3__band8k": {"snr_db": 34.0, "bandwidth_hz": 4_000.0},
    "fr_june_s1": {"snr_db": 40.0, "language": "fr"},
}
EVIL = "</script><img src=x onerror=\"document.title='owned'\">'\"& العربية"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
POLICY = load_policy("default")


def frame(table: Table, rows: Sequence[Any]) -> pl.DataFrame:
    made = pl.from_arrow(table.to_arrow(rows).replace_schema_metadata())
    assert isinstance(made, pl.DataFrame)
    return made


NO_VOICES = Voices(
    references=frame(REFERENCES, []),
    duplicates=0,
    attributes=frame(ATTRIBUTES, []),
    descriptions=frame(DESCRIPTIONS, []),
)


NO_CLONES = Clones(
    synthetic=frame(SYNTHETIC, [])
    .drop("audio", "speaker_embedding")
    .join(frame(SYNTHETIC_VERDICTS, []), on="clip_id", how="left"),
    load_audio=lambda ids: {},
)
NO_TRAINING = Training(
    latents=frame(LATENTS, []), samples=frame(SAMPLES, []), reviews=frame(REVIEWS, [])
)


@dataclass
class Library:
    """The clips' sound, and who asked for it."""

    sounds: dict[str, bytes] = field(default_factory=dict)
    asked: list[Sequence[str]] = field(default_factory=list)

    def __call__(self, clip_ids: Sequence[str]) -> dict[str, bytes]:
        self.asked.append(clip_ids)
        return {name: self.sounds[name] for name in clip_ids}


def recording(session: str, duration_s: float, **changes: Any) -> Recording:
    return replace(
        Recording(
            recording_id=session,
            uri=f"corpus/{session}.flac",
            session_id=session,
            duration_s=duration_s,
            sample_rate=16_000,
            channels=1,
            codec="FLAC",
            size_bytes=1,
            num_chunks=1,
        ),
        **changes,
    )


def clip(session: str, index: int, start: int, end: int, rate: int, **changes: Any) -> Clip:
    made = Clip(
        clip_id=f"{session}-{index:03d}",
        recording_id=session,
        session_id=session,
        chunk_index=0,
        start_sample=start,
        end_sample=end,
        sample_rate=rate,
        start_s=start / rate,
        end_s=end / rate,
        duration_s=(end - start) / rate,
        language="en",
        text="please hold",
        bandwidth_hz=7_800.0,
        clipping=0.0,
        dnsmos_ovrl=3.2,
        snr_db=40.0,
    )
    return replace(made, **changes)


def data_of(
    clips: Sequence[Clip],
    recordings: Sequence[Recording],
    library: Library,
    quarantine: Sequence[Quarantined] = (),
    **changes: Any,
) -> ReportData:
    """What the report shows, by the default policy, with books that balance."""
    clip_frame = frame(CLIPS, clips).drop("audio", "words", "speaker_embedding")
    verdicts = judge(clip_frame, POLICY)
    ill = frame(QUARANTINE, quarantine)
    seconds = sum(item.duration_s for item in clips)
    items = [Item(item_id="all", uri="all", status="done", duration_s=seconds)]
    items += [
        Item(item_id=row.unit_id, uri=row.uri, status="quarantined", duration_s=0.0)
        for row in quarantine
    ]
    known = frame(RECORDINGS, recordings)
    shown = ReportData(
        name="corpus",
        accounts=account(items, clip_frame, verdicts, ill, known),
        clips=clip_frame.join(verdicts, on="clip_id"),
        recordings=known,
        quarantine=ill,
        policy=POLICY,
        runs=[],
        voices=NO_VOICES,
        clones=NO_CLONES,
        training=NO_TRAINING,
        load_audio=library,
    )
    return replace(shown, **changes)


def loud_noise(seconds: float, rate: int) -> Wave:
    """What FLAC can hardly make smaller, as fan noise at 48 kHz."""
    rng = np.random.default_rng(0)
    return rng.normal(0, 0.1, round(seconds * rate)).astype(np.float32)


@pytest.fixture(scope="module")
def speech(devset: Path) -> ReportData:
    """The utterances of five real sessions with their real sound and text."""
    truth = pl.read_parquet(devset / "ground_truth.parquet")
    library = Library()
    clips: list[Clip] = []
    recordings = []
    for session, scores in SOURCES.items():
        wave, rate = sf.read(devset / "audio" / f"{session}.flac", dtype="float32")
        recordings.append(recording(session, len(wave) / rate))
        rows = truth.filter(pl.col("recording_id") == session).sort("start")
        for index, row in enumerate(rows.to_dicts()):
            start, end = round(row["start"] * rate), round(row["end"] * rate)
            made = clip(session, index, start, end, rate, text=row["text"], **scores)
            library.sounds[made.clip_id] = flac_bytes(wave[start:end], rate)
            clips.append(made)
    return data_of(clips, recordings, library)


def test_samples_cover_sessions_and_reasons_and_nothing_else_is_loaded(speech: ReportData) -> None:
    library = speech.load_audio
    assert isinstance(library, Library)
    library.asked.clear()
    html = render_report(speech)
    assert render_report(speech) == html
    asked = library.asked[:2]
    assert [len(ids) for ids in asked] == [SAMPLES_HEARD, SAMPLES_HEARD]
    shown = speech.clips.filter(pl.col("clip_id").is_in([name for ids in asked for name in ids]))
    kept = shown.filter("accepted")
    assert set(kept["session_id"]) == {"en_allison_s1", "fr_june_s1"}
    firsts = shown.filter(~pl.col("accepted"))["reasons"].list.first()
    every = speech.clips.filter(~pl.col("accepted"))["reasons"].list.first()
    assert set(firsts) == set(every)
    assert "screened_clipping" in set(firsts)
    embedded = re.findall(r"base64,([A-Za-z0-9+/=]+)", html)
    assert len(embedded) == 2 * SAMPLES_HEARD
    sounds = {library.sounds[name] for ids in asked for name in ids}
    assert {base64.b64decode(text) for text in embedded} == sounds


def test_long_clips_at_48_khz_do_not_make_it_heavy(tmp_path: Path) -> None:
    library = Library()
    sound = flac_bytes(loud_noise(3.6, 48_000), 48_000)
    clips = [
        clip("s", i, i * 172_800, (i + 1) * 172_800, 48_000, snr_db=40.0 if i % 2 else 3.0)
        for i in range(40)
    ]
    library.sounds = {made.clip_id: sound for made in clips}
    assert 250_000 < len(sound) < 350_000
    path = tmp_path / "report.html"
    write_report(path, data_of(clips, [recording("s", 1_000.0)], library))
    html = path.read_text()
    assert len(html) < 8_000_000
    assert html.count("<audio ") >= 10
    assert html.count("too long to embed") == 2 * SAMPLES_HEARD - html.count("<audio ")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_a_clip_whose_sound_fits_speaks_for_its_session() -> None:
    rate = 48_000
    clips = [clip("s", i, 0, rate * (60 if i < 20 else 2), rate) for i in range(21)]
    library = Library({made.clip_id: b"fLaC" for made in clips})
    html = render_report(data_of(clips, [recording("s", 2_000.0)], library))
    assert library.asked[0][0] == "s-020"
    assert "0.0–2.0 s" in html


def test_tables_say_what_they_leave_out() -> None:
    clips = [clip(f"s{i}", 0, 0, 32_000, 16_000) for i in range(MOST_GROUPS + 7)]
    library = Library({made.clip_id: b"fLaC" for made in clips})
    ill = [
        Quarantined(
            unit_id=str(i),
            phase="curate",
            stage="read",
            error_type="EmptyFile",
            message="x" * 5_000,
            traceback="",
            uri=f"bad/{i}.wav",
            attempt=1,
        )
        for i in range(MOST_ROWS + 9)
    ]
    flagged = [recording(str(i), 1.0, flags=("truncated",)) for i in range(MOST_ROWS + 11)]
    html = render_report(data_of(clips, flagged, library, ill))
    assert f"{MOST_GROUPS} of {MOST_GROUPS + 7} are shown" in html
    assert f"{MOST_ROWS} of {MOST_ROWS + 9} are shown" in html
    assert f"{MOST_ROWS} of {MOST_ROWS + 11} are shown" in html
    assert "x" * 400 not in html
    # One language is one row, of which nothing is left out.
    assert html.count("are shown") == 3


def chart(html: str, title: str) -> str:
    """One chart of the page, from its heading to its end."""
    return html[html.index(f"<h3>{title}</h3>") :].partition("</figure>")[0]


def test_limits_are_drawn_where_the_policy_has_them(speech: ReportData) -> None:
    drawn = chart(render_report(speech), "Signal to noise")
    assert "min 12" in drawn
    assert "stroke-dasharray" in drawn
    strict = replace(speech.policy.rules["low_snr"], min=30.0)
    policy = replace(speech.policy, rules={"low_snr": strict})
    html = render_report(replace(speech, policy=policy))
    assert "min 30" in chart(html, "Signal to noise")
    assert "stroke-dasharray" not in chart(html, "Clipped samples")


def test_a_histogram_counts_every_number_and_only_numbers() -> None:
    kept = np.array([1.0, 2.0, np.nan, np.inf])
    drawn = str(histogram("Level", "dB", kept, np.array([3.0, -np.inf]), [("max", 2.5)]))
    assert "2 kept and 1 rejected clips, median 2 dB" in drawn
    assert "nan" not in drawn
    assert "inf" not in drawn


def test_not_transcribed_is_told_from_no_text(speech: ReportData) -> None:
    silent = speech.clips.with_columns(text=pl.lit(None, pl.String))
    html = render_report(replace(speech, clips=silent))
    assert "not transcribed" in html
    assert ">no text<" in html


@pytest.mark.parametrize("run", [{}, {"stage_seconds": {"vad": 1.0}}])
def test_a_corpus_without_clips_or_a_finished_run_has_a_report(run: dict[str, Any]) -> None:
    html = render_report(data_of([], [], Library(), runs=[run]))
    assert "No finished run is recorded." in html
    assert "<audio " not in html


def hostile(data: ReportData) -> ReportData:
    """The same corpus from a source that wants to run a script in the reader's browser."""
    names = ("text", "speaker", "session_id", "language")
    return replace(
        data,
        name=EVIL,
        clips=data.clips.with_columns(pl.lit(EVIL).alias(name) for name in names),
        recordings=data.recordings.with_columns(uri=pl.lit(EVIL)),
        runs=[
            {
                "run": EVIL,
                "status": EVIL,
                "audio_s": 60.0,
                "run_s": 6.0,
                "models": [{"name": EVIL, "origin": EVIL, "revision": None, "hash": EVIL}],
                "stage_seconds": {EVIL: 1.0},
                "settings": {"source": EVIL},
                "versions": {},
            }
        ],
    )


def test_what_comes_from_outside_stays_text(speech: ReportData) -> None:
    html = render_report(hostile(speech))
    assert "<img" not in html
    assert html.count("</script>") == 1
    assert "default-src 'none'" in html


# Chromium's virtual clock skips ahead of the threads that decode: stay busy until they are done.
SORT_AND_WAIT = """<script>
document.querySelector('[data-table=session] th:nth-child(6) button').click();
let turns = 0;
(function wait() {
  for (let i = 0, sum = 0; i < 2e7; i++) sum += i;
  const ready = Number(document.body.dataset.playersReady || 0);
  if (ready < document.querySelectorAll("audio").length && turns++ < 300) setTimeout(wait, 10);
})();
</script></body>"""


def browse(html: str, folder: Path) -> str:
    """The page's DOM after its scripts ran, its session table sorted by OVRL and its sound open."""
    assert CHROMIUM is not None
    page = folder / "page.html"
    page.write_text(html.replace("</body>", SORT_AND_WAIT), encoding="utf-8")
    command = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
        *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
        *("--disable-sync", f"--user-data-dir={folder / 'profile'}"),
        *("--virtual-time-budget=10000", "--dump-dom", page.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_in_a_browser_players_know_their_length_and_the_unmeasured_sorts_last(
    speech: ReportData, tmp_path: Path
) -> None:
    unmeasured = pl.col("session_id") == "fr_june_s1"
    clips = speech.clips.with_columns(
        dnsmos_ovrl=pl.when(unmeasured).then(None).otherwise("dnsmos_ovrl")
    )
    dom = browse(render_report(replace(speech, clips=clips)), tmp_path)
    told = [float(value) for value in re.findall(r'data-duration="([\d.]+)"', dom)]
    times = re.findall(r"([\d.]+)–([\d.]+) s · (?:wide|full|tele)", dom)
    assert len(told) == 2 * SAMPLES_HEARD
    # A DOM keeps the order of the page, so each player stands before its own clip's times.
    assert told == pytest.approx([float(end) - float(start) for start, end in times], abs=0.11)
    table = dom[dom.index('data-table="session"') :].partition("</table>")[0]
    assert re.search(r'aria-sort="descending"><button type="button">mean OVRL', table)
    scores = [row.split("</td>")[5].rpartition(">")[2] for row in table.split("<tr>")[2:]]
    assert scores[-1] == "–"
    numbers = [float(score) for score in scores[:-1]]
    assert len(numbers) == len(SOURCES) - 1
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[0] > numbers[-1]


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_in_a_browser_hostile_names_run_nothing(speech: ReportData, tmp_path: Path) -> None:
    dom = browse(render_report(hostile(speech)), tmp_path)
    title = re.search(r"<title>(.*?)</title>", dom, re.DOTALL)
    assert title is not None
    assert "voxquarry report" in title[1]
    assert "<img" not in dom
    assert dom.count("data-duration=") == 2 * SAMPLES_HEARD


def described(clip_id: str, text: str, **changes: Any) -> Description:
    made = Description(
        clip_id=clip_id,
        language="en",
        text=text,
        text_written=text,
        attributes=(Claim(name="gender", value="female"),),
        writer="grammar",
        model="grammar-1",
        verified=(
            AttributeVerdict(name="gender", claimed="female", verdict="confirmed"),
            AttributeVerdict(name="age", claimed="child", verdict="contradicted"),
        ),
        accepted=True,
        reasons=(),
        attempt=1,
    )
    return replace(made, **changes)


def test_descriptions_stand_beside_their_sound_and_references_are_counted(
    speech: ReportData,
) -> None:
    kept = speech.clips.filter("accepted").sort("clip_id")["clip_id"].to_list()
    pairs = [
        Reference(
            target_id=target, reference_id=kept[-1], session_id="s", cosine=0.9, rank=i, attempt=1
        )
        for number, target in enumerate(kept[:4])
        for i in range(number)
    ]
    voices = Voices(
        references=frame(REFERENCES, pairs),
        duplicates=3,
        attributes=frame(
            ATTRIBUTES,
            [
                Attributes(
                    clip_id=name,
                    f0_median_hz=200.0 + i,
                    loudness_lufs=-20.0,
                    gender="female",
                    age="adult",
                    attempt=1,
                )
                for i, name in enumerate(kept)
            ],
        ).with_columns(
            pl.lit("high").alias("pitch"),
            pl.lit("slow").alias("rate"),
            pl.lit("soft").alias("energy"),
            pl.lit(0.2).alias("arousal"),
        ),
        descriptions=frame(
            DESCRIPTIONS,
            [described(name, f"A woman, number {i}. {EVIL}") for i, name in enumerate(kept)]
            + [described("gone", "", accepted=False, reasons=("lost_core",))],
        ),
    )
    html = render_report(replace(speech, voices=voices))
    cards = re.findall(r'<article class="card clip described">(.*?)</article>', html, re.DOTALL)
    assert len(cards) == DESCRIBED_SAMPLES
    library = speech.load_audio
    assert isinstance(library, Library)
    sounds = {base64.b64encode(sound).decode(): name for name, sound in library.sounds.items()}
    for card in cards:
        number = int(re.findall(r"A woman, number (\d+)", card)[0])
        embedded = re.findall(r"base64,([A-Za-z0-9+/=]+)", card)
        assert [sounds[sound] for sound in embedded] == [kept[number]]
        assert "not age: child" in card
        count = number if number < 4 else 0
        assert f"{count} reference{'' if count == 1 else 's'}" in card
    assert "1 lost_core" in html
    assert "<img src=x" not in html
    # Of the kept clips one has one reference, one two, one three, and the others none.
    chart = html[html.index("References per clip") :]
    assert f"0 {len(kept) - 3}, 1 1, 2 1, 3 1" in chart[: chart.index("</svg>")]
    for name in ("Pitch (median F0)", "Loudness", "Gender", "Rate", "Arousal"):
        assert f"<h3>{name}</h3>" in html
    assert "3 near-duplicates" in html


def test_a_report_without_voices_says_how_to_get_them(speech: ReportData) -> None:
    html = render_report(speech)
    assert "<code>voxquarry mine</code>" in html
    assert "<code>voxquarry annotate</code>" in html
    assert 'class="card clip described"' not in html


def test_long_described_clips_are_listed_without_sound() -> None:
    library = Library()
    sound = flac_bytes(loud_noise(20.0, 48_000), 48_000)
    clips = [clip("s", i, i * 960_000, (i + 1) * 960_000, 48_000, snr_db=40.0) for i in range(4)]
    library.sounds = {made.clip_id: sound for made in clips}
    shown = data_of(clips, [recording("s", 80.0)], library)
    kept = shown.clips.filter("accepted")["clip_id"].to_list()
    voices = replace(
        NO_VOICES, descriptions=frame(DESCRIPTIONS, [described(name, "A voice.") for name in kept])
    )
    html = render_report(replace(shown, voices=voices))
    part = html[html.index('id="voices"') : html.index('id="balance"')]
    assert len(part) < MOST_DESCRIBED_BYTES * 4 / 3 + 100_000
    assert "too long to embed" in part
