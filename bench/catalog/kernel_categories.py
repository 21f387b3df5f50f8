"""What kind of work a kernel does, by its name: ``kernel_categories.toml``."""

from __future__ import annotations

import functools
import re
import tomllib
from dataclasses import dataclass

from bench import paths, schema


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelCategory:
    """One kind of GPU work; the fields are described in ``schemas/kernel-category.json``."""

    id: str
    title: str
    pattern: re.Pattern[str]


@functools.cache
def kernel_categories() -> tuple[KernelCategory, ...]:
    """Return the categories in the order in which their patterns are tried.

    Raises:
        InvalidDocument: an entry breaks ``schemas/kernel-category.json``.
    """
    path = paths.CATALOG / "kernel_categories.toml"
    found = []
    for entry in tomllib.loads(path.read_text(encoding="utf-8"))["category"]:
        schema.check(entry, "kernel-category", f"{path} [{entry.get('id')}]")
        found.append(KernelCategory(**(entry | {"pattern": re.compile(entry["pattern"])})))
    return tuple(found)


def kernel_category(name: str) -> str:
    """Return the category id of a kernel name; ``other`` when no pattern knows it."""
    return next((category.id for category in kernel_categories() if category.pattern.search(name)), "other")
