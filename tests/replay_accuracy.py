"""A stand-in for both programs of `invoke accuracy`: for results that cannot be provoked in the real engine.

Called as an engine's interpreter would call them: PROGRAM REQUEST.json OUT_FOLDER, with the scenario in the environment
variable BENCH_ACCURACY_REPLAY. Everything agrees unless the scenario says otherwise. Needs numpy and Pillow only.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np

LOG = """[11-22 08:53:22] server_args: {"backend": "sglang"}
[11-22 08:53:22] Initializing distributed environment with world_size=1, device=cpu, timeout=3600
[11-22 08:53:49] Using pipeline from model_index.json: FluxPipeline
[11-22 08:53:49] Attention backends for transformer: torch_sdpa
[11-22 08:53:49] Loaded transformer: FluxTransformer2DModel (sgl-diffusion version). model size: 0.01 GB
[11-22 08:53:49] Running pipeline stages: ['InputValidationStage', 'denoising_stage', 'decoding_stage']
[11-22 08:53:49] [DenoisingStage] finished in 0.1282 seconds
[11-22 08:53:49] Output saved to outputs/output.png
"""

CLASSES = {
    "transformer": ("sglang.dits.flux.FluxTransformer2DModel", "diffusers.models.FluxTransformer2DModel"),
    "vae": ("sglang.vaes.AutoencoderKL", "diffusers.models.AutoencoderKL"),
    "text_encoder": ("sglang.encoders.clip.CLIPTextModel", "transformers.models.clip.CLIPTextModel"),
    "text_encoder_2": ("sglang.encoders.t5.T5EncoderModel", "transformers.models.t5.T5EncoderModel"),
}
OUTPUTS = {
    "transformer": ["sample"],
    "vae": ["decode", "encode"],
    "text_encoder": ["last_hidden_state", "pooler_output"],
    "text_encoder_2": ["last_hidden_state"],
}


def values(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def reference(scenario, sampling):
    arrays = {
        f"component/{name}/out/{output}": values(index, 1, 4, 8)
        for index, (name, outputs) in enumerate(OUTPUTS.items())
        for output in outputs
    }
    arrays["latents"] = values(7, 1, sampling["steps"], 16, 8)
    arrays["timesteps"] = np.linspace(1000, 250, sampling["steps"])
    arrays["image"] = np.random.default_rng(sampling["seed"]).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    manifest = {
        "error": None,
        "pipeline": "diffusers.pipelines.flux.FluxPipeline",
        "classes": {name: pair[1] for name, pair in CLASSES.items()},
        "device": "cpu",
        "native_imported": False,
    }
    return manifest, arrays


def native(scenario, request):
    theirs = reference(scenario, request["sampling"])[1]
    perturbations = request["perturbations"]
    called = [*request["call_perturbations"], *request["wrong_calls"]]
    arrays = {}
    for case, factor in {"plain": 1, **({"tensor": 1.05} if perturbations else {}), **dict.fromkeys(called, 2)}.items():
        for key, value in theirs.items():
            if key.startswith("component/") and (case in ("plain", "tensor") or "/transformer/" in key):
                arrays[key.replace("component/", f"component/{case}/", 1).replace("/out/", "/")] = value * factor
    cases = {name: {} for name in ("plain", "again", *request["controls"])}
    cases |= {name: {"perturbed": {"transformer": ["ff.net.2.weight"]}} for name in perturbations}
    for index, case in enumerate(cases):
        arrays[f"trajectory/{case}/latents"] = theirs["latents"] * (1 if case in ("plain", "again") else 1.05 + index)
        arrays[f"trajectory/{case}/timesteps"] = theirs["timesteps"]
        arrays[f"trajectory/{case}/image"] = theirs["image"]
    perturbed = {name: ["a.weight"] for name in CLASSES}
    manifest = {
        "error": None,
        "classes": {name: pair[0] for name, pair in CLASSES.items()},
        "cases": cases,
        "components": {
            "plain": {"faults": {}, "perturbed": {}},
            **({"tensor": {"faults": {}, "perturbed": perturbed}} if perturbations else {}),
            **{name: {"faults": {}, "perturbed": {"transformer": [name]}} for name in called},
        },
    }
    return manifest, arrays


def change(arrays, scenario):
    """Apply the scenario's changes of arrays: {name: [operation, value]}."""
    for name, (operation, value) in scenario.get("arrays", {}).items():
        if operation == "times":
            arrays[name] = (arrays[name] * value).astype(arrays[name].dtype)
        elif operation == "plus":
            arrays[name] = (arrays[name] + value).astype(arrays[name].dtype)
        elif operation == "first":
            arrays[name].ravel()[0] = value
        elif operation == "cut":
            arrays[name] = arrays[name][..., :value]
        elif operation == "drop":
            del arrays[name]


def main():
    program, request_path, folder = Path(sys.argv[1]).name, sys.argv[2], Path(sys.argv[3])
    scenario = json.loads(os.environ["BENCH_ACCURACY_REPLAY"])
    request = json.loads(Path(request_path).read_text())
    side = "reference" if "reference" in program else "native"
    manifest, arrays = reference(scenario, request["sampling"]) if side == "reference" else native(scenario, request)
    own = scenario.get(side, {})
    change(arrays, own)
    for path, value in own.get("manifest", {}).items():
        place = manifest
        *keys, last = path.split("/")
        for key in keys:
            place = place[key]
        place[last] = value
    if side == "native":
        sys.stdout.write(own.get("before", "") + LOG.replace(*own.get("log", ("", ""))))
        sys.stdout.flush()
        from PIL import Image

        picture = Image.fromarray(arrays["trajectory/plain/image"][0])
        picture.resize((request["sampling"]["width"], request["sampling"]["height"])).save(
            Path(request["outputs"]) / "output.png"
        )
    if own.get("dies"):
        sys.exit("Killed")
    np.savez(folder / f"{side}.npz", **arrays)
    (folder / "manifest.json").write_text(json.dumps(manifest))


if __name__ == "__main__":
    main()
