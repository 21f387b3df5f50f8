"""Component against component: the reference's inputs in the engine's own calls, for `accuracy_native.py`.

Imported by that program, which an engine's interpreter runs; it imports nothing of the workbench.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import accuracy_shared as shared
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np


class Substitute:
    """Gives each component's first call the reference's inputs, and keeps what comes out.

    ``perturb_call`` perturbs a transformer's call: it takes the named arguments and returns the names it changed.
    """

    def __init__(
        self,
        components: dict[str, Any],
        family: dict[str, Any],
        reference: Any,
        perturb_call: Callable[[dict[str, Any]], list[str]] | None = None,
    ) -> None:
        self.outputs: dict[str, np.ndarray] = {}
        self.faults: dict[str, str] = {}
        self.perturbed_calls: dict[str, list[str]] = {}
        self._perturb_call = perturb_call
        self._seen: set[str] = set()
        self._family = family
        self._reference = reference
        self._undo: list[Callable[[], object]] = []
        for name, module in shared.models(components).items():
            if name == "vae":
                self._vae(module)
                continue
            before = module.register_forward_pre_hook(
                lambda module, a, k, name=name: self._before(name, module, a, k), with_kwargs=True
            )
            after = module.register_forward_hook(lambda _module, _a, output, name=name: self._after(name, output))
            self._undo += [before.remove, after.remove]

    def stop(self) -> None:
        """Remove every hook."""
        for undo in self._undo:
            undo()

    def _inputs(self, name: str) -> dict[str, str]:
        if name.startswith("text_encoder"):
            return {"input_ids": "input_ids", "attention_mask": "attention_mask"}
        return self._family["transformer"]["inputs"]

    def _before(self, name: str, module: Any, arguments: Any, named: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if name in self._seen:
            return arguments, named
        positional = shared.positional(module)
        arguments, named = list(arguments), dict(named)
        for mine, theirs in self._inputs(name).items():
            place: Any = named
            where: Any = mine
            if mine not in named and mine in positional[: len(arguments)]:
                place, where = arguments, positional.index(mine)
            key = f"component/{name}/in/{theirs}"
            if key not in self._reference or (place is named and named.get(mine) is None) or place[where] is None:
                continue
            try:
                place[where] = self._like(place[where], self._reference[key], name, mine)
            except ValueError as error:
                self.faults[name] = str(error)
        if self._perturb_call is not None:
            self.perturbed_calls[name] = self._perturb_call(named)
        return tuple(arguments), named

    def _like(self, value: Any, new: np.ndarray, name: str, key: str) -> Any:
        """Return the reference's values in the shape, device and dtype of ``value``."""
        if isinstance(value, (list, tuple)):
            return type(value)([self._like(value[0], new, name, key), *value[1:]])
        tensor = torch.from_numpy(new)
        if key in self._family["transformer"]["padded"] and not name.startswith("text_encoder"):
            tensor = tensor.reshape(-1, tensor.shape[-1])
            missing = value.numel() // tensor.shape[-1] - tensor.shape[0]
            tensor = torch.cat([tensor, tensor[-1:].repeat(max(missing, 0), 1)])
        if tensor.numel() != value.numel():
            raise ValueError(f"input {key}: the reference has {list(new.shape)}, the engine's call {list(value.shape)}")
        tensor = tensor.reshape(value.shape).to(value.device, value.dtype)
        if not value.is_floating_point() and not torch.equal(tensor, value):
            self.faults[name] = f"input {key}: the engine and the reference tokenise the prompt differently"
        return tensor

    def _after(self, name: str, output: Any) -> None:
        if name in self._seen:
            return
        self._seen.add(name)
        if name.startswith("text_encoder"):
            for key in self._family["text_encoders"].get(name, {}):
                if (value := shared.pick(output, key)) is not None:
                    self.outputs[f"{name}/{key}"] = shared.array(value)
        elif (value := shared.first_tensor(output)) is not None:
            self.outputs[f"{name}/sample"] = self._family["transformer"]["sign"] * shared.array(value)

    def _vae(self, vae: Any) -> None:
        decode = vae.decode

        def wrapped(z: torch.Tensor, *arguments: Any, **named: Any) -> Any:
            first = "vae" not in self._seen
            if first:
                self._seen.add("vae")
                try:
                    z = self._like(z, self._reference["component/vae/in/z"], "vae", "z")
                except ValueError as error:
                    self.faults["vae"] = str(error)
            output = decode(z, *arguments, **named)
            if first:
                self.outputs["vae/decode"] = shared.array(shared.first_tensor(output))
                self._encode(vae, z)
            return output

        vae.decode = wrapped
        self._undo.append(lambda: setattr(vae, "decode", decode))

    def _encode(self, vae: Any, like: torch.Tensor) -> None:
        image = torch.from_numpy(self._reference["component/vae/in/image"]).to(like.device, like.dtype)
        try:
            output = vae.encode(image)
        except (AttributeError, NotImplementedError, TypeError) as error:
            self.faults["vae.encode"] = f"the engine's VAE cannot encode: {type(error).__name__}: {error}"
            return
        posterior = getattr(output, "latent_dist", output)
        if not isinstance(posterior, torch.Tensor) and hasattr(posterior, "mode"):
            posterior = posterior.mode()
        self.outputs["vae/encode"] = shared.array(shared.first_tensor(posterior))
