"""One self-contained HTML file about a corpus: what was kept, why the rest was not, and its sound.

It fetches nothing. Names, transcripts and messages come from outside and are escaped by jinja2.
"""

import base64
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jinja2 import Environment, PackageLoader, select_autoescape

from pipeline.charts import histogram
from pipeline.policy import Policy
from pipeline.report_clones import Clones, clones_of
from pipeline.report_training import Training, encoded_of, marks_of, samples_of
from pipeline.report_voices import Voices, attributes_of, descriptions_of, references_of
from pipeline.summary import Accounts

# Enough for the shape of any histogram; a corpus of millions is drawn from a sample.
MOST_DRAWN = 200_000
SAMPLES_HEARD = 12
# FLAC of the kept samples, and of the rejected ones; in base64 they, the described ones and the
# clones stay below the 8 MB that a mail or a review tool still takes. What does not fit is listed
# without sound.
MOST_AUDIO_BYTES = 1_500_000
# FLAC of speech at 16 bit: 1.04 bytes a sample on the development set.
FLAC_BYTES_PER_SAMPLE = 1.1
# Tables are for reading; the Parquet files hold every row.
MOST_GROUPS, MOST_ROWS = 200, 300

SCORES = (
    ("duration_s", "Duration", "s"),
    ("snr_db", "Signal to noise", "dB"),
    ("dnsmos_ovrl", "DNSMOS overall (P.835)", "MOS"),
    ("dnsmos_sig", "DNSMOS speech (P.835)", "MOS"),
    ("dnsmos_bak", "DNSMOS background (P.835)", "MOS"),
    ("dnsmos_p808", "DNSMOS (P.808)", "MOS"),
    ("bandwidth_hz", "Band that speech fills", "Hz"),
    ("clipping", "Clipped samples", "share"),
    ("speech_ratio", "Speech in the clip", "share"),
    ("chars_per_s", "Speaking rate", "characters / s"),
    ("asr_avg_logprob", "ASR log-probability", "per token"),
    ("asr_word_prob_mean", "ASR word probability", "mean"),
    ("cer_vs_transcript", "CER against the transcript", "CER"),
    ("speaker_purity", "Speaker purity", "cosine"),
)
SHOWN_OF_CLIPS = (
    *("clip_id", "recording_id", "session_id", "speaker", "language", "text", "screened"),
    *("start_s", "end_s", "sample_rate", *(column for column, _, _ in SCORES)),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportData:
    """What the report shows."""

    name: str
    accounts: Accounts
    clips: pl.DataFrame
    """`SHOWN_OF_CLIPS` and the column of the policy's tiers, joined with `verdicts`."""
    recordings: pl.DataFrame
    quarantine: pl.DataFrame
    policy: Policy
    runs: Sequence[Mapping[str, Any]]
    voices: Voices
    clones: Clones
    training: Training
    load_audio: Callable[[Sequence[str]], Mapping[str, bytes]]
    """Clip ids → FLAC; asked for the samples alone."""


def write_report(path: Path, data: ReportData) -> None:
    """Write the file whole or not at all."""
    html = render_report(data)
    aside = path.with_name(f".{path.name}.part")
    aside.write_text(html, encoding="utf-8")
    os.replace(aside, path)


def render_report(data: ReportData) -> str:
    """The report as HTML."""
    environment = Environment(
        loader=PackageLoader("pipeline", "templates"),
        autoescape=select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    kept = data.clips.filter("accepted")
    rejected = data.clips.filter(~pl.col("accepted"))
    flagged = data.recordings.filter(pl.col("flags").list.len() > 0)
    last = next((run for run in reversed(data.runs) if run.get("stage_seconds")), None)
    return environment.get_template("report.html").render(
        name=data.name,
        accounts=data.accounts,
        funnel=_funnel(data.accounts),
        charts=_charts(data),
        groups=_groups(data),
        samples=[
            ("Kept", _with_audio(_spread(kept, "session_id"), data, MOST_AUDIO_BYTES)),
            ("Rejected", _with_audio(_spread(rejected, "first_reason"), data, MOST_AUDIO_BYTES)),
        ],
        references=references_of(data.voices, data.accounts.clips_kept),
        attributes=attributes_of(data.voices),
        descriptions=descriptions_of(
            data.voices, kept, lambda clips, room: _with_audio(clips, data, room)
        ),
        clones=clones_of(
            data.clones,
            data.clips,
            FLAC_BYTES_PER_SAMPLE,
            lambda clips, room: _with_audio(clips, data, room),
        ),
        encoded=encoded_of(data.training),
        composed=samples_of(data.training),
        marks=marks_of(data.training),
        quarantine=data.quarantine.head(MOST_ROWS).to_dicts(),
        quarantine_total=data.quarantine.height,
        flagged=flagged.head(MOST_ROWS).to_dicts(),
        flagged_total=flagged.height,
        policy=data.policy,
        run=last,
        num_runs=len(data.runs),
    )


def _funnel(accounts: Accounts) -> list[dict[str, Any]]:
    """Hours left after each step, as bars."""
    total = accounts.hours_in or 1.0
    left = accounts.hours_in
    rows = [{"name": "hours in", "hours": left, "lost": None, "share": 1.0}]
    for name, lost in (
        ("could be processed", accounts.hours_quarantined),
        ("are speech in clips", accounts.hours_without_speech),
        ("are kept", accounts.hours_rejected),
    ):
        left -= lost
        rows.append({"name": name, "hours": left, "lost": lost, "share": max(0.0, left / total)})
    return rows


def _charts(data: ReportData) -> list[tuple[str, Any]]:
    clips = data.clips
    if clips.height > MOST_DRAWN:
        clips = clips.sample(MOST_DRAWN, seed=0)
    charts = []
    for column, label, unit in SCORES:
        limits = [
            (side, value)
            for rule in data.policy.rules.values()
            for side in ("min", "max")
            if rule.column == column and (value := getattr(rule, side)) is not None
        ]
        if column == data.policy.tiers.column:
            limits += [
                (name, getattr(data.policy.tiers, name)) for name in ("wideband", "fullband")
            ]
        measured = clips.filter(pl.col(column).is_finite())
        values = {
            accepted: measured.filter(pl.col("accepted") == accepted)[column]
            .to_numpy()
            .astype(np.float64)
            for accepted in (True, False)
        }
        if measured.height:
            charts.append((label, histogram(label, unit, values[True], values[False], limits)))
    return charts


def _groups(data: ReportData) -> list[tuple[str, list[dict[str, Any]], int]]:
    """Tables of (title, rows, how many rows there are): those with most kept hours come first."""
    hours = pl.col("duration_s") / 3600
    tables = []
    for title, column in (
        ("Language", "language"),
        ("Speaker", "speaker"),
        ("Session", "session_id"),
    ):
        rows = (
            data.clips.with_columns(group=pl.col(column).fill_null("not stated"))
            .group_by("group")
            .agg(
                pl.len().alias("clips"),
                pl.col("accepted").sum().alias("kept"),
                hours.sum().alias("hours"),
                hours.filter(pl.col("accepted")).sum().alias("hours_kept"),
                pl.col("dnsmos_ovrl").mean().alias("dnsmos_ovrl"),
                pl.col("snr_db").mean().alias("snr_db"),
            )
            .sort("hours_kept", "group", descending=[True, False])
        )
        tables.append((title, rows.head(MOST_GROUPS).to_dicts(), rows.height))
    return tables


def _spread(clips: pl.DataFrame, by: str) -> pl.DataFrame:
    """A few clips, one of each group before a second of any; always the same ones.

    A group's first is one whose sound fits the file, where it has such a clip.
    """
    size = pl.col("duration_s") * pl.col("sample_rate") * FLAC_BYTES_PER_SAMPLE
    group = pl.col("reasons").list.first() if by == "first_reason" else pl.col(by)
    ranked = (
        clips.select("clip_id", group=group, heavy=size > MOST_AUDIO_BYTES / SAMPLES_HEARD)
        .sort("heavy", "clip_id")
        .with_columns(turn=pl.int_range(pl.len()).over("group"))
    )
    few = (
        ranked.filter(pl.col("turn") < SAMPLES_HEARD)
        .sort("turn", "group", "clip_id")
        .head(SAMPLES_HEARD)
    )
    return few.select("clip_id").join(clips, on="clip_id", maintain_order="left")


def _with_audio(clips: pl.DataFrame, data: ReportData, room: int) -> list[dict[str, Any]]:
    """The clips' rows, each with its sound as far as there is room for it, in bytes of FLAC."""
    audio = data.load_audio(clips["clip_id"].to_list())
    names = dict(data.recordings.select("recording_id", "uri").rows())
    rows = []
    for row in clips.to_dicts():
        sound = audio.get(row["clip_id"])
        row["recording"] = names.get(row["recording_id"], "").rpartition("/")[2]
        if sound and len(sound) <= room:
            room -= len(sound)
            row["flac"] = base64.b64encode(sound).decode()
        rows.append(row)
    return rows
