"""Another implementation as the judge: HolisticTraceAnalysis, in an environment of its own.

    uv venv .hta && uv pip install -p .hta HolisticTraceAnalysis==0.5.0
    BENCH_HTA_PYTHON=.hta/bin/python pytest -m oracle

BENCH_HTA_TRACE names another trace than the fixture.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from bench.profiling import timeline
from bench.profiling.attribution import attribute
from bench.profiling.reader import read
from tests.trace_writer import FLUX

PYTHON = os.environ.get("BENCH_HTA_PYTHON")
TRACE = Path(os.environ.get("BENCH_HTA_TRACE") or FLUX)

PROGRAM = """
import json, sys
from hta.trace_analysis import TraceAnalysis
analysis = TraceAnalysis(trace_files={0: sys.argv[1]}, trace_dir=sys.argv[2])
temporal = analysis.get_temporal_breakdown(visualize=False).iloc[0]
idle = analysis.get_idle_time_breakdown(ranks=[0], visualize=False)[0].groupby("idle_category")["idle_time"].sum()
print(json.dumps({
    "idle_us": float(temporal["idle_time(us)"]),
    "compute_us": float(temporal["compute_time(us)"]),
    "other_us": float(temporal["non_compute_time(us)"]),
    "span_us": float(temporal["kernel_time(us)"]),
    "idle": {str(name): float(value) for name, value in idle.items()},
}))
"""


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hta")
    # it rounds times to whole microseconds otherwise, which is a third of the gap between two kernels
    environment = os.environ | {"HTA_DISABLE_NS_ROUNDING": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [PYTHON, "-c", PROGRAM, str(TRACE), str(folder)],
        capture_output=True, text=True, timeout=300, check=False, env=environment, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def ours():
    """Return the same figures over the steps that the oracle sees: it leaves the last ProfilerStep out."""
    attribution = attribute(read(TRACE))
    gpu = attribution.trace.gpu
    seen = attribution.counted & (attribution.step < len(attribution.steps) - 1)
    gaps = timeline.gaps(attribution)
    inside = gaps.step < len(attribution.steps) - 1
    start, end = gpu.start_us[seen], gpu.end_us[seen]
    kernels = seen & (gpu.kind == 0)
    return {
        "span_us": float(end.max() - start.min()),
        "busy_us": timeline.covered_us(start, end),
        "compute_us": timeline.covered_us(gpu.start_us[kernels], gpu.end_us[kernels]),
        "host_us": float(np.sum(gaps.duration_us[inside & gaps.host])),
        "kernel_us": float(np.sum(gaps.duration_us[inside & ~gaps.host])),
    }


@pytest.mark.oracle
@pytest.mark.skipif(PYTHON is None, reason="BENCH_HTA_PYTHON names no environment with HolisticTraceAnalysis")
class TestAgreement:
    def test_busy_time_agrees_within_a_tenth_of_a_percent(self, ours, theirs):
        assert ours["compute_us"] == pytest.approx(theirs["compute_us"], rel=1e-3)
        assert ours["busy_us"] == pytest.approx(theirs["compute_us"] + theirs["other_us"], rel=1e-3)

    def test_idle_time_agrees_within_half_a_millisecond(self, ours, theirs):
        assert ours["span_us"] - ours["busy_us"] == pytest.approx(theirs["idle_us"], abs=500)

    def test_the_causes_of_idle_time_agree_within_half_a_millisecond(self, ours, theirs):
        assert ours["host_us"] == pytest.approx(theirs["idle"]["host_wait"], abs=500)
        assert ours["kernel_us"] == pytest.approx(theirs["idle"]["kernel_wait"], abs=500)
