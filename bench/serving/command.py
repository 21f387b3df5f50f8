"""The command of one server: the arguments of a launch without those of a request, and what proves who answers."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bench.catalog import flags
from bench.engine import command as commands

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from bench.engine.command import Command
    from bench.engine.find import Engine
    from bench.engine.workload import Workload

HOST = "127.0.0.1"
REQUEST_LOG, STAGE_LOG, SAVED = "requests", "stages", "outputs"
MODEL = "model"
STAGES_GO_TO = "SGLANG_PERF_LOG_DIR"
DELAY_S = 0.020
"""How long the server waits for others to merge a request with."""

OF_A_REQUEST = frozenset(
    {
        "--prompt", "--negative-prompt", "--seed", "--image-path", "--width", "--height", "--num-frames",
        "--adjust-frames", "--fps", "--num-inference-steps", "--guidance-scale", "--enable-prompt-rewrite", "--quality",
    }
)  # fmt: skip
"""Flags of `generate` that a server takes with each request instead."""

IF_KNOWN = ("--sleep-on-idle", "--enable-metrics")
"""An idle server of 0.5.23 polls a core full without the first; the second came with 0.5.21."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCommand:
    """A command, with what identifies its server: port, and a run id that no other server on this machine has.

    ``names_itself`` tells whether the id is the served model name (0.5.19 and later) or a folder of the model's path.
    """

    command: Command
    port: int
    run_id: str
    model_path: str
    names_itself: bool
    has_metrics: bool

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{HOST}:{self.port}"


def build(
    engine: Engine, workload: Workload, directory: Path, *, most_merged: int = 1, on_cpu: bool = False
) -> ServerCommand:
    """Return the command of a server for this workload that writes into ``directory``.

    A version without served names is given its model through a link whose folder carries the run id: `link` makes it.

    Raises:
        what `commands.arguments` raises.
    """
    run_id = f"run-{secrets.token_hex(6)}"
    names_itself = flags.knows(engine.version, "--served-model-name")
    model_path = workload.model_path
    if not names_itself:
        model_path = str(directory / MODEL / run_id / model_path.rstrip("/").rpartition("/")[2])
    served = replace(workload, model_path=model_path, warmup=True, warmup_at_start=True)
    port, master, scheduler = commands.free_ports(3)
    delay_ms = DELAY_S * 1e3
    argv = (
        *workload.wrapper,
        *engine.program,
        "serve",
        *_without_requests(commands.arguments(engine, served)),
        f"--master-port={master}",
        f"--scheduler-port={scheduler}",
        f"--host={HOST}",
        f"--port={port}",
        "--strict-ports=true",  # else a taken port moves the server, and somebody else answers on the one asked for
        "--log-requests",
        "--log-requests-level=1",
        "--log-requests-format=json",
        f"--log-requests-target={directory / REQUEST_LOG}",
        f"--output-path={directory / SAVED}",
        *([f"--served-model-name={run_id}"] if names_itself else []),
        *(flag for flag in IF_KNOWN if flags.knows(engine.version, flag)),
        *([f"--batching-max-size={most_merged}", f"--batching-delay-ms={delay_ms:g}"] if most_merged > 1 else []),
        *workload.sabotage,
    )
    added = {
        **commands.added_environment(engine, served),
        "SGLANG_DIFFUSION_STAGE_LOGGING": "1",
        STAGES_GO_TO: str(directory / STAGE_LOG),
        # threads that spin at barriers made a request ten times as slow beside other work, for the same pixels
        **({"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")} if on_cpu else {}),
    }
    return ServerCommand(
        command=commands.in_environment(argv, added, directory),
        port=port,
        run_id=run_id,
        model_path=model_path,
        names_itself=names_itself,
        has_metrics="--enable-metrics" in argv,
    )


def places(launch: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables of a recorded launch that only name a folder of it, which each start has for itself."""
    return {STAGES_GO_TO: launch["command"]["environment"][STAGES_GO_TO]}


def link(server: ServerCommand, workload: Workload) -> None:
    """Make the link that a version without served names reads its model through."""
    if not server.names_itself:
        path = server.command.directory / MODEL / server.run_id
        path.mkdir(parents=True)
        (path / server.model_path.rpartition("/")[2]).symlink_to(workload.model_path)


def _without_requests(arguments: Iterable[str]) -> list[str]:
    return [argument for argument in arguments if argument.partition("=")[0] not in OF_A_REQUEST]
