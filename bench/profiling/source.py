"""The bytes of a trace file, gzip or plain, in chunks: never more than one chunk in memory."""

from __future__ import annotations

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
"""First bytes of what people pass by mistake, and what to say."""

NOT_A_TRACE = "give a trace that torch.profiler exported (.trace.json or .trace.json.gz)"


class Source:
    """A trace file that is read once; after the last chunk, ``damage`` says how it was cut or broken, if it was."""

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
        for chunk in self._unpacked() if self.compressed else self._plain():
            self.raw_bytes += len(chunk)
            yield chunk

    def _plain(self) -> Iterator[bytes]:
        try:
            with self.path.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    yield chunk
        except OSError as error:
            raise UsageError(f"the trace cannot be read: {error.strerror}", where=self.path) from error

    def _unpacked(self) -> Iterator[bytes]:
        member = zlib.decompressobj(wbits=31)
        for packed in self._plain():
            rest = packed
            while True:
                if member.eof:
                    # a gzip file may hold several members, one after the other; zeros between them are padding
                    rest = rest.lstrip(b"\0")
                    if not rest:
                        break
                    member = zlib.decompressobj(wbits=31)
                try:
                    chunk = member.decompress(rest, CHUNK_BYTES)
                except zlib.error as error:
                    self.damage = f"the gzip data is damaged: {error}"
                    return
                if chunk:
                    yield chunk
                rest = member.unused_data if member.eof else member.unconsumed_tail
                if not rest and len(chunk) < CHUNK_BYTES:
                    break
        if not member.eof:
            self.damage = "the gzip data ends before its end: the file was cut"
