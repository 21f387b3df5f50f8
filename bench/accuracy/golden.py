"""The configuration that an output of an accuracy run belongs to: the key of its golden."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.fidelity import key as identity
from bench.models import checkpoint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.accuracy.plan import Plan


def key(planned: Plan, attention: Mapping[str, str]) -> dict[str, Any]:
    """Return the configuration of a run; ``attention`` is what the log says was dispatched, by component."""
    engine, options = planned.engine, planned.options
    made = checkpoint.manifest(planned.model)
    return {
        **identity.code(engine),
        "device": identity.device(planned.machine),
        "dtype": options.dtype,
        "attention_backend": identity.kernels(attention),
        "torch_compile": options.torch_compile,
        "quality": None,
        "sampling": dict(planned.sampling),
        "family_arguments": dict(planned.family.native_arguments),
        "checkpoint_sha256": made["sha256"] if made is not None else checkpoint.sha256(planned.model),
    }
