"""The command of one launch: arguments, environment, ports and files, put together and shown; pure but for ports."""

from __future__ import annotations

import json
import os
import shlex
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import mistakes, paths, redact
from bench.catalog import flags
from bench.engine import find, interpreter, own_flags, registry, spelling
from bench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.engine.find import Engine
    from bench.engine.workload import Workload

PERF_DUMP = "perf.json"
REQUEST = "request.json"
"""Parameters in the model's own request format, for a preset that has any."""
OUTPUTS = "outputs"
SUFFIXES = {"image": ".png", "edit": ".png", "video": ".mp4", "audio-video": ".mp4", "3d": ".glb"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One launch: arguments, whole environment, what the workbench set of it, and files (name: text) that it reads."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    added: Mapping[str, str]
    directory: Path
    files: Mapping[str, str] = field(default_factory=dict)


def in_environment(
    argv: tuple[str, ...], added: Mapping[str, str], directory: Path, files: Mapping[str, str] | None = None
) -> Command:
    """Return the command that runs in the user's environment with what is ``added`` to it."""
    environment = {**find.interpreter_environment(), **added}
    return Command(argv=argv, environment=environment, added=added, directory=directory, files=files or {})


def free_ports(count: int) -> list[int]:
    """Return that many TCP ports that are free on this machine now, all different."""
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
    try:
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in sockets]
    finally:
        for listener in sockets:
            listener.close()


TRACED = "BENCH_REACH"
"""The tracer's variable: a launch that has it was traced, and its record says so."""
TRACER = paths.INSIDE / "tracer"

TRUE_WORDS = ("1", "true", "yes", "y", "on", "t")
"""What the engine reads as true in a variable of its own."""

SYNC_STAGES = "SGLANG_DIFFUSION_SYNC_STAGE_PROFILING"


def synchronises_stages(workload: Workload) -> bool:
    """Tell whether each stage waits for its device: asked for, or by a variable of the preset or the user."""
    return _instruments(workload)[SYNC_STAGES].lower() in TRUE_WORDS


def _instruments(workload: Workload) -> dict[str, str]:
    """Return the variables that the preset and the user set, and what else decides whether stages synchronise."""
    asked = {SYNC_STAGES: "1"} if workload.stage_sync else {}
    # off unless asked for: work is then charged to a later stage, and a request takes as long as a user's
    default = os.environ.get(SYNC_STAGES, "0")
    return {SYNC_STAGES: default, **workload.preset.environment, **workload.environment, **asked}


def added_environment(engine: Engine, workload: Workload) -> dict[str, str]:
    """Return the variables that are set for a launch, each for its reason."""
    added = {
        **interpreter.engine_variables(engine),
        # else the dump's commit is that of any git repository around the engine: for an environment in .nox, ours
        "SGLANG_GIT_COMMIT": engine.source.commit if engine.source else f"v{engine.version}",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # the numbering of nvidia-smi and NVML
        "PYTHONUNBUFFERED": "1",  # a line that waits in a buffer cannot stop a run
        **_instruments(workload),
    }
    if Path(workload.model_path).is_absolute():
        added["HF_HUB_OFFLINE"] = "1"  # the model is here: nothing may come from, or wait for, the hub
    if workload.tracer is not None:
        added[TRACED] = str(workload.tracer)
        # a function under @torch.compile runs no lines; the engine has some whatever --enable-torch-compile says
        added["TORCHDYNAMO_DISABLE"] = "1"
        added["PYTHONPATH"] = os.pathsep.join(filter(None, (str(TRACER), added.get("PYTHONPATH"))))
    return added


def build_session(
    engine: Engine, workload: Workload, directory: Path, *, resolved: Sequence[str] | None = None
) -> Command:
    """Return the command for one session: the worker with the same arguments, without those of a single request.

    ``resolved`` are what `arguments` returned for this workload, if it was asked already.

    Raises:
        what `arguments` raises.
    """
    if workload.preset.config:
        raise UsageError(
            "this preset's request has a file of its own, which a session cannot send",
            where=f"preset {workload.preset.key}",
            todo="run it with one request: leave --repeats, --launches and --precision out",
        )
    master, scheduler = free_ports(2)
    argv = (
        *workload.wrapper,
        str(engine.python),
        str(paths.INSIDE / "session_worker.py"),
        *(arguments(engine, workload) if resolved is None else resolved),
        f"--master-port={master}",
        f"--scheduler-port={scheduler}",
        "--save-output",
        *workload.sabotage,
    )
    return in_environment(argv, added_environment(engine, workload), directory)


def launch_environment(engine: Engine, workload: Workload) -> dict[str, str]:
    """Return the whole environment of a launch: the user's, and what is set for it."""
    return find.interpreter_environment() | added_environment(engine, workload)


def arguments(engine: Engine, workload: Workload) -> list[str]:
    """Return the arguments for a workload, those of the user last; ports and output files are not among them.

    Raises:
        UsageError: the engine does not know a flag or an attention backend, or the user's arguments touch what is
            pinned.
    """
    spelling.refuse_pinned(workload)
    if workload.backend == "sglang":  # diffusers pipelines know other names
        _refuse_unknown_attention(engine, workload.attention_backend)
    own = None if flags.is_probed(engine.version) else own_flags.parser_flags(engine)
    try:
        return _spelled(workload, engine.version, own)
    except UsageError:
        # a checkout may have a flag that its release has not; asking it takes half a minute, so only a refusal asks
        if own is not None or not own_flags.may_differ(engine) or (asked := own_flags.parser_flags(engine)) is None:
            raise
        return _spelled(workload, engine.version, asked)


def _refuse_unknown_attention(engine: Engine, asked: str | None) -> None:
    """Raise UsageError if the engine's code lists its attention backends and this is not one of them.

    A checkout or a version that nobody probed may have other names for them: it decides itself.
    """
    if asked is None or not engine.code or own_flags.may_differ(engine):
        return
    known = registry.attention_backends(engine.code[0])
    if known and asked.lower() not in known and asked not in registry.OTHER_NAMES:
        names = known | registry.OTHER_NAMES
        close = mistakes.closest(asked.lower(), names)
        raise UsageError(
            f"sglang {engine.version} has no attention backend {asked!r}",
            todo=f"did you mean {close}?" if close else f"it has {', '.join(sorted(names))}",
        )


def _spelled(workload: Workload, version: str, own: frozenset[str] | None) -> list[str]:
    spelling.refuse_unknown(workload.extra, version, "the arguments after --", own)
    return [*spelling.spell(workload, version, own), *workload.extra]


def build(engine: Engine, workload: Workload, directory: Path, *, resolved: Sequence[str] | None = None) -> Command:
    """Return the command for one `sglang generate` launch that writes into ``directory``.

    ``resolved`` are what `arguments` returned for this workload, if it was asked already.

    Raises:
        what `arguments` raises.
    """
    master, scheduler = free_ports(2)
    config = workload.preset.config
    files = {REQUEST: json.dumps(dict(config), indent=2, sort_keys=True, ensure_ascii=False) + "\n"} if config else {}
    argv = (
        *engine.program,
        "generate",
        *(arguments(engine, workload) if resolved is None else resolved),
        f"--master-port={master}",
        f"--scheduler-port={scheduler}",
        "--save-output",
        f"--output-path={directory / OUTPUTS}",
        f"--output-file-name=output{SUFFIXES[workload.preset.modality]}",
        f"--perf-dump-path={directory / PERF_DUMP}",
        *([f"--config={directory / REQUEST}"] if config else []),
        *workload.sabotage,
    )
    return in_environment(argv, added_environment(engine, workload), directory, files)


def build_program(
    engine: Engine, name: str, arguments: Sequence[str], directory: Path, preset_environment: Mapping[str, str]
) -> Command:
    """Return the command that runs one of ``bench/inside/``, with the engine in it, in ``directory``."""
    added = {
        **interpreter.engine_variables(engine),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # the numbering of nvidia-smi and NVML
        "PYTHONUNBUFFERED": "1",  # a line that waits in a buffer cannot stop a run
        "HF_HUB_OFFLINE": "1",  # both sides load from the one folder, never from the hub
        **preset_environment,
    }
    return in_environment((str(engine.python), str(paths.INSIDE / name), *arguments), added, directory)


def shown_variables(chosen: Mapping[str, str]) -> list[str]:
    """Return variables as NAME=VALUE; secrets only as such."""
    return [f"{name}={redact.value(name, value)}" for name, value in chosen.items()]


def shown(command: Command) -> str:
    """Return the command as a person would type it in a POSIX shell."""
    argv = redact.arguments(command.argv)
    variables = [f"{name}={shlex.quote(value)}" for name, value in redact.variables(command.added).items()]
    words = " \\\n  ".join([*variables, shlex.join(argv[:2]), *map(shlex.quote, argv[2:])])
    # a file that the command reads comes first, so that the whole can be pasted as it is
    files = [f"cat > {shlex.quote(str(command.directory / n))} <<'END'\n{t}END\n" for n, t in command.files.items()]
    return "".join([*files, words])


def described(command: Command) -> dict[str, Any]:
    """Return the command as a program reads it: arguments, the variables set here, and the files that it reads."""
    return {
        "argv": redact.arguments(command.argv),
        "environment": redact.variables(command.added),
        "files": {str(command.directory / name): content for name, content in command.files.items()},
    }


def write_files(command: Command) -> None:
    """Write the files that the launch reads into its directory."""
    for name, text in command.files.items():
        (command.directory / name).write_text(text, encoding="utf-8")
