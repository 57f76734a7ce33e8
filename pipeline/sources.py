"""Where recordings come from: a folder, a glob, an object-store prefix or a manifest.

Listing opens no audio: broken, empty and missing files are sources too, and end in quarantine
later.
"""

import fnmatch
import glob
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, urlsplit

from pyarrow import fs as pafs

from pipeline.manifest import Entry, is_manifest, read_manifest
from pipeline.opening import filesystem_of
from pipeline.shelf import Shelf
from schemas.errors import ConfigError
from schemas.rows import Utterance

logger = logging.getLogger(__name__)

LOOKUPS_AT_ONCE = 32
LOOKUPS_WAITING = 1024

SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("wav", "wave", "rf64", "w64", "flac", "aiff", "aif", "aifc", "caf", "au", "snd", "voc"),
        *("sph", "nist", "ape", "wv", "tta", "mp3", "mp2", "mpga", "opus", "ogg", "oga", "spx"),
        *("m4a", "m4b", "aac", "ac3", "eac3", "amr", "awb", "gsm", "wma", "mka", "weba", "ra"),
        *("mp4", "m4v", "mkv", "webm", "mov", "avi", "flv", "wmv", "mpg", "mpeg", "mts"),
        *("m2ts", "vob", "ogv", "3gp", "3g2"),
    )
)


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


def list_sources(spec: str) -> Shelf[Source]:
    """Every source behind `spec`, in the order of session and uri.

    spec: a folder (searched for audio in depth), a glob, an s3:// or gs:// prefix (also with `*`),
    one file, or a manifest (.csv, .jsonl, .parquet) with the column `uri` and optionally the
    others of `manifest.COLUMNS`; `transcript` is text, or JSON [{"start_s", "end_s", "text"}].
    Relative uris are looked up beside the manifest and must stay below its folder; absolute paths
    and uris with a scheme are taken as they are.
    A session is by default the file's folder, named by its path below the root that was given.
    Raises `ConfigError` if nothing is found or a manifest is wrong.
    """
    sources: Iterable[Source]
    if is_manifest(spec):
        sources = _from_manifest(spec)
    elif "://" in spec:
        sources = _from_prefix(spec)
    elif Path(spec).is_dir():
        root = Path(spec).absolute()
        sources = _from_files(root, _walk(root))
    elif Path(spec).is_file():
        path = Path(spec).absolute()
        sources = [_local(path, path.parent.name)]
    elif glob.has_magic(spec):
        paths = (Path(name).absolute() for name in glob.iglob(spec, recursive=True))
        sources = _from_files(_fixed_part(spec), paths)
    else:
        raise ConfigError(f"{spec} is no folder, file, glob, s3:// or gs:// uri, or manifest")
    found = shelved(sources)  # once each: `**` may match a file twice
    if not found:
        raise ConfigError(f"no audio found at {spec} (looked for {' '.join(sorted(SUFFIXES))})")
    return found


def shelved(sources: Iterable[Source]) -> Shelf[Source]:
    """Sources in the order of session and uri."""
    return Shelf(((source.session_id, source.uri), source) for source in sources)


# -------------------------------------------------------------------- folders and globs


def _walk(root: Path) -> Iterable[Path]:
    def refuse(error: OSError) -> None:
        # A folder that is passed over in silence is data lost in silence.
        raise ConfigError(f"cannot look into {error.filename}: {error.strerror}") from error

    for folder, folders, names in os.walk(root, onerror=refuse):
        for link in (Path(folder, name) for name in folders):
            if link.is_symlink():
                logger.warning("not followed: %s is a link to a folder; name it in a glob", link)
        yield from (Path(folder, name) for name in names)


def _fixed_part(pattern: str) -> Path:
    """The folder above a glob's first wildcard: sessions then do not depend on what it matches."""
    fixed = []
    for part in Path(pattern).absolute().parent.parts:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return Path(*fixed)


def _from_files(root: Path, paths: Iterable[Path]) -> Iterator[Source]:
    for path in paths:
        # A link to nowhere is a missing file, which the quarantine names.
        if path.suffix.lower() in SUFFIXES and (
            path.is_file() or (path.is_symlink() and not path.exists())
        ):
            yield _local(path, _session(path.relative_to(root).parent.as_posix(), root.name))


def _session(folder: str, root_name: str) -> str:
    """The folder's path below the root, so that equal names in two places stay apart."""
    if folder in {".", ""}:
        return root_name
    # A folder named like the root is not the root.
    return f"{root_name}/{folder}" if folder.split("/")[0] == root_name else folder


def _local(path: Path, session_id: str) -> Source:
    try:
        stat = path.stat()
    except OSError:
        return Source(uri=str(path), session_id=session_id)
    return Source(
        uri=str(path),
        size_bytes=stat.st_size,
        modified=str(stat.st_mtime_ns),
        session_id=session_id,
    )


# -------------------------------------------------------------------- object stores


def _from_prefix(spec: str) -> Iterator[Source]:
    scheme, _, rest = spec.partition("://")
    bare, mark, query = rest.partition("?")
    pattern = bare if "*" in bare else None
    prefix = bare.split("*")[0].rpartition("/")[0] if pattern else bare.rstrip("/")
    filesystem, root = _opened(f"{scheme}://{prefix}{mark}{query}")
    try:
        only = None if pattern else filesystem.get_file_info(root)
    except OSError as error:
        raise ConfigError(f"cannot list {spec}: {error}") from error
    if only and only.type == pafs.FileType.File:
        yield _remote(spec, only, PurePosixPath(root).parent.name)
        return
    # On a local file system the path starts with a slash that the uri has as its third.
    lead = "/" if root.startswith("/") else ""
    wanted = f"{root}{bare[len(prefix) :]}" if pattern else "*"
    for info in _listed(filesystem, root, spec):
        path = PurePosixPath(info.path)
        if path.suffix.lower() not in SUFFIXES:
            continue
        if not fnmatch.fnmatchcase(info.path, wanted):
            continue
        session = _session(path.relative_to(root).parent.as_posix(), PurePosixPath(root).name)
        uri = f"{scheme}://{lead}{quote(info.path.lstrip('/'))}{mark}{query}"
        yield _remote(uri, info, session)


def _listed(filesystem: Any, root: str, spec: str) -> Iterator[Any]:
    """Every file below, a folder of the root at a time: a listing is held whole in memory."""

    def below(folder: str, *, deep: bool) -> list[Any]:
        selector = pafs.FileSelector(folder, recursive=deep, allow_not_found=True)
        try:
            return list(filesystem.get_file_info(selector))
        except OSError as error:
            raise ConfigError(f"cannot list {spec}: {error}") from error

    for info in below(root, deep=False):
        infos = below(info.path, deep=True) if info.type == pafs.FileType.Directory else [info]
        yield from (one for one in infos if one.type == pafs.FileType.File)


def _opened(uri: str) -> tuple[Any, str]:
    try:
        return filesystem_of(uri)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot open {uri}: {error}") from error


def _remote(uri: str, info: Any, session_id: str) -> Source:
    return Source(
        uri=uri,
        size_bytes=info.size,
        modified=None if info.mtime is None else str(info.mtime_ns),
        session_id=session_id,
    )


# -------------------------------------------------------------------- manifests


def _from_manifest(spec: str) -> Iterator[Source]:
    seen: Shelf[str] = Shelf()
    for entry, source in _looked_up(spec):
        if seen.setdefault((source.uri, ""), entry.where) != entry.where:
            raise ConfigError(f"{entry.where}: {entry.uri} stands there twice")
        yield replace(
            source,
            session_id=entry.session_id or source.session_id,
            speaker=entry.speaker,
            language=entry.language,
            licence=entry.licence,
            consent=entry.consent,
            source=entry.source,
            transcript=entry.transcript,
            utterances=entry.utterances,
        )


def _looked_up(spec: str) -> Iterator[tuple[Entry, Source]]:
    """Every row with its file, many at a time: an object store takes its time for each."""
    stores: dict[str, Any] = {}
    entries = iter(read_manifest(spec))
    with ThreadPoolExecutor(LOOKUPS_AT_ONCE) as pool:
        while batch := list(islice(entries, LOOKUPS_WAITING)):
            # Opened before any is asked: pyarrow opens none while another waits for its answer.
            lookups = [_lookup(spec, entry, stores) for entry in batch]
            yield from zip(batch, pool.map(lambda look: look(), lookups), strict=True)


def _lookup(spec: str, entry: Entry, stores: dict[str, Any]) -> Callable[[], Source]:
    """What finds a row's file. stores: file systems by what their uris have in common."""
    uri, root = entry.uri, ""
    if "://" not in uri:
        if "://" not in spec or uri.startswith("/"):
            return partial(_located, Path(spec).absolute().parent, entry)
        if ".." in PurePosixPath(uri).parts:
            raise ConfigError(f"{entry.where}: {uri} leaves the manifest's folder")
        bare, mark, query = spec.partition("?")
        root = bare.rpartition("/")[0]
        uri = f"{root}/{quote(uri)}{mark}{query}"
        root = root.partition("://")[2]
    filesystem, path = _opened(uri)
    parts = urlsplit(uri)
    # One for all of a bucket's, which keeps its connections.
    store = stores.setdefault(f"{parts.scheme}://{parts.netloc}?{parts.query}", filesystem)
    return partial(_located_remote, entry.where, uri, root, store, path)


def _located(root: Path, entry: Entry) -> Source:
    """The local file that a row names, whether it is there or not."""
    place = Path(entry.uri)
    if not place.is_absolute():
        place = Path(os.path.normpath(root / place))
        inside = place.is_relative_to(root) and place.resolve().is_relative_to(root.resolve())
        if not inside:
            raise ConfigError(f"{entry.where}: {entry.uri} leaves the manifest's folder")
    folder = place.parent
    if folder.is_relative_to(root):
        session = _session(folder.relative_to(root).as_posix(), root.name)
    else:
        session = folder.as_posix()
    source = _local(place, session)
    return source if place.is_file() else replace(source, size_bytes=None, modified=None)


def _located_remote(where: str, uri: str, root: str, store: Any, path: str) -> Source:
    """The same of a row whose file is at `path` in a store. root: the manifest's folder, if there."""
    try:
        info = store.get_file_info(path)
    except OSError as error:
        raise ConfigError(f"{where}: cannot look up {uri}: {error}") from error
    folder = PurePosixPath(path).parent
    base = PurePosixPath(root)
    if root and folder.is_relative_to(base):
        session = _session(folder.relative_to(base).as_posix(), base.name)
    else:
        session = folder.as_posix()
    return _remote(uri, info, session) if info.is_file else Source(uri=uri, session_id=session)
