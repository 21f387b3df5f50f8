"""Files of others: read within limits and never waited for, written whole and never through a link."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

from bench.errors import BenchError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

DOCUMENT_BYTES = 64 << 20
"""The largest document that is read whole: a record of 100,000 requests has half of it."""

SETTINGS_BYTES = 1 << 20
"""The largest file that a person writes by hand."""

MENDING = {
    errno.ENOENT: "name a file that exists",
    errno.ENOTDIR: "name a file that exists",
    errno.EACCES: "let your user read it",
}
"""What to do about a file that cannot be opened, by the system's error."""
LINKED = {errno.ELOOP: "it is a symbolic link, and nothing is written through one"}


def opened(path: Path, *, todo: str | None = None, error: type[BenchError] = UsageError) -> IO[bytes]:
    """Return a regular file, open for reading; a link to one is followed, a FIFO or a device refused without waiting.

    Raises:
        UsageError: or the ``error`` asked for, if it is absent, unreadable, or of another kind (``todo``: what to do).
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        file = open(descriptor, "rb")  # noqa: PTH123, SIM115 - a descriptor, which the caller closes
    except ValueError as failure:  # a NUL in the name
        raise error(f"cannot be read: {failure}", where=repr(str(path))) from failure
    except OSError as failure:
        raise error(
            f"cannot be read: {failure.strerror}", where=path, todo=todo or MENDING.get(failure.errno or 0)
        ) from failure
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise error("cannot be read: not a regular file", where=path, todo=todo)
    return file


def read_bytes(path: Path, limit: int = DOCUMENT_BYTES, error: type[BenchError] = UsageError) -> bytes:
    """Return the content of a file that `opened` takes, of at most ``limit`` bytes.

    Raises:
        UsageError: or the ``error`` asked for, as `opened` does, and if it is, or grows, too large.
    """
    with opened(path, error=error) as file:
        try:
            if os.fstat(file.fileno()).st_size <= limit and len(content := file.read(limit + 1)) <= limit:
                return content
        except OSError as failure:
            raise error(f"cannot be read: {failure.strerror}", where=path) from failure
    raise error(f"cannot be read: more than {limit / (1 << 20):g} MiB", where=path)


def write_text(path: Path, text: str, *, replace: bool = False) -> None:
    """Write ``text`` to ``path``, whole or not at all; a file that exists is only replaced if asked.

    A link at ``path`` is replaced, and what it leads to stays as it is.

    Raises:
        UsageError: the file is there already, or cannot be written.
    """
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        if os.path.lexists(path) and not replace:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        temporary.replace(path)
    except OSError as failure:
        raise UsageError(
            f"cannot be written: {failure.strerror}", where=path, todo="free space or choose --output-dir"
        ) from failure
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def append_line(path: Path, line: str) -> None:
    """Add a line to a file, which is made if it is absent, and wait until it is on the disk.

    Raises:
        UsageError: it is a link or no regular file, or cannot be written.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o644)
        with open(descriptor, "ab", buffering=0) as file:  # noqa: PTH123 - a descriptor, not a path
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UsageError("cannot be written: not a regular file", where=path)
            file.write(f"{line}\n".encode())
            os.fsync(descriptor)
    except OSError as failure:
        why = LINKED.get(failure.errno or 0, failure.strerror)
        raise UsageError(f"cannot be written: {why}", where=path) from failure


def below(root: Path, parts: Sequence[str]) -> Path:
    """Return the path of ``parts`` in ``root``, which need not be there.

    Raises:
        UsageError: it would lie outside ``root``: a part is absolute, goes up, or is empty.
    """
    path = root.joinpath(*parts)
    inside = Path(os.path.normpath(path))
    if inside == Path(os.path.normpath(root)) or not inside.is_relative_to(os.path.normpath(root)):
        raise UsageError(
            f"{path.relative_to(root) if path.is_relative_to(root) else path} lies outside its folder", where=root
        )
    return path
