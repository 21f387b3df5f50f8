"""The workflow that a user copies: valid, and its steps do what docs/ci.md says when they are run as written."""

import os
import re
import subprocess
import sys

import pytest
from helpers import NATIVE, ROOT
from ruamel.yaml import YAML

WORKFLOW = ROOT / "docs" / "ci" / "gate.yml"
JOBS = YAML(typ="safe").load(WORKFLOW)["jobs"]


def step(job, name):
    return next(step for step in JOBS[job]["steps"] if step.get("name") == name)


def test_the_workflow_conforms_to_githubs_schema():
    words = ["--builtin-schema", "vendor.github-workflows", str(WORKFLOW)]
    subprocess.run([sys.executable, "-m", "check_jsonschema", *words], check=True)


@pytest.fixture(name="run")
def _run(home):
    """Run a step's script as GitHub does, in a checkout whose .venv is this one; return code, output and summary."""

    def run(script, **variables):
        checkout, summary = home / "checkout", home / "summary.md"
        (checkout / ".venv" / "bin").mkdir(parents=True, exist_ok=True)
        for name in ("tasks.py", "bench", "schemas", "pyproject.toml", "noxfile.py"):
            (checkout / name).symlink_to(ROOT / name)
        for name in ("invoke", "nox", "pip"):
            program = checkout / ".venv" / "bin" / name
            words = f'exec {sys.executable} -m invoke "$@"' if name == "invoke" else f'echo {name} "$@" >> calls.log'
            program.write_text(f"#!/bin/sh\n{words}\n")
            program.chmod(0o755)
        summary.touch()
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=checkout,
            env=os.environ | {"GITHUB_STEP_SUMMARY": str(summary)} | variables,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return done, summary.read_text()

    return run


@pytest.mark.parametrize(
    ("candidate", "code", "annotation"),
    [
        ({"factor": 1.25, "seed": 7}, 7, "::error title=Regression::error: slower"),
        ({"factor": 0.8, "seed": 7}, 0, "::notice title=Not slower::flux-tiny"),
        ({"fall_back_at": 1}, 4, "::error title=Not proven native::error: "),
    ],
    ids=["regression", "faster", "fallback"],
)
def test_the_gate_ends_and_says_as_documented(candidate, code, annotation, run, replay, tiny):
    replay(name="old", **NATIVE, within=0.005)
    replay(name="new", **NATIVE, within=0.005, **candidate)
    more = f"--repeats 2 --metric denoise --preset-file {tiny}"
    done, summary = run(step("gate", "Gate")["run"], MODEL="flux-tiny", BASELINE="old", CANDIDATE="new", OPTIONS=more)
    assert done.returncode == code, done.stdout + done.stderr
    assert annotation in done.stdout
    if code == 7:
        assert "flux-tiny" in summary.splitlines()[0]
        assert re.search("slower by at least|observed .* under disturbance", summary, re.IGNORECASE), summary
    if code == 4:
        assert "No comparison was finished (exit code 4)." in summary


def test_doubt_is_a_warning_and_passes(run, replay, tiny):
    for name, seed in (("old", 1), ("new", 7)):
        replay(name=name, **NATIVE, within=0.3, between=0.3, seed=seed)
    more = f"--repeats 1 --pairs 1 --metric denoise --preset-file {tiny}"
    done, summary = run(step("gate", "Gate")["run"], MODEL="flux-tiny", BASELINE="old", CANDIDATE="new", OPTIONS=more)
    assert done.returncode == 0, done.stderr
    assert "::warning title=Not decided::inconclusive: " in done.stdout
    assert "flux-tiny" in summary


@pytest.mark.parametrize(("job", "name"), [("smoke", "Smoke"), ("gate", "Install"), ("smoke", "Install")])
def test_the_other_steps_call_what_there_is(job, name, run, home):
    script = step(job, name)["run"].replace("python3 -m venv .venv", ":")
    done, _ = run(script, CONFIGURATION="sglang-0.5.23")
    assert done.returncode == 0, done.stderr
    calls = (home / "checkout" / "calls.log").read_text()
    assert ("nox -s bench -- --model flux-tiny" if name == "Smoke" else "nox -s engine(sglang-0.5.23)") in calls
