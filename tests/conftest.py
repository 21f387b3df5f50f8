"""What tests share: a clean environment, the real `invoke` entry point, and replay engines."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import hypothesis
import pytest
from helpers import LOGS, NATIVE, ROOT, Ended, invoke_command, invoke_in_process
from sweep_support import file, place  # noqa: F401 - fixtures

from bench import redact

SESSION_MODULES = {
    "multimodal_gen/runtime/entrypoints/cli/generate": "from multimodal_gen import *\n"
    "from multimodal_gen import _resolve_cli_sampling_params_cls\n",
    "multimodal_gen/runtime/server_args": "from multimodal_gen import ServerArgs\n",
    "multimodal_gen/configs/sample/sampling_params": "from multimodal_gen import generate_request_id\n",
}
"""What the session worker imports of an engine, from the replay package."""

CHANGES_RESULTS = ("SGLANG_", "CUDA_", "INVOKE_", "BENCH_", "HF_", "NOX_", "FORCE_COLOR", "NO_COLOR")


def write_session_modules(package):
    """Write into a package what a session takes from sglang; each of its folders is a package too."""
    for module, source in SESSION_MODULES.items():
        path = package / f"{module}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        for folder in {*path.parents} - {*package.parents}:
            (folder / "__init__.py").touch()


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a shell starts what it puts into the background so; the programs under test would inherit it and hear no Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)


# how long an example takes says how busy the machine is
hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("busy")


SLOWEST_FILES = ("test_sweep_slurm", "test_serving_ab", "test_sweep")
"""Of the tests without an engine: minutes each. They go first, or one worker is alone with them at the end."""


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in SLOWEST_FILES)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith(CHANGES_RESULTS):
            monkeypatch.delenv(name)
    monkeypatch.setattr(redact, "_learned", set())


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A place for runs, engine environments and the cache that is this test's own."""
    monkeypatch.setenv("BENCH_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("BENCH_ENVIRONMENTS", str(tmp_path / "environments"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def invoke(home):
    """Run a task in this process, from the repository's root."""
    return invoke_in_process


@pytest.fixture
def invoke_program(home):
    """Run a task as a person does, in an interpreter of its own: for what the start and the end of one show."""

    def run(*arguments, env=None, shell_before=None, stdin=subprocess.DEVNULL):
        command = invoke_command(*arguments)
        if shell_before:
            command = ["bash", "-c", f'{shell_before}; exec "$@"', "bash", *command]
        ended = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            stdin=stdin,
            timeout=600,
            check=False,
            env=os.environ | {"COLUMNS": "100"} | (env or {}),
        )
        assert "Traceback" not in ended.stderr, ended.stderr
        return Ended(code=ended.returncode, out=ended.stdout, err=ended.stderr)

    return run


@pytest.fixture
def replay(home):
    """Make a replay engine: an environment whose `sglang` emits what the scenario says."""

    def make(version="0.5.23", name="replay", **scenario):
        environment = home / "environments" / f"engine-{name}"
        site = environment / "site"
        (environment / "bin").mkdir(parents=True)
        for package, its_version in {"sglang": version, "torch": "2.11.0", "diffusers": "0.37.0"}.items():
            info = site / f"{package}-{its_version}.dist-info"
            info.mkdir(parents=True)
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {its_version}\n")
        write_session_modules(site / "sglang")
        for source in ("replay_engine.py", "replay_package/multimodal_gen.py"):
            shutil.copy(ROOT / "tests" / source, site)
        (site / "sglang" / "multimodal_gen" / "__init__.py").write_text("from multimodal_gen import DiffGenerator\n")
        python = environment / "bin" / "python"
        python.write_text(f'#!/bin/sh\nPYTHONPATH="${{PYTHONPATH:+$PYTHONPATH:}}{site}" exec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
        program = environment / "bin" / "sglang"
        program.write_text(f"#!{sys.executable}\n" + (ROOT / "tests" / "replay_engine.py").read_text())
        program.chmod(0o755)
        for key in ("log", "dump"):
            if key in scenario:
                scenario[key] = str(LOGS / scenario[key])
        (environment / "replay.json").write_text(json.dumps(scenario))
        (environment / "engine.json").write_text(json.dumps({"name": name}))
        return name

    return make


@pytest.fixture
def model(tmp_path):
    """A folder that looks like a pipeline in diffusers layout, for engines that do not load it."""

    def make(name="FLUX.1-dev-tiny"):
        folder = tmp_path / "models" / name
        (folder / "vae").mkdir(parents=True, exist_ok=True)
        (folder / "vae" / "config.json").write_text("{}")
        (folder / "model_index.json").write_text(
            json.dumps({"_class_name": "FluxPipeline", "vae": ["diffusers", "AutoencoderKL"]})
        )
        return folder

    return make


@pytest.fixture
def bench(invoke, invoke_program, replay, model):
    """Run `invoke bench` on a replay engine with this scenario (a native run, if none is given) and these changes."""

    def run(*arguments, engine="replay", scenario=NATIVE, env=None, shell_before=None, **changes):
        command = ["bench", "--model", "flux-tiny", "--engine", replay(name=engine, **scenario | changes)]
        command += ["--model-path", model(), *arguments]
        if shell_before:
            return invoke_program(*command, env=env, shell_before=shell_before)
        return invoke(*command, env=env)

    return run


@pytest.fixture
def tiny(home, model):
    """A file whose preset flux-tiny needs no checkpoint, for verbs that take no --model-path."""
    path = home / "tiny.toml"
    prompt = "A futuristic cyberpunk city at night, neon lights reflecting on wet streets"
    path.write_text(
        f'[flux-tiny]\ndescription = "replayed"\nmodel = "{model()}"\nmodality = "image"\nprompt = "{prompt}"\n'
        "seed = 42\nwidth = 256\nheight = 256\nsteps = 4\n"
    )
    return path


@pytest.fixture
def only_run(home):
    """Return the one run directory that was made."""

    def find():
        found = list((home / "runs").iterdir())
        assert len(found) == 1, found
        return found[0]

    return find
