"""What kind of work a kernel does, by its name: ``kernel_categories.toml``."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from bench import paths
from bench.catalog import entries


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
    found = entries.read(paths.CATALOG / "kernel_categories.toml", "category", "kernel-category")
    return tuple(KernelCategory(**(entry | {"pattern": re.compile(entry["pattern"])})) for entry in found)


def kernel_category(name: str) -> str:
    """Return the category id of a kernel name; ``other`` when no pattern knows it."""
    return next((category.id for category in kernel_categories() if category.pattern.search(name)), "other")
