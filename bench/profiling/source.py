"""The bytes of a trace file, gzip or plain, in chunks: never more than one chunk in memory."""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING

from bench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHUNK_BYTES = 1 << 20

GZIP = b"\x1f\x8b"

OTHER_FORMATS = {
    b"\x28\xb5\x2f\xfd": "zstd: unpack it with `zstd -d`",
    b"PK\x03\x04": "a zip archive: unpack it",
    b"\xfd7zXZ": "xz: unpack it with `xz -d`",
    b"SQLite format 3": "an SQLite database (an Nsight Systems export?); a torch.profiler trace is JSON",
}
"""First bytes of files that are passed by mistake, and what to say."""

NOT_A_TRACE = "give a Chrome trace that torch.profiler exported: .json or .json.gz"


class Source:
    """A trace file that is read once; after the last chunk, ``damage`` says what is wrong with it, if anything."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage: str | None = None
        self.raw_bytes = 0
        try:
            self.file_bytes = path.stat().st_size
            regular = path.is_file()  # a FIFO would be waited for
            if regular:
                with path.open("rb") as file:
                    start = file.read(16)
        except OSError as error:
            raise UsageError(f"the trace cannot be read: {error.strerror}", where=path, todo=NOT_A_TRACE) from error
        if not regular:
            raise UsageError("the trace cannot be read: not a regular file", where=path, todo=NOT_A_TRACE)
        if not start:
            raise UsageError("the trace is empty (0 bytes): was its export interrupted?", where=path, todo=NOT_A_TRACE)
        for magic, what in OTHER_FORMATS.items():
            if start.startswith(magic):
                raise UsageError(f"not a trace: the file is {what}", where=path, todo=NOT_A_TRACE)
        self.compressed = start.startswith(GZIP)

    def chunks(self) -> Iterator[bytes]:
        """Yield the file's content from its beginning, unpacked."""
        self.damage = None
        self.raw_bytes = 0
        try:
            with gzip.open(self.path) if self.compressed else self.path.open("rb") as file:
                while chunk := file.read1(CHUNK_BYTES):
                    self.raw_bytes += len(chunk)
                    yield chunk
        except EOFError:
            self.damage = "the gzip data ends early: the file was truncated"
        except (gzip.BadGzipFile, zlib.error) as error:
            self.damage = f"the gzip data is damaged: {error}"
        except OSError as error:
            raise UsageError(f"the trace cannot be read: {error.strerror}", where=self.path) from error
