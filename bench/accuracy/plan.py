"""The plan of an accuracy run: preset, engine, checkpoint folder, family, request and negative controls."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import schema
from bench.accuracy import controls
from bench.accuracy.gates import COMPONENT, GOLDEN, TRAJECTORY
from bench.catalog import families, presets
from bench.engine import command as commands
from bench.engine import find
from bench.errors import UsageError
from bench.fallback.expectation import PROGRAM, Expectation
from bench.machine import gpus
from bench.models import checkpoint

if TYPE_CHECKING:
    from bench.accuracy.controls import Controls
    from bench.accuracy.options import Options
    from bench.catalog.families import Family
    from bench.catalog.presets import Preset
    from bench.engine.find import Engine
    from bench.machine.gpus import Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything resolved before the run; nothing was started or written except a synthetic checkpoint."""

    options: Options
    preset: Preset
    engine: Engine
    machine: Machine
    model: Path
    family: Family
    sampling: dict[str, Any]
    controls: Controls
    expectation: Expectation
    made_checkpoint: Path | None = None


def plan(options: Options) -> Plan:
    """Return the plan of a run; a synthetic checkpoint that is not cached yet is made.

    Raises:
        UsageError: an unknown model, engine or family, or a model that is not a local folder.
        EngineFailed: the engine does not work.
    """
    preset = presets.get(options.model, options.preset_file)
    if options.update_golden is not None and not options.update_golden.strip():
        raise UsageError(
            "updating a golden needs a reason", todo='e.g. "new kernel, checked by eye"', field="update_golden"
        )
    if options.update_golden is not None and GOLDEN not in options.checks:
        raise UsageError(
            "a golden is updated only where it is checked", todo="add golden to the checks", field="checks"
        )
    if preset.gpus > 1:
        raise UsageError(
            f"preset {preset.key} runs on {preset.gpus} GPUs; accuracy is checked on one",
            todo="choose a preset of the same family for one GPU (`invoke models`), or one of your own",
            field="preset_file",
        )
    engine = find.find(options.engine)
    folder, made = _folder(options, preset, engine)
    family = families.for_pipeline(str(schema.read(folder / "model_index.json")["_class_name"]))
    sampling = _sampling(options, preset, family)
    visible = preset.environment.get(gpus.VISIBLE, os.environ.get(gpus.VISIBLE))
    machine = gpus.visible(gpus.machine(), visible)
    return Plan(
        options=options,
        preset=preset,
        engine=engine,
        machine=machine,
        model=folder,
        family=family,
        sampling=sampling,
        controls=controls.for_family(family, sampling, options.dtype),
        expectation=Expectation(
            launch=PROGRAM,
            version=engine.version,
            device=machine.kind,
            model=str(folder),
            modality=preset.modality,
            steps=sampling["steps"],
            width=sampling["width"],
            height=sampling["height"],
            gpus=1,
            compile=options.torch_compile,
            attention_backend=options.attention_backend,
        ),
        made_checkpoint=made,
    )


def _folder(options: Options, preset: Preset, engine: Engine) -> tuple[Path, Path | None]:
    """Return the checkpoint's folder, and the folder again if it was made just now, else None."""
    if options.model_path is not None:
        folder = Path(options.model_path).expanduser().absolute()
        checkpoint.inspect(folder)
        return folder, None
    if preset.checkpoint is None:
        raise UsageError(
            f"the model of preset {preset.key} is on the hub: both sides have to load one and the same folder",
            todo=f"fetch it (`hf download {preset.model} --local-dir DIR`) and give that folder",
            field="model_path",
        )
    folder, is_new = checkpoint.cached(engine, preset.checkpoint, preset.model)
    return folder, folder if is_new else None


def _sampling(options: Options, preset: Preset, family: Family) -> dict[str, Any]:
    sampling = {
        "prompt": preset.prompt,
        "negative_prompt": preset.negative_prompt,
        "seed": preset.seed if options.seed is None else options.seed,
        "width": options.width or preset.width,
        "height": options.height or preset.height,
        "steps": options.steps or preset.steps,
        "guidance": family.guidance_value if preset.guidance is None else preset.guidance,
    }
    if family.guidance == families.NO_GUIDANCE:
        sampling["guidance"] = None
    for name in ("width", "height", "steps"):
        if sampling[name] is None:
            raise UsageError(
                f"preset {preset.key} leaves {name} to the engine, but both sides need one value",
                todo="name it",
                field=name,
            )
    return sampling


def request(planned: Plan, reference: Path, outputs: Path) -> dict[str, Any]:
    """Return the request for both programs."""
    options = planned.options
    return {
        "model": str(planned.model),
        "dtype": options.dtype,
        "family": planned.family.as_document(),
        "text_encoders": len(planned.family.text_encoders),
        "sampling": planned.sampling,
        "checks": list(options.checks),
        **(planned.controls if needs_reference(options) else controls.NONE).as_document(),
        "torch_compile": options.torch_compile,
        "attention_backend": options.attention_backend,
        "reference": str(reference),
        "outputs": str(outputs),
        "master_port": commands.free_ports(1)[0],
    }


def case_count(planned: Plan) -> int:
    """Return how many cases the engine's program runs: the plain request, its repetition, and every control."""
    options = planned.options
    asked = (planned.controls if needs_reference(options) else controls.NONE).as_document()
    count = 2 + len(asked["controls"]) + (len(asked["perturbations"]) if TRAJECTORY in options.checks else 0)
    if COMPONENT in options.checks:
        count += 1 + ("tensor" in asked["perturbations"])
        count += len(asked["call_perturbations"]) + len(asked["wrong_calls"])
    return count


def needs_reference(options: Options) -> bool:
    """Return whether any check compares with diffusers."""
    return bool({COMPONENT, TRAJECTORY} & set(options.checks))
