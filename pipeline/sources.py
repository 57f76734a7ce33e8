"""Where recordings come from: a folder, a glob, an object-store prefix or a manifest.

Listing opens no audio: broken and empty files are sources too, and end in quarantine later.
"""

import csv
import difflib
import fnmatch
import glob
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs as pafs

from schemas.errors import ConfigError
from schemas.rows import Utterance

SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("wav", "flac", "mp3", "opus", "ogg", "oga", "m4a", "aac", "mp4", "mkv", "webm", "mov"),
        *("aiff", "aif", "aifc", "caf", "w64", "au", "amr", "wma", "mka", "m4b", "3gp"),
    )
)
MANIFEST_SUFFIXES = (".csv", ".jsonl", ".parquet")
COLUMNS = (
    "uri",
    "session_id",
    "speaker",
    "language",
    "licence",
    "consent",
    "source",
    "transcript",
)
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z0-9]{2,8})*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One file to take in, and what is known about it beforehand."""

    uri: str
    size_bytes: int | None = None
    """None where the file is not there; it is then quarantined."""
    modified: str | None = None
    """Time of the last change, in nanoseconds."""
    session_id: str
    """Recordings of one session share speakers, room and microphone."""
    speaker: str | None = None
    language: str | None = None
    licence: str | None = None
    consent: str | None = None
    source: str | None = None
    transcript: str | None = None
    utterances: tuple[Utterance, ...] = ()


def list_sources(spec: str) -> list[Source]:
    """Every source behind `spec`, sorted by session and uri.

    spec: a folder (searched for audio in depth), a glob, an s3:// or gs:// prefix, or a manifest
    (.csv, .jsonl, .parquet) with the column `uri` and optionally the others of `COLUMNS`;
    `transcript` is text, or JSON [{"start_s", "end_s", "text"}]. Relative uris are looked up
    beside the manifest and must stay below its folder; absolute paths and s3/gs uris are taken
    as they are.
    Raises `ConfigError` if nothing is found or a manifest is wrong.
    """
    if spec.endswith(MANIFEST_SUFFIXES):
        sources = _from_manifest(spec)
    elif "://" in spec:
        sources = _from_prefix(spec)
    elif Path(spec).is_dir():
        sources = _from_files(Path(spec).absolute(), Path(spec).absolute().rglob("*"))
    elif Path(spec).is_file():
        path = Path(spec).absolute()
        sources = [_local(path, path.parent.name)]
    elif glob.has_magic(spec):
        found = [Path(name).absolute() for name in glob.iglob(spec, recursive=True)]
        sources = _from_files(_common_folder(found), found)
    else:
        raise ConfigError(f"{spec} is no folder, file, glob, s3:// or gs:// uri, or manifest")
    if not sources:
        raise ConfigError(f"no audio found at {spec} (looked for {' '.join(sorted(SUFFIXES))})")
    unique = {source.uri: source for source in sources}
    return sorted(unique.values(), key=lambda source: (source.session_id, source.uri))


# -------------------------------------------------------------------- folders and globs


def _common_folder(paths: list[Path]) -> Path:
    if not paths:
        return Path()
    parents = [path.parent for path in paths]
    common = parents[0]
    while not all(parent.is_relative_to(common) for parent in parents):
        common = common.parent
    return common


def _from_files(root: Path, paths: Iterable[Path]) -> list[Source]:
    return [
        _local(path, _session(path.relative_to(root).parent.as_posix(), root.name))
        for path in paths
        if path.suffix.lower() in SUFFIXES and path.is_file()
    ]


def _session(folder: str, root_name: str) -> str:
    """The parent folder's path below the root, so that equal names in two places stay apart."""
    return root_name if folder in {".", ""} else folder


def _local(path: Path, session_id: str) -> Source:
    stat = path.stat()
    return Source(
        uri=str(path),
        size_bytes=stat.st_size,
        modified=str(stat.st_mtime_ns),
        session_id=session_id,
    )


# -------------------------------------------------------------------- object stores


def _from_prefix(spec: str) -> list[Source]:
    scheme, _, rest = spec.partition("://")
    bare, _, query = rest.partition("?")
    prefix = bare.split("*")[0].rpartition("/")[0] if "*" in bare else bare.rstrip("/")
    filesystem, root = _open(f"{scheme}://{prefix}" + (f"?{query}" if query else ""))
    infos = filesystem.get_file_info(pafs.FileSelector(root, recursive=True, allow_not_found=True))
    pattern = bare if "*" in bare else None
    sources = []
    for info in infos:
        relative = PurePosixPath(info.path[len(root) :].lstrip("/"))
        if info.type != pafs.FileType.File or relative.suffix.lower() not in SUFFIXES:
            continue
        if pattern and not fnmatch.fnmatch(f"{prefix}/{relative}", pattern):
            continue
        session = _session(relative.parent.as_posix(), PurePosixPath(root).name)
        sources.append(_remote(f"{scheme}://{prefix}/{relative}", query, info, session))
    return sources


def _open(uri: str) -> tuple[Any, str]:
    try:
        filesystem, path = pafs.FileSystem.from_uri(uri)
    except (pa.ArrowInvalid, OSError, ValueError) as error:
        raise ConfigError(f"cannot open {uri}: {error}") from error
    return filesystem, str(path)


def _remote(uri: str, query: str, info: Any, session_id: str) -> Source:
    return Source(
        uri=uri + (f"?{query}" if query else ""),
        size_bytes=info.size,
        modified=str(info.mtime_ns),
        session_id=session_id,
    )


# -------------------------------------------------------------------- manifests


def _from_manifest(spec: str) -> list[Source]:
    rows = _rows(spec)
    if not rows:
        raise ConfigError(f"manifest {spec} has no rows")
    for column in rows[0]:
        if column not in COLUMNS:
            near = difflib.get_close_matches(column, COLUMNS, n=1)
            advice = f"did you mean {near[0]}?" if near else f"known: {', '.join(COLUMNS)}"
            raise ConfigError(f"manifest {spec}: unknown column {column}; {advice}")
    if "uri" not in rows[0]:
        raise ConfigError(f"manifest {spec} has no column uri")
    sources: dict[str, Source] = {}
    for number, row in enumerate(rows, start=1):
        source = _from_row(spec, number, row)
        if source.uri in sources:
            raise ConfigError(f"manifest {spec}, row {number}: {source.uri} stands there twice")
        sources[source.uri] = source
    return list(sources.values())


def _rows(spec: str) -> list[dict[str, Any]]:
    filesystem, path = (
        _open(spec) if "://" in spec else (pafs.LocalFileSystem(), str(Path(spec).absolute()))
    )
    try:
        with filesystem.open_input_file(path) as file:
            if spec.endswith(".parquet"):
                return list(pq.read_table(file).to_pylist())
            text = file.read().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(f"there is no manifest {spec}") from error
    except (OSError, pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise ConfigError(f"manifest {spec} cannot be read: {error}") from error
    if spec.endswith(".csv"):
        return [dict(row) for row in csv.DictReader(text.splitlines(keepends=True))]
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise ConfigError(f"manifest {spec}, line {number}: {error}") from error
    return rows


def _from_row(spec: str, number: int, row: Mapping[str, Any]) -> Source:
    where = f"manifest {spec}, row {number}"
    uri = str(row.get("uri") or "")
    if not uri:
        raise ConfigError(f"{where}: uri is empty")
    source = _located(spec, uri, where)
    known = {key: _text(row.get(key)) for key in COLUMNS[1:]}
    language = known["language"].lower().replace("_", "-") if known["language"] else None
    if language and not _LANGUAGE.fullmatch(language):
        raise ConfigError(f"{where}: language {language!r} is no ISO 639 code, such as en or zh")
    transcript, utterances = _transcript(row.get("transcript"), where)
    return replace(
        source,
        session_id=known["session_id"] or source.session_id,
        speaker=known["speaker"],
        language=language,
        licence=known["licence"],
        consent=known["consent"],
        source=known["source"],
        transcript=transcript,
        utterances=utterances,
    )


def _text(value: Any) -> str | None:
    return str(value) if isinstance(value, (str, int)) and str(value).strip() else None


def _located(spec: str, uri: str, where: str) -> Source:
    """The file that a row names, with size and time where it is there."""
    if "://" in uri or "://" in spec:
        full = uri if "://" in uri else f"{spec.rpartition('/')[0]}/{uri}"
        if "://" not in uri and ".." in PurePosixPath(uri).parts:
            raise ConfigError(f"{where}: {uri} leaves the manifest's folder")
        filesystem, path = _open(full)
        info = filesystem.get_file_info(path)
        session = PurePosixPath(path).parent.name
        if info.type != pafs.FileType.File:
            return Source(uri=full, session_id=session)
        return _remote(full, "", info, session)
    root = Path(spec).absolute().parent
    place = root / uri  # an absolute uri stays what it is
    if not Path(uri).is_absolute() and not place.resolve().is_relative_to(root.resolve()):
        raise ConfigError(f"{where}: {uri} leaves the manifest's folder")
    if not place.is_file():
        return Source(uri=str(place), session_id=place.parent.name)
    return _local(place, place.parent.name)


def _transcript(value: Any, where: str) -> tuple[str | None, tuple[Utterance, ...]]:
    """Plain text, or utterances with times."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None, ()
    if isinstance(value, str) and not value.lstrip().startswith("[{"):
        return value, ()
    try:
        parts = json.loads(value) if isinstance(value, str) else value
        utterances = tuple(
            Utterance(
                start_s=float(part["start_s"]), end_s=float(part["end_s"]), text=str(part["text"])
            )
            for part in parts
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{where}: transcript is neither text nor a list of start_s, end_s, text ({error!r})"
        ) from error
    if any(not 0 <= u.start_s < u.end_s for u in utterances):
        raise ConfigError(f"{where}: an utterance of the transcript ends before it starts")
    return None, tuple(sorted(utterances, key=lambda u: u.start_s))
