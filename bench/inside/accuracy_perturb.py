"""Negative controls: weights and calls that are perturbed in the loaded model, for `accuracy_native.py`.

A gate that passes these is blind. Imported by that program, which an engine's interpreter runs; it imports
nothing of the workbench.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import accuracy_shared as shared
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TEXT_ENCODER_TENSORS = ["fc2.weight", "down_proj.weight", "DenseReluDense.wo.weight", "SelfAttention.o.weight"]
VAE_TENSORS = ["decoder.conv_in.weight"]
VAE_ENCODER_TENSORS = ["encoder.conv_in.weight"]
NOISE_SEED = 20_251_122


@contextmanager
def perturbed(
    components: dict[str, Any], family: dict[str, Any], perturbation: dict[str, Any]
) -> Iterator[dict[str, list[str]]]:
    """Perturb one tensor of each component, two of the VAE's (decoder, encoder), within the block; yield their names.

    ``perturbation``: ``do`` (scale, zero, noise), ``by`` how much, and ``at``: the family's list of the
    transformer's tensors.
    """
    undo: list[Callable[[], object]] = []
    names: dict[str, list[str]] = {}
    try:
        for name, module in shared.models(components).items():
            if name == "vae":
                groups = [VAE_TENSORS, VAE_ENCODER_TENSORS]
            elif name.startswith("text_encoder"):
                groups = [TEXT_ENCODER_TENSORS]
            else:
                groups = [family["transformer"][perturbation["at"]]]
            for patterns in groups:
                done = _change_one(module, patterns, perturbation)
                if done is not None:
                    names.setdefault(name, []).append(done[0])
                    undo.append(done[1])
        yield names
    finally:
        for back in undo:
            back()


def _change_one(
    module: torch.nn.Module, patterns: list[str], perturbation: dict[str, Any]
) -> tuple[str, Callable[[], None]] | None:
    """Change the first matrix whose name contains one of ``patterns``; return its name and what undoes it."""
    named = [(name, value) for name, value in module.named_parameters() if value.ndim > 1]
    for pattern in patterns:
        for name, value in named:
            if pattern in name:
                kept = value.data.clone()
                _apply(value.data, perturbation["do"], perturbation["by"])
                return name, lambda value=value, kept=kept: value.data.copy_(kept)
    return None


def _apply(tensor: torch.Tensor, what: str, by: float) -> None:
    if what == "noise":
        # scaled to the tensor, and the same on every machine
        noise = torch.randn(tensor.shape, generator=torch.Generator("cpu").manual_seed(NOISE_SEED))
        tensor.add_(noise.to(tensor) * tensor.std() * by)
    else:
        tensor.mul_(0 if what == "zero" else by)


def perturb_call(family: dict[str, Any], what: str, by: float) -> Callable[[dict[str, Any]], list[str]]:
    """Return a function that perturbs a transformer call's named arguments: its time step or its rotary tables."""
    name = family["transformer"]["timestep" if what == "timestep" else "rotary"]

    def change(named: dict[str, Any]) -> list[str]:
        if named.get(name) is None:
            return []
        named[name] = named[name] + by if what == "timestep" else _rolled(named[name], int(by))
        return [name]

    return change


def _rolled(tables: Any, by: int) -> Any:
    """Return rotary tables, however nested, with each token's position shifted."""
    if isinstance(tables, torch.Tensor):
        return tables.roll(by, dims=0)
    return type(tables)([_rolled(table, by) for table in tables])
