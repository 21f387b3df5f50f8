"""`invoke accuracy` as a person runs it, on stand-ins for both programs: what is wrong must end in the right way."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from helpers import LOGS, ROOT, stand_in_for_accuracy

from bench import schema
from bench.accuracy import reasons
from bench.catalog import families, presets
from bench.engine import launch
from bench.errors import InvalidDocument
from bench.fallback.expectation import Expectation
from bench.fallback.guard import Guard
from bench.fidelity import goldens
from bench.report import accuracy_page


@pytest.fixture
def accuracy(invoke, replay, model, home, monkeypatch):
    """Run `invoke accuracy` on stand-ins with the scenario that is given; return how it ended and its report."""
    monkeypatch.setenv("BENCH_GOLDENS", str(home / "goldens"))

    def run(*arguments, scenario=None, version="0.5.23", engine="replay", again=False):
        if not again:
            replay(name=engine, version=version)
            if not (home / "models").exists():
                model()
        environment = home / "environments" / f"engine-{engine}"
        stand_in_for_accuracy(environment)
        monkeypatch.setenv("BENCH_ACCURACY_REPLAY", json.dumps(scenario or {}))
        before = set(home.glob("runs/*/accuracy.json"))
        ended = invoke(
            "accuracy", "--model", "flux-tiny", "--engine", engine,
            "--model-path", home / "models" / "FLUX.1-dev-tiny", *arguments,
        )  # fmt: skip
        made = set(home.glob("runs/*/accuracy.json")) - before
        report = json.loads(made.pop().read_text()) if made else None
        return ended, report

    return run


# --- usage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--check", "colour"], "--check takes component, trajectory or golden, not 'colour'"),
        (["--check", ","], "--check takes one or more names"),
        (["--model", ","], "--model takes one or more names"),
        (["--model", "flx-tiny"], "no model is called 'flx-tiny'"),
        (["--dtype", "fp8"], "--dtype takes fp32 or bf16"),
        (["--suite", "other"], "--suite takes"),
        (["--update-golden", " "], "updating a golden needs a reason"),
        (["--check", "component", "--update-golden", "new kernel"], "add golden to the checks (--check)"),
        (["--model", "flux"], "runs on 2 GPUs; accuracy is checked on one"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_runs(invoke, home, arguments, says):
    ended = invoke("accuracy", *arguments)
    assert ended.code == 1
    assert says in ended.err
    assert not (home / "runs").exists()


def test_a_family_that_is_not_known_is_named_with_what_to_add(invoke, replay, model):
    folder = model()
    (folder / "model_index.json").write_text('{"_class_name": "KolorsPipeline", "vae": ["diffusers", "AutoencoderKL"]}')
    ended = invoke("accuracy", "--model", "flux-tiny", "--engine", replay(), "--model-path", folder)
    assert ended.code == 1
    assert "KolorsPipeline" in ended.err
    assert "bench/catalog/families/" in ended.err


@pytest.mark.parametrize("family", families.families(), ids=lambda family: family.key)
def test_the_tiny_preset_of_a_family_is_there(family):
    preset = presets.get(family.tiny)
    assert preset.checkpoint is not None
    assert preset.text_encoders == len(family.text_encoders)
    assert families.for_pipeline(family.pipelines[0]) == family


# --- agreeing ---------------------------------------------------------------------------------------------------------


def test_when_everything_agrees_it_passes_and_says_how_far_each_control_was(accuracy):
    ended, report = accuracy()
    assert ended.code == 0, ended.err
    assert schema.violations(report, "accuracy-report") == []
    assert report["outcome"] == "passed"
    assert [part["name"] for part in report["components"]] == ["transformer", "vae", "text_encoder", "text_encoder_2"]
    assert all(part["passed"] for part in report["components"])
    made = {(control["name"], control["on"] == "final latents") for control in report["controls"]}
    assert made == {
        *(
            (name, True)
            for name in ("tensor", "tensor slightly", "attention", "embedder", "seed", "prompt", "guidance")
        ),
        *((name, False) for name in ("tensor", "rope", "timestep", "guidance")),
    }
    assert all(control["times"] > 1 and control["rejected"] for control in report["controls"])
    assert "PASSED" in ended.out
    assert "5,000" in ended.out, "a tensor x 1.05 is 0.05, which is 5000 times the gate"


def test_the_page_is_one_file_that_loads_nothing(accuracy, home):
    accuracy()
    page = next(home.glob("runs/*/accuracy.html")).read_text()
    assert "<svg" in page
    assert page.count("data:image/png;base64,") == 3
    assert not any(word in page for word in ('src="http', 'href="http', "@import"))


def test_the_page_of_a_degraded_engine_without_controls_says_both():
    folder = ROOT / "docs" / "evidence" / "accuracy"
    report = json.loads((folder / "accuracy.json").read_text())
    assert (report["controls"], report["verdict"]["outcome"]) == ([], "degraded")
    page = accuracy_page.page(report, (folder / "native.npz", folder / "reference.npz"))
    assert page.answer == "Every check passed, and no wrong engine was tried."
    assert page.warnings[0].startswith("degraded: offload.")


def test_validate_knows_the_report(accuracy, invoke, home):
    accuracy()
    folder = next((home / "runs").iterdir())
    assert "valid accuracy-report" in invoke("validate", folder).out
    assert invoke("validate", folder / "accuracy.json").code == 0


def test_json_is_the_report_and_nothing_else(accuracy):
    ended, report = accuracy("--json")
    assert json.loads(ended.out) == [report]


# --- not agreeing -----------------------------------------------------------------------------------------------------

FAILURES = {
    "a component is off": (
        {"native": {"arrays": {"component/plain/transformer/sample": ["times", 1.001]}}},
        "transformer sample: relative L2 0.001",
    ),
    "NaN": (
        {"native": {"arrays": {"component/plain/vae/decode": ["first", math.nan]}}},
        "vae decode: 1 NaN in the native output (32 values), the first at [0, 0, 0]",
    ),
    "Inf in the reference": (
        {"reference": {"arrays": {"component/vae/out/encode": ["first", math.inf]}}},
        "vae encode: 1 Inf in the reference output",
    ),
    "shapes": (
        {"native": {"arrays": {"component/plain/text_encoder/pooler_output": ["cut", 3]}}},
        "text_encoder pooler_output: shapes differ: native [1, 4, 3], reference [1, 4, 8]",
    ),
    "an output that is not there": (
        {"native": {"arrays": {"component/plain/text_encoder_2/last_hidden_state": ["drop", None]}}},
        "text_encoder_2 last_hidden_state: the engine's component was not called, or lacks this output",
    ),
    "other tokens": (
        {"native": {"manifest": {"components/plain/faults": {"text_encoder": "input input_ids: other tokens"}}}},
        "text_encoder last_hidden_state: input input_ids: other tokens",
    ),
    "latents": (
        {"native": {"arrays": {"trajectory/plain/latents": ["plus", 1e-3]}}},
        "latents after the last step: relative L2",
    ),
    "NaN latents": (
        {"native": {"arrays": {"trajectory/plain/latents": ["times", math.nan]}}},
        "NaN in the native output",
    ),
    "scheduler": (
        {"native": {"arrays": {"trajectory/plain/timesteps": ["plus", -1]}}},
        "scheduler mismatch: native time steps [999.000, 749.000, 499.000, 249.000], reference [1000.000, 750.000",
    ),
    "not repeatable": (
        {"native": {"arrays": {"trajectory/again/image": ["plus", 1]}}},
        "two identical requests in one launch gave different pictures",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
def test_what_does_not_agree_fails_and_says_how_far(accuracy, name):
    scenario, says = FAILURES[name]
    ended, report = accuracy(scenario=scenario)
    assert ended.code == 7, ended.err
    assert report["outcome"] == "failed"
    assert says in " ".join(report["reasons"])
    assert "FAILED" in ended.out
    assert schema.violations(report, "accuracy-report") == []


def test_another_scheduler_is_not_called_inaccurate(accuracy):
    _, report = accuracy(scenario=FAILURES["scheduler"][0])
    assert report["trajectory"]["steps"] == []
    assert not any("relative L2" in reason for reason in report["reasons"])


UNDO = {
    "component/tensor/transformer/sample": 1.05,
    "component/rope/transformer/sample": 2,
    "component/timestep/transformer/sample": 2,
    "component/guidance/transformer/sample": 2,
    "trajectory/seed/latents": 3.05,
    "trajectory/tensor/latents": 6.05,
    "trajectory/tensor slightly/latents": 7.05,
    "trajectory/attention/latents": 8.05,
    "trajectory/embedder/latents": 9.05,
}
"""What the stand-in does wrong, as a factor."""


@pytest.mark.parametrize("array", UNDO)
def test_a_control_that_is_let_through_makes_the_run_void(accuracy, array):
    """The wrong output is as near to the reference as a right one would be."""
    on, undo = "final latents" if array.startswith("trajectory") else "transformer.sample", 1 / UNDO[array]
    ended, report = accuracy(scenario={"native": {"arrays": {array: ["times", undo]}}})
    assert ended.code == 9, ended.err
    assert report["outcome"] == "void"
    assert "was not rejected: the gate is blind" in ended.err
    assert [control["on"] for control in report["controls"] if not control["rejected"]] == [on]


def test_a_control_that_was_never_made_makes_the_run_void(accuracy):
    ended, _ = accuracy(scenario={"native": {"manifest": {"components/tensor/perturbed/vae": []}}})
    assert ended.code == 9
    assert "no matching tensor x 1.05" in ended.err
    ended, _ = accuracy(scenario={"native": {"manifest": {"components/rope/perturbed/transformer": []}}}, again=True)
    assert ended.code == 9
    assert "rotary tables rolled by 1 token: the call has no such argument" in ended.err


def test_in_bf16_only_what_is_larger_than_its_rounding_is_done_wrong(accuracy):
    ended, report = accuracy("--dtype", "bf16")
    assert ended.code == 0, ended.err
    assert {control["name"] for control in report["controls"]} == {"seed", "prompt", "guidance"}
    assert set(report["not_applicable"]) == {"tensor", "tensor slightly", "attention", "embedder", "rope", "timestep"}


# --- not native, not diffusers, not possible --------------------------------------------------------------------------

FALLBACK = """Loading: 0%\rLoading: 50%\rLoading: 100%
Traceback (most recent call last):
  File "text_encoder_loader.py", line 517, in load_model
    raise ValueError(
ValueError: Activation function 'tanh' is not supported.
[11-22 08:53:49] Error while loading customized {0}, falling back to native version
[11-22 08:53:49] Native component {0}: {1} is loaded, performance may be sub-optimal
"""


def test_a_component_that_fell_back_is_not_native_with_the_engines_own_reason(accuracy):
    before = FALLBACK.format("text_encoder", "CLIPTextModel")
    manifest = {"classes/text_encoder": "transformers.models.clip.modeling_clip.CLIPTextModel"}
    ended, report = accuracy(scenario={"native": {"before": before, "manifest": manifest}})
    assert ended.code == 4
    assert report["outcome"] == "not native"
    part = next(part for part in report["components"] if part["name"] == "text_encoder")
    assert (part["native"], part["passed"], part["outputs"]) == (False, False, [])
    assert part["reason"] == "ValueError: Activation function 'tanh' is not supported."
    assert "text_encoder is not native: ValueError" in ended.err
    assert "NOT NATIVE" in ended.out


def test_a_transformer_that_fell_back_stops_the_launch_and_is_reported(accuracy):
    before = FALLBACK.format("transformer", "FluxTransformer2DModel")
    ended, report = accuracy(scenario={"native": {"before": before}})
    assert ended.code == 4
    assert report["outcome"] == "invalid"
    parts = {part["name"]: part for part in report["components"]}
    assert parts["transformer"]["native"] is False
    assert "Activation function" in parts["transformer"]["reason"]
    assert parts["vae"]["native"] is None


def test_an_engine_that_is_edited_meanwhile_proves_nothing(accuracy, home, monkeypatch):
    def edited(command, guarded=launch.guarded, **more):
        (home / "environments" / "engine-replay" / "site" / "sglang" / "new.py").write_text("x = 1\n")
        return guarded(command, **more)

    monkeypatch.setattr(launch, "guarded", edited)
    ended, report = accuracy()
    assert ended.code == 4, ended.err
    assert "engine.code" in {finding["id"] for finding in report["verdict"]["findings"]}


def test_a_log_without_evidence_is_no_proof(accuracy):
    ended, report = accuracy(scenario={"native": {"log": ["[DenoisingStage] finished", "[x] done"]}})
    assert ended.code == 5
    assert report["outcome"] == "invalid"


@pytest.mark.parametrize(
    ("side", "manifest", "code", "says"),
    [
        ("reference", {"error": {"kind": "refused", "text": "diffusers cannot load the reference: AttributeError"}},
         10, "cannot load the reference: AttributeError"),
        ("native", {"error": {"kind": "refused", "text": "NVIDIA P100 has no bfloat16"}}, 10, "has no bfloat16"),
        ("native", {"error": {"kind": "RuntimeError", "text": "out of memory"}},
         3, "native program failed: RuntimeError: out of memory"),
        ("reference", {"classes/vae": "sglang.vaes.AutoencoderKL"}, 5, "the reference is diffusers: vae: sglang.vaes"),
        ("reference", {"native_imported": True}, 5, "sglang was imported"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_clear_error(accuracy, side, manifest, code, says):
    ended, report = accuracy(scenario={side: {"manifest": manifest}})
    assert ended.code == code
    assert says in ended.err
    assert report is None


def test_a_program_that_dies_is_an_engine_failure(accuracy):
    ended, report = accuracy(scenario={"native": {"dies": True}})
    assert (ended.code, report["outcome"]) == (3, "invalid")
    assert accuracy(scenario={"reference": {"dies": True}}, again=True)[0].code == 3


def test_without_the_libraries_the_reference_says_so(invoke, replay, model):
    """The stand-in interpreter here is the runner's: it has no torch."""
    ended = invoke("accuracy", "--model", "flux-tiny", "--engine", replay(), "--model-path", model())
    assert ended.code == 3
    assert "No module named 'torch'" in ended.err


# --- golden -----------------------------------------------------------------------------------------------------------


def test_a_golden_is_made_with_a_reason_then_met_bit_by_bit(accuracy, home):
    ended, report = accuracy("--check", "golden", "--update-golden", "first, looked at")
    assert ended.code == 0, ended.err
    assert (report["golden"]["status"], report["golden"]["stored"]) == ("none", 1)
    ended, report = accuracy("--check", "golden", again=True)
    assert (ended.code, report["golden"]["status"]) == (0, "equal")
    document = json.loads(next(home.glob("goldens/*/*/0001/golden.json")).read_text())
    assert document["reason"] == "first, looked at"


@pytest.mark.parametrize(
    ("arguments", "differs"),
    [
        (["--steps", "6"], "steps 4, here 6"),
        (["--seed", "7"], "seed 42, here 7"),
        (["--dtype", "bf16"], "dtype 'fp32', here 'bf16'"),
        (["--torch-compile"], "torch_compile False, here True"),
    ],
)
def test_another_configuration_has_no_golden_and_is_not_compared(accuracy, invoke, home, arguments, differs):
    accuracy("--check", "golden", "--update-golden", "first")
    compiled = "Compiling transformer with mode: default\n" if "--torch-compile" in arguments else ""
    ended, report = accuracy("--check", "golden", *arguments, again=True, scenario={"native": {"before": compiled}})
    assert ended.code == 9, ended.err
    assert report["golden"]["status"] == "none"
    assert report["golden"]["picture"] is None
    assert report["golden"]["differs"] == [differs]
    assert "no golden for this configuration" in ended.out
    typed = " ".join(arguments)
    assert re.search(f"next: invoke accuracy .*{typed}.* --update-golden 'looked at'", ended.out)
    assert "to do: look at the picture, then keep it with the reason (--update-golden)" in ended.err
    shown = invoke("report", home / "runs" / report["id"], "--markdown")
    assert re.search(r"\| no golden for this configuration.* \| none \|", shown.out), shown.out


def test_another_version_of_the_engine_has_no_golden(accuracy):
    accuracy("--check", "golden", "--update-golden", "first")
    _, report = accuracy("--check", "golden", version="0.5.21", engine="replay-other")
    assert report["golden"]["differs"] == ["engine '0.5.23', here '0.5.21'"]


def test_a_picture_that_changed_fails_on_the_machine_that_made_the_golden(accuracy):
    accuracy("--check", "golden", "--update-golden", "first")
    change = {f"trajectory/{case}/image": ["first", 0] for case in ("plain", "again")}
    ended, report = accuracy("--check", "golden", again=True, scenario={"native": {"arrays": change}})
    assert ended.code == 7
    assert report["golden"]["status"] == "different"
    assert "differs from golden 1 on the machine that made it" in ended.err


def test_a_newer_golden_keeps_the_old_one(accuracy, home):
    accuracy("--check", "golden", "--update-golden", "first")
    change = {f"trajectory/{case}/image": ["first", 0] for case in ("plain", "again")}
    scenario = {"native": {"arrays": change}}
    accuracy("--check", "golden", "--update-golden", "second", again=True, scenario=scenario)
    assert sorted(path.parent.name for path in home.glob("goldens/*/*/*/golden.json")) == ["0001", "0002"]
    ended, report = accuracy("--check", "golden", again=True, scenario=scenario)
    assert (ended.code, report["golden"]["number"], report["golden"]["status"]) == (0, 2, "equal")


def test_no_golden_is_made_of_a_run_that_failed(accuracy, home):
    ended, _ = accuracy("--update-golden", "looks fine to me", scenario=FAILURES["a component is off"][0])
    assert ended.code == 7
    assert not list(home.glob("goldens/**/golden.json"))


KEY = {
    "engine": "0.5.23", "source": None, "torch": "2.11.0", "diffusers": "0.37.0", "transformers": None, "device": "GPU",
    "dtype": "bf16", "attention_backend": None, "torch_compile": False, "quality": None, "family_arguments": {},
    "sampling": {"prompt": "p", "negative_prompt": None, "seed": 1, "width": 32, "height": 32, "steps": 4,
                 "guidance": None},
    "checkpoint_sha256": "0" * 64,
}  # fmt: skip
PICTURE = np.random.default_rng(0).integers(1, 255, (1, 32, 32, 3), dtype=np.uint8)


def test_another_machine_of_the_same_kind_has_a_tolerance(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_GOLDENS", str(tmp_path))
    goldens.keep("m", KEY, "a" * 64, PICTURE, "first", "run")
    near, far = PICTURE + np.uint8(1), np.roll(PICTURE, 3, axis=1)
    assert goldens.compare("m", KEY, "b" * 64, near).status == goldens.WITHIN
    assert goldens.compare("m", KEY, "a" * 64, near).status == goldens.DIFFERENT
    assert goldens.compare("m", KEY, "b" * 64, far).status == goldens.DIFFERENT


def test_a_golden_that_was_touched_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_GOLDENS", str(tmp_path))
    goldens.keep("m", KEY, "a" * 64, PICTURE, "first", "run")
    path = next(tmp_path.rglob("picture.npz"))
    np.savez(path, picture=PICTURE + np.uint8(1))
    with pytest.raises(InvalidDocument, match="does not match its document"):
        goldens.compare("m", KEY, "a" * 64, PICTURE)
    Path(path).write_bytes(b"PK")
    with pytest.raises(InvalidDocument, match="cannot be read"):
        goldens.compare("m", KEY, "a" * 64, PICTURE)


# --- the engine's own reason, from a captured log ---------------------------------------------------------------------


def test_the_reason_is_the_error_above_the_fallback_line():
    log = LOGS / "cpu" / "native_0.5.17.log"
    guard = Guard(Expectation(), stop=False)
    guard.observe(log.read_bytes(), 1)
    found = reasons.by_component(guard, log)
    assert found["text_encoder"].startswith(
        "ValueError: Following text encoder weights were not initialized from checkpoint"
    )


def test_an_interrupt_says_what_was_kept(accuracy, monkeypatch):
    from bench.accuracy import run

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(run.launch, "guarded", interrupted)
    ended, _ = accuracy()
    assert ended.code == 130
    assert "kept: reference results, no report, " in ended.err
    assert "`invoke accuracy --model flux-tiny` checks it again" in ended.err
