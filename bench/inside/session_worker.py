"""Keep one engine loaded and serve requests: commands come in and events go out as JSON lines, each on its own pipe.

Run by an engine's interpreter, never imported, with the arguments of `sglang generate`:

    BENCH_COMMANDS_FD=5 BENCH_EVENTS_FD=6 ENGINE_PYTHON session_worker.py --model-path=... --prompt=... [FLAG ...]

The arguments go through the engine's own parser, so that a session runs what the same command line would run; only
where output and perf dump go is said with each request. Standard output and error stay the engine's log.

Commands: {"do": "generate", "request": N, "output_path": DIR, "output_file_name": NAME, "perf_dump_path": FILE,
           "sampling": {...}} and {"do": "stop"}.
Events:   {"event": "ready", "pid": N}, {"event": "finished", "request": N, "ok": BOOL, "wall_s": S},
          {"event": "failed", "request": N or null, "error": TEXT}, {"event": "stopped"}.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import IO, Any


def say(events: IO[str], **event: object) -> None:
    """Send one event at once."""
    sys.stdout.flush()
    events.write(json.dumps(event) + "\n")
    events.flush()


def load(argv: list[str]) -> tuple[Any, dict[str, Any]]:
    """Return a loaded generator and the sampling parameters that the arguments mean."""
    from sglang.multimodal_gen import DiffGenerator
    from sglang.multimodal_gen.runtime.entrypoints.cli import generate as command
    from sglang.multimodal_gen.runtime.server_args import ServerArgs

    parser = argparse.ArgumentParser(allow_abbrev=False)
    command.add_multimodal_gen_generate_args(parser)
    arguments, components = parser.parse_known_args(argv)
    server_args = ServerArgs.from_cli_args(arguments, components)
    # the class knows the defaults of this family, as the command line does
    family = command._resolve_cli_sampling_params_cls(server_args)  # noqa: SLF001
    generator = DiffGenerator.from_pretrained(
        model_path=server_args.model_path, server_args=server_args, local_mode=True
    )
    return generator, family.get_cli_args(arguments)


def serve(generator: Any, sampling: dict[str, Any], commands: IO[str], events: IO[str]) -> None:
    """Answer each command with one event until told to stop, or until nobody is there to tell."""
    from sglang.multimodal_gen.configs.sample.sampling_params import generate_request_id

    for line in commands:
        asked = json.loads(line)
        if asked["do"] == "stop":
            return
        where = {name: asked[name] for name in ("output_path", "output_file_name", "perf_dump_path")}
        parameters = {**sampling, **asked["sampling"], **where, "request_id": generate_request_id()}
        start = time.monotonic()
        try:
            result = generator.generate(sampling_params_kwargs=parameters)
        except Exception as error:  # noqa: BLE001 - whatever it is, the runner has to hear of it
            say(events, event="failed", request=asked["request"], error=f"{type(error).__name__}: {error}")
            continue
        wall_s = time.monotonic() - start
        say(events, event="finished", request=asked["request"], ok=result is not None, wall_s=wall_s)


def main() -> None:
    """Load, serve, shut down."""
    commands = os.fdopen(int(os.environ["BENCH_COMMANDS_FD"]), encoding="utf-8")
    events = os.fdopen(int(os.environ["BENCH_EVENTS_FD"]), "w", encoding="utf-8")
    try:
        generator, sampling = load(sys.argv[1:])
    except BaseException as error:
        say(events, event="failed", request=None, error=f"{type(error).__name__}: {error}")
        raise
    try:
        say(events, event="ready", pid=os.getpid())
        serve(generator, sampling, commands, events)
    finally:
        generator.shutdown()
    say(events, event="stopped")


if __name__ == "__main__":  # the engine spawns its workers, which import this file again
    main()
