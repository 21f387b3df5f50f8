"""A run with a model cache of its own, which goes again after it, also after a failure or SIGTERM."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from bench.models import model_cache

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.run.plan import Plan


@contextmanager
def model_cache_of(planned: Plan) -> Iterator[Plan]:
    """Yield the plan as it is, or one whose downloads go into a fresh cache that is removed or kept at the end.

    Raises:
        UsageError: the cache cannot be made there, or what stands there at the end is not what was made.
    """
    options = planned.options
    if options.model_cache_root is None:
        yield planned
        return
    seeds = [options.seed_model_cache_root] if options.seed_model_cache_root else []
    cache = model_cache.prepare(options.model_cache_root, planned.preset.key, seeds)
    try:
        variables = model_cache.environment(cache, os.environ)
        yield planned.changed(replace(planned.workload, environment=variables))
    finally:
        if options.cleanup_model_cache:
            model_cache.remove(cache)
        else:
            model_cache.keep(cache)
