"""Kaldi data directories: one for each split, with a WAV file for each clip."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import groupby
from operator import itemgetter

from jobs.exporting.audio import ExportClip
from jobs.exporting.formats import Lines, LooseFiles, Place, Row
from jobs.exporting.options import FormatName
from schemas.ids import content_id


class Kaldi(LooseFiles):
    """wav.scp, text, utt2spk, spk2utt, utt2dur and utt2lang, sorted as `LC_ALL=C sort` does.

    Every clip is a file, so there are no segments. An utterance is named SPEAKER-CLIP.
    """

    name = FormatName.KALDI
    reads = "`data/SPLIT` are data directories; audio of clones lies under `audio/synthetic`."
    suffix = "wav"
    names_paths = True

    def told(self, clip: ExportClip) -> Row:
        """Utterance, speaker, language and text."""
        row = clip.row
        speaker = speaker_id(row["voice"])
        return {
            "utterance": f"{speaker}-{row['clip_id']}",
            "speaker": speaker,
            "language": row["language"],
            "text": " ".join(row["text"].split()),
        }

    def manifests(self, split: str) -> Mapping[str, Lines]:
        """The files of data/SPLIT."""
        files: dict[str, Lines] = {
            "wav.scp": partial(_table, lambda row, place: f"{place.root}/{row['path']}"),
            "text": partial(_table, lambda row, _: row["text"]),
            "utt2spk": partial(_table, lambda row, _: row["speaker"]),
            "utt2dur": partial(_table, lambda row, _: f"{row['duration']:.6f}"),
            "utt2lang": partial(_table, lambda row, _: row["language"] or "und"),
            "spk2utt": _utterances,
        }
        return {f"data/{split}/{name}": lines for name, lines in files.items()}


def speaker_id(voice: str) -> str:
    """A speaker's name without spaces, and of ASCII characters that sort after `-`.

    Kaldi wants utterances sorted by name to be sorted by speaker as well. A name that has to change
    gets a mark of what it was, so that no two become one.
    """
    plain = re.sub(r"[^0-9A-Za-z.]", "_", voice)
    return plain if plain == voice else f"{plain}_{content_id(voice)[:8]}"


def _table(value: Callable[[Row, Place], str], rows: Iterable[Row], place: Place) -> Iterator[str]:
    # The space after the name sorts before all that a name may hold.
    yield from sorted(f"{row['utterance']} {value(row, place)}" for row in rows)


def _utterances(rows: Iterable[Row], _: Place) -> Iterator[str]:
    pairs = sorted((row["speaker"], row["utterance"]) for row in rows)
    for speaker, said in groupby(pairs, itemgetter(0)):
        yield f"{speaker} {' '.join(utterance for _, utterance in said)}"
