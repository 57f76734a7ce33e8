"""Speech, music and noise of openly licensed packages, at 16 kHz, apart by what training may hear.

    python -m jobs.shipped.separator.sources / pip sources

`/` is where Debian's packages are installed (or unpacked) and `pip` a folder into which the wheels and
sdists of PyPI were unpacked. `sources`/sources.csv lists what was written, with licence and attribution.
Whole tracks and whole speakers are held out: training never hears them at any place.
"""

import csv
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile as sf

from jobs.shipped.asterisk_prompts import SAMPLE_RATE, decoded
from pipeline.audio import at_model_rate
from pipeline.decoders import open_decoder
from schemas.errors import DataError


@dataclass(frozen=True, slots=True)
class Origin:
    """Recordings of one kind, speaker or artist and licence."""

    kind: str
    """speech, music or noise."""
    name: str
    """Of a speaker; of music and noise each file is a track of its own."""
    files: str
    """Glob below the root of Debian's packages, or of PyPI's."""
    licence: str
    attribution: str
    pip: bool = False


_SOUNDS, _GAMES = "usr/share/asterisk/sounds", "usr/share/games"
_BY_SA, _DIGIUM = "CC-BY-SA-3.0", "funded by Digium"
ORIGINS = (
    Origin("speech", "june", f"{_SOUNDS}/fr_CA_f_June/**/*.g722", _BY_SA, f"June Wallack, {_DIGIUM}"),
    Origin("speech", "carlo", f"{_SOUNDS}/it_IT_m_Carlo/**/*.g722", "CC-BY-3.0", "Carlo Flora, http://www.carloflora.com"),
    Origin("speech", "ivrvoice_ru", f"{_SOUNDS}/ru_RU_f_IvrvoiceRU/**/*.g722", "CC-BY-3.0", "Maxim Topal, http://www.ivrvoice.ru"),
    Origin("speech", "allison", f"{_SOUNDS}/en_US_f_Allison/**/*.g722", _BY_SA, f"Allison Smith, {_DIGIUM}"),
    Origin("speech", "allison_es", f"{_SOUNDS}/es_MX_f_Allison/**/*.g722", _BY_SA, f"Allison Smith, {_DIGIUM}"),
    Origin(
        "speech",
        "menardi",
        f"{_SOUNDS}/it_IT_f_Menardi/**/*.wav",
        "CC-BY-SA-3.0-IT",
        "Marco Menardi and Paola Dal Zot, http://www.voip.ammdomus.it",
    ),
    Origin(
        "speech",
        "ami",
        "pyannote_audio-*/tests/data/*.wav",
        "CC-BY-4.0",
        "AMI Meeting Corpus, excerpts of pyannote.audio's tests",
        pip=True,
    ),
    Origin(
        "music",
        "moh",
        "usr/share/asterisk/moh/*.g722",
        _BY_SA,
        "Paul Shuler (Macroform), Manolo Camp, Reno Project, of opsound.org",
    ),
    Origin("music", "singularity", f"{_GAMES}/singularity/music/**/*.ogg", _BY_SA, "Max McCracken"),
    Origin(
        "music",
        "hyperrogue",
        "usr/share/hyperrogue/music/hr*-*.ogg",
        _BY_SA,
        "Shawn Parrotte, Lincoln Domina, Will Savino, of HyperRogue",
    ),
    Origin(
        "music",
        "flare",
        f"{_GAMES}/flare/mods/fantasycore/music/*_theme.ogg",
        _BY_SA,
        "Clint Bellanger and others, of Flare",
    ),
    Origin(
        "music",
        "unknown_horizons",
        "usr/share/unknown-horizons/content/audio/music/**/*.ogg",
        _BY_SA,
        "Unknown Horizons Team",
    ),
    Origin(
        "music",
        "immich",
        "immich_memories_music/tracks/*/*.opus",
        "MIT",
        "Immich Memories Contributors, made with ACE-Step 1.5",
        pip=True,
    ),
)  # fmt: skip

QUIETEST = 0.003
HELD_OUT = (
    *("allison", "allison_es", "macroform-cold_day", "reno_project-system"),
    *("calm_acoustic_1", "happy_electronic_1", "tender_acoustic_2"),
    *("energetic_electronic_2", "nostalgic_acoustic_1"),
    *("Nebula", "hr3-desert", "hr-savino-ocean", "town_theme", "uh_gameplay3"),
)
"""Speakers and tracks that only the measuring hears; those of the development set are among them."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of sources.csv."""

    uri: str
    kind: str
    split: str
    name: str
    licence: str
    attribution: str


def found(root: Path, pip: Path) -> Iterator[tuple[Origin, Path]]:
    """Every recording that is there."""
    for origin in ORIGINS:
        for path in sorted((pip if origin.pip else root).glob(origin.files)):
            yield origin, path


def main(root: Path, pip: Path, out: Path) -> None:
    """Write `out`/sources.csv and the recordings beside it."""
    rows: list[Row] = []
    for origin, path in found(root, pip):
        if not path.stat().st_size:
            continue
        try:
            wave = read(path)
        except DataError:
            continue  # the packages hold broken files for tests
        if wave.size < SAMPLE_RATE // 4 or np.sqrt(np.mean(np.square(wave))) < QUIETEST:
            continue  # beeps, and prompts of silence
        name = origin.name if origin.kind == "speech" else path.stem
        split = "held_out" if name in HELD_OUT else "train"
        uri = Path(origin.kind) / f"{origin.name}-{len(rows):05d}.flac"
        (out / uri).parent.mkdir(parents=True, exist_ok=True)
        sf.write(out / uri, wave, SAMPLE_RATE)
        licence, attribution = origin.licence, origin.attribution
        rows.append(Row(uri.as_posix(), origin.kind, split, name, licence, attribution))
    if {row.kind for row in rows} != {"speech", "music"}:
        raise SystemExit(f"neither {root} nor {pip} holds both speech and music of these packages")
    with (out / "sources.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(asdict(rows[0])))
        writer.writeheader()
        writer.writerows(map(asdict, rows))


def read(path: Path) -> np.ndarray:
    """(N,) float32 at 16 kHz, channels averaged. Raises `DataError`."""
    if path.suffix == ".g722":
        return decoded(path)
    with open_decoder(str(path)) as decoder:
        blocks = list(decoder.blocks(0, None))
        rate = decoder.sample_rate
    return at_model_rate(np.concatenate(blocks).mean(axis=1), rate)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
