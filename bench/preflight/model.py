"""Checks of what a run needs apart from the machine: the engine, the model, its licence, the input image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.engine import command, registry
from bench.errors import UsageError
from bench.fallback.facts import UNPROVEN
from bench.fallback.own_code import read_config
from bench.models import checkpoint, hub, images
from bench.preflight.state import FAIL, OK, WARN, CheckResult

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.catalog.presets import Preset
    from bench.preflight.state import MachineState

INDEX = "model_index.json"
NAMES_A_PIPELINE = ("--pipeline-class-name", "--pipeline_class_name")


def weights_bytes(state: MachineState) -> int | None:
    """Return the size of the model's weights on this machine, or of those to be made; None if unknown."""
    workload = state.workload
    if workload is None:
        return None
    folder = Path(workload.model_path)
    if not folder.is_absolute():
        cached = hub.cached(workload.model_path, state.environment)
        return None if cached is None else hub.size_bytes(cached)
    if folder.exists():
        return hub.size_bytes(folder)
    synthetic = workload.preset.checkpoint
    return None if synthetic is None else checkpoint.RECIPES[synthetic.recipe].bytes_by_size[synthetic.size]


def runs_on_cpu(tags: tuple[str, ...]) -> bool:
    """Return whether a preset with these tags is small enough for a CPU."""
    return "tiny" in tags


def runs_with(preset: Preset, accelerators: int) -> bool:
    """Return whether a machine with so many accelerators has enough of them for a preset."""
    return accelerators >= preset.gpus or (accelerators == 0 and preset.gpus == 1 and runs_on_cpu(preset.tags))


def engine(state: MachineState) -> Iterator[CheckResult]:
    """Name the engine and the driver."""
    engine = state.engine
    if engine is None:
        yield CheckResult(
            id="engine",
            state=FAIL,
            saw="no engine",
            means="nothing can be launched",
            todo="`nox -l` lists the engines that can be built",
        )
        return
    torch = engine.packages.get("torch", "none")
    saw = f"sglang {engine.version} [{engine.name}], Python {engine.python_version}, torch {torch}"
    yield CheckResult(id="engine", state=OK, saw=saw)
    if state.machine.kind == "cuda" and state.machine.driver is not None:
        yield CheckResult(id="driver", state=OK, saw=f"driver {state.machine.driver}")


def spelled(state: MachineState) -> Iterator[CheckResult]:
    """Check that the engine's version supports everything that the preset sets."""
    if state.engine is None or state.workload is None:
        return
    try:
        command.arguments(state.engine, state.workload)
    except UsageError as error:
        yield CheckResult(id="preset", state=FAIL, saw=error.what, means="the launch is refused", todo=error.todo)
        return
    yield CheckResult(id="preset", state=OK, saw=f"{state.workload.preset.key}: supported by this version")


def weights(state: MachineState) -> Iterator[CheckResult]:
    """Check that the model is on this machine, or can be downloaded."""
    workload, environment = state.workload, state.environment
    if workload is None:
        return
    model, gated = workload.model_path, workload.preset.gated
    if Path(model).is_absolute():
        here = Path(model).exists()
        yield CheckResult(id="model", state=OK, saw=f"{model}{'' if here else ': will be made on the first run'}")
        return
    if hub.cached(model, environment) is not None:
        if hub.unfinished(model, environment):
            yield CheckResult(
                id="model",
                state=WARN,
                saw=f"{model}: its download is incomplete",
                means="the launch downloads the rest first, or fails offline",
                todo="finish the download before you measure",
            )
        else:
            yield CheckResult(id="model", state=OK, saw=f"{model} is in {hub.cache_folder(environment)}")
    elif hub.is_offline(environment):
        yield CheckResult(
            id="model",
            state=FAIL,
            saw=f"{model} is not in {hub.cache_folder(environment)}, and HF_HUB_OFFLINE forbids a download",
            means="the engine cannot load it",
            todo="unset HF_HUB_OFFLINE, or point HF_HOME at a cache that has it",
        )
    elif gated and not hub.has_token(environment):
        yield CheckResult(
            id="model",
            state=FAIL,
            saw=f"{model} is not on this machine; it is gated, and no token is set",
            means="the engine cannot download it",
            todo=f"accept the licence at https://huggingface.co/{model}, then set HF_TOKEN",
        )
    else:
        token = " with your token" if gated else ""
        yield CheckResult(
            id="model",
            state=WARN,
            saw=f"{model} is not in {hub.cache_folder(environment)}",
            means=f"the launch downloads it first{token}; that counts towards the timeout, not the timings",
            todo="check that this machine has a network and enough disk space",
        )


def pipeline(state: MachineState) -> Iterator[CheckResult]:
    """Check that the engine has the pipeline that the model's index names; an argument may name another."""
    folder = _folder(state)
    if state.engine is None or not state.engine.code or folder is None or state.workload is None:
        return
    asked = (*state.workload.extra, *state.workload.preset.arguments)
    own, cls = registry.pipelines(state.engine.code[0]), read_config(folder / INDEX).get("_class_name")
    if not own or not isinstance(cls, str) or any(word.startswith(NAMES_A_PIPELINE) for word in asked):
        return
    if cls in own:
        yield CheckResult(id="model.pipeline", state=OK, saw=f"the engine has a {cls} of its own")
    else:
        yield CheckResult(
            id="model.pipeline",
            state=FAIL,
            saw=f"sglang {state.engine.version} has no {cls}, which {INDEX} names",
            means="the native engine refuses the model, unless it knows it by its name",
            todo="use a newer engine, correct _class_name there, or launch without preflight",
        )


def classes(state: MachineState) -> Iterator[CheckResult]:
    """Name the model's components whose classes the engine does not register as its own."""
    folder = _folder(state)
    if state.engine is None or not state.engine.code or folder is None:
        return
    native = registry.native_classes(state.engine.code[0])
    asked = _component_classes(folder)
    if not native or not asked:
        return
    foreign = {name: cls for name, cls in asked.items() if cls not in native}
    for name, cls in foreign.items():
        yield CheckResult(
            id="model.class",
            state=WARN,
            saw=f"{name}: sglang {state.engine.version} does not register {cls} as its own",
            means="unless the pipeline has a loader for it, transformers' or diffusers' own class runs instead",
            todo="use a newer engine, or correct the class in the component's config.json",
        )
    if not foreign:
        yield CheckResult(id="model.class", state=OK, saw=f"the engine registers the classes of {', '.join(asked)}")


def _folder(state: MachineState) -> Path | None:
    """Return the folder of the model on this machine, None if it is not here yet."""
    if state.workload is None:
        return None
    model = state.workload.model_path
    folder = Path(model) if Path(model).is_absolute() else hub.cached(model, state.environment)
    return folder if folder is not None and folder.is_dir() else None


def _component_classes(folder: Path) -> dict[str, str]:
    """Return the class by component of a checkpoint; tokenizers and the like, which are never the engine's, left out.

    A component's own config counts before model_index.json, as it does to the engine.
    """
    indexed = {
        name: value[1]
        for name, value in read_config(folder / INDEX).items()
        if isinstance(value, list) and len(value) == 2 and all(isinstance(word, str) for word in value)  # noqa: PLR2004
    }
    asked = {}
    for name, cls in indexed.items():
        if not UNPROVEN.search(name):
            config = read_config(folder / name / "config.json")
            architectures = config.get("architectures")
            first = architectures[0] if isinstance(architectures, list) and architectures else cls
            asked[name] = str(config.get("_class_name") or first)
    return asked


def image(state: MachineState) -> Iterator[CheckResult]:
    """Check that the input image exists and has the expected hash."""
    workload = state.workload
    if workload is None or workload.image is None:
        return
    path = Path(workload.image)
    try:
        saw = images.check(path)
    except UsageError as error:
        yield CheckResult(
            id="image", state=FAIL, saw=f"{path}: {error.what}", means="the model has no input image", todo=error.todo
        )
        return
    yield CheckResult(id="image", state=OK, saw=saw)
