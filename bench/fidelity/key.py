"""What an output depends on beside its request: code, device and kernels, as the key of a golden names them."""

from __future__ import annotations

import hashlib
import os
import platform
from typing import TYPE_CHECKING, Any

from bench.machine import host

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.engine.find import Engine
    from bench.machine.gpus import Machine

PACKAGES = ("torch", "diffusers", "transformers")


def code(engine: Engine) -> dict[str, Any]:
    """Return an engine's version, the checkout that it is run from (None: the installed package) and its libraries'."""
    source = engine.source
    return {
        "engine": engine.version,
        "source": None if source is None else f"{source.commit}+{source.changes_sha256 or 'clean'}",
        **{name: engine.packages.get(name) for name in PACKAGES},
    }


def device(machine: Machine) -> str:
    """Return the kind of device that computed: a GPU's name, or the CPU's (another CPU may round otherwise)."""
    return machine.devices[0].name if machine.devices else f"cpu: {host.as_document()['cpu']}"


def machine_id(machine: Machine) -> str:
    """Return a hash that is equal only on the same machine with the same first GPU."""
    unit = machine.devices[0].uuid if machine.devices else str(os.cpu_count())
    return hashlib.sha256(f"{platform.node()}\0{unit}".encode()).hexdigest()


def kernels(attention: Mapping[str, str]) -> str | None:
    """Return the attention backends that the log says were dispatched, by component; None: it says nothing."""
    return ", ".join(f"{name}: {used}" for name, used in sorted(attention.items())) or None
