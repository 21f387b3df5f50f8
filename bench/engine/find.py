"""Find an engine: a configuration's environment, a checkout over one, or the `sglang` on PATH; and describe it.

An engine is a program with its own interpreter. Nothing of it is ever imported here.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from bench import mistakes, paths, process, redact
from bench.engine import source, variables
from bench.errors import EngineFailed, UnknownName, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

MARKER = "engine.json"
"""Written by nox into an environment when it is complete: {"name": configuration, ...}."""

DEFAULT_CONFIGURATION: str = tomllib.loads((paths.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
    "workbench"
]["default-engine"]
"""The configuration that noxfile.py builds when none is named; it reads the same line."""

PINNED, PINS = "pinned", "+"
"""The folder of environments with other pins, and the separator in their names: configuration+hash of the pins."""

CONFIGURED = "sglang-"
"""How the configurations of noxfile.py are called."""

SOURCE_PREFIX = "source:"
ON_PATH = "path"
VARIABLE = "BENCH_ENGINE"
"""Names the engine where `--engine` does not."""
DESCRIBE_SECONDS = 60

RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "NODE_RANK")
"""Variables of torchrun and the like: a process that takes itself for rank 1 keeps its warnings to itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One installed sglang: its name here, interpreter, the start of its command line, and its versions."""

    name: str
    python: Path
    program: tuple[str, ...]
    version: str
    python_version: str
    packages: Mapping[str, str]
    source: source.Source | None = None
    install: Mapping[str, str | None] | None = None
    """What the installer wrote of an engine that did not come from an index: kind, url, commit, sha256."""
    code: tuple[Path, ...] = ()
    """The folders that its code is in: its package, and checkouts that it imports."""

    def for_record(self) -> dict[str, Any]:
        """Return the engine without any path: its name, versions, and the code it ran if that is a checkout."""
        return {
            "name": self.name,
            "version": self.version,
            "python": self.python_version,
            "packages": dict(self.packages),
            "source": None
            if self.source is None
            else {"commit": self.source.commit, "changes_sha256": self.source.changes_sha256},
        }


def built() -> dict[str, Path]:
    """Return the environments that nox has completed: configuration name -> environment folder."""
    found = {}
    for marker in sorted(paths.environments().glob(f"*/{MARKER}")):
        try:
            found[str(json.loads(marker.read_text(encoding="utf-8"))["name"])] = marker.parent
        except (OSError, ValueError, KeyError, TypeError):
            continue  # an environment that is being built, or somebody else's
    return found


def pinned(name: str) -> Path:
    """Return where the environment of a configuration with other pins is (`bench.engine.pins`), built or not.

    It has no place among the built ones: nobody chooses it by accident.
    """
    return paths.environments() / PINNED / name


def build_command(name: str) -> str:
    """Return the one command that builds the environment of a configuration."""
    return f'nox -s "engine({name})"'


def environment(name: str) -> Path:
    """Return the environment of a built configuration, or of one with other pins.

    Raises:
        UsageError: it is not built.
    """
    environments = built()
    if name in environments:
        return environments[name]
    if PINS in name and (pinned(name) / MARKER).is_file():
        return pinned(name)
    listed = ", ".join(environments) or "none"
    if PINS in name:
        builds = "`invoke bisect` builds it again when a commit requires it"
    elif name.startswith(CONFIGURED):
        builds = f"`{build_command(name)}` builds it if noxfile.py has that configuration (`nox -l`)"
    else:
        builds = f"an engine is also {ON_PATH} (the sglang on PATH) or {SOURCE_PREFIX}PATH (a checkout)"
    close = mistakes.closest(name, environments)
    meant = f"did you mean {close}? " if close else ""
    raise UnknownName("built engine", name, environments, todo=f"{meant}built: {listed}; {builds}")


def _configuration(name: str) -> tuple[str, Path]:
    """Return name and interpreter of a built configuration."""
    return name, environment(name) / "bin" / "python"


def _interpreter_of(program: Path) -> Path | None:
    """Return the interpreter that a console script names in its first line."""
    try:
        with program.open("rb") as file:
            first = file.readline(4096).decode(errors="replace").strip()
    except OSError:
        return None
    if first.startswith("#!"):
        words = first[2:].split()
        interpreter = shutil.which(words[1]) if Path(words[0]).name == "env" and len(words) > 1 else words[0]
        if interpreter and Path(interpreter).exists():
            return Path(interpreter)
    beside = program.with_name("python")
    return beside if beside.exists() else None


def _on_path() -> tuple[str, Path] | None:
    """Return the interpreter of the sglang that the user's shell would run, or None."""
    program = shutil.which("sglang")
    if program is not None and (interpreter := _interpreter_of(Path(program))) is not None:
        return ON_PATH, interpreter
    for name in ("python", "python3"):
        found = shutil.which(name)
        if found is None or Path(found).resolve() == Path(sys.executable).resolve():
            continue
        code = "import importlib.util as u, sys; sys.exit(u.find_spec('sglang') is None)"
        if process.capture([found, "-c", code], timeout_s=DESCRIBE_SECONDS).exit_code == 0:
            return ON_PATH, Path(found)
    return None


def _unnamed(*, only_on_path: bool = False) -> tuple[str, Path]:
    """Return the engine on PATH, else the one that is built; of several the default configuration.

    Raises:
        UsageError: nothing is built, or several engines are and the default is not among them.
    """
    if (there := _on_path()) is not None:
        return there
    environments = {} if only_on_path else built()
    name = next(iter(environments)) if len(environments) == 1 else DEFAULT_CONFIGURATION
    if name in environments:
        return _configuration(name)
    names, builds = list(built()), f"`{build_command(DEFAULT_CONFIGURATION)}` builds one (about 10 GB)"
    raise UsageError(
        "`sglang` is not on PATH" if only_on_path else "no engine was named, and `sglang` is not on PATH",
        todo=f"name {' or '.join(names)}, which {'is' if len(names) == 1 else 'are'} built" if names else builds,
        field="engine",
    )


def source_spec(checkout: Path | str, configuration: str | None) -> str:
    """Return what means a checkout over a configuration's dependencies, None: over the engine on PATH."""
    return f"{SOURCE_PREFIX}{checkout}" + ("" if configuration is None else f"@{configuration}")


def source_parts(spec: str) -> tuple[str, str | None]:
    """Return the checkout and the configuration of ``source:PATH@NAME``; a path may have an @, a name has no slash."""
    told = spec.removeprefix(SOURCE_PREFIX)
    folder, _, over = told.rpartition("@")
    return (folder, over or None) if folder and "/" not in over else (told, None)


def placed(spec: str) -> str:
    """Return what means the same engine in any working directory: the checkout's path is absolute."""
    if not spec.startswith(SOURCE_PREFIX):
        return spec
    folder, over = source_parts(spec)
    return source_spec(Path(folder).expanduser().absolute(), over)


def find(spec: str | None) -> Engine:
    """Return the engine that ``spec`` means, described.

    ``spec`` is a configuration's name, ``source:PATH`` (a checkout over the engine on PATH), ``source:PATH@NAME`` (over
    a configuration's dependencies), ``path`` (the one on PATH), or None: what ``BENCH_ENGINE`` says, else the engine on
    PATH, else the one that is built, of several the default configuration.

    Raises:
        UsageError: the engine does not exist; the message names the command that builds one.
        EngineFailed: its interpreter does not work or has no sglang.
        PreflightFailed: git cannot tell what is changed in its checkout.
    """
    spec = spec or os.environ.get(VARIABLE) or None
    if spec is not None and spec.startswith(SOURCE_PREFIX):
        folder, over = source_parts(spec)
        checkout = source.read(Path(folder).expanduser())
        _, python = _configuration(over) if over else _unnamed()
        engine = describe(f"{SOURCE_PREFIX}{checkout.commit[:12]}", python)
        package = checkout.python_path / "sglang"
        return replace(
            engine,
            version=checkout.release or engine.version,
            source=checkout,
            install=None,
            code=(package, *engine.code[1:]),
        )
    unnamed = spec is None or spec == ON_PATH
    name, python = _unnamed(only_on_path=spec is not None) if unnamed else _configuration(str(spec))
    return describe(name, python)


def unasked() -> Engine:
    """Return the engine of the default configuration as its name tells it, for a command that nothing will run."""
    version = DEFAULT_CONFIGURATION.partition("-")[2]
    return Engine(
        name=DEFAULT_CONFIGURATION,
        python=Path("python"),
        program=("sglang",),
        version=version,
        python_version="",
        packages={"sglang": version},
    )


def describe(name: str, python: Path) -> Engine:
    """Return the engine behind an interpreter.

    Raises:
        EngineFailed: it cannot be started, or has no sglang.
    """
    ended = process.capture(
        [str(python), "-B", str(paths.INSIDE / "describe.py")],
        env=interpreter_environment(),
        timeout_s=DESCRIBE_SECONDS,
    )
    if ended.exit_code != 0:
        last = ended.last_line("it printed nothing")
        raise EngineFailed(f"the engine's interpreter does not work: {last}", where=python)
    found = json.loads(ended.stdout)
    if "sglang" not in found["packages"]:
        raise EngineFailed("this interpreter has no sglang", where=python, todo="choose another engine", field="engine")
    program = python.with_name("sglang")
    linked = {package: _linked(url) for package, url in found["direct_urls"].items()}
    checkouts = [folder for package, folder in linked.items() if folder is not None and package != "sglang"]
    return Engine(
        name=name,
        python=python,
        program=(str(program),)
        if program.exists()
        else (str(python), "-c", "from sglang.cli.main import main; main()"),
        version=found["packages"]["sglang"],
        python_version=found["python"],
        packages=found["packages"],
        source=_checkout(linked.get("sglang")),
        install=_install(found["direct_urls"].get("sglang")),
        code=(*([] if found["folder"] is None else [Path(found["folder"])]), *checkouts),
    )


def _linked(direct_url: Mapping[str, Any]) -> Path | None:
    """Return the folder that an editable install runs from, None for any other."""
    if not direct_url.get("dir_info", {}).get("editable"):
        return None
    folder = Path(url2pathname(urlsplit(str(direct_url["url"])).path))
    return folder if folder.is_dir() else None


def _checkout(folder: Path | None) -> source.Source | None:
    """Return the checkout that an engine is installed from, None where it is not one of git."""
    try:
        return None if folder is None else source.read(folder)
    except UsageError:
        return None


def _install(direct_url: Mapping[str, Any] | None) -> dict[str, str | None] | None:
    """Return what PEP 610's file says of an install; a folder of this machine is not named."""
    if direct_url is None:
        return None
    vcs, archive = direct_url.get("vcs_info", {}), direct_url.get("archive_info", {})
    folder = direct_url.get("dir_info")
    of_folder = "editable" if folder and folder.get("editable") else "folder"
    digest = archive.get("hashes", {}).get("sha256") or str(archive.get("hash", "")).removeprefix("sha256=")
    return {
        "kind": of_folder if folder is not None else "vcs" if vcs else "archive",
        "url": redact.text(str(direct_url["url"])) if folder is None else None,
        "commit": vcs.get("commit_id"),
        "sha256": digest or None,
    }


def interpreter_environment() -> dict[str, str]:
    """Return this process's environment for an engine: what `variables` lets through, and nothing of our packages.

    PYTHONDONTWRITEBYTECODE goes too: without its compiled files an engine spends a minute more on its imports. So do
    the ranks of a launcher around the workbench.
    """
    ours = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE", "__PYVENV_LAUNCHER__", *RANKS}
    return {
        name: value for name, value in os.environ.items() if variables.reaches_the_engine(name) and name not in ours
    }
