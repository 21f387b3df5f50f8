"""Checks of what a run needs beside the machine: the engine, the model, its licence, the input image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.engine import command
from bench.errors import UsageError
from bench.models import hub, images
from bench.preflight.line import FAIL, OK, WARN, Line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.preflight.line import Situation


def engine(situation: Situation) -> Iterator[Line]:
    """Tell which engine this is."""
    found = situation.engine
    if found is None:
        yield Line(
            id="engine",
            state=FAIL,
            saw="no engine",
            means="nothing can be launched",
            todo="name one with --engine; `nox -l` lists those that can be built",
        )
        return
    torch = found.packages.get("torch", "none")
    saw = f"sglang {found.version} [{found.name}], Python {found.python_version}, torch {torch}"
    yield Line(id="engine", state=OK, saw=saw)
    if situation.machine.kind == "cuda" and situation.machine.driver is not None:
        yield Line(id="driver", state=OK, saw=f"driver {situation.machine.driver}")


def spelled(situation: Situation) -> Iterator[Line]:
    """Check that the engine's version can do what the preset asks for."""
    if situation.engine is None or situation.workload is None:
        return
    try:
        command.arguments(situation.engine, situation.workload)
    except UsageError as error:
        yield Line(id="preset", state=FAIL, saw=error.what, means="the launch is refused", todo=error.todo)
        return
    yield Line(id="preset", state=OK, saw=f"{situation.workload.preset.key}: this version can do all it asks for")


def weights(situation: Situation) -> Iterator[Line]:
    """Check that the model is here, or can be fetched."""
    workload, environment = situation.workload, situation.environment
    if workload is None:
        return
    model, gated = workload.model_path, workload.preset.gated
    if Path(model).is_absolute():
        here = Path(model).exists()
        yield Line(id="model", state=OK, saw=f"{model}{'' if here else ': is made at the first run'}")
        return
    if hub.cached(model, environment) is not None:
        if hub.unfinished(model, environment):
            yield Line(
                id="model",
                state=WARN,
                saw=f"{model}: a download of it was not finished",
                means="the launch fetches the rest first, or fails offline",
                todo="finish it before you measure",
            )
        else:
            yield Line(id="model", state=OK, saw=f"{model} is in {hub.cache_folder(environment)}")
    elif hub.is_offline(environment):
        yield Line(
            id="model",
            state=FAIL,
            saw=f"{model} is not in {hub.cache_folder(environment)}, and the hub may not be asked (HF_HUB_OFFLINE)",
            means="the engine cannot load it",
            todo="unset HF_HUB_OFFLINE, or point HF_HOME at a cache that has it",
        )
    elif gated and not hub.has_token(environment):
        yield Line(
            id="model",
            state=FAIL,
            saw=f"{model} is not here, and the hub gives it only to an account that accepted its licence; no token",
            means="the engine cannot fetch it",
            todo=f"accept the licence at https://huggingface.co/{model}, then set HF_TOKEN",
        )
    else:
        token = " with the token that is set" if gated else ""
        yield Line(
            id="model",
            state=WARN,
            saw=f"{model} is not in {hub.cache_folder(environment)}",
            means=f"the launch fetches it first{token}; its time is not part of the numbers, but of --timeout",
            todo="nothing, if there is a network and room",
        )


def image(situation: Situation) -> Iterator[Line]:
    """Check that the input image is here and is the one that is meant."""
    workload = situation.workload
    if workload is None or workload.image is None:
        return
    path = Path(workload.image)
    try:
        saw = images.check(path)
    except UsageError as error:
        yield Line(
            id="image", state=FAIL, saw=f"{path}: {error.what}", means="there is nothing to edit", todo=error.todo
        )
        return
    yield Line(id="image", state=OK, saw=saw)
