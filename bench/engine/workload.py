"""What is asked of a launch: a preset, with what the user changed, and how the engine is run."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - a field's type, also at run time
from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003 - a field's type, also at run time

from bench.catalog.presets import Preset  # noqa: TC001 - a field's type, also at run time


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A resolved request; None is the engine's default for the model. Sizes are in pixels."""

    preset: Preset
    model_path: str
    prompt: str
    seed: int
    width: int | None
    height: int | None
    frames: int | None
    steps: int | None
    backend: str = "sglang"
    """The engine's word for its own implementation; the other one is diffusers, which only a reference runs on."""
    image: str | None = None
    """Path of the input image."""
    torch_compile: bool = False
    warmup: bool = True
    warmup_at_start: bool = False
    """Warm up once while loading, with a synthetic prompt at this size, instead of repeating the first request."""
    quality: str | None = None
    """The engine's tier of approximations for this request."""
    cuda_graph: bool = False
    """Capture the transformer as breakable CUDA graphs; the engine does so while it warms up at the start."""
    attention_backend: str | None = None
    stage_sync: bool = False
    """Let each stage wait for its device: right stage times, and longer ones than a user gets."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables for the launch beside the preset's."""
    extra: tuple[str, ...] = ()
    """Arguments for the engine as the user wrote them behind ``--``."""
    wrapper: tuple[str, ...] = ()
    """A program with its arguments that the launch is started by, such as a system profiler."""
    tracer: Path | None = None
    """The folder that a launch under line tracing reads and writes (`bench/inside/tracer`): no timing comes of it."""
    sabotage: tuple[str, ...] = ()
    """Arguments that come last of all and win; only the self-test has any, to lose on purpose."""


def of_preset(preset: Preset) -> Workload:
    """Return what a preset asks for by itself: its model by its own name, and no input image."""
    return Workload(
        preset=preset,
        model_path=preset.model,
        prompt=preset.prompt,
        seed=preset.seed,
        width=preset.width,
        height=preset.height,
        frames=preset.frames,
        steps=preset.steps,
        warmup=preset.warmup,
        quality=preset.quality,
        attention_backend=preset.attention_backend,
    )
