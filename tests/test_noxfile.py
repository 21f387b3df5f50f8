"""The sessions, as nox itself sees them."""

import json
import subprocess
import sys

from helpers import ROOT


def nox(*arguments, env=None):
    command = [sys.executable, "-m", "nox", "--noxfile", str(ROOT / "noxfile.py"), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=env)


def test_the_sessions_are_there_and_explained():
    wanted = {
        "engine(sglang-0.5.23)",
        "engine(sglang-0.5.17)",
        "bench",
        "accuracy",
        "profile",
        "tour",
        "tests_oracle",
        "tests",
        "tests_newest",
        "tests_engine",
        "lint",
        "types",
    }
    wanted |= {"schemas", "benchmark", "lock"}
    ended = nox("--list", "--json", "--sessions", *wanted)
    listed = {entry["session"]: entry for entry in json.loads(ended.stdout)}
    assert set(listed) == wanted
    assert all(entry["description"] for entry in listed.values())


def test_default_sessions_need_no_engine():
    ended = nox("--list", "--json")
    assert {entry["session"] for entry in json.loads(ended.stdout)} == {"lint", "types", "schemas", "tests"}


def test_an_unknown_session_is_an_error():
    assert nox("--session", "nothing").returncode != 0


def test_the_default_engine_is_a_configuration():
    from bench.engine.find import DEFAULT_CONFIGURATION

    assert f'    "{DEFAULT_CONFIGURATION}": Configuration(' in (ROOT / "noxfile.py").read_text()
