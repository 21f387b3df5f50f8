"""The command of a launch whose main program is one of ``bench/inside/``: the engine in its own interpreter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import paths
from bench.engine import find
from bench.engine.command import Command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bench.engine.find import Engine


def command(
    engine: Engine, name: str, arguments: Sequence[str], directory: Path, preset_environment: Mapping[str, str]
) -> Command:
    """Return the command that runs the program ``name`` in ``directory``; it is to be launched with a guard."""
    added = {
        "FLASHINFER_DISABLE_VERSION_CHECK": "1",  # the check refuses to import beside some torch builds
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # the numbering of nvidia-smi and NVML
        "PYTHONUNBUFFERED": "1",  # a line that waits in a buffer cannot stop a run
        "HF_HUB_OFFLINE": "1",  # both sides load from the one folder, never from the hub
        **preset_environment,
    }
    if engine.source:
        added["PYTHONPATH"] = str(engine.source.python_path)
    return Command(
        argv=(str(engine.python), str(paths.INSIDE / name), *arguments),
        environment=find.interpreter_environment() | added,
        added=added,
        directory=directory,
    )
