"""What GPUs can do at best: ``devices.toml``, for the roofline."""

from __future__ import annotations

import functools
import re
import tomllib
from dataclasses import dataclass

from bench import paths, schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """One upper rate: of a data type's dense arithmetic (TFLOP/s) or of memory (TB/s), and where it is known from."""

    of: str
    kind: str
    source: str
    tflops: float | None = None
    tb_s: float | None = None

    @property
    def rate(self) -> str:
        """The rate with its unit."""
        return f"{self.tflops:g} TFLOP/s" if self.tflops else f"{self.tb_s:g} TB/s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A GPU model and its ceilings; the fields are described in ``schemas/device.json``."""

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
    path = paths.CATALOG / "devices.toml"
    found = []
    for entry in tomllib.loads(path.read_text(encoding="utf-8"))["device"]:
        schema.check(entry, "device", f"{path} [{entry.get('id')}]")
        found.append(Device(**(entry | {"ceilings": tuple(Ceiling(**ceiling) for ceiling in entry["ceilings"])})))
    return tuple(found)


def find(name: str | None) -> Device | None:
    """Return the device that a trace's device name means, or None when the table does not have it."""
    if name is None:
        return None
    return next((device for device in devices() if re.search(device.pattern, name)), None)
