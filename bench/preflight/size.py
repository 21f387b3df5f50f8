"""How large a model's weights are, as far as this machine can know."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.models import checkpoint, hub

if TYPE_CHECKING:
    from bench.preflight.line import Situation


def weights_bytes(situation: Situation) -> int | None:
    """Return the bytes of the model's weights where they are here, or are made here; None: not known."""
    workload = situation.workload
    if workload is None:
        return None
    folder = Path(workload.model_path)
    if not folder.is_absolute():
        cached = hub.cached(workload.model_path, situation.environment)
        return None if cached is None else hub.size_bytes(cached)
    if folder.exists():
        return hub.size_bytes(folder)
    made = workload.preset.checkpoint
    return None if made is None else checkpoint.RECIPES[made.recipe].bytes_by_size[made.size]
