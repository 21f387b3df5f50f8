"""Print the flags that the engine's own `sglang generate` parser has, as one JSON list; nothing is started.

Run by an engine's interpreter, never imported: ENGINE_PYTHON flags.py
"""

from __future__ import annotations

import argparse
import json
import sys

from sglang.multimodal_gen.runtime.entrypoints.cli.generate import add_multimodal_gen_generate_args


def main() -> None:
    """Print the list as the last line: importing an engine may print lines of its own."""
    sys.argv = ["sglang"]
    parser = argparse.ArgumentParser()
    add_multimodal_gen_generate_args(parser)
    print()
    print(json.dumps(sorted({flag for action in parser._actions for flag in action.option_strings})))  # noqa: SLF001 - it has no other list


if __name__ == "__main__":
    main()
