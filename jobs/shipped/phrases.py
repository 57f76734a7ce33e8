"""A corpus of the same clips and of their phrases: a small model reads words before sentences.

    python -m jobs.shipped.phrases CORPUS OUT

Of every clip whose given text agrees with what was recognised, its single words and every run of
two, three and five of them are cut out, where the recogniser heard their edges. A phrase keeps its
clip's recording and scores; its text is in lower case and without the marks at its ends, since it
stands in the middle of something. Texts have their numbers spelled; clips whose text was only
recognised are left out, since a wrong word is learnt like a right one.
"""

import io
import sys
from collections import Counter
from collections.abc import Iterator
from difflib import SequenceMatcher
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import soundfile as sf
from rich.console import Console

from annotators.spoken import spoken_form
from annotators.text import plain_tokens
from jobs.curate import PHASE as CURATE
from pipeline.ledger import Item, UnitRecord
from pipeline.storage import Corpus
from schemas.arrow import CLIPS, RECORDINGS
from schemas.ids import content_id
from schemas.rows import Wave

RUNS = (1, 2, 3, 5)
"""Words of a phrase."""
SHORTEST_S = 0.3
AROUND_S = 0.06
"""An edge is moved by at most this to where it is most quiet: the recogniser's times are rough."""
FADE_S = 0.005


class Said(NamedTuple):
    """Words that follow each other without a doubt, and where they can be cut apart."""

    words: list[str]
    cuts_s: list[float]
    """One more than words."""


def main(source: str, out: str) -> None:
    """Write the corpus."""
    corpus = Corpus(source)
    clips = corpus.read(CLIPS).unique("clip_id").sort("clip_id")
    rows: list[dict[str, Any]] = []
    for clip in clips.iter_rows(named=True):
        text = spoken_form(clip["text"] or "", clip["language"])
        if clip["text_source"] != "given" or not text:
            continue
        whole = clip | {"text": text}
        rows += [whole, *phrases_of(whole)]
    found = {row["clip_id"]: row for row in rows}
    seconds: Counter[str] = Counter()
    for row in found.values():
        seconds[row["recording_id"]] += row["duration_s"]
    recordings = corpus.read(RECORDINGS).unique("recording_id").sort("recording_id")
    items = tuple(
        Item(item_id=name, uri=uri, status="done", duration_s=seconds[name])
        for name, uri in recordings.select("recording_id", "uri").iter_rows()
    )
    table = pa.Table.from_pylist(list(found.values()), schema=CLIPS.schema)
    made = Corpus(out)
    unit = UnitRecord(unit_id="phrases", attempt=1, items=items, rows={}, seconds={})
    rows_of = {"clips": table, "recordings": recordings.to_arrow().cast(RECORDINGS.schema)}
    for run in corpus.runs():  # which models gave the scores
        if run["phase"] == CURATE:
            made.write_json(f"_runs/{run['run']}.json", run)
    made.commit(CURATE, [unit], rows_of)
    Console().print(f"{len(found)} clips and phrases, {seconds.total() / 3600:.2f} h")


def phrases_of(clip: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows of `clips`."""
    wave, rate = sf.read(io.BytesIO(clip["audio"]), dtype="float32")
    for said in certain(clip):
        cuts = [0, *(_quietest(wave, rate, at) for at in said.cuts_s[1:-1]), 0]
        cuts[0], cuts[-1] = (round(at * rate) for at in (said.cuts_s[0], said.cuts_s[-1]))
        for run in RUNS:
            for first in range(len(said.words) - run + 1):
                start, end = cuts[first], cuts[first + run]
                whole = end - start == len(wave)
                if not whole and end - start >= SHORTEST_S * rate:
                    text = " ".join(said.words[first : first + run])
                    yield _phrase(clip, wave[start:end], start, text)


def certain(clip: dict[str, Any]) -> Iterator[Said]:
    """Runs of words that were recognised as they are given."""
    given = [_plain(word, clip["language"]) for word in clip["text"].split()]
    heard = [
        (_plain(word["word"], clip["language"]) or None, word["start_s"], word["end_s"])
        for word in clip["words"]
    ]
    matches = SequenceMatcher(None, given, [word for word, _, _ in heard], autojunk=False)
    for one, other, size in matches.get_matching_blocks():
        if not size:
            continue
        times = heard[other : other + size]
        inner = [(a[2] + b[1]) / 2 for a, b in pairwise(times)]
        start = 0.0 if (one, other) == (0, 0) else times[0][1]
        ends = one + size == len(given) and other + size == len(heard)
        yield Said(
            given[one : one + size], [start, *inner, clip["duration_s"] if ends else times[-1][2]]
        )


def _plain(word: str, language: str) -> str:
    """As it is said, in lower case; nothing where it is more than one word."""
    tokens = plain_tokens(spoken_form(word, language) or "", language)
    return tokens[0] if len(tokens) == 1 else ""


def _quietest(wave: Wave, rate: int, at_s: float) -> int:
    """The sample near a time around which there is least to hear."""
    window, reach, at = round(0.02 * rate), round(AROUND_S * rate), round(at_s * rate)
    first = max(0, at - reach - window // 2)
    power: npt.NDArray[np.float64] = np.convolve(
        np.square(wave[first : at + reach + window // 2], dtype=np.float64),
        np.ones(window),
        "valid",
    )
    return first + window // 2 + int(power.argmin()) if power.size else at


def _phrase(clip: dict[str, Any], wave: Wave, start: int, text: str) -> dict[str, Any]:
    rate = clip["sample_rate"]
    fade = np.linspace(0, 1, round(FADE_S * rate), dtype=np.float32)
    wave = wave.copy()
    wave[: len(fade)] *= fade
    wave[len(wave) - len(fade) :] *= fade[::-1]
    sound = io.BytesIO()
    sf.write(sound, wave, rate, format="FLAC", subtype="PCM_16")
    first = clip["start_sample"] + start
    last = first + len(wave)
    return clip | {
        "clip_id": content_id(clip["recording_id"], first, last),
        "start_sample": first,
        "end_sample": last,
        "start_s": first / rate,
        "end_s": last / rate,
        "duration_s": len(wave) / rate,
        "audio": sound.getvalue(),
        "text": text,
        "words": [],
        "speech": [],
    }


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
