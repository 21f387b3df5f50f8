"""Captured logs and dumps of real runs get the verdict that each run deserves."""

import contextlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from helpers import LOGS
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import FallbackDetected
from bench.fallback import dump as dumps
from bench.fallback.expectation import Expectation
from bench.fallback.guard import Guard
from bench.fallback.matcher import Matcher
from bench.fallback.verdict import conclude, overall
from bench.process import Ended

CPU = {"device": "cpu", "gpus": 1, "steps": 4, "width": 256, "height": 256, "prompt": "A cat", "modality": "image"}
ENDED = Ended(exit_code=0, wall_s=1.0)
TINY = "models/FLUX.1-dev-tiny"


REQUEST_LOG = (LOGS / "cpu/warmup_request.log").read_text(errors="replace")


def heard(log, **expectation):
    """Return a guard that has heard a log; without an expectation that of the run of `REQUEST_LOG`."""
    guard = Guard(Expectation(**(CPU | {"version": "0.5.23", "warmup": True} | expectation)), stop=False)
    guard.observe(log if isinstance(log, bytes) else log.encode(), 1)
    return guard


def judge(name, *, dump=None, exit_code=0, **expectation):
    guard = heard((LOGS / f"{name}.log").read_bytes(), **{"warmup": False, **expectation})
    found = []
    if dump is not None:
        found = dumps.check(dumps.load(LOGS / f"{dump}.json"), guard.expectation, None, None, guard.facts.requests)
    return conclude(guard, Ended(exit_code=exit_code, wall_s=1.0), found)


@pytest.mark.parametrize(
    ("name", "expectation"),
    [
        ("cpu/warmup_request", {"version": "0.5.23", "model": TINY, "warmup": True}),
        ("cpu/warmup_in_ci", {"version": "0.5.23", "model": TINY, "warmup": True, "prompt": None}),
        ("cpu/warmup_in_ci_0.5.17", {"version": "0.5.17", "model": TINY, "warmup": True, "prompt": None}),
        ("cpu/awq_pipeclass", {"version": "0.5.23", "model": "scratch/ck/FLUX.1-dev-tiny-awq"}),
        ("cpu/native_0.5.17", {"version": "0.5.17", "model": TINY, "warmup": True}),
        (
            "h200/native_eager",
            {
                "version": "0.5.17",
                "device": "cuda",
                "steps": 50,
                "width": 1024,
                "height": 1024,
                "warmup": True,
                "prompt": None,
            },
        ),
    ],
)
def test_a_native_run_counts_and_all_its_evidence_was_seen(name, expectation):
    verdict = judge(name, dump=name, **expectation)
    assert verdict.counts, verdict.reasons()
    assert verdict.missing() == []
    assert {component.name: component.implementation for component in verdict.components}["transformer"] == (
        "sgl-diffusion"
    )


@pytest.mark.parametrize(
    ("asked", "decisive"),
    [
        ({"device": "cuda"}, "request.device"),
        ({"seed": 7}, "request.seed"),
        ({"attention_backend": "fa"}, "arguments.attention_backend"),
    ],
)
def test_what_was_asked_for_has_to_be_delivered(asked, decisive):
    kept = REQUEST_LOG.replace('"attention_backend": null', '"attention_backend": "torch_sdpa"')
    verdict = conclude(heard(kept, **asked), ENDED)
    assert (verdict.outcome, verdict.exit_code) == ("invalid", 4)
    assert verdict.reasons()[0].id == decisive


VAE = "Loaded vae: AutoencoderKL (sgl-diffusion version)"


@pytest.mark.parametrize(
    ("said", "decisive", "code"),
    [
        ("Loaded vae: AutoencoderKL (diffusers version)", "component.implementation", 4),
        ("Loaded vae: AutoencoderKL (remote code version)", "component.implementation", 4),
        ("The vae is there", "component.unproven", 5),
        (f"{VAE}\nLoaded transformer_2: WanModel (diffusers version)", "component.implementation", 4),
    ],
)
def test_every_component_has_to_be_shown_to_be_the_engines_own(said, decisive, code):
    assert VAE in REQUEST_LOG
    verdict = conclude(heard(REQUEST_LOG.replace(VAE, said)), ENDED)
    assert (verdict.outcome, verdict.reasons()[0].id, verdict.exit_code) == ("invalid", decisive, code)


def test_a_text_encoder_in_new_words_is_degraded():
    said = REQUEST_LOG.replace("CLIPTextModel (sgl-diffusion", "CLIPTextModel (transformers")
    verdict = conclude(heard(said), ENDED)
    assert (verdict.outcome, verdict.reasons()[0].component) == ("degraded", "text_encoder")


@pytest.mark.parametrize(("component", "outcome"), [("vae", "invalid"), ("text_encoder", "degraded")])
def test_a_checkpoint_with_code_of_its_own_is_seen_before_the_start(tmp_path, component, outcome):
    folder = tmp_path / "model" / component
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"auto_map": {"AutoModel": "modeling_vae.AutoencoderKLFromDiffusers"}}')
    for argv in ([f"--model-path={tmp_path / 'model'}"], [f"--{component}-path", str(folder)]):
        guard = Guard(Expectation(), stop=False)
        guard.precheck(argv, {})
        (seen,) = guard.findings.values()
        assert (seen.id, seen.severity, seen.component) == ("component.own_code", outcome, component)
    with contextlib.nullcontext() if outcome == "degraded" else pytest.raises(FallbackDetected):
        Guard(Expectation()).precheck([f"--model-path={tmp_path / 'model'}"], {})
    with contextlib.nullcontext() if outcome == "degraded" else pytest.raises(FallbackDetected):
        Guard(Expectation()).observe(f"[11-22] Loading {component} from {folder}. avail mem: 19 GB\n".encode(), 1)


def test_an_attention_backend_that_nobody_named_is_said_beside_the_number():
    """SD3 brings its own attention, and the engine names none: no proof, and no fault of the run either."""
    log = REQUEST_LOG.replace('"attention_backend": null', '"attention_backend": "torch_sdpa"')
    for version, told, outcome in (("0.5.23", True, "native"), ("0.5.23", False, "degraded"), (None, False, "native")):
        kept = [line for line in log.splitlines(keepends=True) if told or "Attention backends for" not in line]
        guard = heard("".join(kept), version=version, attention_backend="torch_sdpa", seed=42)
        verdict = conclude(guard, ENDED)
        assert (verdict.outcome, [finding.id for finding in verdict.reasons()]) == (
            outcome, ["request.attention_untold"] if outcome == "degraded" else []
        )  # fmt: skip


def test_a_seed_is_compared_to_its_last_digit():
    guard = heard("                    seed: 1152921504606846977\n", seed=1152921504606846977)
    assert "request.seed" not in {finding.id for finding in conclude(guard, ENDED).findings}


def test_a_strange_number_in_a_log_is_no_fault_of_ours():
    guard = heard("                   width: 1.2.3\n                  height: ...\n                    seed: 7\n")
    assert guard.facts.sampling == {"seed": 7}


@pytest.mark.parametrize(("name", "version"), [("warmup_in_ci", "0.5.23"), ("warmup_in_ci_0.5.17", "0.5.17")])
def test_a_warm_up_that_was_begun_is_not_one_that_finished(name, version):
    """Where CI=true, the engine tells the count in lines, of which the first says that none has finished."""
    log = (LOGS / f"cpu/{name}.log").read_text()
    told = [line for line in log.splitlines(keepends=True) if "Warmup requests: " in line]
    assert len(told) == 2
    place = log.rindex(told[1])
    guard = heard(log[:place] + log[place + len(told[1]) :], version=version)
    assert "a warm-up request finished" in {proof.proves for proof in conclude(guard, ENDED).missing()}


@pytest.mark.parametrize(
    ("change", "finding", "code"),
    [
        ({"tag": "server_perf_dump"}, "dump.tag", 6),
        ({"timestamp": "2026-11-21T10:00:00+00:00"}, "dump.timestamp", 6),
        ({"meta": {"prompt": ["A cat"], "model": "another"}}, "dump.model", 6),
        ({"meta": {"prompt": ["A dog"], "model": TINY}}, "dump.prompt", 4),
        ({"denoise_steps_ms": []}, "dump.steps", 4),
        ({"steps": [{"name": "DiffusersExecutionStage", "duration_ms": 5}]}, "dump.diffusers_stage", 4),
        ({"steps": [{"name": "DecodingStage", "duration_ms": 75.02}]}, "dump.no_denoising", 5),
        ({"total_duration_ms": 3.0}, "dump.sum", 6),
        ({"total_duration_ms": 1e308}, "dump.total", 6),
        ({"total_duration_ms": 23_000.0}, "dump.total", 6),
        ({"steps": [{"name": "DenoisingStage", "duration_ms": 0}]}, "dump.zero", 6),
        ({"steps": [{"name": "DenoisingStage", "duration_ms": 12.8}]}, "dump.steps_sum", 6),
        ({"steps": [{"name": "DenoisingStage", "duration_ms": 130.0}]}, "dump.log", 6),
        ({"steps": [{"name": "DenoisingStage", "duration_ms": 128.2}] * 2, "total_duration_ms": 300}, "dump.log", 6),
    ],
)
def test_a_dump_that_is_not_of_this_run_is_refused(change, finding, code):
    dump = json.loads((LOGS / "cpu/native_0.5.17.json").read_text()) | change
    written = datetime(2026, 11, 22, 8, 53, 49, tzinfo=UTC)
    guard = heard((LOGS / "cpu/native_0.5.17.log").read_bytes(), version="0.5.17", model=TINY)
    window = (written - timedelta(minutes=1), written + timedelta(minutes=1))
    verdict = conclude(guard, ENDED, dumps.check(dump, guard.expectation, *window, guard.facts.requests))
    assert (verdict.reasons()[0].id, verdict.exit_code) == (finding, code)


def test_a_slowed_clock_is_seen_by_the_guards_own(monkeypatch):
    """LD_PRELOAD can slow the engine's clock, dump and log alike, but not when lines arrive."""
    now = 0.0
    monkeypatch.setattr("bench.fallback.guard.time.monotonic", lambda: now)
    log = (LOGS / "cpu/native_0.5.17.log").read_bytes()
    dump = dumps.load(LOGS / "cpu/native_0.5.17.json")
    for waited_s, seen in ((0.1, []), (4.0, []), (10.6, ["dump.clock"])):
        guard = Guard(Expectation(**CPU, version="0.5.17", model=TINY, warmup=True))
        for number, line in enumerate(log.splitlines(keepends=True), 1):
            now += waited_s if b"[DenoisingStage] finished" in line else 0
            guard.observe(line, number)
        against = dumps.check(dump, guard.expectation, None, None, guard.facts.requests)
        assert [finding.id for finding in against] == seen


def test_the_live_watch_stops_at_the_line_and_names_it():
    guard = Guard(Expectation(**CPU, version="0.5.23"))
    blocks = (LOGS / "cpu/awq_sglang.log").read_bytes().splitlines(keepends=True)
    with pytest.raises(FallbackDetected) as caught:
        for number, line in enumerate(blocks, 1):
            guard.observe(line, number)
    assert "Falling back to diffusers backend" in str(caught.value)
    assert f"log line {number}" in str(caught.value)
    assert b"Falling back" in line


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
def test_the_verdict_does_not_depend_on_how_output_arrives(chunk):
    from bench.process import _Lines

    data = (LOGS / "cpu/warmup_request.log").read_bytes()
    whole = judge("cpu/warmup_request", version="0.5.23", warmup=True)
    guard, lines = Guard(Expectation(**CPU, version="0.5.23", warmup=True), stop=False), _Lines()
    for start in range(0, len(data), chunk):
        if (block := lines.feed(data[start : start + chunk])) is not None:
            guard.observe(*block)
    if (block := lines.finish()) is not None:
        guard.observe(*block)
    assert conclude(guard, ENDED) == whole


@pytest.mark.parametrize("before", [1, 10, 20])
def test_a_signal_across_the_readers_blocks_is_heard_live(before):
    """A line without an end is handed over in pieces of 64 KiB."""
    from bench.process import LONGEST_LINE_BYTES, _Lines

    words = b"Falling back to diffusers backend"
    data = b"x" * (LONGEST_LINE_BYTES - before) + words + b"\n"
    reader, guard = _Lines(), Guard(Expectation(version="0.5.23"))
    with pytest.raises(FallbackDetected, match="log line 1"):
        for start in range(0, len(data), LONGEST_LINE_BYTES):
            if (block := reader.feed(data[start : start + LONGEST_LINE_BYTES])) is not None:
                guard.observe(*block)


def test_a_line_in_pieces_is_not_counted_twice():
    guard = Guard(Expectation(version="0.5.23"), stop=False)
    for piece in (b"[11-22] Metrics dumped to: perf.json", b" and more", b" and the end\n"):
        guard.observe(piece, 1)
    assert next(proof for proof in guard.proofs() if proof.id == "dumped").seen == 1


def test_many_findings_do_not_crowd_out_the_one_that_decides():
    said = [f"Loaded text_encoder_{number}: X (native version)" for number in range(250)]
    verdict = conclude(heard("\n".join([*said, "Falling back to diffusers backend\n"])), ENDED)
    assert verdict.exit_code == 4
    assert verdict.reasons()[0].line == 251


@settings(max_examples=200)
@given(st.binary(max_size=2000))
def test_no_bytes_upset_the_guard(data):
    assert not conclude(heard(data), ENDED).counts


def test_a_fallback_decides_before_the_failure_that_follows_it():
    verdict = judge("cpu/unkclass_auto", exit_code=1, version="0.5.23")
    assert (verdict.exit_code, verdict.reasons()[0].id) == (4, "diffusers.no_native_class")


def test_an_engines_last_words_are_quoted():
    verdict = judge("cpu/unknown_flag", exit_code=1, version="0.5.23")
    assert "unrecognized arguments: --not-a-real-flag=1" in verdict.reasons()[0].text


def test_a_matcher_of_nothing_finds_nothing():
    assert Matcher([]).find("anything") == []


def test_what_disturbed_any_launch_is_told_of_the_run():
    quiet = judge("cpu/native_0.5.17", version="0.5.17")
    told = replace(quiet.findings[0], id="cpu.shared", severity="info", source="device")
    noisy = replace(quiet, findings=(*quiet.findings, told))
    whole = overall([(quiet, True), (noisy, True), (noisy, False)])
    assert [finding.id for finding in whole.findings].count("cpu.shared") == 1
    assert whole.outcome == quiet.outcome
