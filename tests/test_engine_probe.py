"""`invoke probe` on the real engine: its own torch measures a CPU, and what was measured is kept."""

import json

import pytest
from engine_support import CONFIGURATIONS, invoke

from bench import schema
from bench.profiling import probe

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_a_cpu_is_measured_with_the_engines_own_torch(configuration, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    ended = invoke("probe", "--engine", configuration, "--json", runs=tmp_path)
    assert ended.code == 0, ended.err
    document = json.loads(ended.out)
    assert schema.violations(document, "probe") == []
    assert document["device"]["kind"] == "cpu"
    assert document["torch"].partition("+")[0] == document["engine"]["packages"]["torch"].partition("+")[0]
    assert {one["data_type"] for one in document["gemm"]} >= {"fp32"}
    assert all(one["least_ms"] <= one["median_ms"] <= one["most_ms"] for one in document["gemm"] + document["copy"])
    (path,) = tmp_path.glob("*-probe-*/probe.json")
    assert json.loads(path.read_text()) == document
    assert {ceiling.of for ceiling in probe.ceilings(document)} >= {"fp32", "memory"}
    kept = probe.kept(probe.seen())
    assert kept is not None
    assert kept["started"] == document["started"]
    for one in document["attention"]:
        assert one["backend"] == "torch_sdpa"
