"""Run a diffusers pipeline and keep what `invoke accuracy` compares the engine with.

That is the latents after each step, and each component's inputs and outputs in its first call. Run by an engine's
interpreter, never imported: ENGINE_PYTHON accuracy_reference.py REQUEST.json OUT_FOLDER

Writes ``reference.npz`` and ``manifest.json`` into the folder. sglang is never imported here.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import accuracy_shared as shared
import numpy as np
import torch

if TYPE_CHECKING:
    from pathlib import Path

IMAGE_SIDE = 64
INPUT_SEED = 20_251_122


def load(request: dict[str, Any]) -> Any:
    """Return the diffusers pipeline of the checkpoint, in the precision that was asked for.

    Raises:
        Refused: diffusers or transformers has no class of that name, or cannot load its files.
    """
    import diffusers

    precision = shared.dtype(request)
    allow_roberta_keywords()
    try:
        pipeline = diffusers.DiffusionPipeline.from_pretrained(
            request["model"], torch_dtype=precision, local_files_only=True
        )
    except (AttributeError, ImportError, OSError, ValueError) as error:
        raise shared.Refused(
            f"diffusers {diffusers.__version__} cannot load the reference: {type(error).__name__}: {error}"
        ) from error
    torch.backends.cudnn.allow_tf32 = False
    pipeline.set_progress_bar_config(disable=True)
    # some text encoders keep modules in fp32 of their own accord, and a checkpoint may hold another type
    for module in shared.models(pipeline.components).values():
        module.to(precision)
    return pipeline.to("cuda" if torch.cuda.is_available() else "cpu")


def allow_roberta_keywords() -> None:
    """Let transformers 5.12 make CLIP's tokenizer with tokenizers 0.23, whose RobertaProcessing takes no keywords.

    The engine does the same for itself; which tokens come out is compared.
    """
    from tokenizers import processors

    original = processors.RobertaProcessing

    def positional(*arguments: Any, **named: Any) -> Any:
        if {"sep", "cls"} <= named.keys():
            arguments = (named.pop("sep"), named.pop("cls"), *arguments)
        return original(*arguments, **named)

    processors.RobertaProcessing = positional


class Capture:
    """Keeps arguments and outputs of each component's first call."""

    def __init__(self, pipeline: Any, row: int) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self.calls: dict[str, dict[str, list[str]]] = {}
        self._row = row
        self._listed = False
        for name, module in shared.models(pipeline.components).items():
            if name == "vae":
                self._wrap_decode(module)
            else:
                module.register_forward_hook(
                    lambda module, a, k, output, name=name: self._keep(name, module, a, k, output), with_kwargs=True
                )

    def _one(self, value: Any, name: str) -> torch.Tensor | None:
        """Return the one request's part of a value that guidance may have doubled."""
        if isinstance(value, (list, tuple)) and value:
            return self._one(value[self._row if len(value) > 1 else 0], name)
        if not isinstance(value, torch.Tensor):
            return None
        doubled = name == "transformer" and value.ndim > 1 and value.shape[0] > 1 and not self._listed
        return value[self._row : self._row + 1] if doubled else value

    def _keep(self, name: str, module: Any, arguments: Any, named: Any, output: Any) -> None:
        if name in self.calls:
            return
        call = shared.bound(module, arguments, named)
        self._listed = any(isinstance(value, (list, tuple)) for value in call.values())
        self.calls[name] = {"inputs": [], "outputs": []}
        for key, value in call.items():
            if (tensor := self._one(value, name)) is not None:
                self.arrays[f"{name}/in/{key}"] = shared.array(tensor)
                self.calls[name]["inputs"].append(key)
        if name.startswith("text_encoder"):
            for key, value in output.items():
                if isinstance(value, torch.Tensor):
                    self._output(name, key, value)
                elif isinstance(value, tuple):
                    for index, state in enumerate(value):
                        # both ways of counting, so that a family may name a layer from either end
                        self._output(name, f"{key}.{index}", state)
                        self._output(name, f"{key}.{index - len(value)}", state)
        elif (tensor := self._one(output, name)) is not None:
            self._output(name, "sample", tensor)

    def _output(self, name: str, key: str, value: torch.Tensor) -> None:
        self.arrays[f"{name}/out/{key}"] = shared.array(value)
        self.calls[name]["outputs"].append(key)

    def _wrap_decode(self, vae: Any) -> None:
        decode = vae.decode

        def wrapped(z: torch.Tensor, *arguments: Any, **named: Any) -> Any:
            output = decode(z, *arguments, **named)
            if "vae" not in self.calls:
                self.calls["vae"] = {"inputs": ["z"], "outputs": []}
                self.arrays["vae/in/z"] = shared.array(z)
                self._output("vae", "decode", shared.first_tensor(output))
            return output

        vae.decode = wrapped


def encode(pipeline: Any, capture: Capture) -> None:
    """Encode a synthetic image: text-to-image pipelines never call the VAE's encoder."""
    vae = pipeline.components["vae"]
    generator = torch.Generator("cpu").manual_seed(INPUT_SEED)
    image = torch.rand((1, 3, IMAGE_SIDE, IMAGE_SIDE), generator=generator) * 2 - 1
    with torch.no_grad():
        output = vae.encode(image.to(vae.device, vae.dtype))
    capture.arrays["vae/in/image"] = shared.array(image)
    capture.arrays["vae/out/encode"] = shared.array(output.latent_dist.mode())
    capture.calls["vae"]["inputs"].append("image")
    capture.calls["vae"]["outputs"].append("encode")


def work(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Generate once and write everything; return the manifest."""
    family, sampling = request["family"], request["sampling"]
    pipeline = load(request)
    classes = {name: shared.class_name(module) for name, module in shared.models(pipeline.components).items()}
    capture = Capture(pipeline, family["transformer"]["reference_row"])
    latents, timesteps = [], []

    def after_step(_pipeline: Any, _index: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        latents.append(shared.array(values["latents"]))
        timesteps.append(float(timestep))
        return values

    arguments = {
        "prompt": sampling["prompt"],
        "width": sampling["width"],
        "height": sampling["height"],
        "num_inference_steps": sampling["steps"] + family["reference_extra_steps"],
        "generator": torch.Generator("cpu").manual_seed(sampling["seed"]),
        "callback_on_step_end": after_step,
        "output_type": "np",
    }
    if sampling["guidance"] is not None:
        arguments["guidance_scale"] = sampling["guidance"]
    if sampling["negative_prompt"] is not None:
        arguments["negative_prompt"] = sampling["negative_prompt"]
    with torch.no_grad():
        images = np.asarray(pipeline(**arguments).images)
        encode(pipeline, capture)
    steps = sampling["steps"]
    np.savez(
        folder / "reference.npz",
        **{f"component/{key}": value for key, value in capture.arrays.items()},
        latents=np.stack(latents[:steps], axis=1),
        timesteps=np.asarray(timesteps[:steps], dtype=np.float64),
        left_over=np.asarray(timesteps[steps:], dtype=np.float64),
        # the engine truncates to eight bits where diffusers rounds: one level apart is 51 dB of nothing
        image=(images * 255).clip(0, 255).astype(np.uint8),
    )
    return {
        "error": None,
        "pipeline": shared.class_name(pipeline),
        "classes": classes,
        "calls": capture.calls,
        "device": str(pipeline.device),
        "native_imported": "sglang" in sys.modules,
    }


if __name__ == "__main__":
    shared.run(work, *sys.argv[1:3])
