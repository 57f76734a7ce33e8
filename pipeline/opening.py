"""Open a uri's bytes, wherever they lie."""

import io
import re
from typing import Any
from urllib.parse import quote

import pyarrow as pa
from pyarrow import fs as pafs

from schemas.errors import ConfigError, MissingSource

# One request to an object store; decoders themselves read a few kilobytes at a time.
BUFFER_BYTES = 1 << 20
_PASSWORD = re.compile(r"[^:/]+://[^/@?]*:[^@?]*@")


def filesystem_of(uri: str) -> tuple[Any, str]:
    """The file system of a uri with a scheme, and the path on it.

    Endpoints come from the uri's query, and they and credentials from the usual environment variables
    (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID …). Names with spaces or accents may stand unescaped.
    Raises `OSError` or `ValueError`, and `ConfigError` for a uri that holds a password: uris are
    kept in tables and records.
    """
    if _PASSWORD.match(uri):
        scheme, _, rest = uri.partition("://")
        raise ConfigError(
            f"{scheme}://…@{rest.rpartition('@')[2]} holds a password; credentials are taken from "
            "the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)"
        )
    try:
        filesystem, path = pafs.FileSystem.from_uri(uri)
    except pa.ArrowInvalid:
        scheme, _, rest = uri.partition("://")
        bare, mark, query = rest.partition("?")
        filesystem, path = pafs.FileSystem.from_uri(f"{scheme}://{quote(bare)}{mark}{query}")
    return filesystem, str(path)


class WatchedFile(io.RawIOBase):
    """A seekable file that remembers that reading failed.

    A decoder's C code cannot pass an exception on and takes a failed read for the end of the
    file. For it the file is quiet: it ends there, and `failure` tells why, so that a lost
    connection does not pass for a recording that is cut short.
    """

    def __init__(self, file: Any, *, quiet: bool = False) -> None:
        super().__init__()
        self._file = file
        self._quiet = quiet
        self.failure: OSError | None = None

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as the file goes."""
        try:
            return int(self._file.readinto(buffer))
        except OSError as error:
            self.failure = error
            if self._quiet:
                return 0
            raise

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; returns the new position."""
        self._file.seek(offset, whence)
        return int(self._file.tell())

    def tell(self) -> int:
        """Position in bytes."""
        return int(self._file.tell())

    def close(self) -> None:
        """Close the file below."""
        if not self.closed:
            self._file.close()
        super().close()


def watched(uri: str, *, quiet: bool = False) -> WatchedFile:
    """Open a local path or a uri. Raises `MissingSource`."""
    try:
        if "://" not in uri:
            return WatchedFile(open(uri, "rb", buffering=0), quiet=quiet)
        filesystem, path = filesystem_of(uri)
        return WatchedFile(filesystem.open_input_file(path), quiet=quiet)
    except (OSError, ValueError) as error:
        raise MissingSource(f"cannot open {uri}: {error}") from error


def open_bytes(source: str | WatchedFile) -> io.BufferedReader:
    """A seekable, buffered binary file of a uri. Raises `MissingSource`."""
    file = watched(source) if isinstance(source, str) else source
    return io.BufferedReader(file, BUFFER_BYTES)
