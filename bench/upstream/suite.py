"""SGLang's component-accuracy tests: run them, or list everything that this machine lacks for them.

They need a GPU, pytest and accelerate in the engine's environment (the `test` extra, not `diffusion`), and their models
in the hub's cache. Source: test/run_suite.py of 0.5.23, whose suite is component-accuracy-1-gpu. Their one metric is a
float32 cosine (gates 0.98 to 0.999), which passes every error of our negative controls.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bench import safe_text
from bench.engine import find, interpreter
from bench.errors import PreflightFailed
from bench.machine import gpus
from bench.models import hub

UPSTREAM_COMPONENT = "upstream-component"
SUITES = (UPSTREAM_COMPONENT,)
TESTS = Path("multimodal_gen", "test", "single_test_file", "component_accuracy", "test_component_accuracy_1_gpu.py")
NEEDED = ("pytest", "accelerate")


def run(suite: str, spec: str | None) -> None:
    """Run an upstream suite in the engine's environment and print its output.

    Raises:
        PreflightFailed: the message lists everything that this machine lacks.
        EngineFailed: the tests failed.
    """
    engine = find.find(spec)
    tests = interpreter.package(engine) / TESTS
    missing = [*_missing(engine, tests)]
    if missing:
        raise PreflightFailed(
            f"{suite} cannot run on this machine: {'; '.join(missing)}",
            where=engine.python,
            todo="use a machine that has them; the built-in accuracy checks need none of this",
        )
    sys.stdout.write(safe_text.shown(interpreter.run_module(engine, "pytest", ["-s", "-q", str(tests)])))


def _missing(engine: find.Engine, tests: Path) -> list[str]:
    """Return what this machine lacks for the suite, one sentence each."""
    missing = []
    if not tests.is_file():
        missing.append(f"sglang {engine.version} has no {TESTS.name}")
    if gpus.machine().kind != "cuda":
        missing.append("no GPU (its tests run on one CUDA device)")
    missing += [
        f"the engine's environment has no {name}" for name in NEEDED if not interpreter.has_module(engine, name)
    ]
    cache = hub.cache_folder(os.environ)
    if not any(cache.glob("models--*")):
        missing.append(f"no models in the hub's cache ({cache})")
    return missing
