"""Debian's prompts as recordings: what is speech comes with its text, and nothing else comes."""

import csv
import gzip
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile as sf

from jobs.shipped.asterisk_prompts import SAMPLE_RATE, VOICES, main
from pipeline.manifest import read_manifest

ENGLISH = VOICES[0]
TEXTS = """; Core sounds in English

hello: Thank you for  calling.
digits/1: One.
beep: [this is a simple beep tone]
silence/1: (1 second of silence)
stop: Stop (emphatically).
missing: A prompt without a file.
"""


def encode_g722(wave: np.ndarray, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(file), "w", format="g722") as container:
        stream = container.add_stream("g722", rate=SAMPLE_RATE)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(
            (wave * 32767).astype(np.int16)[None], format="s16", layout="mono"
        )
        frame.sample_rate = SAMPLE_RATE
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


@pytest.fixture
def installed(tmp_path: Path, devset: Path) -> tuple[Path, np.ndarray]:
    """A root with the English package, and the two seconds of speech that its prompts are."""
    speech, rate = sf.read(
        devset / "audio" / "en_allison_s1.flac", start=16_000, frames=32_000, dtype="float32"
    )
    assert rate == SAMPLE_RATE
    root = tmp_path / "root"
    sounds = root / "usr/share/asterisk/sounds" / ENGLISH.folder
    for name in ("hello", "digits/1", "beep", "silence/1", "stop", "unlisted"):
        encode_g722(speech, sounds / f"{name}.g722")
    listed = root / "usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"
    listed.parent.mkdir(parents=True)
    listed.write_bytes(gzip.compress(TEXTS.encode()))
    return root, speech


def test_each_prompt_is_a_recording_with_its_text(
    installed: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    root, speech = installed
    out = tmp_path / "prompts"
    main(root, out)
    entries = list(read_manifest(str(out / "manifest.csv")))
    assert [(entry.transcript, entry.language) for entry in entries] == [
        ("Thank you for calling.", "en"),
        ("One.", "en"),
        ("Stop (emphatically).", "en"),
    ]
    assert {entry.session_id for entry in entries} == {"asterisk_allison"}
    assert {entry.licence for entry in entries} == {"CC-BY-SA-3.0"}
    assert (out / "en.csv").read_bytes() == (out / "manifest.csv").read_bytes()
    wave, rate = sf.read(out / entries[0].uri, dtype="float32")
    assert rate == SAMPLE_RATE
    # The codec delays by some samples and cuts above 7 kHz.
    alike = max(
        float(np.corrcoef(wave[lag : lag + 30_000], speech[:30_000])[0, 1]) for lag in range(40)
    )
    assert alike > 0.98


def test_a_root_without_the_packages_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no asterisk-core-sounds"):
        main(tmp_path, tmp_path / "out")


def test_every_language_has_a_manifest_of_its_own(
    installed: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    root, speech = installed
    french = VOICES[2]
    encode_g722(speech, root / "usr/share/asterisk/sounds" / french.folder / "bonjour.g722")
    listed = root / "usr/share/doc/asterisk-core-sounds-fr/core-sounds-fr.txt.gz"
    listed.parent.mkdir(parents=True)
    listed.write_bytes(gzip.compress("bonjour: Bonjour à tous.\n".encode()))
    main(root, tmp_path / "out")
    with (tmp_path / "out" / "fr.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["transcript"], row["speaker"]) == ("Bonjour à tous.", "june")
