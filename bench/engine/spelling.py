"""Meaning to flags: how a workload is spelled for an engine's version, and which flags are refused before a launch.

What a version cannot do is refused with the versions that can, never left out: a dropped flag is another workload.
Sources: the probed table (``catalog/flags.toml``) and the behaviour of each version's command line.
"""

from __future__ import annotations

import difflib
import re
from itertools import pairwise
from typing import TYPE_CHECKING

from packaging.version import Version

from bench.catalog import flags
from bench.engine.find import RANKS
from bench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bench.catalog.presets import Preset
    from bench.engine.workload import Workload

PINNED = {
    "--backend": "the workbench pins it; `invoke reference` runs diffusers",
    "--log-level": "at warning level a fallback leaves no line, so the workbench pins info",
    "--perf-dump-path": "the run directory has it",
    "--save-output": "always on",
    "--no-save-output": "an output that is not there proves nothing",
    "--output-path": "the run directory has it",
    "--output-file-name": "the run directory has it",
    "--output-file-path": "the run directory has it",
    "--master-port": "each launch gets its own",
    "--scheduler-port": "each launch gets its own",
    "--model-path": "use --model or --model-path of this task",
    "--prompt": "write a preset: --preset-file",
    "--prompt-path": "write a preset: --preset-file",
    "--seed": "use --seed of this task",
    "--width": "use --width of this task",
    "--height": "use --height of this task",
    "--num-inference-steps": "use --steps of this task",
    "--enable-torch-compile": "use --torch-compile of this task",
    "--warmup": "use --no-warmup of this task",
    "--warmup-mode": "use --no-warmup of this task",
    "--image-path": "use --image of this task",
    "--negative-prompt": "write a preset: --preset-file",
    "--guidance-scale": "write a preset: --preset-file",
    "--num-frames": "write a preset: --preset-file",
    "--attention-backend": "use --attention-backend of this task",
    "--quality": "use --quality of this task",
    "--enable-breakable-cuda-graph": "use --cuda-graph of this task",
    "--warmup-resolutions": "--cuda-graph of this task warms up at the size of the request",
    "--warmup-num-frames": "--cuda-graph of this task warms up with the frames of the request",
    "--config": "a file could change anything unseen",
    "--profile": "a profiled run is never a timing",
    "--profile-all-stages": "a profiled run is never a timing",
}
"""Flags that may not come from the user, and what to do instead."""

PINNED_VARIABLES = {
    "SGLANG_DIFFUSION_SYNC_STAGE_PROFILING": "it changes what is measured: both arms run without it",
    "SGLANG_GIT_COMMIT": "it tells the dump which engine it is of",
    "PYTHONPATH": "another engine's code is --engine source:CHECKOUT, or engine=source:CHECKOUT in an arm",
    "PYTHONUNBUFFERED": "a line that waits in a buffer cannot stop a run",
    "CUDA_VISIBLE_DEVICES": "set it for the task, so that both arms and the checks see the same devices",
    "CUDA_DEVICE_ORDER": "devices are numbered as nvidia-smi does",
    "PATH": "the engine is the one that --engine names",
    "PYTHONHOME": "the engine is the one that --engine names",
    "LD_PRELOAD": "code before the engine can change times and clocks; set it for the task, whose record says so",
    "LD_AUDIT": "code before the engine can change times and clocks",
    "LD_LIBRARY_PATH": "set it for the task, so that both arms load the same libraries",
    **dict.fromkeys(RANKS, "the engine counts its processes itself, and a rank silences its warnings"),
}
"""Variables that may not come from a preset or an arm of a comparison, and why or what to do instead."""

PRESET_MAY_SET = frozenset({"SGLANG_DIFFUSION_SYNC_STAGE_PROFILING", "CUDA_VISIBLE_DEVICES"})
"""Pinned between two arms only: one run with them is a run like any other."""

COMPONENT_PATH = re.compile(
    r"--(transformer|unet|vae|text[-_]encoder|image[-_]encoder|tokenizer|scheduler|vocoder)([-_]?\d)?-path"
)
"""Component overrides that the engine reads besides its parser. It swallows any other ``--x-path`` silently."""


OFFLOAD = {
    "dit": "--dit-cpu-offload",
    "dit_layerwise": "--dit-layerwise-offload",
    "text_encoder": "--text-encoder-cpu-offload",
    "image_encoder": "--image-encoder-cpu-offload",
    "vae": "--vae-cpu-offload",
}

QUALITY_SINCE = {"lossless": "0.5.17", "high": "0.5.17", "extra-high": "0.5.20", "exact": "0.5.22"}
"""The first probed version whose parser takes a quality tier."""

GRAPHS_SINCE = "0.5.17"
"""The first probed version that captures breakable CUDA graphs."""


def spell(workload: Workload, version: str, own: frozenset[str] | None = None) -> list[str]:
    """Return the flags for ``workload`` in ``version``'s spelling, ports and output files left out.

    ``own`` are the flags of the engine's own parser, where that was asked; else the probed table speaks for it.

    Raises:
        UsageError: the version cannot do what the preset asks for.
    """
    preset = workload.preset
    spelled = [
        f"--backend={workload.backend}",
        "--log-level=info",
        f"--model-path={workload.model_path}",
        f"--prompt={workload.prompt}",
        f"--seed={workload.seed}",
        f"--num-gpus={preset.gpus}",
        *_optional("--negative-prompt", preset.negative_prompt),
        *_optional("--image-path", workload.image),
        *_optional("--width", workload.width),
        *_optional("--height", workload.height),
        *_optional("--num-frames", workload.frames),
        *_switch("--adjust-frames", preset.adjust_frames),
        *_optional("--fps", preset.fps),
        *_optional("--num-inference-steps", workload.steps),
        *_optional("--guidance-scale", preset.guidance),
        *_optional("--tp-size", preset.tensor_parallel),
        *_optional("--ulysses-degree", preset.ulysses),
        *_optional("--ring-degree", preset.ring),
        *_cfg_parallel(preset.cfg_parallel),
        *_optional("--pipeline-class-name", preset.pipeline),
        *_optional("--model-variant", preset.variant),
        *_optional("--quantization", preset.quantization),
        *_optional("--performance-mode", preset.performance_mode),
        *_quality(workload, version),
        *_optional("--attention-backend", workload.attention_backend),
        *(f"--component-attention-backends={name}={kind}" for name, kind in preset.component_attention.items()),
        *_precision(preset.precision, preset.text_encoders or 0),
        # residency and offloading are not each other's translation: a version has the one or the other, or both
        *(f"--component-residency={name}={place}" for name, place in preset.residency.items()),
        *(item for name, wanted in preset.offload.items() for item in _switch(OFFLOAD[name], wanted)),
        *_switch("--pin-cpu-memory", preset.pin_memory),
        *_switch("--enable-prompt-rewrite", preset.prompt_rewrite),
        *_warmup(workload, version, own),
        f"--enable-torch-compile={'true' if workload.torch_compile else 'false'}",
        *_graphs(workload, version, own),
        # a repeated prompt would be served from the cache, and its encoder time would be a look-up
        *_if_known("--disable-conditioning-cache", version, own),
        *preset.arguments,
    ]
    refuse_unknown(spelled, version, f"preset {preset.key}", own)
    return spelled


def _optional(flag: str, value: object) -> list[str]:
    return [] if value is None else [f"{flag}={value}"]


def _switch(flag: str, value: bool | None) -> list[str]:
    return [] if value is None else [f"{flag}={'true' if value else 'false'}"]


def _cfg_parallel(wanted: bool | int | None) -> list[str]:
    if wanted is True:
        return ["--enable-cfg-parallel"]
    return _optional("--cfg-parallel-size", wanted)


def _quality(workload: Workload, version: str) -> list[str]:
    wanted = workload.quality
    if wanted is None:
        return []
    _refuse_before(QUALITY_SINCE[wanted], version, f"quality {wanted!r}", workload.preset)
    return [f"--quality={wanted}"]


def _refuse_before(since: str, version: str, what: str, preset: Preset) -> None:
    if flags.is_probed(version) and Version(version) < Version(since):
        raise UsageError(
            f"sglang {version} has no {what}",
            where=f"preset {preset.key}",
            todo=f"sglang {since} and newer have it",
        )


def _graphs(workload: Workload, version: str, own: frozenset[str] | None) -> list[str]:
    if not workload.cuda_graph:
        # left alone, a version may switch graphs on by itself, and with graphs on it drops compile without a line
        return _if_known("--enable-breakable-cuda-graph=false", version, own)
    if workload.torch_compile:
        raise UsageError(
            "torch.compile and CUDA graphs exclude each other: the engine silently drops compile",
            where=f"preset {workload.preset.key}",
            todo="ask for one of them",
        )
    _refuse_before(GRAPHS_SINCE, version, "breakable CUDA graphs", workload.preset)
    return ["--enable-breakable-cuda-graph=true"]


def _knows(version: str, flag: str, own: frozenset[str] | None) -> bool:
    return flags.knows(version, flag) if own is None else flag in own


def _if_known(argument: str, version: str, own: frozenset[str] | None) -> list[str]:
    return [argument] if _knows(version, argument.partition("=")[0], own) else []


def _precision(precision: str | None, text_encoders: int) -> list[str]:
    if precision is None:
        return []
    return [
        f"--dit-precision={precision}",
        f"--vae-precision={precision}",
        "--text-encoder-precisions",
        *[precision] * text_encoders,
    ]


def _warmup(workload: Workload, version: str, own: frozenset[str] | None) -> list[str]:
    preset = workload.preset
    if not workload.warmup:
        return _if_known("--warmup-mode=off", version, own)
    steps = _optional("--warmup-steps", preset.warmup_steps)
    if workload.warmup_at_start:
        # "server" warms an offline generation only if it is told the sizes; graphs are captured for these alone
        sizes = preset.graph_warmup_sizes or _sizes(workload)
        frames = [] if workload.frames is None else _if_known(f"--warmup-num-frames={workload.frames}", version, own)
        return ["--warmup-mode=server", "--warmup-resolutions", *sizes, *frames, *steps]
    # without sizes "server" does nothing there, and the log still claims a warm-up: "request"
    if _knows(version, "--warmup-mode", own):
        return ["--warmup-mode=request", *steps]
    return ["--warmup", *steps]


def _sizes(workload: Workload) -> tuple[str, ...]:
    if workload.width is None or workload.height is None:
        raise UsageError(
            "a warm-up at the start needs to know the size, and this preset leaves it to the engine",
            where=f"preset {workload.preset.key}",
            todo="set --width and --height",
        )
    return (f"{workload.width}x{workload.height}",)


def _flag_names(arguments: Iterable[str]) -> list[str]:
    return [argument.partition("=")[0] for argument in arguments if argument.startswith("--")]


def refuse_pinned(workload: Workload) -> None:
    """Raise UsageError if arguments or variables of the user or the preset change what the workbench stands for."""
    preset = workload.preset
    for arguments, where in ((workload.extra, "the arguments after --"), (preset.arguments, f"preset {preset.key}")):
        for name in _flag_names(arguments):
            pinned = name.replace("_", "-")  # the engine's parser takes both
            if pinned in PINNED:
                raise UsageError(f"{name} cannot be passed to the engine: {PINNED[pinned]}", where=where)
    for name in workload.environment:
        if name in PINNED_VARIABLES:
            raise UsageError(f"{name} may not be set for one arm: {PINNED_VARIABLES[name]}", where="the arm's SPEC")
    for name in preset.environment.keys() - PRESET_MAY_SET:
        if name in PINNED_VARIABLES:
            raise UsageError(
                f"{name} may not be set by a preset: {PINNED_VARIABLES[name]}", where=f"preset {preset.key}"
            )


def refuse_unknown(arguments: Sequence[str], version: str, where: str, own: frozenset[str] | None = None) -> None:
    """Raise UsageError for a word without a flag, a flag that ``version`` does not know, or an abbreviated one."""
    for before, word in pairwise(("--=", *arguments)):
        if not word.startswith("-") and before.startswith("--") and "=" in before:
            raise UsageError(
                f"{word!r} does not belong to any flag of the engine",
                where=where,
                todo="write --flag=value; this task's own options come before --",
            )
    for name in _flag_names(arguments):
        if _knows(version, name, own) or COMPONENT_PATH.fullmatch(name):
            continue
        others = flags.versions_of(name)
        if own is None and not others and not flags.is_probed(version) and not name.endswith("-path"):
            continue  # a version that nobody probed may have flags that no table has: its own parser decides
        if others:
            todo = f"sglang {others[0]} to {others[-1]} know it"
        else:
            close = difflib.get_close_matches(name, flags.table().by_flag, n=2)
            todo = f"did you mean {' or '.join(close)}? Flags are written out in full" if close else "remove it"
        raise UsageError(f"sglang {version} does not know {name}", where=where, todo=todo)
