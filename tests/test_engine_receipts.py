"""Receipts on the real engine's CPU, in two launches. 0.5.17 fails to load an adapter there."""

import json
import struct

import pytest
from engine_support import CONFIGURATIONS, invoke

from bench.catalog import presets
from bench.fallback.receipts import ENGAGED, NO_EVIDENCE, NOT_ENGAGED

pytestmark = pytest.mark.engine

CACHE_DIT = {"SGLANG_CACHE_DIT_ENABLED": "true"}


def lora(path, layers, width=256, rank=2):
    """Write a LoRA adapter by hand: the runner has no torch."""
    header, data = {}, b""
    for name in layers:
        for part, shape in (("lora_A", (rank, width)), ("lora_B", (width, rank))):
            values = struct.pack("<f", 0.01) * (rank * width)
            place = [len(data), len(data) + len(values)]
            header[f"transformer.{name}.{part}.weight"] = {"dtype": "F32", "shape": shape, "data_offsets": place}
            data += values
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def run(folder, engine, *arguments, arms=(), **changes):
    """Run flux-tiny with these arguments in its preset; return how it ended, its record and its receipts by feature."""
    tiny = dict(presets.get("flux-tiny").document) | {"arguments": list(map(str, arguments))} | changes
    tables = {name: value for name, value in tiny.items() if isinstance(value, dict)}
    lines = [f"{name} = {json.dumps(value)}" for name, value in tiny.items() if name not in tables]
    for name, table in tables.items():
        lines += [f"[asking.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    (folder / "presets.toml").write_text("\n".join(["[asking]", *lines]) + "\n")
    ended = invoke(
        "bench", "--model", "asking", "--preset-file", folder / "presets.toml", "--engine", engine, "--json", *arms,
        runs=folder / "runs",
    )  # fmt: skip
    record = json.loads(ended.out)
    return ended, record, {receipt["id"]: receipt["result"] for receipt in record["verdict"]["receipts"]}


@pytest.mark.parametrize(
    ("threshold", "result"), [("0.9", ENGAGED), ("0.000001", NOT_ENGAGED)], ids=["engages", "is inert"]
)
def test_a_traced_request_counts_the_blocks_of_each_step_and_names_the_attention(threshold, result, tmp_path):
    """Two blocks of each kind: a step that reuses runs the first of them alone."""
    ended, record, results = run(
        tmp_path, CONFIGURATIONS[0], steps=12, attention_backend="torch_sdpa", quality="high",
        environment=CACHE_DIT | {"SGLANG_CACHE_DIT_RDT": threshold}, arms=["--prove-kernels", "--no-preflight"],
    )  # fmt: skip
    assert results == {"cache-dit": result, "attention-backend": ENGAGED, "quality": NOT_ENGAGED}, ended.err
    said = {receipt["id"]: receipt["text"] for receipt in record["verdict"]["receipts"]}
    assert "traced steps ran fewer than 4 transformer blocks" in said["cache-dit"]
    assert "scaled_dot_product" in said["attention-backend"]
    assert "keeping the whole model on the reference path" in said["quality"]
    assert ended.code == (0 if result == ENGAGED else 4), ended.err
    timed, proving = record["launches"]
    assert (timed["instrument"]["profiler"], proving["instrument"]["profiler"]) == (False, True)
    assert {request["launch"] for request in record["requests"]} == ({1} if result == ENGAGED else set())


def test_a_cache_that_the_model_does_not_have_is_seen_in_the_trace(tmp_path):
    """FLUX ignores --enable-teacache without a word."""
    ended, record, results = run(
        tmp_path, CONFIGURATIONS[0], "--enable-teacache", steps=6, arms=["--prove-kernels", "--no-preflight"]
    )
    assert results == {"teacache": NOT_ENGAGED}, ended.err
    assert "0 of" in record["verdict"]["receipts"][0]["text"]
    assert (ended.code, record["timings"]) == (4, None)


@pytest.mark.parametrize("engine", CONFIGURATIONS[:1])
def test_what_engaged_what_did_not_and_what_nobody_can_tell(engine, tmp_path):
    """With as many steps as cache-dit has for warm-up, it is mounted and cannot reuse any."""
    adapter = lora(tmp_path / "adapter.safetensors", [f"transformer_blocks.0.attn.to_{part}" for part in "qkv"])
    ended, record, results = run(
        tmp_path, engine, f"--lora-path={adapter}", "--vae-tiling=true", "--enable-teacache",
        quality="high", attention_backend="torch_sdpa", environment=CACHE_DIT,
    )  # fmt: skip
    assert results == {
        "lora": ENGAGED,
        "attention-backend": ENGAGED,
        "cache-dit": NOT_ENGAGED,
        "teacache": NO_EVIDENCE,
        "vae-tiling": NO_EVIDENCE,
        "quality": NOT_ENGAGED,
    }, ended.err
    assert ended.code == 4
    assert [finding["id"] for finding in record["verdict"]["findings"] if finding["severity"] == "invalid"] == [
        "receipt.cache_dit"
    ]


@pytest.mark.parametrize(
    ("arguments", "expected", "outcome"),
    [
        (["--tp-size=2"], {"tensor-parallel": ENGAGED}, "native"),
        (["--ulysses-degree=2"], {"ulysses": ENGAGED}, "native"),
        ([], {"sequence-parallel": ENGAGED}, "degraded"),  # K/V gather, which nobody asked for
    ],
    ids=["tensor parallel", "Ulysses", "no degree"],
)
def test_two_ranks_on_a_cpu_engage(arguments, expected, outcome, tmp_path):
    ended, record, results = run(tmp_path, CONFIGURATIONS[0], *arguments, gpus=2, arms=["--no-preflight"])
    assert results == expected, ended.err
    assert record["verdict"]["outcome"] == outcome
    assert ended.code == 0


def test_a_foreign_adapter_does_not_engage_and_stops_two_ranks_before_they_do(tmp_path):
    adapter = lora(tmp_path / "adapter.safetensors", ["other_blocks.0.attn.to_q"])
    ended, record, results = run(
        tmp_path, CONFIGURATIONS[0], f"--lora-path={adapter}", "--tp-size=2", gpus=2, arms=["--no-preflight"]
    )
    assert results == {"tensor-parallel": NO_EVIDENCE, "lora": NOT_ENGAGED}, ended.err
    assert record["verdict"]["findings"][0]["id"] == "lora.without_effect"
