"""Run the engine's own pipeline in this process and keep what `invoke accuracy` compares with a reference.

That is the latents after each step, and each component's output on the very inputs that the reference's component had.
Run by an engine's interpreter, launched under guard, never imported:
    ENGINE_PYTHON accuracy_native.py REQUEST.json OUT_FOLDER

The folder of the reference is named in the request. Everything goes through one engine start: the plain request, the
same again (saved by the engine), the negative controls, and the components. A pipeline that the engine's worker builds
in this process gives the same bits as `sglang generate` and DiffGenerator (measured on 0.5.23), and lets a tensor be
spoilt on purpose. Writes ``native.npz`` and ``manifest.json``.
"""

from __future__ import annotations

import dataclasses
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import accuracy_shared as shared
import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TEXT_ENCODER_TENSORS = ["fc2.weight", "down_proj.weight", "DenseReluDense.wo.weight", "SelfAttention.o.weight"]
EXACT_ARGUMENTS = ("allow_cudnn_tf32", "allow_bf16_reduced_precision_reduction")
VAE_TENSORS = ["decoder.conv_in.weight"]
VAE_ENCODER_TENSORS = ["encoder.conv_in.weight"]


class Engine:
    """One worker of the engine in this process."""

    def __init__(self, request: dict[str, Any]) -> None:
        from sglang.multimodal_gen.runtime import platforms
        from sglang.multimodal_gen.runtime.managers.gpu_worker import GPUWorker
        from sglang.multimodal_gen.runtime.server_args import ServerArgs, set_global_server_args
        from sglang.multimodal_gen.runtime.utils.logging_utils import configure_logger

        # 0.5.17 has none: it finds the platform on import
        getattr(platforms, "initialize_current_platform", lambda: None)()
        precision = request["dtype"]
        known = {field.name for field in dataclasses.fields(ServerArgs)}
        wanted = {
            "model_path": request["model"],
            "backend": "sglang",
            "num_gpus": 1,
            "log_level": "info",
            "master_port": request["master_port"],
            "dit_precision": precision,
            "vae_precision": precision,
            # a repeated prompt would be served from the cache, and no encoder would be called
            **({"disable_conditioning_cache": True} if "disable_conditioning_cache" in known else {}),
            # the defaults round on a GPU where the reference does not
            **{name: False for name in EXACT_ARGUMENTS if name in known},
            **({"attention_backend": request["attention_backend"]} if request["attention_backend"] else {}),
            **({"enable_torch_compile": True} if request["torch_compile"] else {}),
            "text_encoder_precisions": (precision,) * request["text_encoders"],
        }
        self.arguments = ServerArgs.from_kwargs(**wanted)
        set_global_server_args(self.arguments)
        configure_logger(self.arguments)
        self._worker = GPUWorker(0, 0, request["master_port"], self.arguments)
        self._request = request

    @property
    def components(self) -> dict[str, Any]:
        """The pipeline's components by name."""
        return self._worker.pipeline.modules

    def generate(self, **changes: Any) -> Any:
        """Return the worker's output for the request with changes.

        Raises:
            RuntimeError: the engine says that it failed.
        """
        from sglang.multimodal_gen.configs.sample.sampling_params import SamplingParams
        from sglang.multimodal_gen.runtime.entrypoints.utils import prepare_request

        family, sampling = self._request["family"], self._request["sampling"]
        values = {
            "prompt": sampling["prompt"],
            "seed": sampling["seed"],
            "width": sampling["width"],
            "height": sampling["height"],
            "num_inference_steps": sampling["steps"],
            "save_output": False,
            "return_frames": True,
            "return_trajectory_latents": True,
            # on a GPU each side would draw its noise there otherwise, and each in its own order
            "generator_device": "cpu",
            **family["native_arguments"],
        }
        if sampling["negative_prompt"] is not None:
            values["negative_prompt"] = sampling["negative_prompt"]
        guidance = changes.pop("guidance", sampling["guidance"])
        if family["guidance"] == "embedded":
            # the request's own guidance is ignored for FLUX.1: the server's is what the transformer gets
            self.arguments.pipeline_config.embedded_cfg_scale = guidance
        elif guidance is not None:
            values["guidance_scale"] = guidance
        parameters = SamplingParams.from_user_sampling_params_args(
            self.arguments.model_path, server_args=self.arguments, **(values | changes)
        )
        parameters._set_output_file_name()  # noqa: SLF001 - what the engine's own entry point does
        made = self._worker.execute_forward([prepare_request(server_args=self.arguments, sampling_params=parameters)])
        if made.error:
            raise RuntimeError(f"the engine failed at a request: {made.error}")
        return made


class Substitute:
    """Gives each component's first call the reference's inputs, and keeps what comes out."""

    def __init__(self, components: dict[str, Any], family: dict[str, Any], reference: Any) -> None:
        self.outputs: dict[str, np.ndarray] = {}
        self.faults: dict[str, str] = {}
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
        """Take everything off again."""
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
        return tuple(arguments), named

    def _like(self, value: Any, new: np.ndarray, name: str, key: str) -> Any:
        """Return the reference's values in the form of this side's."""
        if isinstance(value, (list, tuple)):
            return type(value)([self._like(value[0], new, name, key), *value[1:]])
        tensor = torch.from_numpy(new)
        if key in self._family["transformer"]["padded"] and not name.startswith("text_encoder"):
            tensor = tensor.reshape(-1, tensor.shape[-1])
            missing = value.numel() // tensor.shape[-1] - tensor.shape[0]
            tensor = torch.cat([tensor, tensor[-1:].repeat(max(missing, 0), 1)])
        if tensor.numel() != value.numel():
            raise ValueError(
                f"input {key}: the reference has {list(new.shape)}, the engine's own call {list(value.shape)}"
            )
        tensor = tensor.reshape(value.shape).to(value.device, value.dtype)
        if not value.is_floating_point() and not torch.equal(tensor, value):
            self.faults[name] = f"input {key}: the engine made other tokens of the prompt than the reference"
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


@contextmanager
def spoilt(components: dict[str, Any], request: dict[str, Any]) -> Iterator[dict[str, list[str]]]:
    """Scale one tensor of each component, two of the VAE's (decoder, encoder), while this is open; give their names."""
    undo: list[Callable[[], object]] = []
    names: dict[str, list[str]] = {}
    try:
        for name, module in shared.models(components).items():
            if name == "vae":
                groups = [VAE_TENSORS, VAE_ENCODER_TENSORS]
            elif name.startswith("text_encoder"):
                groups = [TEXT_ENCODER_TENSORS]
            else:
                groups = [request["family"]["transformer"]["spoil"]]
            for patterns in groups:
                done = shared.scale_one(module, patterns, request["spoilt_by"])
                if done is not None:
                    names.setdefault(name, []).append(done[0])
                    undo.append(done[1])
        yield names
    finally:
        for back in undo:
            back()


def compare_components(engine: Engine, request: dict[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Run the components on the reference's inputs, as they are and spoilt; return what was found of each case."""
    with np.load(Path(request["reference"]) / "reference.npz") as file:
        reference = {name: file[name] for name in file.files if name.startswith("component/")}
    found: dict[str, Any] = {}
    for case in ("plain",) if request["spoilt_by"] is None else ("plain", "tensor"):
        with spoilt(engine.components if case == "tensor" else {}, request) as names:
            substitute = Substitute(engine.components, request["family"], reference)
            try:
                engine.generate()
            finally:
                substitute.stop()
        print(f"accuracy case: components, {case}", flush=True)
        arrays |= {f"component/{case}/{key}": value for key, value in substitute.outputs.items()}
        found[case] = {"faults": substitute.faults, "spoilt": names}
    return found


def trajectories(engine: Engine, request: dict[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Generate the plain request, its repetition as the engine saves it, and every control; return their names."""
    found: dict[str, Any] = {}

    def keep(case: str, made: Any) -> None:
        print(f"accuracy case: {case}", flush=True)
        if made.trajectory_latents is not None:
            arrays[f"trajectory/{case}/latents"] = shared.array(made.trajectory_latents)
            arrays[f"trajectory/{case}/timesteps"] = shared.array(made.trajectory_timesteps).astype(np.float64).ravel()
        arrays[f"trajectory/{case}/image"] = np.concatenate([np.asarray(frames) for frames in made.output])
        found[case] = {}

    keep("plain", engine.generate())
    keep("again", engine.generate())
    engine.generate(
        save_output=True, return_frames=False, output_path=request["outputs"], output_file_name="output.png"
    )
    for name, changes in request["controls"].items():
        keep(name, engine.generate(**changes))
    if "trajectory" in request["checks"] and request["spoilt_by"] is not None:
        transformers = {key: value for key, value in engine.components.items() if key.startswith("transformer")}
        with spoilt(transformers, request) as names:
            keep("tensor", engine.generate())
        found["tensor"] = {"spoilt": names}
    return found


def work(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Do every check of the request in one engine; return the manifest."""
    shared.dtype(request)
    engine = Engine(request)
    arrays: dict[str, np.ndarray] = {}
    cases = trajectories(engine, request, arrays)
    found = compare_components(engine, request, arrays) if "component" in request["checks"] else None
    np.savez(folder / "native.npz", **arrays)
    return {
        "error": None,
        "classes": {name: shared.class_name(module) for name, module in shared.models(engine.components).items()},
        "cases": cases,
        "components": found,
    }


if __name__ == "__main__":
    shared.run(work, *sys.argv[1:3])
