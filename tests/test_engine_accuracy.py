"""`invoke accuracy` on the real engine on this machine's CPU: a few starts of the default configuration."""

import functools
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, invoke_command

from bench import schema
from bench.catalog import families
from bench.engine import find

pytestmark = pytest.mark.engine

GATE = 1e-5
MINUTES = 60.0
TINY = [family.tiny for family in families.families()]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("accuracy")


@pytest.fixture(scope="module")
def accuracy(home):
    assert find.DEFAULT_CONFIGURATION in find.built(), f"not built: {find.build_command(find.DEFAULT_CONFIGURATION)}"

    def run(*arguments):
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("SGLANG_", "CUDA_"))}
        runs = home / "runs"
        before = set(runs.glob("*/accuracy.json"))
        ended = subprocess.run(
            invoke_command("accuracy", "--engine", find.DEFAULT_CONFIGURATION, *arguments), cwd=ROOT,
            capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=10 * MINUTES, check=False,
            env=environment | {"BENCH_RUNS": str(runs), "BENCH_GOLDENS": str(home / "goldens"), "COLUMNS": "120"},
        )  # fmt: skip
        assert "Traceback" not in ended.stderr, ended.stderr
        made = sorted(set(runs.glob("*/accuracy.json")) - before)
        return ended, [json.loads(path.read_text()) for path in made]

    return run


@pytest.fixture(scope="module")
def check(accuracy):
    """Return the report of one run of every check for a model, with a golden made of it; a model is run once."""

    @functools.cache
    def run(model):
        ended, reports = accuracy("--model", model, "--update-golden", "made by a test")
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return reports[0]

    return run


@pytest.fixture(scope="module", params=TINY)
def checked(request, check):
    return check(request.param)


@pytest.fixture
def flux(check):
    return check("flux-tiny")


def test_a_tiny_model_of_every_family_passes_natively_within_the_gates(checked):
    assert schema.violations(checked, "accuracy-report") == []
    assert (checked["outcome"], checked["verdict"]["outcome"]) == ("passed", "native")
    outputs = [output for part in checked["components"] for output in part["outputs"]]
    assert all(part["native"] and part["native_class"].startswith("sglang.") for part in checked["components"])
    assert {part["name"] for part in checked["components"]} >= {"transformer", "vae", "text_encoder"}
    assert {output["name"] for output in outputs} >= {"sample", "decode", "encode"}
    assert all(output["distance"]["rel_l2"] <= GATE for output in outputs)
    assert checked["trajectory"]["steps"][-1]["distance"]["rel_l2"] <= GATE
    assert len(checked["trajectory"]["steps"]) == checked["sampling"]["steps"]
    assert checked["trajectory"]["repeatable"]
    assert checked["reference"]["pipeline"].startswith("diffusers.")


def test_every_negative_control_is_rejected(checked):
    controls = checked["controls"]
    assert all(control["rejected"] and control["times"] > 1 for control in controls)
    latents = {"tensor", "tensor slightly", "attention", "embedder", "seed", "prompt", "guidance"}
    calls = {"tensor", "rope", "timestep"} | ({"guidance"} if checked["model"]["family"] == "flux" else set())
    lacking = {"sd3": {"rope"}, "flux2_klein": {"guidance"}}.get(checked["model"]["family"], set())
    assert set(checked["not_applicable"]) == lacking
    assert {control["name"] for control in controls if control["on"] == "final latents"} == latents - lacking
    assert {control["name"] for control in controls if control["on"] == "transformer.sample"} == calls - lacking
    compared = {f"{part['name']}.{output['name']}" for part in checked["components"] for output in part["outputs"]}
    assert {control["on"] for control in controls} - {"final latents"} == compared


def test_the_same_again_is_bit_equal(flux, accuracy):
    ended, (same,) = accuracy("--model", "flux-tiny", "--check", "golden")
    assert ended.returncode == 0, ended.stderr
    assert (same["golden"]["status"], same["golden"]["same_machine"]) == ("equal", True)


@pytest.fixture
def broken(accuracy, tmp_path):
    """Make a copy of the tiny FLUX.1 that was checked before, to be changed."""
    source = next(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").rglob("FLUX.1-dev-tiny"))
    return Path(shutil.copytree(source, tmp_path / "FLUX.1-dev-tiny"))


def test_a_text_encoder_that_the_engine_cannot_load_is_not_native_with_its_own_reason(flux, accuracy, broken):
    config = broken / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"hidden_act": "tanh"}))
    ended, (report,) = accuracy("--model", "flux-tiny", "--model-path", broken, "--check", "component")
    assert ended.returncode == 4, ended.stdout + ended.stderr
    assert report["outcome"] == "not native"
    parts = {part["name"]: part for part in report["components"]}
    assert parts["text_encoder"]["native_class"].startswith("transformers.")
    assert "Activation function 'tanh' is not supported" in parts["text_encoder"]["reason"]
    assert parts["transformer"]["passed"]
    assert parts["text_encoder_2"]["passed"]


def test_a_reference_class_that_does_not_exist_is_one_clear_error(flux, accuracy, broken):
    index = broken / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"vae": ["diffusers", "AutoencoderOfTomorrow"]}))
    ended, reports = accuracy("--model", "flux-tiny", "--model-path", broken)
    assert ended.returncode == 10
    assert "AutoencoderOfTomorrow" in ended.stderr
    assert reports == []


def test_the_picture_that_is_compared_is_the_one_that_the_engine_saves(checked, home):
    from PIL import Image

    folder = home / "runs" / checked["id"]
    with Image.open(folder / "outputs" / "output.png") as saved, np.load(folder / "native" / "native.npz") as arrays:
        assert np.array_equal(np.asarray(saved), arrays["trajectory/plain/image"][0])


def test_a_dtype_that_the_device_has_not_is_refused_by_both_programs(tmp_path):
    """A GPU without bfloat16 cannot be had here: torch is made to say that there is one."""
    program = (
        "import sys, torch; sys.path.insert(0, sys.argv[1]); import accuracy_shared as shared\n"
        "torch.cuda.is_available = lambda: True; torch.cuda.is_bf16_supported = lambda: False\n"
        "torch.cuda.get_device_name = lambda: 'Tesla P100'\n"
        "shared.run(lambda request, folder: {'dtype': str(shared.dtype(request))}, sys.argv[2], sys.argv[3])"
    )
    (tmp_path / "request.json").write_text('{"dtype": "bf16"}')
    python = find.built()[find.DEFAULT_CONFIGURATION] / "bin" / "python"
    subprocess.run([python, "-c", program, ROOT / "bench/inside", tmp_path / "request.json", tmp_path], check=True)
    said = json.loads((tmp_path / "manifest.json").read_text())
    assert said == {"error": {"kind": "refused", "text": "Tesla P100 has no bfloat16"}}


def test_a_benchmark_is_bit_equal_to_its_own_golden(home):
    """Two starts of the engine with its defaults: the second is held against the picture of the first."""

    def bench(*arguments):
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("SGLANG_", "CUDA_"))}
        before = set(home.glob("bench/*/run.json"))
        ended = subprocess.run(
            invoke_command("bench", "--model", "flux-tiny", "--engine", find.DEFAULT_CONFIGURATION, "--repeats", "2",
                           *arguments), cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL,
            timeout=10 * MINUTES, check=False,
            env=environment | {"BENCH_RUNS": str(home / "bench"), "BENCH_GOLDENS": str(home / "bench-goldens")},
        )  # fmt: skip
        (made,) = set(home.glob("bench/*/run.json")) - before
        return ended, json.loads(made.read_text())

    ended, first = bench("--update-golden", "made by a test")
    assert ended.returncode == 0, ended.stderr
    assert first["fidelity"]["golden"]["stored"] == 1
    assert first["fidelity"]["identical"] is True
    ended, again = bench("--require", "lossless")
    assert ended.returncode == 0, ended.stderr
    assert (again["fidelity"]["golden"]["status"], again["fidelity"]["met"]) == ("equal", True)
    assert {row["name"]: row["agrees"] for row in again["fidelity"]["delivered"]} == {
        "width": True, "height": True, "frames": None, "steps": True,
    }  # fmt: skip
