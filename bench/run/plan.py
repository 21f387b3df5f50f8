"""What is settled before a launch: preset, engine, devices, workload and what the run will have to show."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.catalog import assets, presets
from bench.engine import command as commands
from bench.engine import find
from bench.engine.workload import Workload, of_preset
from bench.errors import PreflightFailed, UsageError
from bench.fallback import receipts
from bench.fallback.expectation import COMMAND_LINE, DIFFUSERS, NATIVE, SESSION, Expectation
from bench.machine import gpus, vendors
from bench.models import checkpoint, identity, images, private_cache

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bench.catalog.presets import Preset
    from bench.engine.command import Command
    from bench.engine.find import Engine
    from bench.machine.gpus import Machine
    from bench.run.options import Options


NO_GPU = "CUDA graphs need a GPU, and none is visible here"
PIXELS = ("image", "edit", "video", "audio-video")
SIZE_STEP = 16
"""Pixels of a transformer's patch: 8 of the VAE, times 2. Every preset's size is a multiple; others are rounded."""
LARGEST_SIDE = 16_384
"""Pixels, far above the 1,920 of upstream's presets: a larger one is a slip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What a workload comes to on an engine: arguments, the launch's environment, and whose the weights are."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    weights: Mapping[str, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that is settled before a launch; nothing has been started or written but a synthetic checkpoint."""

    options: Options
    preset: Preset
    engine: Engine
    machine: Machine
    workload: Workload
    expectation: Expectation
    made_checkpoint: Path | None
    resolved: Resolved

    def changed(self, workload: Workload, expectation: Expectation | None = None) -> Plan:
        """Return the plan for another workload, resolved anew.

        Raises:
            UsageError: the engine's version cannot do it.
        """
        expectation = expectation or self.expectation
        return replace(self, workload=workload, expectation=expectation, resolved=_resolved(self.engine, workload))


def plan(options: Options, *, in_session: bool | None = None, backend: str = NATIVE) -> Plan:
    """Return the plan for a run; a synthetic checkpoint that is not in the user's cache yet is made.

    ``in_session`` says how the requests will be served; None: as the options say. ``backend`` is what it has to prove.

    Raises:
        UsageError: an unknown model or engine, a broken model folder, a wrong value.
        EngineFailed: the engine does not work.
    """
    preset = presets.get(options.model, options.preset_file)
    _check_options(options, preset)
    engine, machine = find.find(options.engine), _machine(preset)
    made = None
    if options.model_path is None and preset.checkpoint is not None:
        _refuse_to_make(options, preset, machine)
        folder, is_new = checkpoint.cached(engine, preset.checkpoint, preset.model)
        made = folder if is_new else None
    workload = _on(backend, workload_of(options, preset, _model(options, preset)))
    resolved = _resolved(engine, workload)  # whatever is wrong with it is said before anything is made
    if workload.cuda_graph and machine.kind == "cpu":
        raise PreflightFailed(NO_GPU, todo="leave CUDA graphs out, or run where a GPU is", field="cuda_graph")
    return Plan(
        options=options,
        preset=preset,
        engine=engine,
        machine=machine,
        workload=workload,
        expectation=expect(
            workload, engine, machine, in_session=options.in_session if in_session is None else in_session
        ),
        made_checkpoint=made,
        resolved=resolved,
    )


def _check_options(options: Options, preset: Preset) -> None:
    """Raise UsageError for options that contradict each other or the preset, or a file that is not an image."""
    if options.stages and preset.config:
        raise UsageError(
            "this preset's request has a file of its own, so its stages cannot be measured in a session",
            where=f"preset {preset.key}",
            todo="leave the stage table out",
        )
    if options.update_golden is not None and not options.update_golden.strip():
        raise UsageError("updating a golden needs a reason", todo='e.g. "new kernel, looked at"', field="update_golden")
    _check_image(options)


def _machine(preset: Preset) -> Machine:
    """Return the devices that an engine sees which runs a preset."""
    visible = preset.environment.get("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES"))
    return gpus.visible(gpus.machine(), visible)


def refused_here(options: Options) -> str | None:
    """Return why this machine would refuse a run whose command can be shown, None if it would not."""
    lacks_gpu = options.cuda_graph and _machine(presets.get(options.model, options.preset_file)).kind == "cpu"
    return NO_GPU if lacks_gpu else None


def _refuse_to_make(options: Options, preset: Preset, machine: Machine) -> None:
    """Raise PreflightFailed for weights of full size where no GPU would run them: tens of GB, made in memory."""
    wanted = preset.checkpoint
    if wanted is None or wanted.size == "tiny" or not options.preflight or machine.kind != "cpu":
        return
    if checkpoint.is_cached(wanted, preset.model) or any(vendor.count for vendor in vendors.devices()):
        return
    raise PreflightFailed(
        f"{preset.key} has weights of full size, and no GPU is visible here",
        todo="run it where a GPU is, or a tiny model: `invoke models --tag tiny`",
    )


def _on(backend: str, workload: Workload) -> Workload:
    return replace(workload, backend=DIFFUSERS) if backend == DIFFUSERS else workload


def _resolved(engine: Engine, workload: Workload) -> Resolved:
    return Resolved(
        arguments=tuple(commands.arguments(engine, workload)),
        environment=commands.launch_environment(engine, workload),
        weights=_weights(workload.model_path),
    )


def _weights(model_path: str) -> dict[str, str | None]:
    """Return whose the weights are, with their hash: random ones made here, or real ones (None: not here yet)."""
    name = Path(model_path).name if Path(model_path).is_absolute() else model_path  # not where it lies on this machine
    made = checkpoint.manifest(Path(model_path))
    if made is not None:
        return {"kind": "synthetic", "sha256": checkpoint.content_sha256(Path(model_path), made), "model": name}
    return {"kind": "real", "sha256": identity.of_model(model_path, os.environ), "model": name}


def _model(options: Options, preset: Preset) -> str:
    """Return the model that the engine is given: a checked folder, or a name on the hub."""
    if options.model_path is not None:
        model = placed(options.model_path)
        if Path(model).is_absolute():
            checkpoint.inspect(Path(model))
        return model
    return preset.model if preset.checkpoint is None else str(checkpoint.cached_path(preset.checkpoint, preset.model))


def placed(model: str) -> str:
    """Return what names the same model in any working directory: a name on the hub, or a folder's absolute path."""
    on_hub = model.count("/") == 1 and not model.startswith((".", "/", "~")) and not Path(model).exists()
    return model if on_hub else str(Path(model).expanduser().absolute())


def workload_of(options: Options, preset: Preset, model_path: str) -> Workload:
    """Return what would be asked of a launch of this preset and model; nothing is looked for.

    Raises:
        UsageError: a wrong value, or the preset cannot be run so.
    """
    if options.model_cache_root is None and (options.cleanup_model_cache or options.seed_model_cache_root):
        raise UsageError(
            "only a run's private model cache can be seeded or removed",
            todo="name a folder for it",
            field="model_cache_root",
        )
    if options.torch_compile and preset.force_eager:
        raise UsageError(
            "this preset is never compiled: compiling changes the model's output",
            where=f"preset {preset.key}",
            todo="run it eagerly, or write a preset without force_eager",
            field="torch_compile",
        )
    if options.cuda_graph and preset.force_eager:
        raise UsageError(
            "this preset is never run with CUDA graphs: it is run eagerly only",
            where=f"preset {preset.key}",
            todo="run without them, or write a preset without force_eager",
            field="cuda_graph",
        )
    if options.cuda_graph and not (options.warmup and preset.warmup):
        raise UsageError(
            "CUDA graphs are captured in the warm-up, which this run leaves out",
            where=f"preset {preset.key}",
            todo="keep the warm-up",
            field="warmup",
        )
    if preset.modality in PIXELS:
        _check_size(options)
    image = options.image or (assets.path(preset.image, options.preset_file) if preset.image else None)
    return replace(
        of_preset(preset),
        model_path=model_path,
        seed=preset.seed if options.seed is None else options.seed,
        width=options.width or preset.width,
        height=options.height or preset.height,
        steps=options.steps or preset.steps,
        image=None if image is None else str(image.absolute()),
        torch_compile=options.torch_compile,
        warmup=options.warmup and preset.warmup,
        warmup_at_start=options.warmup_at_start or options.cuda_graph,
        quality=options.quality or preset.quality,
        cuda_graph=options.cuda_graph,
        attention_backend=options.attention_backend or preset.attention_backend,
        extra=options.extra,
        environment=dict(options.environment),
        stage_sync=options.stage_sync,
    )


def _check_size(options: Options) -> None:
    """Raise UsageError if a width or a height is asked for that no model makes."""
    for field, asked in (("width", options.width), ("height", options.height)):
        if asked is not None and asked > LARGEST_SIDE:
            raise UsageError(
                f"a {field} of {asked:,} pixels is more than any model makes",
                todo=f"{LARGEST_SIDE:,} at most",
                field=field,
            )
        if asked is not None and asked % SIZE_STEP:
            below = asked // SIZE_STEP * SIZE_STEP
            raise UsageError(
                f"a {field} of {asked} is not possible: the model works in patches of {SIZE_STEP} pixels",
                todo=f"{f'{below} or ' if below else ''}{below + SIZE_STEP}",
                field=field,
            )


def _check_image(options: Options) -> None:
    """Raise UsageError if the image that the user names is missing or not an image."""
    if options.image is not None:
        images.check(options.image.absolute())


def expect(workload: Workload, engine: Engine, machine: Machine, *, in_session: bool = False) -> Expectation:
    """Return what a launch of this workload has to show."""
    return Expectation(
        backend=DIFFUSERS if workload.backend == DIFFUSERS else NATIVE,
        launch=SESSION if in_session else COMMAND_LINE,
        version=engine.version,
        device=machine.kind,
        model=workload.model_path,
        prompt=workload.prompt,
        modality=workload.preset.modality,
        seed=workload.seed,
        steps=workload.steps,
        width=workload.width,
        height=workload.height,
        frames=workload.frames,
        guidance=workload.preset.guidance,
        gpus=workload.preset.gpus,
        warmup=workload.warmup,
        compile=workload.torch_compile,
        cuda_graph=workload.cuda_graph,
        attention_backend=workload.attention_backend,
        # a preset is where a run with a cache is requested: it names the workload, and its hash tells runs apart
        cache=receipts.asks_for_cache(workload.preset.arguments, workload.preset.environment),
    )


def workload(options: Options) -> Workload:
    """Return what would be asked of a launch; nothing is made or looked for but a model folder that the user names.

    Raises:
        UsageError: an unknown model, a broken model folder, a wrong value.
    """
    preset = presets.get(options.model, options.preset_file)
    return workload_of(options, preset, _model(options, preset))


def dry_run(options: Options, engine: Engine, backend: str = NATIVE) -> Command:
    """Return the command that a run would use; nothing is made or written, and the run directory is a stand-in.

    Raises:
        what `plan` and `commands.build` raise.
    """
    _check_options(options, presets.get(options.model, options.preset_file))
    build = commands.build_session if options.in_session else commands.build
    return build(engine, _on(backend, workload(options)), Path("RUN_DIRECTORY").absolute())


@contextmanager
def private_model_cache(planned: Plan) -> Iterator[Plan]:
    """Yield the plan, with downloads in a fresh cache if one was asked for; a failure or SIGTERM removes it too.

    Raises:
        UsageError: the cache cannot be created there, or the folder at the end is not the one that was created.
    """
    options = planned.options
    if options.model_cache_root is None:
        yield planned
        return
    seeds = [options.seed_model_cache_root] if options.seed_model_cache_root else []
    cache = private_cache.prepare(options.model_cache_root, planned.preset.key, seeds)
    try:
        variables = private_cache.environment(cache, os.environ)
        yield planned.changed(replace(planned.workload, environment=variables))
    finally:
        if options.cleanup_model_cache:
            private_cache.remove(cache)
        else:
            private_cache.keep(cache)
