"""What a user may ask of any run of an engine, whatever it is for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT_TIMEOUT_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What the user asked for; None is the preset's value or the default."""

    model: str
    engine: str | None = None
    model_path: str | None = None
    preset_file: Path | None = None
    label: str | None = None
    steps: int | None = None
    seed: int | None = None
    width: int | None = None
    height: int | None = None
    torch_compile: bool = False
    attention_backend: str | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S
    output_dir: Path | None = None
