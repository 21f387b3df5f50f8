"""SGLang's own component-accuracy tests: run where they can run, and elsewhere exactly what is missing.

They want a GPU, pytest and accelerate in the engine's environment (the `test` extra, not `diffusion`), and their models
in the hub's cache. Source: test/run_suite.py of 0.5.23, whose suite is component-accuracy-1-gpu. Their one metric is a
float32 cosine (gates 0.98 to 0.999), which lets every error of our negative controls through.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bench.engine import find, interpreter
from bench.errors import PreflightFailed
from bench.machine import devices

UPSTREAM_COMPONENT = "upstream-component"
SUITES = (UPSTREAM_COMPONENT,)
TESTS = Path("multimodal_gen", "test", "single_test_file", "component_accuracy", "test_component_accuracy_1_gpu.py")
NEEDED = ("pytest", "accelerate")


def run(suite: str, spec: str | None) -> None:
    """Run an upstream suite in the engine's environment and print its output.

    Raises:
        PreflightFailed: this machine lacks something for it; the message names everything that is missing.
        EngineFailed: the tests failed.
    """
    engine = find.find(spec)
    tests = interpreter.package(engine) / TESTS
    missing = [*_missing(engine, tests)]
    if missing:
        raise PreflightFailed(
            f"{suite} cannot run here: {'; '.join(missing)}",
            where=engine.python,
            todo="use a machine that has them; `invoke accuracy` without --suite needs none of this",
        )
    sys.stdout.write(interpreter.run_module(engine, "pytest", ["-s", "-q", str(tests)]))


def _missing(engine: find.Engine, tests: Path) -> list[str]:
    """Return everything that the suite needs and this machine does not have, one sentence each."""
    found = []
    if not tests.is_file():
        found.append(f"sglang {engine.version} has no {TESTS.name}")
    if devices.machine().kind != "cuda":
        found.append("no GPU (its tests run on one CUDA device)")
    found += [f"the engine's environment has no {name}" for name in NEEDED if not interpreter.has_module(engine, name)]
    hub = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface") / "hub"
    if not any(hub.glob("models--*")):
        found.append(f"no models in the hub's cache ({hub})")
    return found
