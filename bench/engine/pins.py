"""What a commit of SGLang requires, and the environment for one that requires something else than its configuration.

Such an environment is the configuration's, linked file by file, with the other requirements installed over it by uv:
it takes seconds and the room of what differs. It is kept beside the configurations until somebody removes it.
"""

from __future__ import annotations

import json
import os
import shutil
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement

from bench import paths, process
from bench.engine import find, source
from bench.errors import EngineFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PROJECT = "python/pyproject.toml"
EXTRA = "diffusion"
"""The extra of SGLang that noxfile.py installs, too."""
OWN = "sglang["
"""Prefix of a requirement that only names another SGLang extra."""
INSTALL_SECONDS = 3600
SHOWN_CHARACTERS = 300
LOCK = f"{find.PINNED}.lock"
"""Held, beside the configurations, by who builds such an environment."""


def required(checkout: Path, commit: str) -> frozenset[str]:
    """Return the requirements of a commit's diffusion engine as its project file has them; empty where it has no file.

    Raises:
        EngineFailed: the file cannot be read, or has a line that is not a requirement, which an installer could take
            for an option.
    """
    text = source.text_at(checkout, commit, PROJECT)
    try:
        project = tomllib.loads(text).get("project", {})
        found = [*project.get("dependencies", []), *project.get("optional-dependencies", {}).get(EXTRA, [])]
    except (tomllib.TOMLDecodeError, AttributeError, TypeError) as error:
        raise EngineFailed(f"{PROJECT} cannot be read: {error}") from error
    lines = frozenset(str(line).strip() for line in found if not str(line).startswith(OWN))
    for line in sorted(lines):
        try:
            Requirement(line)
        except InvalidRequirement as error:
            raise EngineFailed(f"{PROJECT} has a line that is not a requirement: {line[:SHOWN_CHARACTERS]}") from error
    return lines


def environment(configuration: str, requirements: Sequence[str], tell: Callable[[str], None]) -> str:
    """Return the name of a configuration's environment with these requirements over it, built unless it is there.

    ``tell`` hears that it is being built.

    Raises:
        UsageError: the configuration is not built.
        EngineFailed: uv cannot install them.
    """
    from filelock import FileLock  # noqa: PLC0415 - only a bisection of engines needs it

    base = find.environment(configuration)
    built_as = (base / find.MARKER).read_text(encoding="utf-8")
    digest = paths.sha256_of("\n".join([built_as, *sorted(requirements)]).encode())
    name = f"{configuration}{find.PINS}{digest[:12]}"
    place = find.pinned(name)
    with FileLock(paths.environments() / LOCK):
        if not (place / find.MARKER).is_file():
            tell(f"building an environment with {', '.join(sorted(requirements))} over {configuration}")
            _build(base, place, sorted(requirements))
    return name


def _build(base: Path, place: Path, requirements: Sequence[str]) -> None:
    """Make an environment out of another and what is to be installed over it.

    Raises:
        EngineFailed: uv cannot install it.
    """
    shutil.rmtree(place, ignore_errors=True)  # half of one: it was cut off
    _copy(base, place)
    python = str(place / "bin" / "python")
    ended = process.capture(
        ["uv", "pip", "install", "--python", python, "--prerelease=allow", "--", *requirements],
        timeout_s=INSTALL_SECONDS,
        work=place,
    )
    if ended.exit_code != 0:
        shutil.rmtree(place, ignore_errors=True)
        told = " ".join(ended.stderr.split()) or "uv said nothing"
        configuration = place.name.partition(find.PINS)[0]
        raise EngineFailed(f"its requirements cannot be installed over {configuration}: {told[:SHOWN_CHARACTERS]}")
    marker = {"name": place.name, "requirements": requirements}
    (place / find.MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")


def _copy(base: Path, place: Path) -> None:
    """Link the packages of an environment into another, as uv does with those of its cache; copy what names its place.

    An installer replaces files and writes none in place, so that the first environment stays as it is.
    """

    def link(one: str, other: str) -> str:
        try:
            os.link(one, other)
        except OSError:  # another file system, or too many links
            shutil.copy2(one, other)
        return other

    def left_out(folder: str, names: list[str]) -> set[str]:
        return {"bin", find.MARKER}.intersection(names) if Path(folder) == base else set()

    shutil.copytree(base, place, symlinks=True, copy_function=link, ignore=left_out)
    shutil.copytree(base / "bin", place / "bin", symlinks=True)
    names = os.fsencode(base.resolve()), os.fsencode(place.resolve())
    for program in (place / "bin").iterdir():
        if program.is_file() and not program.is_symlink():
            program.write_bytes(program.read_bytes().replace(*names))
