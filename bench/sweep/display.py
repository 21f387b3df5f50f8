"""What shows how far a batch or a matrix is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.process import Observer

Display = Callable[[str, str, int], AbstractContextManager["Observer"]]
"""Takes a run's name, its place among the others in words, and how many are left, this one included."""
