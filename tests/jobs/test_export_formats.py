"""What goes out is read back by the library of each format: counts, text and sound."""

import importlib.util
import io
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile as sf
import webdataset
from lhotse import CutSet
from rich.console import Console

from jobs.exporting.options import ExportConfig, FormatName
from jobs.exporting.splits import SPLITS
from jobs.exporting.to_kaldi import speaker_id
from jobs.run_export import run_export
from schemas.errors import ConfigError
from tests.jobs.composable_corpus import Cloned
from tests.jobs.exportable_corpus import DESCRIPTION, Exportable, add_clones, make_exportable

ONE_SHARD_EACH = ExportConfig(validation=0.2, test=0.2, shard_s=10.0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Exportable:
    made = make_exportable(tmp_path_factory.mktemp("made"))
    # Both voices of this session's speaker are on the training side, so is what they say.
    add_clones(
        made,
        [
            Cloned(
                name="cl0ne",
                of="00cl1p",
                says="05cl1p",
                text=made.texts["05cl1p"],
                description=DESCRIPTION,
            )
        ],
    )
    return made


@pytest.fixture
def export(made: Exportable, tmp_path: Path) -> Callable[..., Path]:
    def run(to: str, **changes: object) -> Path:
        config = replace(ONE_SHARD_EACH, **changes)  # type: ignore[arg-type]
        out = tmp_path / to
        policy = str(made.policy)
        run_export(made.root, FormatName(to), str(out), config, policy=policy, console=Console())
        return out

    return run


def check(made: Exportable, rows: dict[str, tuple[str, np.ndarray, int]]) -> None:
    """rows: clip → (text, samples, hertz), as they were read back."""
    assert len(rows) == len(made.sounds)
    for clip_id, (text, pcm, rate) in rows.items():
        assert text == made.texts[clip_id]
        assert rate == made.rate(clip_id)
        np.testing.assert_array_equal(pcm, made.pcm(clip_id))


def decoded(audio: bytes | str | Path) -> tuple[np.ndarray, int]:
    pcm, rate = sf.read(io.BytesIO(audio) if isinstance(audio, bytes) else audio, dtype="int16")
    return pcm, int(rate)


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_datasets_reads_the_parquet_shards(
    made: Exportable, export: Callable[..., Path], tmp_path: Path
) -> None:
    out = export("huggingface")
    read = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert set(read) == set(SPLITS)
    assert len(list((out / "data").glob("train-*.parquet"))) > 2
    rows, seen = {}, {}
    for split, rows_of_split in read.items():
        assert rows_of_split.features["audio"] == datasets.Audio()
        for row in rows_of_split.cast_column("audio", datasets.Audio(decode=False)):
            assert row["sample_rate"] == made.rate(row["clip_id"])
            rows[row["clip_id"]] = (row["text"], *decoded(row["audio"]["bytes"]))
            seen[row["clip_id"]] = (split, row)
    check(made, rows)
    split, clone = seen["cl0ne"]
    assert (split, clone["synthetic"], clone["made_by"]) == ("train", True, "tiny")
    assert clone["reference_id"] == "00cl1p"
    assert clone["description"] == seen["01cl1p"][1]["description"] == DESCRIPTION
    assert [one["clip_id"] for _, one in seen.values() if one["synthetic"]] == ["cl0ne"]


# Both libraries' readers leave closing their files to the garbage collector.
reader_leaves_files_open = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <_io.FileIO .* mode='rb:pytest.PytestUnraisableExceptionWarning"
)


@reader_leaves_files_open
def test_webdataset_reads_the_tar_shards(made: Exportable, export: Callable[..., Path]) -> None:
    out = export("webdataset")
    shards = sorted(str(path) for path in out.glob("*.tar"))
    rows = {}
    for sample in webdataset.WebDataset(shards, shardshuffle=False).decode():
        told = sample["json"]
        assert (told["clip_id"], told["text"]) == (sample["__key__"], sample["txt"])
        rows[sample["__key__"]] = (sample["txt"], *decoded(sample["flac"]))
    check(made, rows)


@reader_leaves_files_open
def test_lhotse_reads_the_shar(made: Exportable, export: Callable[..., Path]) -> None:
    out = export("lhotse")
    rows = {}
    for split in SPLITS:
        for cut in CutSet.from_shar(in_dir=str(out / split)):
            (supervision,) = cut.supervisions
            samples = cut.load_audio()[0]
            assert cut.num_samples == samples.size
            pcm = np.round(samples * 32_768).astype(np.int16)
            rows[cut.id] = (supervision.text, pcm, cut.sampling_rate)
            assert supervision.synthetic == (cut.id == "cl0ne")
    check(made, rows)


def test_a_nemo_reader_finds_the_audio_beside_its_manifest(
    made: Exportable, export: Callable[..., Path], tmp_path: Path
) -> None:
    # As NeMo documents it: a path that is not absolute is relative to the manifest.
    out = export("nemo").rename(tmp_path / "moved")
    rows, speakers = {}, {}
    for split in SPLITS:
        for row in lines(out / f"{split}_manifest.json"):
            path = out / str(row["audio_filepath"])
            pcm, rate = decoded(path)
            assert row["duration"] == pytest.approx(pcm.size / rate, abs=1e-9)
            rows[path.stem] = (str(row["text"]), pcm, rate)
            speakers[row["speaker_name"]] = row["speaker"]
            assert row["synthetic"] == (path.stem == "cl0ne") == ("synthetic" in path.parts)
    check(made, rows)
    assert speakers == {"allison": 0, "june": 1, "session-fr_armelle": 2}


def test_kaldi_directories_keep_to_kaldis_rules(
    made: Exportable, export: Callable[..., Path]
) -> None:
    out = export("kaldi")
    rows = {}
    for split in SPLITS:
        folder = out / "data" / split
        tables = {
            path.name: [line.split(" ", 1) for line in path.read_text().splitlines()]
            for path in folder.iterdir()
        }
        assert set(tables) == {"wav.scp", "text", "utt2spk", "utt2dur", "utt2lang", "spk2utt"}
        for table in tables.values():
            keys = [key.encode() for key, _ in table]
            assert keys == sorted(set(keys)), "sorted as bytes, each once"
        names = [utterance for utterance, _ in tables["utt2spk"]]
        for name in ("wav.scp", "text", "utt2dur", "utt2lang"):
            assert [utterance for utterance, _ in tables[name]] == names
        speakers = [speaker.encode() for _, speaker in tables["utt2spk"]]
        assert speakers == sorted(speakers), "sorted by speaker as well"
        assert all(utterance.startswith(f"{speaker}-") for utterance, speaker in tables["utt2spk"])
        inverse = [[u, s] for s, said in tables["spk2utt"] for u in said.split(" ")]
        assert inverse == tables["utt2spk"]
        texts = dict(tables["text"])
        for utterance, path in tables["wav.scp"]:
            rows[Path(path).stem] = (texts[utterance], *decoded(path))
    check(made, rows)


def test_kaldis_order_holds_whatever_speakers_are_called() -> None:
    names = ["ann", "ann-b", "ann b", "ann_b", "Ann", "ann.b", "añn", "ann-", "0"]
    ids = [speaker_id(name) for name in names]
    assert len(set(ids)) == len(names)
    utterances = sorted(f"{one}-{clip}" for one in ids for clip in ("0f", "a0", "ff"))
    speakers = [utterance.rpartition("-")[0] for utterance in utterances]
    assert speakers == sorted(speakers)


def official_validator() -> Callable[..., object]:
    """`validate_manifest` of the package voxcpm; what the package itself imports is not needed."""
    found = importlib.util.find_spec("voxcpm")
    if found is None or not found.submodule_search_locations:
        pytest.skip("the package voxcpm is not installed")
    path = Path(found.submodule_search_locations[0]) / "training" / "validate.py"
    spec = importlib.util.spec_from_file_location("voxcpm_validate", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.validate_manifest  # type: ignore[no-any-return]


def test_voxcpms_own_validator_accepts_its_list(
    made: Exportable, export: Callable[..., Path]
) -> None:
    validate = official_validator()
    out = export("voxcpm", sample_rate=16_000)
    valid = 0
    for split in SPLITS:
        result = validate(str(out / f"{split}.jsonl"), sample_rate=16_000)
        assert not result.errors  # type: ignore[attr-defined]
        assert not result.warnings  # type: ignore[attr-defined]
        valid += result.valid_samples  # type: ignore[attr-defined]
    assert valid == len(made.sounds)


def test_voxcpms_list_names_sound_text_and_reference(
    made: Exportable, export: Callable[..., Path]
) -> None:
    out = export("voxcpm")
    rows, sources = {}, {}
    for split in SPLITS:
        path = out / f"{split}.jsonl"
        for row in lines(path):
            audio = Path(str(row["audio"]))
            assert audio.is_absolute()
            pcm, rate = decoded(audio)
            rows[audio.stem] = (str(row["text"]), pcm, rate)
            assert row["duration"] == pytest.approx(pcm.size / rate, abs=1e-9)
            assert (row["ref_audio"] is None) == (row["ref_duration"] is None)
            sources[audio.stem] = row["dataset_id"]
            if row["ref_audio"] is not None:
                voice, at = decoded(str(row["ref_audio"]))
                assert row["ref_duration"] == pytest.approx(voice.size / at, abs=1e-3)
                assert row["ref_audio"] != row["audio"]
        # The official loader: `datasets` on JSON, both columns cast to audio.
        read = datasets.load_dataset(
            "json", data_files=str(path), split="train", cache_dir=str(out / "cache")
        )
        for column in ("audio", "ref_audio"):
            read = read.cast_column(column, datasets.Audio(sampling_rate=16_000))
        assert read.num_rows == len(lines(path))
    check(made, rows)
    assert set(sources.values()) == {0, 1, 2, 3}
    assert Counter(sources.values())[sources["cl0ne"]] == 1


def test_qwens_list_has_a_reference_for_each_clip_at_24_khz(
    made: Exportable, export: Callable[..., Path]
) -> None:
    out = export("qwen3-tts")
    names = []
    for split in SPLITS:
        if (out / f"{split}_raw.jsonl").exists():
            for row in lines(out / f"{split}_raw.jsonl"):
                assert list(row) == ["audio", "text", "ref_audio"]
                audio, reference = Path(str(row["audio"])), Path(str(row["ref_audio"]))
                names.append(audio.stem)
                assert audio != reference
                assert row["text"] == made.texts[audio.stem]
                for path in (audio, reference):
                    info = sf.info(path)
                    assert (info.samplerate, info.channels, info.format) == (24_000, 1, "WAV")
                seconds = made.pcm(audio.stem).size / made.rate(audio.stem)
                assert sf.info(audio).duration == pytest.approx(seconds, abs=1e-3)
    assert sorted(names) == [*(f"{n:02}cl1p" for n in range(1, 16, 2)), "cl0ne"]
    with pytest.raises(ConfigError, match="24,000 Hz"):
        export("qwen3-tts", sample_rate=16_000)


def test_a_format_whose_library_is_missing_names_the_extra(
    export: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(ConfigError, match=r"voxquarry\[export\]"):
        export("webdataset")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`datasets` asks no hub, and draws no bars."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()
