"""`voxquarry speak` writes a sound file, or says in one line why it cannot and writes nothing."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from jobs.cli import main

CORE = Path(__file__).parents[1] / "data" / "core"
V1, V2 = str(CORE / "v1"), str(CORE / "v2")
RATE = 16000


def in_a_process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, as a user runs it."""
    return subprocess.run(
        [sys.executable, "-m", "jobs.cli", "speak", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )


class Terminal:
    """The same command line in this process, which saves its start."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], folder: Path
    ) -> None:
        self._monkeypatch, self._capfd, self.folder = monkeypatch, capfd, folder

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        self._monkeypatch.setattr(sys, "argv", ["voxquarry", "speak", *arguments])
        self._capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        code = end.value.code
        assert code is None or isinstance(code, int)
        return (code or 0, *self._capfd.readouterr())

    def speech(self, *arguments: str, name: str = "out.wav") -> tuple[np.ndarray, int, bytes]:
        """Samples, rate and bytes of what was written."""
        file = self.folder / name
        code, out, err = self("--output", str(file), *arguments)
        assert (code, err) == (0, ""), err
        assert str(file) in out.splitlines()[0]
        wave, rate = soundfile.read(file, dtype="float32")
        return wave, rate, file.read_bytes()


@pytest.fixture
def terminal(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Terminal:
    return Terminal(monkeypatch, capfd, tmp_path)


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of all kinds, made from one second of sound."""
    folder = tmp_path_factory.mktemp("voices")
    t = np.arange(RATE) / RATE
    wave = 0.2 * np.sin(2 * np.pi * 220 * t) * (1 + np.sin(2 * np.pi * 3 * t))
    soundfile.write(folder / "voice.wav", wave, RATE)
    soundfile.write(folder / "voice.flac", wave, RATE)
    soundfile.write(folder / "short.wav", wave[: RATE // 10], RATE)
    soundfile.write(folder / "silent.wav", wave * 0, RATE)
    soundfile.write(folder / "empty.wav", wave[:0], RATE)
    left = np.interp(np.arange(44100) / 44100, t, wave)
    soundfile.write(folder / "stereo.wav", np.stack((left, left * 0.5), axis=1), 44100)
    (folder / "text.wav").write_text("This is no sound.")
    (folder / "nothing.wav").write_bytes(b"")
    return folder


MODES = {
    "text": (),
    "described": ("--describe", "An old woman, whispering"),
    "reference": ("--reference", "{voices}/voice.wav"),
    "flac reference": ("--reference", "{voices}/voice.flac"),
    "stereo reference": ("--reference", "{voices}/stereo.wav"),
    "reference, described": ("--reference", "{voices}/voice.wav", "--describe", "angry"),
    "continued": ("--prompt", "{voices}/voice.wav", "--prompt-text", "streaming audio ."),
    "stereo prompt": ("--prompt", "{voices}/stereo.wav", "--prompt-text", "streaming audio ."),
    "both": (
        *("--prompt", "{voices}/voice.wav", "--prompt-text", "streaming audio ."),
        *("--reference", "{voices}/stereo.wav"),
    ),
    "adapted": ("--lora", f"{V2}/lora"),
    "four steps": ("--steps", "4", "--cfg", "1"),
}
HELLO = ("--text", "hello", "--checkpoint", V2, "--seed", "3")


def filled(arguments: tuple[str, ...], voices: Path) -> list[str]:
    return [argument.replace("{voices}", str(voices)) for argument in arguments]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_writes_speech_at_the_rate_of_the_checkpoint(
    terminal: Terminal, voices: Path, mode: str
) -> None:
    wave, rate, _ = terminal.speech(*HELLO, *filled(MODES[mode], voices))
    assert rate == 48000
    assert wave.ndim == 1
    assert len(wave) > 0
    assert len(wave) % 7680 == 0, "whole patches"
    assert np.abs(wave).max() > 1e-3
    assert [file.name for file in terminal.folder.iterdir()] == ["out.wav"]


def test_a_mode_is_heard_in_what_is_said(terminal: Terminal, voices: Path) -> None:
    waves = {}
    for mode in ("text", "described", "reference", "continued", "adapted"):
        waves[mode] = terminal.speech(*HELLO, *filled(MODES[mode], voices))[0][:7680]
    for mode in waves.keys() - {"text"}:
        assert np.abs(waves[mode] - waves["text"]).max() > 1e-3, mode


def test_a_checkpoint_of_the_first_class_speaks_and_continues(
    terminal: Terminal, voices: Path
) -> None:
    for mode in ("text", "continued"):
        arguments = ("--text", "hello", "--checkpoint", V1, "--seed", "1")
        wave, rate, _ = terminal.speech(*arguments, *filled(MODES[mode], voices))
        assert rate == 16000
        assert len(wave) % 1280 == 0


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(terminal: Terminal) -> None:
    *_, first = terminal.speech(*HELLO, name="first.wav")
    *_, second = terminal.speech(*HELLO, name="second.wav")
    assert first == second
    *_, other = terminal.speech(*HELLO[:-1], "4", name="other.wav")
    assert other != first


def test_the_seed_that_was_drawn_is_printed_and_gives_the_same_again(terminal: Terminal) -> None:
    file = terminal.folder / "out.wav"
    code, out, _ = terminal(*HELLO[:-2], "--output", str(file))
    assert code == 0
    seed = out.partition(", seed ")[2].partition(",")[0]
    assert terminal.speech(*HELLO[:-2], "--seed", seed, name="again.wav")[2] == file.read_bytes()


def test_the_ending_decides_the_container_and_any_name_will_do(terminal: Terminal) -> None:
    for name, container in (("a.flac", "FLAC"), ("a.OGG", "OGG"), ("[b] [bold]a[x].wav", "WAV")):
        terminal.speech(*HELLO, name=name)
        assert soundfile.info(terminal.folder / name).format == container


def test_what_is_there_is_replaced(terminal: Terminal) -> None:
    (terminal.folder / "out.wav").write_text("old")
    assert terminal.speech(*HELLO)[1] == 48000


def test_a_process_of_its_own_writes_the_same(terminal: Terminal, tmp_path: Path) -> None:
    *_, here = terminal.speech(*HELLO)
    done = in_a_process(*HELLO, "--output", str(tmp_path / "there.wav"))
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "there.wav").read_bytes() == here


TEXT = ("--text", "hello")
OURS = ("--checkpoint", V2)
THEIRS = ("--checkpoint", "{folder}/llama")
PROMPT = ("--prompt", "{voices}/voice.wav")

REFUSED = {
    "empty text": (("--text", "", *OURS), "UnspeakableText: the text is empty"),
    "blank text": (("--text", " \n ", *OURS), "UnspeakableText: the text is empty"),
    "text too long": (("--text", "a " * 300, *OURS), "the model has 256"),
    "reference of 0.1 s": (
        (*TEXT, *OURS, "--reference", "{voices}/short.wav"),
        "TooShortAudio: the reference lasts 0.10 s",
    ),
    "prompt of 0.1 s": (
        (*TEXT, *OURS, "--prompt", "{voices}/short.wav", "--prompt-text", "a"),
        "TooShortAudio: the prompt lasts 0.10 s",
    ),
    "silent reference": (
        (*TEXT, *OURS, "--reference", "{voices}/silent.wav"),
        "SilentAudio: the reference is silent",
    ),
    "reference without samples": ((*TEXT, *OURS, "--reference", "{voices}/empty.wav"), "empty.wav"),
    "reference without bytes": (
        (*TEXT, *OURS, "--reference", "{voices}/nothing.wav"),
        "EmptyFile: ",
    ),
    "missing reference": ((*TEXT, *OURS, "--reference", "{voices}/no.wav"), "MissingSource: "),
    "reference that is no audio": (
        (*TEXT, *OURS, "--reference", "{voices}/text.wav"),
        "UndecodableAudio: ",
    ),
    "folder as reference": ((*TEXT, *OURS, "--reference", "{voices}"), "MissingSource: "),
    "checkpoint of another family": ((*TEXT, *THEIRS), "no lm_config"),
    "checkpoint that is not there": (
        (*TEXT, "--checkpoint", "{folder}/nowhere"),
        "ModelLoadError: ",
    ),
    "folder without a checkpoint": ((*TEXT, "--checkpoint", "{voices}"), "config.json is missing"),
    "file as checkpoint": ((*TEXT, "--checkpoint", f"{V2}/config.json"), "config.json is missing"),
    "prompt without its text": ((*TEXT, *OURS, *PROMPT), "ConfigError: a prompt needs the text"),
    "prompt with a blank text": (
        (*TEXT, *OURS, *PROMPT, "--prompt-text", " "),
        "ConfigError: a prompt needs the text",
    ),
    "prompt text without its prompt": (
        (*TEXT, *OURS, "--prompt-text", "hi"),
        "ConfigError: a prompt needs the text",
    ),
    "prompt and description": (
        (*TEXT, *OURS, *PROMPT, "--prompt-text", "hi", "--describe", "angry"),
        "ConfigError: a continuation keeps",
    ),
    "reference for the first class": (
        (*TEXT, "--checkpoint", V1, "--reference", "{voices}/voice.wav"),
        "V1 class takes no reference",
    ),
    "description for the first class": (
        (*TEXT, "--checkpoint", V1, "--describe", "angry"),
        "V1 class takes no description",
    ),
    "adapters that are not there": ((*TEXT, *OURS, "--lora", "{folder}/no"), "no adapter here"),
    "adapters of another model": ((*TEXT, *OURS, "--lora", f"{V1}/lora"), "does not fit"),
    "no steps": ((*TEXT, *OURS, "--steps", "0"), "num_steps must be at least 1"),
    "negative guidance": ((*TEXT, *OURS, "--cfg", "-1"), "cfg must be a number and not negative"),
    "guidance that is no number": ((*TEXT, *OURS, "--cfg", "nan"), "cfg"),
    "seed beyond the generator": ((*TEXT, *OURS, "--seed", str(2**80)), "seed"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_line_and_leaves_no_file(
    terminal: Terminal, voices: Path, tmp_path: Path, case: str
) -> None:
    arguments, says = REFUSED[case]
    (tmp_path / "llama").mkdir()
    (tmp_path / "llama" / "config.json").write_text(json.dumps({"model_type": "llama"}))
    folder = tmp_path / "written"
    folder.mkdir()
    given = [argument.replace("{folder}", str(tmp_path)) for argument in filled(arguments, voices)]
    code, out, err = terminal(*given, "--output", str(folder / "out.wav"))
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1, err
    assert says in err
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("no/such/out.wav", "the folder of {folder}/no/such/out.wav does not exist"),
        ("out.sound", "the name must end in .wav"),
        ("out", "the name must end in .wav"),
        ("out.raw", "the name must end in .wav"),
        ("folder.wav", "folder.wav is a folder"),
        ("x" * 300 + ".wav", "cannot be written: File name too long"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_the_checkpoint_is_opened(
    terminal: Terminal, tmp_path: Path, output: str, says: str
) -> None:
    (tmp_path / "folder.wav").mkdir()
    code, out, err = terminal(*TEXT, "--checkpoint", "nowhere", "--output", f"{tmp_path}/{output}")
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1, err
    assert err.startswith("ConfigError: ")
    assert says.replace("{folder}", str(tmp_path)) in err
    assert [file.name for file in tmp_path.iterdir()] == ["folder.wav"]


def test_a_damaged_checkpoint_is_named_in_one_line(terminal: Terminal, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(V2, damaged, ignore=shutil.ignore_patterns("expected*", "lora", "*.wav"))
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    output = tmp_path / "out.wav"
    code, _, err = terminal(*TEXT, "--checkpoint", str(damaged), "--output", str(output))
    assert code == 1
    assert len(err.splitlines()) == 1, err
    assert str(weights) in err
    assert not output.exists()


def test_a_name_on_a_hub_that_cannot_be_reached_is_one_line(tmp_path: Path) -> None:
    output = tmp_path / "out.wav"
    done = in_a_process(
        *TEXT,
        *("--checkpoint", "owner/name", "--output", str(output)),
        HF_ENDPOINT="http://127.0.0.1:9",
        HF_HOME=str(tmp_path / "cache"),
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "ModelLoadError: the model 'owner/name' is nowhere on this machine" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not output.exists()


def test_a_checkpoint_in_the_hub_s_cache_is_found_by_its_name(tmp_path: Path) -> None:
    revision = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--lab--tiny"
    shutil.copytree(CORE / "v2", repository / "snapshots" / revision)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    file = tmp_path / "out.wav"
    done = in_a_process(
        *("--checkpoint", "lab/tiny", "--text", "hello world", "--output", str(file)),
        HF_HUB_CACHE=str(tmp_path / "hub"),
        HF_HUB_OFFLINE="1",
    )
    assert done.returncode == 0, done.stderr
    assert soundfile.info(file).samplerate == 48000
