"""What the benchmark's own figures rest on; nothing here is timed."""

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from tests.benchmarks.audio import GAIN_PER_PASS_DB, make_folder, pause_near, repetition, sources
from tests.benchmarks.results import Result, bars
from tests.benchmarks.systems import fresh

DATA = Path(__file__).parents[1] / "data" / "devset"


@pytest.fixture(scope="module")
def speech() -> tuple[np.ndarray, int]:
    wave, rate = sf.read(DATA / "audio" / "en_allison_s1.flac", dtype="float32")
    return wave, rate


def test_a_repetition_holds_the_same_speech_in_another_order(
    speech: tuple[np.ndarray, int],
) -> None:
    wave, rate = speech
    again = repetition(wave, rate, 1, 3)
    gain = 10 ** (GAIN_PER_PASS_DB / 20)
    assert not np.allclose(again, wave * gain, atol=1e-3)
    np.testing.assert_allclose(np.sort(again), np.sort(wave * gain), atol=1e-6)


def test_a_repetition_starts_in_a_pause(speech: tuple[np.ndarray, int]) -> None:
    wave, rate = speech
    first = pause_near(wave, rate, len(wave) // 3)
    around = wave[first - rate // 10 : first + rate // 10]
    assert abs(first - len(wave) // 3) <= 5.5 * rate
    assert np.sqrt(np.mean(around**2)) < 0.05 * np.sqrt(np.mean(wave**2))


def test_every_file_of_the_benchmark_has_bytes_of_its_own(tmp_path: Path) -> None:
    once_s = sum(sf.info(path).duration for path in sources(DATA, ["en"]))
    minutes = once_s / 60 + 1
    audio = make_folder(DATA, tmp_path / "audio", minutes)
    files = sorted((tmp_path / "audio").rglob("*.flac"))
    assert audio.duration_s >= minutes * 60
    assert audio.passes == 2
    assert len({file.read_bytes() for file in files}) == len(files) == audio.num_files
    assert len({file.stem for file in files}) == len(files)


def _result(key: str, wall_s: float, *, ray_start_s: float = 0.0) -> Result:
    return Result(
        key=key, system=key, wall_s=wall_s, ray_start_s=ray_start_s, worker_start_s=ray_start_s / 2
    )


def test_starting_ray_counts_against_the_loop_and_the_peer_but_not_against_the_floor() -> None:
    ours = _result("b", 60.0, ray_start_s=8.0)
    results = {"a": _result("a", 150.0), "b": ours, "c": _result("c", 40.0)}
    naive, peer, floor = bars(results | {"d": _result("d", 290.0)})
    assert (naive.value, naive.verdict) == (2.5, "PASS")
    assert peer.verdict == "FAIL"
    assert floor.value == pytest.approx(48 / 40)
    assert floor.verdict == "PASS"


def test_a_system_without_figures_passes_no_bar() -> None:
    failed = Result(key="d", system="d", failure="it does not install")
    verdicts = [bar.verdict for bar in bars({"b": _result("b", 60.0), "d": failed})]
    assert verdicts == ["NOT MEASURED"] * 3


def test_a_figure_from_a_busy_machine_passes_no_bar() -> None:
    busy = Result(key="a", system="a", wall_s=600.0, busy_before=1.0)
    naive, _, floor = bars({"a": busy, "b": _result("b", 60.0), "c": _result("c", 90.0)})
    assert naive.verdict == "NOT CLEAN"
    assert floor.verdict == "NOT CLEAN", "two thirds of what the models alone took cannot be"


def test_the_output_folder_never_takes_the_place_of_other_work(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError):
        fresh(tmp_path)
    assert (tmp_path / "thesis.txt").exists()
    out = fresh(tmp_path / "bench")
    (out / "results.json").touch()
    assert list(fresh(out).iterdir()) == [out / ".voxquarry-bench"]
