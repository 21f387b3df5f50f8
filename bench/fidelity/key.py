"""The key of a golden: everything that an output depends on, and the machine that computed it."""

from __future__ import annotations

import hashlib
import os
import platform
from typing import TYPE_CHECKING, Any

from bench.machine import host
from bench.models import checkpoint

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bench.engine.find import Engine
    from bench.machine.gpus import Machine

PACKAGES = ("torch", "diffusers", "transformers")


def golden_key(
    engine: Engine, machine: Machine, model: Path, attention: Mapping[str, str], request: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the key of a golden.

    Args:
        engine: its version, the checkout it runs from (None: the installed package) and its libraries count.
        machine: the kind of device counts: a GPU's name, or the CPU's, since another CPU may round differently.
        model: the checkpoint's folder.
        attention: the attention backends that the log shows, by component; empty: unknown.
        request: what the caller asked for: dtype, compilation, quality, sampling, family and launch arguments.
    """
    source, manifest = engine.source, checkpoint.manifest(model)
    return {
        "engine": engine.version,
        "source": None if source is None else f"{source.commit}+{source.changes_sha256 or 'clean'}",
        **{name: engine.packages.get(name) for name in PACKAGES},
        "device": machine.devices[0].name if machine.devices else f"cpu: {host.as_document()['cpu']}",
        "attention_backend": ", ".join(f"{name}: {used}" for name, used in sorted(attention.items())) or None,
        **request,
        "checkpoint_sha256": checkpoint.sha256(model)
        if manifest is None
        else checkpoint.content_sha256(model, manifest),
    }


def machine_id(machine: Machine) -> str:
    """Return a hash that is equal only on the same machine with the same first GPU."""
    unit = machine.devices[0].uuid if machine.devices else str(os.cpu_count())
    return hashlib.sha256(f"{platform.node()}\0{unit}".encode()).hexdigest()
