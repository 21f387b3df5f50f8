"""A trace as typed columns: what the reader fills and every analysis reads.

Times are microseconds since the trace's own origin (``Trace.origin_us``), as 64-bit floats: the nanoseconds that
Kineto writes survive. Strings are interned: a column holds the index of the string in its table.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

KERNEL, MEMCPY, MEMSET = range(3)
"""The kinds of a GPU event."""

ABSENT = -1
"""The correlation or External id of an event that has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spans:
    """Events with a beginning and a duration, one row each, in the order of the file."""

    start_us: NDArray[np.float64]
    duration_us: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.start_us)

    @property
    def end_us(self) -> NDArray[np.float64]:
        """When each event ended."""
        return self.start_us + self.duration_us


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuEvents(Spans):
    """Kernels, copies and memory sets."""

    name: NDArray[np.uint32]
    kind: NDArray[np.uint8]
    correlation: NDArray[np.int64]
    external: NDArray[np.int64]
    stream: NDArray[np.int32]
    device: NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operators(Spans):
    """Operators on the CPU; ``signature`` points to a ``Signature``."""

    signature: NDArray[np.uint32]
    external: NDArray[np.int64]
    thread: NDArray[np.uint32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames(Spans):
    """Named spans on the CPU: ``nn.Module`` frames (name: ``ClassName_3``) or annotations."""

    name: NDArray[np.uint32]
    thread: NDArray[np.uint32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls(Frames):
    """Runtime and driver calls: launches, copies, synchronisations."""

    correlation: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """An operator and what it was called with: Kineto's Input Dims, Input type and Concrete Inputs, parsed.

    ``concrete`` is kept for convolutions only, whose stride and padding are not in the shapes.
    """

    operator: str
    dims: tuple[Any, ...] = ()
    types: tuple[str, ...] = ()
    concrete: tuple[str, ...] = ()

    @property
    def shape(self) -> str:
        """The input shapes in short: ``4608x3072, 3072x12288``; scalars and absent inputs are left out."""
        return ", ".join(text for text in map(_shape, self.dims) if text)


def _shape(dims: Any) -> str:
    if not isinstance(dims, list) or not dims:
        return ""
    if all(isinstance(size, int) for size in dims):
        return "x".join(map(str, dims))
    return "[" + ", ".join(text for text in map(_shape, dims) if text) + "]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One file, read: the columns, the tables of their strings, the head of the file, and what was wrong with it."""

    path: Path
    origin_us: float
    gpu: GpuEvents
    calls: Calls
    operators: Operators
    modules: Frames
    annotations: Frames
    names: tuple[str, ...]
    signatures: tuple[Signature, ...]
    threads: tuple[tuple[Any, Any], ...]
    head: Mapping[str, Any]
    counts: Mapping[str, int]
    file_bytes: int
    raw_bytes: int
    parser: str
    unreadable: int = 0
    damage: str | None = field(default=None)

    @property
    def events(self) -> int:
        """How many events the file holds, of all kinds."""
        return sum(self.counts.values())

    @property
    def device(self) -> Mapping[str, Any] | None:
        """The properties of the first device that the trace names, as Kineto wrote them."""
        properties = self.head.get("deviceProperties")
        first = properties[0] if isinstance(properties, list) and properties else None
        return first if isinstance(first, dict) else None

    @property
    def rank(self) -> int | None:
        """The rank of the process in its distributed job, if the trace says so."""
        return self._distributed("rank")

    @property
    def world_size(self) -> int | None:
        """The number of processes of the distributed job, if the trace says so."""
        return self._distributed("world_size")

    def _distributed(self, name: str) -> int | None:
        info = self.head.get("distributedInfo")
        value = info.get(name) if isinstance(info, dict) else None
        return value if isinstance(value, int) else None
