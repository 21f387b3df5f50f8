"""The load generator against an oracle, NVIDIA's AIPerf: the same schedule on the same server, the same percentiles.

BENCH_AIPERF names its program (`nox -s tests_load_oracle` builds it). In real time: run it on a machine without other
work.
"""

import json
import os
import subprocess
from itertools import repeat

import numpy as np
import pytest
from stand_in_server import StandIn

from bench.serving import arrivals, client
from bench.serving.request import ImageRequest

AIPERF = os.environ.get("BENCH_AIPERF")
SERVICE_S, RATE_HZ, SECONDS = 0.1, 6.0, 30.0
REQUEST = ImageRequest(prompt="a cat", seed=1, steps=2, width=32, height=32)

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(AIPERF is None, reason="BENCH_AIPERF names no program"),
]


@pytest.fixture(name="schedule_ms")
def _schedule_ms():
    """Return send times in whole milliseconds, as AIPerf reads them; the first is zero, where it starts its clock."""
    times_s = arrivals.poisson(RATE_HZ, SECONDS, 3).times_s
    return [round((time_s - times_s[0]) * 1e3) for time_s in times_s]


@pytest.fixture(name="tokenizer")
def _tokenizer(tmp_path):
    """Return a folder with a tokenizer of one word: AIPerf wants one even for pictures."""
    model = {"type": "WordLevel", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]"}
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text(
        json.dumps({"version": "1.0", "added_tokens": [], "model": model})
    )
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"}
    (tmp_path / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(settings))
    return tmp_path / "tokenizer"


def aiperf(url, schedule_ms, tokenizer, home):
    """Return AIPerf's percentiles of the latency in milliseconds, by name."""
    trace = home / "aiperf.jsonl"
    lines = [json.dumps({"timestamp": time_ms, "text_input": REQUEST.prompt}) for time_ms in schedule_ms]
    trace.write_text("\n".join(lines) + "\n")
    body = json.loads(REQUEST.body())
    extra = [f"--extra-inputs={name}:{value}" for name, value in body.items() if name != "prompt"]
    subprocess.run(
        [
            AIPERF, "profile", "--model=stand-in", f"--url={url}", "--endpoint-type=image_generation",
            f"--input-file={trace}", "--custom-dataset-type=mooncake_trace", "--fixed-schedule",
            f"--tokenizer={tokenizer}", "--ui-type=none", f"--artifact-dir={home / 'aiperf'}", *extra,
        ],
        # it refuses a tokenizer's folder where the hub is offline
        env={name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"},
        check=True, timeout=600, cwd=home,
    )  # fmt: skip
    exported = json.loads((home / "aiperf" / "profile_export_aiperf.json").read_text())
    assert exported["request_count"]["avg"] == len(schedule_ms)
    return exported["request_latency"]


def test_percentiles_are_aiperfs_on_the_same_schedule(schedule_ms, tokenizer, tmp_path):
    path = tmp_path / "trace.jsonl"
    path.write_text("".join(json.dumps({"timestamp": time_ms}) + "\n" for time_ms in schedule_ms))
    with StandIn(service_s=SERVICE_S) as server:
        phase = client.run(client.send(server.url, "load", arrivals.replay(path), repeat(REQUEST), limit_s=600))
        theirs = aiperf(server.url, schedule_ms, tokenizer, tmp_path)
    latencies_ms = [exchange.latency_s * 1e3 for exchange in phase.exchanges]
    measured = {rank: float(np.percentile(latencies_ms, rank)) for rank in (50, 90, 95, 99)}
    print({rank: (round(value, 1), round(theirs[f"p{rank}"], 1)) for rank, value in measured.items()})
    assert measured == pytest.approx({rank: theirs[f"p{rank}"] for rank in measured}, rel=0.05)
