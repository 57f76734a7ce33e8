"""A model's name leads to one place, in a fixed order, or to a message that says what to do."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from annotators.registry import checkpoint_hash, known_models, resolve
from schemas.errors import ModelLoadError

IN_PACKAGES = ("silero", "tiny.en", "dnsmos", "ge2e")


@pytest.mark.parametrize("name", IN_PACKAGES)
def test_the_embedded_models_come_from_installed_packages(name: str) -> None:
    model = resolve(name)
    assert model.origin == "package"
    assert model.path.exists()
    assert model.revision
    assert len(model.hash) == 32


def test_a_given_path_wins_over_the_package(tmp_path: Path) -> None:
    copy = Path(shutil.copy(resolve("ge2e").path, tmp_path / "mine.pt"))
    by_argument, by_name = resolve("ge2e", copy), resolve(str(copy))
    assert by_argument.origin == by_name.origin == "path"
    assert by_argument.path == by_name.path == copy.resolve()


def test_the_hash_follows_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"weights")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "a.pt").write_bytes(b"weightz")
    one, other = resolve(str(tmp_path / "a.pt")), resolve(str(tmp_path / "b" / "a.pt"))
    assert one.hash != other.hash
    again = tmp_path / "c"
    again.mkdir()
    shutil.copy(tmp_path / "a.pt", again)
    assert resolve(str(again / "a.pt")).hash == one.hash


def test_a_checkpoints_hash_is_of_what_it_speaks_with_and_is_taken_anew(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "audiovae.safetensors", "tokenizer.json"):
        (tmp_path / name).write_text(name)
    before = checkpoint_hash(tmp_path)
    (tmp_path / "trainer.pt").write_text("state of a training")
    assert checkpoint_hash(tmp_path) == before
    hashes = {before}
    for name in ("config.json", "model.safetensors", "audiovae.safetensors", "tokenizer.json"):
        (tmp_path / name).write_text(name.upper())
        hashes.add(checkpoint_hash(tmp_path))
    assert len(hashes) == 5


def test_a_missing_path_is_named() -> None:
    with pytest.raises(ModelLoadError, match="nowhere/weights"):
        resolve("ge2e", "nowhere/weights.pt")


def test_a_folder_without_its_files_says_which(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"model_v8\.onnx"):
        resolve("dnsmos", tmp_path)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ModelLoadError, match=r"tinny\.en.*tiny\.en"):
        resolve("tinny.en")


def test_an_unreachable_hub_says_what_was_tried_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelLoadError, match=r"faster-whisper-large-v3.*Give the path"):
        resolve("large-v3")


def test_resolving_imports_no_model_library() -> None:
    code = (
        "import sys; from annotators.registry import resolve\n"
        f"for name in {IN_PACKAGES}: resolve(name)\n"
        "heavy = {'torch', 'silero_vad', 'speechmos', 'resemblyzer', 'faster_whisper'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_doctor_sees_every_embedded_model() -> None:
    assert set(IN_PACKAGES) <= {model.name for model in known_models()}
