"""One lock per GPU: two runs on one device would disturb each other's timings."""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from bench import paths
from bench.errors import PreflightFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


_TAKING = threading.Lock()
"""A lock of two threads is one lock, but not while one of them is taking it: the other would find it taken."""


@contextmanager
def hold(uuids: Sequence[str]) -> Iterator[None]:
    """Hold the locks of these GPUs; the kernel releases them however this process ends.

    Launches of one process share the locks: a comparison may keep two engines loaded side by side.

    Raises:
        PreflightFailed: another run of the workbench holds one of them.
    """
    from filelock import FileLock, Timeout  # noqa: PLC0415 - only a run on GPUs needs it

    folder = paths.cache() / "locks"
    with ExitStack() as stack:
        for uuid in sorted(uuids):
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{uuid}.lock"
            try:
                with _TAKING:
                    stack.enter_context(FileLock(path, timeout=0, is_singleton=True, thread_local=False))
            except Timeout as error:
                raise PreflightFailed(
                    f"GPU {uuid} is in use by another run of the workbench",
                    where=path,
                    todo="wait for that run, or choose another GPU with CUDA_VISIBLE_DEVICES",
                ) from error
        yield
