"""What the reference and the native program of `invoke accuracy` share: the request, tensors to arrays, and capturing.

Imported by its two neighbours, which an engine's interpreter runs; it imports nothing of the workbench.
"""

from __future__ import annotations

import inspect
import json
import os
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Refused(Exception):
    """Something that this machine or these libraries cannot do, in one sentence."""


def run(work: Callable[[dict[str, Any], Path], dict[str, Any]], request_path: str, out: str) -> None:
    """Do the work of a program and write ``manifest.json``: what was done, or the error that ended it.

    The manifest comes last, so that an absent one means that the program died; ``error.txt`` has an error's traceback.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # both sides load from the one folder, never from the hub
    request = json.loads(Path(request_path).read_text(encoding="utf-8"))
    folder = Path(out)
    try:
        manifest = work(request, folder)
    except Refused as error:
        manifest = {"error": {"kind": "refused", "text": str(error)}}
    except Exception as error:  # noqa: BLE001 - whatever the libraries raise is the report's business
        traceback.print_exc()
        (folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
        manifest = {"error": {"kind": type(error).__name__, "text": str(error)[:2000]}}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def dtype(request: Mapping[str, Any]) -> torch.dtype:
    """Return the precision that was asked for, if this device has it.

    Raises:
        Refused: it does not.
    """
    wanted = DTYPES[request["dtype"]]
    if wanted is torch.bfloat16 and torch.cuda.is_available() and not torch.cuda.is_bf16_supported():
        raise Refused(f"{torch.cuda.get_device_name()} has no bfloat16")
    return wanted


def class_name(value: object) -> str:
    """Return module and class of an object: whose implementation it is."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def models(components: Mapping[str, Any]) -> dict[str, torch.nn.Module]:
    """Return the components that compute (tokenizers and schedulers do not)."""
    return {name: value for name, value in components.items() if isinstance(value, torch.nn.Module)}


def array(value: torch.Tensor) -> np.ndarray:
    """Return a tensor on the host: floats as float32 (exact for every narrower type), the rest as it is."""
    value = value.detach().cpu()
    return value.float().numpy() if value.is_floating_point() else value.numpy()


def first_tensor(value: Any) -> torch.Tensor | None:
    """Return the first tensor in a nested output."""
    if isinstance(value, torch.Tensor):
        return value
    if hasattr(value, "sample"):
        return first_tensor(value.sample)
    if isinstance(value, (list, tuple)) and value:
        return first_tensor(value[0])
    return None


def pick(output: Any, name: str) -> torch.Tensor | None:
    """Return a text encoder's output by name (``hidden_states.-2``: an element of a tuple), None if it is not there."""
    field, _, index = name.partition(".")
    value = getattr(output, field, None)
    if index and value is not None:
        return value[int(index)] if -len(value) <= int(index) < len(value) else None
    return value


def positional(module: torch.nn.Module) -> list[str]:
    """Return the names of the arguments that ``forward`` takes by position, in their order."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [name for name, value in inspect.signature(module.forward).parameters.items() if value.kind in kinds]


def bound(module: torch.nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
    """Return a call's arguments by the names that ``forward`` gives them."""
    return dict(zip(positional(module), arguments, strict=False)) | named
