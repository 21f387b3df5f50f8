"""Run the engine's own pipeline in this process and keep what `invoke accuracy` compares with a reference.

That is the latents after each step, and each component's output on the inputs that the reference's component had.
Run by an engine's interpreter, launched under guard, never imported:
    ENGINE_PYTHON accuracy_native.py REQUEST.json OUT_FOLDER

The folder of the reference is named in the request. Everything goes through one engine start: the plain request, the
same again (saved by the engine), the negative controls, and the components. A pipeline that the engine's worker builds
in this process gives the same bits as `sglang generate` and DiffGenerator (measured on 0.5.23), and lets a tensor be
perturbed. Writes ``native.npz`` and ``manifest.json``.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import accuracy_perturb as perturb
import accuracy_shared as shared
import numpy as np
from accuracy_substitute import Substitute

EXACT_ARGUMENTS = ("allow_cudnn_tf32", "allow_bf16_reduced_precision_reduction")


class Engine:
    """One worker of the engine in this process."""

    def __init__(self, request: dict[str, Any]) -> None:
        from sglang.multimodal_gen.runtime import platforms
        from sglang.multimodal_gen.runtime.managers.gpu_worker import GPUWorker
        from sglang.multimodal_gen.runtime.server_args import ServerArgs, set_global_server_args
        from sglang.multimodal_gen.runtime.utils.logging_utils import configure_logger

        # 0.5.17 lacks it: it finds the platform on import
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
            RuntimeError: the engine reports a failure.
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
            raise RuntimeError(f"the engine failed a request: {made.error}")
        return made


def compare_components(engine: Engine, request: dict[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Run the components on the reference's inputs, unchanged and perturbed; return the faults of each case."""
    with np.load(Path(request["reference"]) / "reference.npz") as file:
        reference = {name: file[name] for name in file.files if name.startswith("component/")}
    found: dict[str, Any] = {}

    def compare(case: str, substitute: Substitute, perturbed: dict[str, list[str]], **changes: Any) -> None:
        try:
            engine.generate(**changes)
        finally:
            substitute.stop()
        print(f"accuracy case: components, {case}", flush=True)
        arrays.update({f"component/{case}/{key}": value for key, value in substitute.outputs.items()})
        found[case] = {"faults": substitute.faults, "perturbed": perturbed or substitute.perturbed_calls}

    compare("plain", Substitute(engine.components, request["family"], reference), {})
    perturbation = request["perturbations"].get("tensor")
    if perturbation is not None:
        with perturb.perturbed(engine.components, request["family"], perturbation) as names:
            compare("tensor", Substitute(engine.components, request["family"], reference), names)
    transformers = _transformers(engine)
    for case, by in request["call_perturbations"].items():
        perturb_call = perturb.perturb_call(request["family"], case, by)
        compare(case, Substitute(transformers, request["family"], reference, perturb_call), {})
    for case, changes in request["wrong_calls"].items():
        given = {name: [case] for name in transformers}
        compare(case, Substitute(transformers, request["family"], reference), given, **changes)
    return found


def _transformers(engine: Engine) -> dict[str, Any]:
    return {name: value for name, value in engine.components.items() if name.startswith("transformer")}


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
    for name, perturbation in request["perturbations"].items() if "trajectory" in request["checks"] else ():
        with perturb.perturbed(_transformers(engine), request["family"], perturbation) as names:
            keep(name, engine.generate())
        found[name] = {"perturbed": names}
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
