r"""The events of a trace file, in batches, in bounded memory: Kineto's own layout fast, any other JSON through ijson.

Kineto writes one event per block, indented by two spaces, so that ``\n  },\n  {`` parts two events. It cannot occur
inside a JSON string (a raw newline is illegal there) nor in an event (what is nested is indented deeper or is on one
line). A file that does not look like that is compact JSON, or was written by something else: it is parsed event by
event, about half as fast.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.errors import InvalidDocument
from bench.profiling.source import NOT_A_TRACE, Source

if TYPE_CHECKING:
    from collections.abc import Iterator

PENDING_BYTES = 8 << 20
"""No head and no event of a trace is this long; a file that has one is something else."""

SEPARATOR = b"\n  },\n  {"
END = b"\n  }\n  ]"
ARRAY = re.compile(rb'\n\s*"traceEvents":\s*\[\s*?\n  \{')
EMPTY_ARRAY = re.compile(rb'\n\s*"traceEvents":\s*\[\s*\]')

PYTHON_FRAME = b'\n    "ph": "X", "cat": "python_function", "name": "'
MODULE_FRAME = PYTHON_FRAME + b"nn.Module: "
ARROWS = (b'\n    "ph": "s"', b'\n    "ph": "f"')

DEEPEST = 500
"""Kineto's values are nested six deep."""

UNREADABLE_SHARE = 0.001
"""A file with a larger share of events that are not JSON is broken; fewer are left out and reported."""


@dataclass(slots=True, kw_only=True)
class Progress:
    """What was learned beside the events while they were read."""

    head: dict[str, Any] = field(default_factory=dict)
    parser: str = "kineto"
    dropped: dict[str, int] = field(default_factory=dict)
    unreadable: int = 0
    complete: bool = False


class OtherLayout(Exception):
    """The file is not in Kineto's layout."""


def batches(source: Source, progress: Progress) -> Iterator[list[dict[str, Any]]]:
    """Yield the events of a trace, some thousands at a time; ``progress`` fills on the way.

    Python frames that are not modules, and the arrows between launches and kernels, are counted instead of yielded
    where the layout identifies them without parsing.

    Raises:
        InvalidDocument: the file is not a trace, or is broken in the middle.
    """
    try:
        yield from _kineto(source, progress)
    except OtherLayout:
        progress.parser = "ijson"
        progress.dropped.clear()
        progress.head.clear()
        progress.unreadable = 0
        yield from _compact(source, progress)


def _kineto(source: Source, progress: Progress) -> Iterator[list[dict[str, Any]]]:
    chunks = source.chunks()
    buffer = _head(source, chunks, progress)
    if progress.complete:
        return
    first = True
    tail = b""
    for chunk in chunks:
        buffer += chunk
        if (end := buffer.find(END)) >= 0:
            buffer, tail, progress.complete = buffer[:end], buffer[end + len(END) :], True
            break
        cut = buffer.rfind(SEPARATOR)
        if cut < 0:
            if len(buffer) > PENDING_BYTES:
                raise _no_trace(source, "an event of more than 8 MiB")
            continue
        yield _decoded(buffer[:cut].split(SEPARATOR), progress, source, first=first)
        first = False
        buffer = buffer[cut + len(SEPARATOR) :]
    if not progress.complete and (end := buffer.find(END)) >= 0:
        buffer, tail, progress.complete = buffer[:end], buffer[end + len(END) :], True
    pieces = buffer.split(SEPARATOR)
    if not progress.complete:
        pieces.pop()  # the event that was being written when the file was cut
    yield _decoded(pieces, progress, source, first=first and progress.complete)
    for rest in chunks:
        tail = (tail + rest)[:PENDING_BYTES]
    _tail(tail, progress)


def _head(source: Source, chunks: Iterator[bytes], progress: Progress) -> bytes:
    """Read up to the first event into ``progress.head``; return what was read of the events."""
    import orjson  # noqa: PLC0415 - see bench.schema: `invoke --list` need not pay

    buffer = b""
    for chunk in chunks:
        buffer += chunk
        _refuse_other_json(source, buffer)
        found = ARRAY.search(buffer)
        empty = None if found else EMPTY_ARRAY.search(buffer)
        if found or empty:
            break
        if b'"traceEvents"' in buffer or len(buffer) > PENDING_BYTES:
            raise OtherLayout
    else:
        raise OtherLayout
    start = found or empty
    assert start is not None
    try:
        progress.head |= orjson.loads(buffer[: start.start()].rstrip().rstrip(b",") + b"}")
    except orjson.JSONDecodeError as error:
        raise OtherLayout from error
    progress.complete = found is None
    return buffer[start.end() :]


def _refuse_other_json(source: Source, buffer: bytes) -> None:
    start = buffer[:256].lstrip(b"\xef\xbb\xbf \t\r\n")
    if start and not start.startswith(b"{"):
        text = start[:24].decode(errors="replace")
        raise _no_trace(source, "a JSON array" if text.startswith("[") else f"text that begins with {text!r}")


def _no_trace(source: Source, what: str) -> InvalidDocument:
    return InvalidDocument(f"not a trace: it has {what}", where=source.path, todo=NOT_A_TRACE)


def _decoded(pieces: list[bytes], progress: Progress, source: Source, *, first: bool) -> list[dict[str, Any]]:
    """Parse blocks between separators; those that no analysis needs are only counted."""
    import orjson  # noqa: PLC0415 - see _head

    no_arrows = [piece for piece in pieces if not piece.startswith(ARROWS)]
    kept = [piece for piece in no_arrows if not piece.startswith(PYTHON_FRAME) or piece.startswith(MODULE_FRAME)]
    dropped = {"ac2g": len(pieces) - len(no_arrows), "python_function": len(no_arrows) - len(kept)}
    for name, count in dropped.items():
        if count:
            progress.dropped[name] = progress.dropped.get(name, 0) + count
    if not kept:
        return []
    try:
        return orjson.loads(b"[{" + b"},{".join(kept) + b"}]")  # type: ignore[no-any-return]
    except orjson.JSONDecodeError:
        pass  # one by one, to leave out only what is broken
    events = []
    for piece in kept:
        try:
            events.append(orjson.loads(b"{" + piece + b"}"))
        except orjson.JSONDecodeError:
            progress.unreadable += 1
    if first and not events:
        raise OtherLayout
    if progress.unreadable > max(8, UNREADABLE_SHARE * len(kept)) and not events:
        raise _damaged(source, "no event can be read")
    return events


def _tail(tail: bytes, progress: Progress) -> None:
    """Keep the members that follow the events, if they can be read; a cut after the last event loses nothing."""
    import orjson  # noqa: PLC0415 - see _head

    members = tail.strip().removeprefix(b",")
    try:
        after = orjson.loads(b"{" + members) if members else {}
    except orjson.JSONDecodeError:
        return
    progress.head |= {name: value for name, value in after.items() if name != "traceEvents"}


def _compact(source: Source, progress: Progress) -> Iterator[list[dict[str, Any]]]:
    import ijson  # noqa: PLC0415 - see _head

    events = ijson.sendable_list()
    items = ijson.items_coro(events, "traceEvents.item", use_float=True)
    progress.head |= _compact_head(source)
    pending = 0
    seen = False
    for chunk in _shallow(source):
        try:
            items.send(chunk)
        except ijson.JSONError as error:
            raise _damaged(source, str(error).splitlines()[0]) from error
        seen = seen or bool(events)
        pending = 0 if events else pending + len(chunk)
        if pending > PENDING_BYTES and not seen:
            raise _no_trace(source, "no event in its first 8 MiB")
        if pending > PENDING_BYTES:
            return  # nothing this long is an event, and what follows the events is not needed
        if events:
            yield list(events)
            del events[:]
    try:
        items.close()
        progress.complete = source.damage is None
    except ijson.IncompleteJSONError:
        progress.complete = False


def _shallow(source: Source) -> Iterator[bytes]:
    """Yield the chunks of a source as long as no value is nested deeper than `DEEPEST`.

    ijson takes memory that grows with the square of the depth.

    Raises:
        InvalidDocument: a value is.
    """
    nesting = Nesting()
    for chunk in source.chunks():
        if nesting.deepest_of(chunk) > DEEPEST:
            raise _no_trace(source, f"values nested more than {DEEPEST} deep")
        yield chunk


class Nesting:
    """Follows how deep the values of a JSON text are nested, a chunk at a time."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = 0
        self._rest = b""

    def deepest_of(self, chunk: bytes) -> int:
        """Return how deep the deepest value in the next chunk is nested."""
        import numpy as np  # noqa: PLC0415 - see _head

        data = self._rest + chunk
        slashes = len(data) - len(data.rstrip(b"\\"))
        cut = len(data) - slashes % 2  # what the last one escapes is in the next chunk
        data, self._rest = data[:cut], data[cut:]
        if b"\\" in data:  # escapes are taken out from the left, as a parser reads them
            data = data.replace(b"\\\\", b"  ").replace(b'\\"', b"  ")
        if not data:
            return self._depth
        characters = np.frombuffer(data, np.uint8)
        quotes = np.cumsum(characters == ord('"'), dtype=np.int64) + self._in_string
        brackets = characters | 0x20  # [ and {, ] and } differ in this bit
        steps = (brackets == ord("{")).astype(np.int8) - (brackets == ord("}"))
        levels = np.cumsum(np.where(quotes % 2 == 0, steps, 0), dtype=np.int64) + self._depth
        self._depth, self._in_string = int(levels[-1]), int(quotes[-1] % 2)
        return int(levels.max())


def _damaged(source: Source, why: str) -> InvalidDocument:
    return InvalidDocument(
        f"the trace is damaged near byte {source.raw_bytes:,}: {why}",
        where=source.path,
        todo="capture it again; a text editor or a merge may have changed the file",
    )


def _compact_head(source: Source) -> dict[str, Any]:
    """Return the members before ``traceEvents``."""
    import ijson  # noqa: PLC0415 - see _head

    found = ijson.sendable_list()
    parser = ijson.parse_coro(found, use_float=True)
    builder = ijson.ObjectBuilder()
    read = 0
    for chunk in _shallow(source):
        _refuse_other_json(source, chunk if read == 0 else b"{")
        broken = None
        try:
            parser.send(chunk)
        except ijson.JSONError as error:
            broken = error
        read += len(chunk)
        for prefix, event, value in found:
            if (prefix, event, value) == ("", "map_key", "traceEvents"):
                builder.event("end_map", None)
                return dict(builder.value)
            builder.event(event, value)
        if broken is not None:
            what = f"no traceEvents, and not JSON: {str(broken).splitlines()[0]}"
            raise _no_trace(source, what) from broken
        del found[:]
        if read > PENDING_BYTES:
            break
    if source.damage or read == 0:
        raise InvalidDocument(
            f"the trace cannot be read: {source.damage or 'it holds nothing'}", where=source.path, todo=NOT_A_TRACE
        )
    raise _no_trace(source, "no traceEvents" + (" in its first 8 MiB" if read > PENDING_BYTES else ""))
