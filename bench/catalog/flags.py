"""Which flags `sglang generate` knows, by version: ``flags.toml``, probed against each version's real parser."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.version import InvalidVersion, Version

from bench import paths

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The probed versions, oldest first, and the versions that know each flag."""

    versions: tuple[str, ...]
    by_flag: Mapping[str, frozenset[str]]


@functools.cache
def table() -> Table:
    """Return the probed table."""
    content = tomllib.loads((paths.CATALOG / "flags.toml").read_text(encoding="utf-8"))
    by_flag = {flag: frozenset(group["versions"]) for group in content["group"] for flag in group["flags"]}
    return Table(versions=tuple(content["versions"]), by_flag=by_flag)


def neighbours(version: str) -> tuple[str, ...]:
    """Return the probed versions that speak for ``version``: itself, else the nearest below and above; may be empty."""
    versions = table().versions
    if version in versions:
        return (version,)
    try:
        wanted = Version(version)
    except InvalidVersion:
        return versions[-1:]
    below = [known for known in versions if Version(known) <= wanted]
    above = [known for known in versions if Version(known) > wanted]
    return (*below[-1:], *above[:1])


def knows(version: str, flag: str) -> bool:
    """Tell whether ``version`` accepts ``flag``; for a version nobody probed: whether a neighbour does."""
    return bool(table().by_flag.get(flag, frozenset()) & set(neighbours(version)))


def is_probed(version: str) -> bool:
    """Tell whether the table has this very version."""
    return version in table().versions


def versions_of(flag: str) -> tuple[str, ...]:
    """Return the probed versions that know ``flag``, oldest first."""
    having = table().by_flag.get(flag, frozenset())
    return tuple(version for version in table().versions if version in having)
