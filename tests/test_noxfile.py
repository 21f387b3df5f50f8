"""The sessions, as nox itself sees them."""

import json
import subprocess
import sys

import pytest
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
        "tests_load_oracle",
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


@pytest.mark.parametrize("code", [10, 130, 0])
def test_a_session_ends_with_the_exit_code_of_its_task(tmp_path, code):
    (tmp_path / "noxfile.py").write_text(
        f"import sys\nimport nox\nsys.path.insert(0, {str(ROOT)!r})\nsys.modules.pop('noxfile', None)\n"
        "import noxfile as workbench\nnox.options.error_on_external_run = False\n"
        "@nox.session(venv_backend='none')\ndef ending(session):\n"
        f"    workbench.run(session, sys.executable, '-c', 'raise SystemExit({code})')\n"
    )
    command = [sys.executable, "-m", "nox", "--noxfile", str(tmp_path / "noxfile.py"), "--session", "ending"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == code, ended.stderr


def test_the_default_engine_is_a_configuration():
    from bench.engine.find import DEFAULT_CONFIGURATION

    assert f'    "{DEFAULT_CONFIGURATION}": Configuration(' in (ROOT / "noxfile.py").read_text()
