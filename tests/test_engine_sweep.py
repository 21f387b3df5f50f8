"""Two cells of the real engine through a real Slurm, which this test starts on this machine."""

import json

import pytest
from engine_support import CONFIGURATIONS, MINUTES, engine_processes, invoke
from slurm_cluster import Cluster

pytestmark = pytest.mark.engine


def test_two_cells_of_the_real_engine_are_native_and_measured_once(tmp_path):
    cluster = Cluster()
    runs = tmp_path / "runs"
    try:
        cluster.start()
        words = ("sweep", "--model", "flux-tiny", "--engine", CONFIGURATIONS[0], "--set", "seed=1,2", "--name", "two")
        more = ("--on", "slurm", "--parallel", "1")
        ended = invoke(*words, *more, runs=runs, timeout=12 * MINUTES, **cluster.env)
        assert ended.code == 0, ended.out + ended.err
        assert cluster.jobs() == []
    finally:
        cluster.stop()
    results = [json.loads(path.read_text()) for path in runs.glob("sweep-two/cells/*/result.json")]
    assert [(result["outcome"], result["exit_code"], result["attempt"]) for result in results] == [("native", 0, 1)] * 2
    assert all(result["host"]["node"] in cluster.nodes for result in results)
    records = [json.loads((runs / "sweep-two" / result["record"]).read_text()) for result in results]
    assert sorted(record["workload"]["seed"] for record in records) == [1, 2]
    assert not engine_processes(runs)
