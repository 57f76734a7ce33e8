"""Telephone prompts of Debian's asterisk-core-sounds packages as recordings with a manifest.

    apt-get install asterisk-core-sounds-{en,es,fr,it,ru}{,-g722}
    python -m jobs.shipped.asterisk_prompts / prompts

`prompts`/manifest.csv lists the prompts of all voices, `prompts`/en.csv and so on those of one language.
A prompt becomes a recording of its own, 16 kHz FLAC; the prompts of a voice are one session, since
one studio recorded them. Sounds that are no speech, and silence, stand in brackets in the package's
list of texts and are left out, as are files that the list does not name.
"""

import csv
import gzip
import sys
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import soundfile as sf

SAMPLE_RATE = 16_000
SOUNDS = "usr/share/asterisk/sounds"
TEXTS = "usr/share/doc/asterisk-core-sounds-{code}/core-sounds-{code}.txt.gz"


@dataclass(frozen=True, slots=True)
class Voice:
    """The prompts of one package."""

    language: str
    folder: str
    speaker: str
    licence: str


VOICES = (
    Voice("en", "en_US_f_Allison", "allison", "CC-BY-SA-3.0"),
    Voice("es", "es_MX_f_Allison", "allison_es", "CC-BY-SA-3.0"),
    Voice("fr", "fr_CA_f_June", "june", "CC-BY-SA-3.0"),
    Voice("it", "it_IT_m_Carlo", "carlo", "CC-BY-3.0"),
    Voice("ru", "ru_RU_f_IvrvoiceRU", "ivrvoice_ru", "CC-BY-3.0"),
)


def texts_of(root: Path, language: str) -> dict[str, str]:
    """What each prompt says, by its path without ending."""
    file = root / TEXTS.format(code=language)
    found = {}
    for line in gzip.decompress(file.read_bytes()).decode("utf-8").splitlines():
        name, colon, text = line.partition(":")
        text = " ".join(text.split())
        if colon and not line.startswith(";") and text and text[0] not in "[(":
            found[name.strip()] = text
    return found


def decoded(file: Path) -> np.ndarray:
    """(N,) float32 of a raw G.722 stream, which FFmpeg reads by its ending."""
    with av.open(str(file), format="g722") as container:
        frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    return np.concatenate(frames).astype(np.float32) / 32768.0


def main(root: Path, out: Path) -> None:
    """Write `out`/manifest.csv and the recordings beside it, for every voice that is installed."""
    rows = []
    for voice in VOICES:
        folder = root / SOUNDS / voice.folder
        if not folder.is_dir():
            continue
        for name, text in texts_of(root, voice.language).items():
            source = folder / f"{name}.g722"
            if not source.is_file():
                continue
            uri = Path("audio") / voice.speaker / f"{name.replace('/', '__')}.flac"
            (out / uri).parent.mkdir(parents=True, exist_ok=True)
            sf.write(out / uri, decoded(source), SAMPLE_RATE)
            rows.append(
                {
                    "uri": uri.as_posix(),
                    "session_id": f"asterisk_{voice.speaker}",
                    "speaker": voice.speaker,
                    "language": voice.language,
                    "licence": voice.licence,
                    "source": f"asterisk-core-sounds-{voice.language}-g722",
                    "transcript": text,
                }
            )
    if not rows:
        raise SystemExit(f"no asterisk-core-sounds package is installed below {root}")
    _write(out / "manifest.csv", rows)
    for language in {row["language"] for row in rows}:
        _write(out / f"{language}.csv", [row for row in rows if row["language"] == language])


def _write(file: Path, rows: list[dict[str, str]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
