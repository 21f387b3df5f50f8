"""Receipts: an optional feature that was asked for engaged, did not, or has no evidence; the three are never mixed."""

import gzip
import json

import pytest
from helpers import DATA, LOGS, NATIVE, ROOT, record_of

from bench import schema
from bench.catalog import receipts as catalog
from bench.fallback import receipts
from bench.fallback.expectation import Expectation
from bench.fallback.facts import Traced
from bench.fallback.guard import Guard
from bench.fallback.matcher import Matcher, clean
from bench.fallback.verdict import Verdict, conclude
from bench.profiling import proof

FEATURES = {feature.id: feature for feature in catalog.features()}
LINES = receipts.signs_of(None)

COMPUTED, REUSED = 100.0, 8.0
ALL_COMPUTED = [COMPUTED, 101.0, 99.0, 102.0, 100.0, 98.0, 101.0, 100.0, 99.0, 100.0]
SOME_REUSED = [COMPUTED, 101.0, 99.0, 102.0, REUSED, REUSED, 101.0, REUSED, REUSED, 100.0]
UNCLEAR = [COMPUTED, 101.0, 99.0, 102.0, 70.0, 66.0, 101.0, 71.0, 60.0, 100.0]

RANKS = "Initializing distributed environment with world_size=2, device=cuda:0, timeout=3600"
ONE_RANK = "Initializing distributed environment with world_size=1, device=cuda:0, timeout=3600"
SP_SKIPPED = "Latent time dim 21 is not divisible by SP degree 2; skipping sequence shard for correctness."
CACHE_DIT = (
    "Enabling cache-dit on FluxTransformer2DModel with config: Fn=1, Bn=0, W=4, R=0.24, MC=3, "
    "TaylorSeer=False (order=1), steps={}"
)
LORA = "Rank 0: LoRA adapter(s) lora applied to {} layers (targets: all, strengths: 1.00, merge_mode=auto)"

CASES = {
    # feature: arguments, then the lines (and resolved arguments) with which it engaged and with which it did not
    "lora": (["--lora-path=lora"], [LORA.format(12)], [LORA.format(0)]),
    "attention-backend": (
        ["--attention-backend=fa"],
        ["Attention backends for transformer: fa"],
        ["Attention backends for transformer: torch_sdpa"],
    ),
    "component-attention": (
        ["--component-attention-backends=transformer=fa"],
        ["Attention backends for text_encoder: torch_sdpa", "Attention backends for transformer: fa"],
        ["Attention backends for text_encoder: fa", "Attention backends for transformer: torch_sdpa"],
    ),
    "quantization": (
        ["--quantization=fp8"],
        ["Using quantization override fp8 for transformer"],
        ["ModelOpt FP8 quant config detected but no ModelOpt FP8 linears were found; running without"],
    ),
    "cfg-parallel": (
        ["--num-gpus=2", "--enable-cfg-parallel"],
        ["CFG parallel dispatch: rank 0/2 -> [cond]"],
        ["Automatically disabled CFG parallel for 2 GPUs based on model deployment config."],
    ),
    "ulysses": (["--ulysses-degree=2"], [{"ulysses_degree": 2}, RANKS], [{"ulysses_degree": 2}, RANKS, SP_SKIPPED]),
    "ring": (["--ring-degree=2"], [{"ring_degree": 2}, RANKS], [{"ring_degree": 1}, RANKS]),
    "kv-gather": (["--kv-gather-degree=2"], [{"kv_gather_degree": 2}, RANKS], [{"kv_gather_degree": 2}, ONE_RANK]),
    "tensor-parallel": (["--tp-size=2"], [{"tp_size": 2}, RANKS], [{"tp_size": 2}, ONE_RANK]),
    "sequence-parallel": (
        ["--num-gpus=2"],
        ["Automatically set kv_gather_degree=sp_degree=2; set --ulysses-degree explicitly"],
        [SP_SKIPPED],
    ),
    "layerwise-offload": (
        ["--dit-layerwise-offload=true"],
        ["Layerwise offload summary: transformer (cpu)"],
        ["Layerwise offload components do not support layerwise offload: ['transformer']"],
    ),
    "dit-cpu-offload": (
        ["--dit-cpu-offload=true"],
        [{"dit_cpu_offload": True}],
        [{"dit_cpu_offload": False}],
    ),
    "vae-parallel": (["--vae-config.use-parallel-decode=true"], ["FLUX.2 VAE: spatial-parallel decode enabled"], None),
    "quality": (
        ["--quality=high"],
        ["Mounted fused_linear_gelu for quality=high"],
        ["fused linear+GELU: FluxGELU site failed static guards (x); keeping the whole model on the reference path"],
    ),
    "residency": (
        ["--component-residency=dit=resident"],
        None,
        ["Warmup could not keep transformer resident after request finalization"],
    ),
    "vae-tiling": (
        ["--vae-tiling"],
        None,
        ["--vae-tiling has no effect: AutoencoderOobleck does not support enabling tiling at runtime."],
    ),
    "dynamic-batching": (
        ["--batching-max-size=4"],
        ["Processed dynamic batch of 3/4 request(s) with max_delay=20.00ms"],
        ["Processed dynamic batch of 1/4 request(s) with max_delay=20.00ms"],
    ),
    "cache-dit": (["--enable-cache-dit"], [CACHE_DIT.format(10), SOME_REUSED], [CACHE_DIT.format(4)]),
    "teacache": (["--enable-teacache=true"], [SOME_REUSED], [ALL_COMPUTED]),
}
"""None: no version's lines can show it. Strings are lines, a mapping is what the engine resolved, a list its steps."""


def judged(arguments, seen, *, version="0.5.23", environment=None, launched=True):
    """Return the verdict on a launch with these arguments whose log has these lines."""
    cache = receipts.asks_for_cache(arguments, environment or {})
    guard = Guard(Expectation(version=version, cache=cache), stop=False)
    if launched:
        guard.note(["sglang", "generate", *arguments], environment or {})
    for number, item in enumerate(seen, start=1):
        if isinstance(item, list):
            guard.facts.learn_steps({"denoise_steps_ms": [{"duration_ms": step} for step in item]})
        else:
            line = f"server_args: {json.dumps(item)}" if isinstance(item, dict) else item
            guard.observe(f"[11-22 10:00:00] {line}\n".encode(), number)
    guard.observe(b"[11-22 10:00:00] [DenoisingStage] finished in 0.3000 seconds\n", len(seen) + 1)
    return conclude(guard, None)


def traced(guard_arguments, kernels=(), blocks=(), seen=(), forwards=None):
    """Return the verdict on a launch that traced a request which ran these kernels, once each, and these blocks."""
    guard = Guard(Expectation(version="0.5.23", cache=receipts.asks_for_cache(guard_arguments, {})), stop=False)
    guard.note(guard_arguments, {})
    guard.facts.traced = Traced(
        kernels=dict.fromkeys(kernels, 1), blocks=tuple(blocks), forwards=tuple(forwards or (1 for _ in blocks))
    )
    for number, line in enumerate(seen, start=1):
        guard.observe(f"[11-22 10:00:00] {line}\n".encode(), number)
    return conclude(guard, None)


def result(verdict, feature):
    return next(receipt.result for receipt in verdict.receipts if receipt.id == feature)


def against(verdict, feature):
    """Return the severities of what the verdict has against a feature, said by a receipt or by what tells the same."""
    ids = {f"receipt.{feature.replace('-', '_')}", *FEATURES[feature].told_by}
    return {finding.severity for finding in verdict.findings if finding.id in ids}


# --- the catalogue -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", LINES, ids=lambda sign: sign.pattern)
def test_a_pattern_is_re2_and_is_found_in_its_example(sign):
    assert Matcher([sign.pattern]).find(sign.example) == [0]


@pytest.mark.parametrize("sign", [s for s in LINES if s.example_is == "captured"], ids=lambda sign: sign.pattern)
def test_a_captured_example_is_in_a_captured_log(sign):
    packed = (gzip.decompress(path.read_bytes()).decode(errors="replace") for path in DATA.rglob("*.log.gz"))
    plain = (path.read_text(encoding="utf-8", errors="replace") for path in DATA.rglob("*.log"))
    assert any(sign.example in clean(text) for texts in (plain, packed) for text in texts)


def test_each_feature_has_a_case_here():
    assert set(CASES) == set(FEATURES)
    assert {part for case in CASES.values() for part in case[1:] if part is None} == {None}


def test_what_tells_the_same_exists():
    from bench.catalog import signals

    known = {signal.id for signal in signals.signals()} | {"request.attention_backend", "request.attention_untold"}
    assert {told for feature in FEATURES.values() for told in feature.told_by} <= known


# --- the three results ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("feature", [name for name, case in CASES.items() if case[1] is not None])
def test_a_feature_that_engaged_has_its_receipt(feature):
    arguments, seen, _ = CASES[feature]
    verdict = judged(arguments, seen)
    assert result(verdict, feature) == receipts.ENGAGED
    assert f"receipt.{feature.replace('-', '_')}" not in {finding.id for finding in verdict.findings}


@pytest.mark.parametrize("feature", [name for name, case in CASES.items() if case[2] is not None])
def test_a_feature_that_did_not_engage_is_told_by_its_kind(feature):
    arguments, _, seen = CASES[feature]
    verdict = judged(arguments, seen)
    assert result(verdict, feature) == receipts.NOT_ENGAGED
    assert against(verdict, feature), "neither by a receipt nor by a signal that says the same"


@pytest.mark.parametrize("feature", [name for name, feature in FEATURES.items() if feature.silence])
def test_where_an_engine_tells_every_engagement_silence_means_none(feature):
    degrees = {"ulysses_degree": 2, "ring_degree": 2, "kv_gather_degree": 2, "tp_size": 2}
    verdict = judged(CASES[feature][0], [degrees, ALL_COMPUTED])
    assert result(verdict, feature) == receipts.NOT_ENGAGED
    assert against(verdict, feature) == {FEATURES[feature].kind}


@pytest.mark.parametrize("feature", [name for name, feature in FEATURES.items() if not feature.silence])
def test_silence_of_an_engine_that_tells_little_is_no_evidence(feature):
    verdict = judged(CASES[feature][0], ["nothing of it"])
    assert result(verdict, feature) == receipts.NO_EVIDENCE
    assert f"receipt.{feature.replace('-', '_')}" not in {finding.id for finding in verdict.findings}


@pytest.mark.parametrize("feature", ["lora", "quantization", "quality"])
def test_a_version_that_nobody_read_has_no_evidence(feature):
    assert result(judged(CASES[feature][0], ["x"], version="0.5.11"), feature) == receipts.NO_EVIDENCE


def test_what_was_not_asked_for_has_no_receipt():
    asked_off = ["--enable-teacache=false", "--tp-size=1", "--num-gpus=1", "--vae-tiling", "false", "--quality=exact"]
    verdict = judged(asked_off, [LORA.format(3), RANKS], environment={"SGLANG_CACHE_DIT_ENABLED": "off"})
    assert verdict.receipts == ()


def test_the_last_value_of_a_flag_counts_as_it_does_to_the_engine():
    assert judged(["--tp-size=2", "--tp_size", "1"], []).receipts == ()
    (receipt,) = judged(["--enable_teacache=0", "--enable-teacache=TRUE"], []).receipts
    assert receipt.asked == "--enable-teacache=TRUE"


@pytest.mark.parametrize(
    ("arguments", "gpus"),
    [
        (["--num-gpus=4", "--tp-size=2", "--enable-cfg-parallel"], None),
        (["--num-gpus=4", "--cfg-parallel-size=2"], "2"),
        (["--num-gpus=8"], "8"),
        (["--num-gpus=2", "--ulysses-degree=2"], None),
    ],
)
def test_the_exchange_is_the_engines_choice_where_gpus_are_left_for_the_sequence(arguments, gpus):
    asked = {one.feature.id: one.value for one in receipts.wanted(arguments, {})}
    assert asked.get("sequence-parallel") == gpus


# --- caches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "reused"),
    [
        (SOME_REUSED, 4),
        (ALL_COMPUTED, 0),
        (UNCLEAR, None),
        ([COMPUTED, 101.0, 99.0, REUSED], None),
        ([1748.0, 3976.0, 5105.0, 4618.0, 2519.0, 2604.0, 3849.0, 3322.0, 3542.0, 3118.0], None),
        ([900.0, *ALL_COMPUTED], 0),
        ([300.0, 280.0, *ALL_COMPUTED[2:]], None),
        ([COMPUTED] * 12 + [REUSED] * 38, 38),
    ],
)
def test_reused_steps_are_told_by_their_time_where_it_is_clear(steps, reused):
    assert receipts.reused_steps(steps) == reused


def test_an_inert_threshold_is_a_cache_that_did_not_engage():
    verdict = judged(["--enable-cache-dit"], [CACHE_DIT.format(10), ALL_COMPUTED])
    assert result(verdict, "cache-dit") == receipts.NOT_ENGAGED
    assert "0 of 10 steps" in verdict.receipts[0].text
    assert against(verdict, "cache-dit") == {"invalid"}


@pytest.mark.parametrize("steps", [SOME_REUSED, ALL_COMPUTED])
def test_a_step_time_of_a_cpu_is_no_evidence(steps):
    on_cpu = ONE_RANK.replace("cuda:0", "cpu")
    assert result(judged(["--enable-teacache"], [on_cpu, steps]), "teacache") == receipts.NO_EVIDENCE


def test_one_request_without_reuse_among_others_decides():
    verdict = judged(["--enable-teacache"], [SOME_REUSED, ALL_COMPUTED])
    assert result(verdict, "teacache") == receipts.NOT_ENGAGED


def test_a_mounted_cache_whose_steps_do_not_tell_has_no_evidence():
    assert result(judged(["--enable-cache-dit"], [CACHE_DIT.format(10), UNCLEAR]), "cache-dit") == receipts.NO_EVIDENCE


@pytest.mark.parametrize(
    ("name", "arguments", "results"),
    [
        (
            "engaged",
            ["--lora-path=models/lora/good", "--enable-cache-dit", "--quality=high", "--attention-backend=torch_sdpa"],
            {
                "lora": "engaged",
                "cache-dit": "no evidence",
                "quality": "asked, not engaged",
                "attention-backend": "engaged",
            },
        ),
        (
            "inert",
            ["--lora-path=models/lora/foreign", "--enable-cache-dit", "--enable-teacache"],
            {"lora": "asked, not engaged", "cache-dit": "asked, not engaged", "teacache": "no evidence"},
        ),
        ("ranks", ["--num-gpus=2", "--tp-size=2"], {"tensor-parallel": "engaged"}),
    ],
)
def test_a_log_captured_of_0_5_23_on_a_cpu_gives_these_receipts(name, arguments, results):
    guard = Guard(Expectation(version="0.5.23", device="cpu", cache=True), stop=False)
    guard.note(arguments, {})
    guard.observe((DATA / "receipts" / f"{name}_0.5.23.log").read_bytes(), 1)
    assert {receipt.id: receipt.result for receipt in conclude(guard, None).receipts} == results


# --- kernels of a traced request -----------------------------------------------------------------------------------

FA3 = "void cutlass::device_kernel<flash::enable_sm90_or_later<flash::FlashAttnFwdSm90<...> > >(Params)"
SDPA = (
    "void pytorch_flash::flash_fwd_kernel<pytorch_flash::Flash_fwd_kernel_traits<128>>(pytorch_flash::Flash_fwd_params)"
)
ON_CPU = "aten::_scaled_dot_product_flash_attention_for_cpu"
GEMM = "aten::addmm"

PROOFS = {
    # feature: arguments, then the kernels (or the blocks of each step) with which it engaged and with which it did not
    "attention-backend": [
        (["--attention-backend=fa"], [FA3, GEMM], [SDPA, GEMM]),
        (["--attention-backend=torch_sdpa"], [SDPA], [FA3]),
        (["--attention-backend=torch_sdpa"], [ON_CPU], ["sgl_kernel::sageattn"]),
    ],
    "quantization": [
        (["--quantization=fp8"], ["aten::_scaled_mm", GEMM], [GEMM]),
        (["--enable-svdquant=true"], ["nunchaku::kernels::gemm_w4a4", GEMM], [GEMM]),
    ],
    "cache-dit": [(["--enable-cache-dit"], [57, 57, 1, 57], [57, 57, 57])],
    "teacache": [(["--enable-teacache"], [57, 57, 0, 57], [57, 57, 57])],
}


def proven(arguments, ran):
    """Return the verdict on a request that ran these kernels or blocks; cache-dit says that it is mounted."""
    by_blocks = isinstance(ran[0], int)
    mounted = [CACHE_DIT.format(20)] if arguments == ["--enable-cache-dit"] else []
    return traced(arguments, () if by_blocks else ran, ran if by_blocks else (), mounted)


@pytest.mark.parametrize(("feature", "case"), [(name, case) for name, cases in PROOFS.items() for case in cases])
def test_the_kernels_of_a_traced_request_decide_where_no_line_does(feature, case):
    arguments, engaged, other = case
    assert result(proven(arguments, engaged), feature) == receipts.ENGAGED
    verdict = proven(arguments, other)
    assert result(verdict, feature) == receipts.NOT_ENGAGED
    assert against(verdict, feature) == {FEATURES[feature].kind}
    unknown = traced(arguments, ["some_kernel"])
    assert result(unknown, feature) != receipts.ENGAGED


def test_a_trace_tells_the_blocks_and_the_passes_of_each_step_and_leaves_out_what_followed_the_loop():
    """Two blocks of each kind: a step that reuses runs the first alone. The profiler's last step has no transformer."""
    seen = proof.read([DATA / "traces" / "cache-dit-cpu-0.5.23.trace.json.gz"])
    assert seen.blocks == (4, 4, 4, 1, 1, 1, 4, 1, 1, 1, 4)
    assert seen.forwards == (1,) * 11
    assert seen.kernels["aten::scaled_dot_product_attention"] == sum(seen.blocks)


@pytest.mark.parametrize(
    ("blocks", "forwards", "engaged"),
    [
        ([114, 114, 57, 57], [2, 2, 1, 1], receipts.NOT_ENGAGED),
        ([114, 114, 58, 57], [2, 2, 2, 1], receipts.ENGAGED),
        ([114, 57, 1], [2, 1, 1], receipts.ENGAGED),
    ],
    ids=["guidance-left-out", "reused-with-guidance", "reused-without"],
)
def test_a_step_without_its_guidance_pass_reuses_nothing(blocks, forwards, engaged):
    assert result(traced(["--enable-teacache"], (), blocks, forwards=forwards), "teacache") == engaged


def test_kernels_are_no_evidence_of_a_value_that_nobody_knows():
    assert result(traced(["--attention-backend=aiter"], [FA3]), "attention-backend") == receipts.NO_EVIDENCE


def test_a_line_that_denies_a_feature_outweighs_its_kernels():
    verdict = traced(["--attention-backend=fa"], [FA3], seen=["Attention backends for transformer: torch_sdpa"])
    assert result(verdict, "attention-backend") == receipts.NOT_ENGAGED


@pytest.mark.parametrize("quality", ["high", "lossless", "extra-high"])
def test_a_kernel_that_only_a_quality_mounts_is_its_receipt(quality):
    verdict = traced([f"--quality={quality}"], [GEMM, "aten::_addmm_activation"])
    assert result(verdict, "quality") == receipts.ENGAGED
    assert result(traced([f"--quality={quality}"], [GEMM]), "quality") == receipts.NO_EVIDENCE


def test_of_two_caches_the_reused_steps_do_not_tell_which():
    asked = ["--enable-cache-dit", "--enable-teacache"]
    verdict = traced(asked, blocks=[57, 57, 1, 57], seen=[CACHE_DIT.format(20)])
    assert {receipt.result for receipt in verdict.receipts} == {receipts.NO_EVIDENCE}
    none = traced(asked, blocks=[57, 57, 57], seen=[CACHE_DIT.format(20)])
    assert {receipt.result for receipt in none.receipts} == {receipts.NOT_ENGAGED}


@pytest.mark.parametrize(
    ("trace", "asked", "expected"),
    [
        ("flux-h200", "--attention-backend=fa", receipts.ENGAGED),
        ("flux-h200", "--attention-backend=torch_sdpa", receipts.NOT_ENGAGED),
        ("flux-h200", "--quality=high", receipts.NO_EVIDENCE),
        ("flux-h200", "--quantization=fp8", receipts.NOT_ENGAGED),
        ("flux-h200", "--enable-teacache", receipts.NOT_ENGAGED),
        ("flux-h100-0.5.23", "--quality=lossless", receipts.ENGAGED),
        ("flux-h100-0.5.23", "--attention-backend=fa", receipts.ENGAGED),
    ],
)
def test_captured_traces_of_two_gpus_give_these_receipts(trace, asked, expected):
    guard = Guard(Expectation(version="0.5.23"), stop=False)
    guard.note([asked], {})
    guard.facts.traced = proof.read([DATA / "traces" / f"{trace}.trace.json.gz"])
    (receipt,) = conclude(guard, None).receipts
    assert receipt.result == expected, receipt


def prove(bench, *arguments, **changes):
    """Run `bench --prove-kernels` on the replay engine; return how it ended and the record."""
    ended = bench("--prove-kernels", "--repeats", "2", *arguments, trace=TRACE, **changes)
    return ended, record_of(ended)


TRACE = str(DATA / "traces" / "flux-h200.trace.json.gz")


def test_a_traced_request_is_never_a_timed_one(bench):
    ended, record = prove(bench, "--attention-backend=fa")
    assert ended.code == 4, "the log of the replay says torch_sdpa"
    ended, record = prove(bench, "--quality=high", "--show-receipts", engine="other")
    assert ended.code == 0, ended.err
    assert "2 requests, 1 launch" in ended.out
    assert schema.violations(record, "run-record") == []
    timed, proving = record["launches"]
    assert (timed["instrument"]["profiler"], proving["instrument"]["profiler"]) == (False, True)
    assert {request["launch"] for request in record["requests"]} == {timed["index"]}
    assert record["timings"]["requests"] == 2
    assert proving["left_out"] == [0, 3]
    assert record["instrument"]["profiler"] is False
    variables = [set(launch["command"]["environment"]) for launch in record["launches"]]
    assert variables[1] - variables[0] == {"SGLANG_DIFFUSION_TORCH_PROFILER_DIR"}
    dumps = {request["perf_dump"]["file"] for request in record["requests"]}
    assert record["profiled"]["perf_dump"]["file"].endswith("perf.profiled.json")
    assert record["profiled"]["perf_dump"]["file"] not in dumps
    (receipt,) = record["verdict"]["receipts"]
    assert receipt == proving["verdict"]["receipts"][0]
    assert "a traced request ran no kernel that is known to be of a quality" in receipt["text"]


def test_a_run_whose_kernels_are_of_another_product_does_not_count(bench):
    ended, record = prove(bench, "--", "--quantization=fp8")
    assert ended.code == 4
    assert record["verdict"]["findings"][0]["id"] == "receipt.quantization"
    assert (record["timings"], record["requests"]) == (None, [])
    assert record["profiled"]["traces"]


def test_a_run_without_its_trace_keeps_its_numbers_and_says_so(bench, only_run):
    ended = bench("--prove-kernels", "--repeats", "2", "--quality=high")
    assert ended.code == 3
    assert "the profiler left no trace" in ended.err
    record = json.loads((only_run() / "run.partial.json").read_text())
    assert (len(record["requests"]), record["profiled"]) == (2, None)


def test_a_matrix_proves_no_kernels(bench):
    assert "--prove-kernels is for one run" in bench("--prove-kernels", "--matrix", "quality").err


# --- where they are said -------------------------------------------------------------------------------------------


def test_a_line_that_a_signal_has_judged_is_not_told_twice():
    verdict = judged(["--ulysses-degree=2"], [{"ulysses_degree": 2}, RANKS, SP_SKIPPED])
    about = [finding for finding in verdict.findings if "sequence" in finding.text]
    assert [finding.id for finding in about] == ["cfg.sp_skip"]
    foreign = "LoRA adapter lora did not match any LoRA layer. Checked 50 layers; examples: proj_out"
    verdict = judged(["--lora-path=lora"], [foreign, ALL_COMPUTED])
    assert [finding.id for finding in verdict.reasons() if "lora" in finding.id] == ["lora.without_effect"]


def test_a_launch_that_a_lost_feature_stopped_says_so_in_its_receipt():
    guard = Guard(Expectation(version="0.5.23"))
    guard.note(["--lora-path=lora"], {})
    with pytest.raises(Exception, match="did not match any LoRA layer"):
        guard.observe(b"LoRA adapter lora did not match any LoRA layer. Checked 50 layers; examples: x\n", 1)
    assert result(conclude(guard, None), "lora") == receipts.NOT_ENGAGED


def test_a_launch_that_was_stopped_is_not_told_what_it_did_not_come_to():
    guard = Guard(Expectation(version="0.5.23"))
    guard.note(["--lora-path=lora"], {})
    with pytest.raises(Exception, match="diffusers"):
        guard.observe(b"Using diffusers backend for model x\n", 1)
    verdict = conclude(guard, None)
    assert result(verdict, "lora") == receipts.NO_EVIDENCE
    assert not against(verdict, "lora")


def test_a_log_made_elsewhere_is_asked_by_its_own_arguments():
    seen = [{"lora_path": "lora", "attention_backend": None, "tp_size": 1}]
    assert result(judged([], seen, launched=False), "lora") == receipts.NOT_ENGAGED
    assert result(judged([], [*seen, LORA.format(7)], launched=False), "lora") == receipts.ENGAGED
    unknown = judged([], seen, launched=False, version=None)
    assert result(unknown, "lora") == receipts.NO_EVIDENCE, "of an unknown version silence says nothing"


def test_a_verdict_with_receipts_is_a_document_and_read_again():
    verdict = judged(["--lora-path=lora", "--vae-tiling"], [LORA.format(3)])
    document = json.loads(json.dumps(verdict.document()))
    assert schema.violations(document, "verdict") == []
    assert Verdict.from_document(document).receipts == verdict.receipts


def with_line(home, line, name="cpu/warmup_request.log"):
    """Return a captured log with one more line in front of its last."""
    text = (LOGS / name).read_text()
    path = home / "engine.log"
    path.write_text(text.replace("[DenoisingStage] finished", f"{line}\n[11-22 10:00:00] [DenoisingStage] finished", 1))
    return str(path)


def test_a_run_without_the_adapter_that_it_asked_for_does_not_count(bench, only_run):
    ended = bench("--", "--lora-path=models/lora")
    assert ended.code == 4, ended.err
    record = json.loads((only_run() / "run.json").read_text())
    assert record["verdict"]["findings"][0]["id"] == "receipt.lora"
    assert record["timings"] is None
    assert "receipt.lora" in ended.out


def test_a_run_with_its_adapter_counts_and_shows_the_receipt(bench, only_run, home):
    ended = bench(
        "--show-receipts", "--", "--lora-path=models/lora", "--vae-tiling", log=with_line(home, LORA.format(5))
    )
    assert ended.code == 0, ended.out + ended.err
    assert "applied to 5 layers" in " ".join(ended.out.split())
    record = json.loads((only_run() / "run.json").read_text())
    assert schema.violations(record, "run-record") == []
    assert {receipt["id"]: receipt["result"] for receipt in record["launches"][0]["verdict"]["receipts"]} == {
        "lora": receipts.ENGAGED,
        "vae-tiling": receipts.NO_EVIDENCE,
    }


def test_what_has_no_evidence_is_said_without_being_asked(bench):
    ended = bench("--", "--vae-tiling")
    assert ended.code == 0, ended.err
    assert "no evidence that these engaged: --vae-tiling" in ended.out


def test_a_run_that_asked_for_nothing_says_so(bench):
    assert "no optional feature was asked for" in bench("--show-receipts").out


def test_a_cache_that_a_preset_asks_for_is_expected_and_one_behind_the_dashes_is_not(invoke, replay, model, home):
    line = CACHE_DIT.format(10)
    dump = {"denoise_steps_ms": [{"step": n, "duration_ms": step} for n, step in enumerate(SOME_REUSED)]}
    engine = replay(**NATIVE | {"log": with_line(home, line), "dump_changes": dump})
    run = ["bench", "--engine", engine, "--model-path", model(), "--json"]
    assert invoke(*run, "--model", "flux-tiny", "--", "--enable-cache-dit").code == 4
    flux = invoke("models", "--model", "flux-tiny", "--json")
    preset = json.loads(flux.out)["flux-tiny"]
    del preset["receipts"]
    presets = home / "presets.toml"
    lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in preset.items() if name != "checkpoint")
    presets.write_text(f'[cached]\n{lines}arguments = ["--enable-cache-dit"]\n')
    asked = invoke("models", "--preset-file", presets, "--model", "cached")
    assert "receipt cache-dit: --enable-cache-dit" in asked.out
    ended = invoke(*run, "--preset-file", presets, "--model", "cached")
    record = json.loads(ended.out)
    assert [receipt["id"] for receipt in record["verdict"]["receipts"]] == ["cache-dit"]
    assert not [finding["id"] for finding in record["verdict"]["findings"] if "cache" in finding["id"]]


@pytest.mark.parametrize(
    ("log", "outcome", "feature", "result", "says"),
    [
        ("two_ranks", "degraded", "sequence-parallel", "engaged", "Automatically set kv_gather_degree=sp_degree=2"),
        ("two_ranks_ring", "invalid", "ring", "no evidence", "resolved ring_degree = 2, and served no request"),
    ],
)
def test_two_ranks_on_a_cpu_are_attested(invoke, log, outcome, feature, result, says):
    """0.5.23 gathers keys and values there; with a ring only diffusers' transformer loads, and it refuses two ranks."""
    ended = invoke("attest", "--log", LOGS / "cpu" / f"{log}.log", "--engine-version", "0.5.23", "--json")
    verdict = json.loads(ended.out)
    assert verdict["outcome"] == outcome
    receipt = next(each for each in verdict["receipts"] if each["id"] == feature)
    assert receipt["result"] == result
    assert says in receipt["text"]


@pytest.mark.parametrize(
    ("log", "result", "says"),
    [
        ("h100_batch", receipts.ENGAGED, "batch of 4/4"),
        ("batch23", receipts.NOT_ENGAGED, "the engine logs a line when it engages, and the log has none"),
    ],
)
def test_batching_of_a_served_log_is_attested(invoke, log, result, says):
    """The second server was sent four requests at once, on a CPU, and dispatched each of its 62 alone."""
    ended = invoke("attest", "--log", DATA / "serving" / f"{log}.log.gz", "--engine-version", "0.5.23", "--json")
    (receipt,) = json.loads(ended.out)["receipts"]
    assert (receipt["id"], receipt["result"]) == ("dynamic-batching", result)
    assert says in receipt["text"]


SHOWN_ON = {
    # feature: on what it was seen engaged, and on what not engaged; None: no version tells it
    "cache-dit": ("real", "real"),
    "teacache": ("constructed", "real"),
    "quality": ("captured", "real"),
    "lora": ("real", "real"),
    "quantization": ("constructed", "captured"),
    "attention-backend": ("real", "captured"),
    "component-attention": ("constructed", "constructed"),
    "ulysses": ("real", "constructed"),
    "ring": ("constructed", "constructed"),
    "kv-gather": ("constructed", "constructed"),
    "sequence-parallel": ("real", "constructed"),
    "cfg-parallel": ("constructed", "constructed"),
    "tensor-parallel": ("real", "constructed"),
    "layerwise-offload": ("constructed", "constructed"),
    "dit-cpu-offload": ("constructed", "constructed"),
    "residency": (None, "constructed"),
    "vae-tiling": (None, "constructed"),
    "vae-parallel": ("constructed", None),
    "dynamic-batching": ("captured", "captured"),
}
"""real: `test_engine_receipts.py`, on a CPU; captured: a log or trace in tests/data; constructed: written by hand."""


def test_on_what_each_receipt_was_seen_is_told():
    assert set(SHOWN_ON) == set(FEATURES)
    on_a_real_engine = (ROOT / "tests" / "test_engine_receipts.py").read_text()
    for feature, seen in SHOWN_ON.items():
        for kind, result, case in zip(seen, ("ENGAGED", "NOT_ENGAGED"), CASES[feature][1:], strict=True):
            assert (kind is None) == (case is None), feature
            said = f'"{feature}": {result}' in on_a_real_engine or f'"{feature}": result' in on_a_real_engine
            assert said or kind != "real", feature
