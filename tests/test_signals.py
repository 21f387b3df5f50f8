"""The signals against captured logs, constructed lines and hostile ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.catalog import signals as catalog
from bench.errors import EngineFailed, FallbackDetected
from bench.fallback import finding as f
from bench.fallback.expectation import DIFFUSERS, Expectation
from bench.fallback.guard import CORE_COMPONENT, Guard
from bench.fallback.matcher import Matcher, clean, lines

LOGS = Path(__file__).parent / "data" / "logs"
CATEGORIES = {
    *("pipeline", "component", "attention", "compile", "cuda-graph", "offload", "quantisation", "parallelism"),
    *("shape", "warm-up", "cache", "memory", "kernel", "process"),
}
SIGNALS = catalog.signals()
by_id = pytest.mark.parametrize("signal", SIGNALS, ids=lambda s: s.id)

CPU_0_5_23 = Expectation(version="0.5.23", device="cpu", gpus=1)
CPU_0_5_17 = Expectation(version="0.5.17", device="cpu", gpus=1, warmup=True)
H200_0_5_17 = Expectation(version="0.5.17", device="cuda", gpus=1, warmup=True)

TEXT_ENCODER = {
    "component.fallback": "the CLIP encoder's weights have other names than the engine's class expects",
    "component.native_loaded": "so transformers' class was loaded",
    "component.native_version": "and the loader says so again",
    "weights.missing": "the error that made it so",
    "proc.traceback": "and its traceback",
}
LAYERWISE = {
    "offload.auto_layerwise_old": "the automatic memory policy chose layerwise offload for the text encoders",
    "offload.startup": "they were loaded to the host",
    "offload.ready": "T5's layers are streamed",
    "offload.components": "and the pipeline says so",
    "offload.unsupported": "transformers' CLIP cannot be streamed",
}
CLEAN = {
    "cpu/warmup_request": (replace(CPU_0_5_23, warmup=True), {}),
    "cpu/awq_pipeclass": (CPU_0_5_23, {}),
    "cpu/native_0.5.17": (CPU_0_5_17, TEXT_ENCODER),
    "h200/native_eager": (H200_0_5_17, TEXT_ENCODER | LAYERWISE),
}
"""Logs of native runs: the expectation, and the degradations that the run deserves, with the reason."""


def watched(block: bytes, expectation: Expectation) -> Guard:
    guard = Guard(expectation, stop=False)
    guard.observe(block, 1)
    return guard


def judged(text: str, **expected: object) -> dict[str, str]:
    """Severity by signal of what a guard finds in a text."""
    guard = watched(text.encode() + b"\n", Expectation(**expected))
    return {found.id: found.severity for found in guard.findings.values()}


def log(name: str) -> bytes:
    return (LOGS / f"{name}.log").read_bytes()


def severities(name: str, expectation: Expectation) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {f.INVALID: set(), f.DEGRADED: set(), f.INFO: set()}
    for finding in watched(log(name), expectation).findings.values():
        found[finding.severity].add(finding.id)
    return found


def under(signal: catalog.Signal) -> Expectation:
    """An expectation under which the signal counts."""
    wanted = set(signal.only)
    return Expectation(
        device="cuda" if "cuda" in wanted else "cpu",
        warmup="warmup" in wanted,
        compile="compile" in wanted,
        cuda_graph="cuda-graph" in wanted,
        attention_backend="fa" if "attention-backend" in wanted else None,
        gpus=2 if "multi-gpu" in wanted else 1,
        cache="no-cache" not in wanted,
        profile="no-profile" not in wanted,
    )


# --- the catalogue -------------------------------------------------------------------------------------------------


def test_each_category_has_its_file():
    assert {path.stem for path in (catalog.paths.CATALOG / "signals").glob("*.toml")} == CATEGORIES


def test_ids_are_unique():
    ids = [signal.id for signal in SIGNALS]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("signal", [s for s in SIGNALS if s.on == "log"], ids=lambda s: s.id)
def test_the_pattern_is_re2_and_matches_its_example(signal):
    assert Matcher([signal.pattern]).find(signal.example) == [0]


@by_id
def test_the_example_is_found_under_the_signals_conditions(signal):
    guard = Guard(under(signal), stop=False)
    if signal.on == "log":
        guard.observe(signal.example.encode() + b"\n", 1)
    elif signal.on == "argument":
        guard.precheck([signal.example], {})
    else:
        guard.precheck([], dict([signal.example.split("=", 1)]))
    found = [finding for finding in guard.findings.values() if finding.id == signal.id]
    assert len(found) == 1
    softened = signal.by_component and not CORE_COMPONENT.search(found[0].component)
    assert found[0].severity == (f.DEGRADED if softened else signal.severity)
    assert found[0].means == signal.means


@pytest.mark.parametrize("signal", [s for s in SIGNALS if s.only], ids=lambda s: s.id)
def test_a_signal_with_conditions_is_silent_without_them(signal):
    opposite = Expectation(
        cache=True, profile=True, compile="no-compile" in signal.only, cuda_graph="no-cuda-graph" in signal.only
    )
    assert not opposite.conditions().issuperset(signal.only)
    guard = Guard(opposite, stop=False)
    guard.observe(signal.example.encode() + b"\n", 1)
    guard.precheck([signal.example], dict([signal.example.split("=", 1)]) if signal.on == "environment" else {})
    assert signal.id not in {finding.id for finding in guard.findings.values()}


@pytest.mark.parametrize("signal", [s for s in SIGNALS if s.example_is == "captured"], ids=lambda s: s.id)
def test_a_captured_example_is_in_a_captured_log(signal):
    assert any(
        signal.example in clean(path.read_text(encoding="utf-8", errors="replace"))
        for path in LOGS.parent.rglob("*.log")
    )


@pytest.mark.parametrize("signal", [s for s in SIGNALS if s.by_component], ids=lambda s: s.id)
def test_a_signal_that_judges_by_component_names_it(signal):
    assert signal.severity == f.INVALID
    assert Matcher([signal.pattern]).groups(0, signal.example)["component"]


# --- captured logs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLEAN)
def test_a_native_log_is_not_invalid_and_degraded_only_as_it_deserves(name):
    expectation, deserved = CLEAN[name]
    found = severities(name, expectation)
    assert found[f.INVALID] == set()
    assert found[f.DEGRADED] == set(deserved)


@pytest.mark.parametrize("name", CLEAN)
def test_no_invalid_signal_of_any_condition_or_version_matches_a_native_log(name):
    signals = [s for s in SIGNALS if s.on == "log" and s.severity == f.INVALID]
    matcher = Matcher([s.pattern for s in signals])
    for _, line in lines(clean(log(name).decode()), 1):
        for index in matcher.find(line) if "server_args: {" not in line else ():
            component = matcher.groups(index, line).get("component", "transformer")
            assert signals[index].by_component, line
            assert not CORE_COMPONENT.search(component), line


@pytest.mark.parametrize(
    ("name", "identity"),
    [
        ("cpu/awq_sglang", "diffusers.quant_name"),
        ("cpu/diffusers", "diffusers.explicit"),
        ("cpu/unkclass_auto", "diffusers.no_native_class"),
        ("h200/diffusers_eager", "diffusers.generic_config"),
    ],
)
def test_a_diffusers_log_is_invalid_in_several_ways(name, identity):
    found = severities(name, H200_0_5_17 if name.startswith("h200") else CPU_0_5_23)
    assert {identity, "diffusers.pipeline_selected", "diffusers.loading"} <= found[f.INVALID]


@pytest.mark.parametrize(
    ("name", "identity"),
    [
        ("cpu/save_failure", "proc.generation_failed"),
        ("cpu/port_collision", "proc.port"),
        ("cpu/unkclass_sglang", "native.class_unregistered"),
        ("cpu/unknown_flag", "proc.arguments"),
        ("cpu/warmup_flag", "proc.arguments"),
    ],
)
def test_a_failed_engine_is_invalid_as_a_process(name, identity):
    guard = watched(log(name), CPU_0_5_23)
    found = [finding for finding in guard.findings.values() if finding.severity == f.INVALID]
    assert identity in {finding.id for finding in found}
    assert {finding.category for finding in found} == {"process"}
    assert {finding.exit_code for finding in found} == {f.ENGINE_FAILED}


def test_a_run_meant_for_diffusers_is_not_invalid_for_it_but_keeps_its_degradations():
    found = severities("h200/diffusers_eager", replace(H200_0_5_17, backend=DIFFUSERS))
    assert found[f.INVALID] == set()
    assert found[f.DEGRADED] == {"offload.auto_layerwise_old", "diffusers.cpu_offload"}
    assert "diffusers.exec_stage" in found[f.INFO]


@pytest.mark.parametrize(("name", "error"), [("cpu/awq_sglang", FallbackDetected), ("cpu/save_failure", EngineFailed)])
def test_a_watched_launch_is_stopped(name, error):
    with pytest.raises(error) as raised:
        Guard(CPU_0_5_23).observe(log(name), 1)
    assert "log line" in str(raised.value)


# --- what decides --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "heard"), [("0.5.11", False), ("0.5.21", False), ("0.5.22", True), ("0.5.23.post1", True), (None, True)]
)
def test_a_signal_does_not_judge_a_version_before_it(version, heard):
    text = "quality=high has no captured breakable CUDA graphs (warmup captures the server's default level)"
    assert ("bcg.quality_eager" in judged(text, version=version, cuda_graph=True)) is heard


@pytest.mark.parametrize(
    ("version", "heard"), [("0.5.15", False), ("0.5.17", True), ("0.5.21", True), ("0.5.22", False)]
)
def test_a_signal_with_an_end_does_not_judge_what_comes_after(version, heard):
    text = "[Diffusion BCG] disabled for FLUX.1-dev: only Ideogram-4, MiniMax-H3 are currently supported."
    assert ("bcg.disabled_model" in judged(text, version=version, cuda_graph=True)) is heard


@pytest.mark.parametrize(
    ("component", "severity"),
    [
        *((name, f.INVALID) for name in ("transformer", "transformer_2", "vae", "video_dit", "audio_vae")),
        *((name, f.DEGRADED) for name in ("text_encoder", "text_encoder_2", "image_encoder", "vocoder")),
    ],
)
def test_a_component_fallback_is_judged_by_its_component(component, severity):
    text = f"Error while loading customized {component}, falling back to native version"
    assert judged(text) == {"component.fallback": severity}
    assert judged(f"Native component {component}: X is loaded, performance may be sub-optimal").popitem()[1] == severity
    assert judged(f"Loaded {component}: X (native version). model size: 1 GB").popitem()[1] == severity


def test_frames_that_were_not_changed_are_not_another_workload():
    assert judged("Adjusting number of frames from 81 to 81 based on model") == {}
    assert judged("Adjusting number of frames from 81 to 8 based on model") == {"cfg.frames_model": f.INVALID}


@pytest.mark.parametrize(
    "text",
    [
        "Attention backends for transformer: fa",
        "Attention backends for transformer: torch_sdpa (component constraint)",
        "Attention backends for transformer: fa, torch_sdpa (head size 72)",
        "Attention backends for text_encoder: torch_sdpa",
    ],
)
def test_attention_that_the_model_demands_is_no_loss(text):
    assert judged(text, device="cuda") == {}


@pytest.mark.parametrize("backends", ["torch_sdpa", "fa, torch_sdpa", "torch_sdpa, fa", "self=fa; cross=torch_sdpa"])
def test_a_transformer_in_torch_sdpa_is_degraded_on_cuda_only(backends):
    text = f"Attention backends for transformer_2: {backends}"
    assert judged(text, device="cuda") == {"attn.torch_sdpa_transformer": f.DEGRADED}
    assert judged(text, device="cpu") == {}


def test_a_lost_attention_backend_is_invalid_if_it_was_asked_for():
    text = "Sage Attention backend is not installed (To install it, run pip). Falling back to Flash Attention."
    assert judged(text) == {"attn.cuda_sage": f.DEGRADED}
    assert judged(text, attention_backend="sage_attn")["attn.requested_lost"] == f.INVALID


def test_the_autotuners_skipped_candidate_is_not_out_of_memory():
    text = (
        "Runtime error during autotuning: \n"
        "No valid triton configs. OutOfMemoryError: out of resource: triton_mm Required: 262144 Hardware limit:232448"
    )
    assert judged(text, compile=True, device="cuda") == {"compile.autotune_skip": f.INFO}
    assert judged("OutOfMemoryError: out of resource: triton_mm") == {}


@pytest.mark.parametrize(
    "text",
    ["torch.OutOfMemoryError: CUDA out of memory. Tried to", "torch.cuda.OutOfMemoryError", "HIP out of memory. Tried"],
)
def test_out_of_memory_is(text):
    assert judged(text) == {"oom.generic": f.INVALID}


def test_a_traceback_alone_is_never_invalid():
    assert judged("Traceback (most recent call last):\n  File x\nValueError: y") == {"proc.traceback": f.DEGRADED}


def test_a_transformer_that_fits_is_not_degraded():
    text = "Auto memory policy for X: the DiT needs 22.2 GiB per GPU in bfloat16, 85% of the 139 GiB free, so it {}."
    assert judged(text.format("keeps its declared placement")) == {"offload.auto_resident": f.INFO}
    streams = "streams layer by layer (as with --layerwise-offload-components dit)"
    assert judged(text.format(streams)) == {"offload.auto_dit": f.DEGRADED}


def test_a_transformer_is_offloaded_for_the_warm_up_only_while_compiling():
    text = "Enabled layerwise offload for FluxTransformer2DModel on modules: ['transformer_blocks']"
    assert judged(text, compile=True) == {"compile.offload_window": f.INFO}
    assert judged(text) == {"offload.dit_layerwise": f.DEGRADED}


def test_a_default_size_is_not_a_changed_one():
    assert judged("Resolution unspecified, using default: (1280, 720)") == {"cfg.resolution_unspecified": f.DEGRADED}


# --- before anything starts ----------------------------------------------------------------------------------------


def prechecked(*argv: str, environment: dict[str, str] | None = None, **expected: object) -> dict[str, str]:
    guard = Guard(Expectation(**expected), stop=False)
    guard.precheck(argv, environment or {})
    return {found.id: found.severity for found in guard.findings.values()}


@pytest.mark.parametrize("path", ["models/x-awq", "models/x-AWQ/snapshot", "/data-4bit/flux", "TheBloke/x-GPTQ-8"])
def test_a_path_that_trips_the_quantised_name_fallback_is_refused_with_the_way_out(path):
    with pytest.raises(FallbackDetected) as raised:
        Guard(Expectation()).precheck([f"--model-path={path}"], {})
    assert "symbolic link" in raised.value.todo
    assert "--no-precheck" in raised.value.todo
    assert prechecked(f"--model-path={path}", backend=DIFFUSERS) == {"argument.quant_name": f.INFO}


def test_a_plain_launch_passes():
    argv = ["--model-path=models/FLUX.1-dev", "--backend=sglang", "--log-level=info", "--prompt=a 4bit awq-style cat"]
    environment = {"SGLANG_CACHE_DIT_ENABLED": "0", "SGLANG_ENABLE_FUSED_QKNORM_ROPE": "1", "CUDA_LAUNCH_BLOCKING": "0"}
    environment |= {"SGLANG_DIFFUSION_CFG_GATE_STEP": "1.0"}
    assert prechecked(*argv, environment=environment, device="cuda", compile=True) == {}


def test_profiling_and_caches_are_refused_unless_asked_for():
    argv = ["--profile", "--enable-cache-dit"]
    environment = {"SGLANG_CACHE_DIT_ENABLED": "True"}
    assert set(prechecked(*argv, environment=environment).values()) == {f.INVALID}
    assert prechecked(*argv, environment=environment, cache=True, profile=True) == {}


GATES = ("0.4", ".4", "1e-1", "+0.5", " 0.5 ", "5E-1", "00.50", "nan", "-0.0", "0_0.5")


@pytest.mark.parametrize("value", GATES)
def test_skipped_guidance_is_refused_however_it_is_written(value):
    refused = {"argument.cfg_gate": f.INVALID}
    assert prechecked(f"--cfg-gate-step={value}") == refused
    assert prechecked("--cfg-gate-step", value) == refused
    assert prechecked("--cfg_gate_step", value) == refused
    variables = {"SGLANG_DIFFUSION_CFG_GATE_STEP": value}
    for cache in (False, True):
        assert prechecked(environment=variables, cache=cache) == {"environment.cfg_gate": f.INVALID}


@pytest.mark.parametrize("value", ["1", "1.0", "1.", "10e-1", " 1.00 "])
def test_guidance_that_is_never_skipped_passes(value):
    assert prechecked("--cfg-gate-step", value, environment={"SGLANG_DIFFUSION_CFG_GATE_STEP": value}) == {}


@pytest.mark.parametrize(
    ("argv", "refused"),
    [
        (["--cache-dit-config", "f.yaml"], "argument.cache_config"),
        (["--enable_cache_dit", "TRUE"], "argument.cache"),
        (["--enable-cache-dit", "--fps=8"], "argument.cache"),
        (["--progressive-mode", "dct_rewind"], "argument.progressive"),
        (["--log-level", "Warning"], "argument.log_level"),
        (["--log-level=ERROR"], "argument.log_level"),
        (["--log-level=critical"], "argument.log_level"),
        (["--profile", "yes"], "argument.profile"),
        (["--model-path", "models/x-awq"], "argument.quant_name"),
        (["--backend", "diffusers"], "argument.diffusers"),
    ],
)
def test_a_flag_and_its_value_in_two_words_are_one_argument(argv, refused):
    assert prechecked(*argv) == {refused: f.INVALID}


def test_a_flag_that_is_switched_off_passes():
    argv = ["--enable-cache-dit", "false", "--profile=False", "--progressive-mode", "fullres"]
    assert prechecked(*argv, environment={"SGLANG_CACHE_DIT_ENABLED": ""}) == {}


def test_the_engines_own_word_on_skipped_guidance_is_heard():
    enabled = "CFG gating enabled: reuse unconditioned residual after step 2/20 (fraction=0.100)."
    summary = "CFG gating summary: fraction=0.100, gate_step=2/20, fresh_uncond=2, reused={}, invalidations=0"
    assert judged(enabled) == judged(summary.format(18)) == {"cache.cfg_gate": f.INVALID}
    assert judged(enabled, cache=True) == {"cache.cfg_gate": f.INVALID}
    assert judged(summary.format(0)) == {}


def test_a_variable_that_changes_the_steps_unseen_is_refused():
    with pytest.raises(FallbackDetected):
        Guard(Expectation()).precheck([], {"SGLANG_TEST_NUM_INFERENCE_STEPS": "2"})


# --- hostile logs --------------------------------------------------------------------------------------------------

MARK = b"Loaded diffusers pipeline: FluxPipeline"


@pytest.mark.parametrize(
    "block",
    [
        b"x" * 10_000_000,
        b"a" * 1_000_000,
        b"(" * 1_000_000,
        b"Pipeline class '" * 60_000,
        b"Auto memory policy for x: " * 40_000,
        b"Adjusting number of frames from 1 to " * 30_000,
        bytes(range(128, 256)) * 8_000,
        b"\xff\xfe\x00" * 300_000,
        b"\x1b[31m" * 200_000,
        b"\x1b[" * 500_000,
        b" 50%|#####     |\r" * 60_000,
        b"\r" * 1_000_000,
    ],
    ids=["10MB", "a", "paren", "quote", "policy", "frames", "not-utf8", "nul", "ansi", "half-ansi", "bar", "cr"],
)
def test_a_hostile_log_is_read_whole_and_hides_nothing(block):
    assert watched(block + b"\n", H200_0_5_17).findings.keys() <= {("proc.traceback", None)}
    for hidden in (block + b"\n" + MARK, block + b"\r" + MARK + b"\r" + block, block + b" " + MARK):
        found = watched(hidden + b"\n", H200_0_5_17).findings
        assert found["diffusers.loading", None].severity == f.INVALID
        assert len(found["diffusers.loading", None].text) <= 300


def test_every_signal_is_still_found_among_pieces_of_all_the_others():
    texts = [signal.example for signal in SIGNALS if signal.on == "log"]
    pieces = [text[len(text) // part :] for part in (2, 3, 4) for text in texts]
    noise = " ".join(pieces * 20)
    matcher = Matcher([signal.pattern for signal in SIGNALS if signal.on == "log"])
    for index, text in enumerate(texts):
        assert index in matcher.find(f"{noise[index * 97 : index * 97 + 20_000]}\n{text}")
