"""What GPUs can do at best: ``devices.toml``, for the roofline."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench import paths
from bench.catalog import entries

if TYPE_CHECKING:
    from collections.abc import Mapping


MEMORY = "memory"
MEASURED, SPECIFIED = "measured", "specified"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """One upper rate: of a data type's dense arithmetic in TFLOP/s, or of memory in TB/s; and where it is known from.

    ``kind`` is ``measured`` or ``specified``, by the maker.
    """

    of: str
    kind: str
    rate: float
    source: str

    def __str__(self) -> str:
        unit = "TB/s" if self.of == MEMORY else "TFLOP/s"
        return f"{self.of} {self.kind} {self.rate:g} {unit}: {self.source}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A GPU model and its ceilings; the fields of its entry are described in ``schemas/device.json``."""

    id: str
    title: str
    pattern: str
    ceilings: tuple[Ceiling, ...]

    def ceiling(self, of: str, kind: str) -> Ceiling | None:
        """Return the ``measured`` or ``specified`` ceiling of a data type or of ``memory``; None when unknown."""
        return next((ceiling for ceiling in self.ceilings if (ceiling.of, ceiling.kind) == (of, kind)), None)


@functools.cache
def devices() -> tuple[Device, ...]:
    """Return all devices of the table.

    Raises:
        InvalidDocument: an entry breaks ``schemas/device.json``.
    """
    return tuple(map(_device, entries.read(paths.CATALOG / "devices.toml", "device", "device")))


def _device(entry: Mapping[str, Any]) -> Device:
    measured = [Ceiling(kind=MEASURED, **one) for one in entry.get("measured", ())]
    second_hand = entry.get("second_hand")
    source = entry["source"] if second_hand is None else f"{entry['source']}, second-hand: {second_hand}"
    specified = [Ceiling(of=of, kind=SPECIFIED, rate=rate, source=source) for of, rate in entry["specified"].items()]
    return Device(id=entry["id"], title=entry["title"], pattern=entry["pattern"], ceilings=(*measured, *specified))


def find(name: str | None) -> Device | None:
    """Return the device that a trace's device name means, or None when the table does not have it."""
    if name is None:
        return None
    return next((device for device in devices() if re.search(device.pattern, name)), None)
