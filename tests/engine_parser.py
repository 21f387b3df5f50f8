"""Hand argument lists to the engine's own `sglang generate` parser, imported once; nothing is started.

Run by an engine's interpreter, never imported:

    ENGINE_PYTHON engine_parser.py LISTS.json ANSWER.json

LISTS is {name: [argument, ...]}; ANSWER is {name: null, or what the parser had against the list}.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
from pathlib import Path

from sglang.multimodal_gen.runtime.entrypoints.cli.generate import add_multimodal_gen_generate_args


def fault(arguments: list[str]) -> str | None:
    """Return what the parser has against a list, None if it takes every word of it."""
    sys.argv = ["sglang", *arguments]  # the engine looks there for the model, and adds that model's own flags
    parser = argparse.ArgumentParser()
    add_multimodal_gen_generate_args(parser)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            _, unknown = parser.parse_known_args(arguments)
    except SystemExit:
        return (said.getvalue().strip().splitlines() or ["it ended"])[-1]
    except ValueError as error:  # its boolean flags raise for any other word
        return str(error)
    if unknown:
        return f"not known: {' '.join(unknown)}"
    exact = {flag for action in parser._actions for flag in action.option_strings}
    short = [word for word in arguments if word.startswith("--") and word.partition("=")[0] not in exact]
    return f"only as an abbreviation: {' '.join(short)}" if short else None


def main() -> None:
    """Answer for all lists."""
    lists, answer = map(Path, sys.argv[1:3])
    asked = json.loads(lists.read_text(encoding="utf-8"))
    answer.write_text(json.dumps({name: fault(arguments) for name, arguments in asked.items()}), encoding="utf-8")


if __name__ == "__main__":
    main()
