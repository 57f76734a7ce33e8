"""`voxquarry evaluate` from a list to its tables, again, and after some of it was lost."""

import json
import sys
from pathlib import Path

import polars as pl
import pytest
import soundfile as sf

from jobs.cli import main
from tests.jobs.evaluation.listed import spoken_by, write_list

CORE = Path(__file__).parents[2] / "data" / "core"
V1, V2 = str(CORE / "v1"), str(CORE / "v2")
QUICK = ("--set", "speaking.num_steps=2", "--set", "transcription.beam_size=1")


class Terminal:
    """The command line in this process."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], out: Path
    ) -> None:
        self._monkeypatch, self._capfd, self.out = monkeypatch, capfd, out

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        given = ["voxquarry", "evaluate", *arguments, "--out", str(self.out)]
        self._monkeypatch.setattr(sys, "argv", given)
        self._capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        return (int(end.value.code or 0), *self._capfd.readouterr())

    def rows(self) -> pl.DataFrame:
        return pl.read_parquet(self.out / "utterances.parquet")

    def results(self) -> dict[str, object]:
        read: dict[str, object] = json.loads((self.out / "results.json").read_text("utf-8"))
        return read

    def times(self) -> dict[str, int]:
        """When each file below the systems' folders was written."""
        return {
            str(path.relative_to(self.out)): path.stat().st_mtime_ns
            for path in self.out.glob("*/*/*")
        }


@pytest.fixture
def terminal(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Terminal:
    return Terminal(monkeypatch, capfd, tmp_path / "out")


@pytest.mark.slow
def test_checkpoints_stand_side_by_side_and_a_second_run_does_only_what_is_missing(
    terminal: Terminal, tmp_path: Path
) -> None:
    said = spoken_by("allison", "en", 2)
    listed = write_list(tmp_path, said, "no utterance", "bad|x|wavs/0.wav|say|../../secret.wav")
    asked = (V2, V1, "--on", str(listed), *QUICK)
    code, shown, errors = terminal(*asked)
    assert (code, errors) == (0, "")
    assert "en/meta.lst, line 3: BadLine: has 2 fields" not in shown
    assert "en/meta.lst, line 3: BadLine: has 1 fields" in shown
    assert "en/meta.lst, line 4: BadLine: ../../secret.wav leads out" in shown

    rows = terminal.rows()
    assert rows.group_by("system", maintain_order=True).len().rows() == [
        ("v2", 2),
        ("v1", 2),
        ("recorded", 2),
    ]
    for file, length, rate in zip(
        rows["file"][:4], rows["duration_s"][:4], (48_000, 48_000, 16_000, 16_000), strict=True
    ):
        info = sf.info(terminal.out / file)
        assert (info.samplerate, info.frames / rate) == (rate, length)
    assert rows["file"][4:].to_list() == [None, None]
    recorded = rows.filter(system="recorded")
    assert recorded["errors"].sum() <= 0.1 * recorded["units"].sum()
    assert rows.filter(system="v2")["errors"].sum() > 0.5 * recorded["units"].sum()

    results = terminal.results()
    by_label = {system["label"]: system for system in results["systems"]}  # type: ignore[attr-defined, index, union-attr]
    for label, system in by_label.items():
        mine = rows.filter(system=label)
        (group,) = system["groups"]
        assert group["error_rate"]["value"] == mine["errors"].sum() / mine["units"].sum()
        assert group["similarity"]["value"] == pytest.approx(mine["similarity"].mean())
        assert group["similarity"]["low"] <= group["similarity"]["value"]
    spoken = rows.filter(system="v2")
    factor = spoken["unit_s"][0] / spoken["duration_s"].sum()
    assert by_label["v2"]["real_time_factor"]["value"] == pytest.approx(factor)
    assert by_label["v2"]["audio_vae"]["stoi"]["units"] == 2
    report = (terminal.out / "results.md").read_text("utf-8")
    assert "|  | v2 | v1 | recorded |" in report
    assert "line 3" in report

    before, wrote = terminal.times(), (terminal.out / "results.json").read_text("utf-8")
    assert terminal(*asked)[0] == 0
    assert terminal.times() == before
    assert (terminal.out / "results.json").read_text("utf-8") == wrote

    # A file is lost and a line is new: those are made, the lost one as it was.
    lost = terminal.out / spoken["file"][0]
    sound = lost.read_bytes()
    lost.unlink()
    with listed.open("a", encoding="utf-8") as more:
        more.write("new|x|wavs/1.wav|hello\n")
    assert terminal(*asked)[0] == 0
    assert lost.read_bytes() == sound
    kept = {name for name, when in terminal.times().items() if before.get(name) == when}
    assert kept == before.keys() - {str(lost.relative_to(terminal.out))}
    again = terminal.rows()
    assert set(again["utterance_id"]) == {"u0", "u1", "new"}
    assert again.filter(system="recorded").height == 2
    old = ["system", "utterance_id", "errors", "similarity", "dnsmos_ovrl"]
    assert again.filter(pl.col("utterance_id") != "new").select(old).equals(rows.select(old))


def test_what_a_checkpoint_cannot_say_is_named_and_the_rest_is_said(
    terminal: Terminal, tmp_path: Path
) -> None:
    """The V1 class goes on from a recording, and needs to know what is said in it."""
    (said,) = spoken_by("allison", "en", 1)
    home = tmp_path / "en"
    home.mkdir()
    sf.write(home / "voice.wav", said.wave, said.sample_rate)
    sf.write(home / "silent.wav", said.wave * 0, said.sample_rate)
    lines = [
        f"said|{said.text}|voice.wav|hello",
        "untold||voice.wav|hello",
        "silent|x|silent.wav|hello",
    ]
    (home / "meta.lst").write_text("\n".join(lines))
    code, shown, errors = terminal(V1, "--on", str(home / "meta.lst"), *QUICK)
    assert (code, errors) == (0, "")
    assert "en/meta.lst, untold (v1): ConfigError: a prompt needs the text" in shown
    assert "en/meta.lst, silent (v1): SilentAudio: the prompt is silent" in shown
    assert "voice.wav" not in shown
    assert "silent.wav (v1): SilentAudio" in shown, "and the AudioVAE refuses it too"
    rows = terminal.rows()
    assert rows["utterance_id"].to_list() == ["said", "untold", "silent"]
    assert rows["errors"].is_not_null().to_list() == [True, False, False]
    (system,) = terminal.results()["systems"]  # type: ignore[misc]
    (group,) = system["groups"]
    assert (group["utterances"], group["refused"]) == (1, 2)


REFUSED = {
    "list that is not there": (
        (V2, "--on", "{tmp}/no.lst"),
        "no.lst is neither a test list nor a corpus",
    ),
    "folder that is no corpus": ((V2, "--on", "{tmp}"), "is neither a test list nor a corpus"),
    "checkpoint that is not there": ((f"{V2}/nowhere", "--on", "{list}"), "ModelLoadError"),
    "the same checkpoint twice": ((V2, f"{V2}/.", "--on", "{list}"), "are the same checkpoint"),
    "the same list twice": (
        (V2, "--on", "{list}", "--on", "{list}"),
        "two test sets are called 'en/meta.lst'",
    ),
    "unknown setting": ((V2, "--on", "{list}", "--set", "evaluate.voices=x"), "did you mean voice"),
    "unknown judge": (
        (V2, "--on", "{list}", "--set", "transcription.model=nowhere"),
        "ModelLoadError",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_evaluated_is_one_line_and_leaves_nothing(
    terminal: Terminal, tmp_path: Path, case: str
) -> None:
    arguments, says = REFUSED[case]
    listed = write_list(tmp_path, spoken_by("allison", "en", 1))
    given = [a.replace("{tmp}", str(tmp_path)).replace("{list}", str(listed)) for a in arguments]
    code, out, err = terminal(*given)
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1, err
    assert says in err
    assert not terminal.out.exists()
