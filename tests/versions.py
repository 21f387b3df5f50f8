"""What the catalogue says of versions that no configuration builds, held against their sources from the index.

Not collected by default: `nox -s signals_versions`. Each wheel is downloaded without its dependencies, and all but its
libraries is unpacked. A parser runs in the interpreter of the first built engine that can import the wheel's code.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from bench import paths
from bench.catalog import flags, qualities, signals
from bench.engine import find
from bench.upstream import emitters

if TYPE_CHECKING:
    from pathlib import Path

VERSIONS = ("0.5.18", "0.5.19", "0.5.20", "0.5.21", "0.5.22")


@pytest.fixture(scope="session", params=VERSIONS)
def wheel(request, tmp_path_factory) -> tuple[str, Path]:
    """A version and the folder of its unpacked wheel."""
    folder = tmp_path_factory.mktemp(request.param)
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--no-cache-dir",
        "--python-version=3.11",
    ]
    subprocess.run([*command, "--only-binary=:all:", f"sglang=={request.param}", f"--dest={folder}"], check=True)
    (archive,) = folder.glob("*.whl")
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder, [name for name in packed.namelist() if not name.endswith(".so")])
    archive.unlink()
    return request.param, folder


def test_every_signal_has_its_emitter_and_every_message_its_triage(wheel):
    version, folder = wheel
    checked = emitters.check(folder / "sglang", signals.signals(), version=version)
    assert ([signal.id for signal in checked.gone], checked.unheard) == ([], ())


def test_the_qualities_are_those_of_the_source(wheel):
    version, folder = wheel
    source = (folder / "sglang/multimodal_gen/configs/sample/sampling_params.py").read_text(encoding="utf-8")
    assigned = {
        node.target.id: ast.literal_eval(node.value)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and node.target.id in {"QUALITY_LEVELS", "QUALITY_ALIASES", "quality"}
    }
    names = {*assigned["QUALITY_LEVELS"], *assigned.get("QUALITY_ALIASES", ())}
    assert {name for name in ("exact", "lossless", "extra-high", "high") if qualities.meaning(version, name)} == names
    assert qualities.meaning(version, None) == qualities.meaning(version, assigned["quality"])


def test_the_flags_are_those_of_the_parser(wheel):
    version, folder = wheel
    for environment in find.built().values():
        ended = subprocess.run(
            [str(environment / "bin" / "python"), str(paths.INSIDE / "flags.py")],
            env=os.environ | {"PYTHONPATH": str(folder)},
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode == 0:
            break
    else:
        pytest.skip("no engine is built whose dependencies fit this version")
    own = {flag for flag in json.loads(ended.stdout.splitlines()[-1]) if flag.startswith("--")}
    assert own == {flag for flag in flags.table().by_flag if flags.knows(version, flag)}
