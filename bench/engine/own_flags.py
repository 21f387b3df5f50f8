"""The flags that an engine's own parser has, where the probed table does not speak for it: asked once, then cached.

Importing an engine takes 20 to 30 s, so the answer is kept in the user's cache by version, interpreter and code.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from bench import files, paths, schema
from bench.catalog import flags
from bench.engine import interpreter
from bench.errors import BenchError, EngineFailed, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from bench.engine.find import Engine

PROGRAM = "flags.py"


def may_differ(engine: Engine) -> bool:
    """Tell whether the engine may know other flags than the table says: an unprobed version, or a checkout."""
    return engine.source is not None or not flags.is_probed(engine.version)


def parser_flags(engine: Engine) -> frozenset[str] | None:
    """Return the flags of the engine's own parser; None if it cannot be asked (its launch will say why)."""
    file = _file(engine)
    try:
        return _flags(schema.read(file))
    except (BenchError, ValueError):
        pass  # not asked yet, or what was kept is broken
    try:
        found = _flags(json.loads(interpreter.run_program(engine, PROGRAM, []).splitlines()[-1]))
    except (EngineFailed, ValueError, IndexError):
        return None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(file, json.dumps(sorted(found)) + "\n", replace=True)
    except (OSError, UsageError):
        pass  # a cache that cannot be written costs time, no more
    return found


def _flags(known: object) -> frozenset[str]:
    """Return the flags in a list.

    Raises:
        ValueError: it is not one.
    """
    if not isinstance(known, list) or not all(isinstance(flag, str) for flag in known):
        raise ValueError("not a list of flags")
    return frozenset(known)


def _file(engine: Engine) -> Path:
    source = engine.source
    code = "" if source is None else f"{source.commit} {source.changes_sha256}"
    identity = f"{engine.version}\n{engine.python}\n{code}\n{json.dumps(dict(engine.packages), sort_keys=True)}"
    name = f"{engine.version}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.json"
    return paths.cache() / "flags" / name
