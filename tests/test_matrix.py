"""`invoke bench --matrix` through the real entry point: every cell warmed alike, and each that cannot count says why.

CUDA graphs need a GPU: here a simulated NVML has one, and a replay engine emits the lines of the engine's sources.
"""

import io
import json

import pytest
from helpers import NATIVE, ROOT
from rich.console import Console

from bench import schema
from bench.record import store
from bench.report import matrix as report

STEADY = NATIVE | {"between": 0.003, "within": 0.002}


@pytest.fixture
def matrix(invoke, replay, model, tmp_path, home, monkeypatch):
    monkeypatch.setattr("bench.preflight.checks.BETWEEN_S", 0)

    def run(*arguments, gpu=True, version="0.5.23", **scenario):
        env = {}
        if gpu:
            gpus = tmp_path / "gpus.json"
            gpus.write_text(json.dumps([{}]))
            env = {"PYTHONPATH": str(ROOT / "tests" / "simulated"), "BENCH_NVML": str(gpus)}
        engine = replay(version=version, **STEADY, **scenario)
        ended = invoke(
            "bench", "--model", "flux-tiny", "--engine", engine, "--model-path", model(), *arguments, env=env
        )
        written = sorted((home / "runs").glob("*/matrix.json"))
        document = json.loads(written[0].read_text()) if written else None
        if document is not None:
            assert schema.violations(document, "matrix") == []
        cells = {} if document is None else {cell["name"]: cell for cell in document["cells"]}
        return ended, cells, written[0].parent if written else None

    return run


# --- unhappy first ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--matrix", "qualty"], "--matrix takes quality or cuda-graph, not 'qualty'"),
        (["--matrix", "quality,cuda-graph", "--quality", "high"], "--quality cannot be fixed: --matrix varies it"),
        (["--matrix", "quality", "--precision", "1%"], "fixed number of requests\n  to do: leave --precision out"),
        (["--matrix", "cuda-graph", "--tag", "tiny"], "--model, --tag and --all exclude each other"),
        (["--quality", "best"], "--quality takes exact, lossless, extra-high or high, not 'best'"),
        (["--", "--quality=high"], "use --quality of this task"),
        (["--cuda-graph", "--torch-compile"], "compile and CUDA graphs exclude each other"),
        (["--cuda-graph", "--no-warmup"], "captured in the warm-up"),
    ],
)
def test_a_mistake_is_said_before_anything_runs(matrix, home, arguments, says):
    ended, _, folder = matrix(*arguments)
    assert ended.code == 1
    assert says in ended.err
    assert folder is None
    assert not list((home / "runs").glob("*"))


def test_a_quality_that_a_version_lacks_is_one_refused_cell(matrix):
    ended, cells, _ = matrix("--matrix", "quality", "--launches", "1", version="0.5.17", gpu=False)
    assert ended.code == 1
    assert cells["exact-eager"]["reason"] == "sglang 0.5.17 has no quality 'exact'"
    assert cells["extra-high-eager"]["reason"] == "sglang 0.5.17 has no quality 'extra-high'"
    assert [cells[name]["outcome"] for name in ("lossless-eager", "high-eager")] == ["native", "native"]


def test_a_matrix_whose_engines_crash_keeps_what_was_paid_for(matrix):
    """The first request of a launch warms up; of the next two there are numbers, and nothing to compare."""
    ended, cells, _ = matrix("--matrix", "cuda-graph", "--quality", "lossless", "--repeats", "5", die_at=4)
    assert ended.code == 3, ended.err
    assert "Traceback" not in ended.err
    assert {name: (cell["requests"], cell["against_eager"]) for name, cell in cells.items()} == {
        "lossless-eager": (2, None),
        "lossless-graphs": (2, None),
    }
    assert cells["lossless-graphs"]["same_pixels_as_eager"] is True


def test_graphs_that_were_captured_and_are_not_used_have_no_number(matrix):
    """Graphs are captured at the default quality; the engine says so in a line of level info and goes on eagerly."""
    ended, cells, folder = matrix("--matrix", "quality,cuda-graph", "--launches", "3", graphs_factor=0.8)
    assert ended.code == 4
    for name in ("exact-graphs", "extra-high-graphs", "high-graphs"):
        assert cells[name]["outcome"] == "invalid"
        assert cells[name]["denoise_ms"] is None
        assert cells[name]["reason"].startswith("bcg.quality_eager: ")
        assert len(json.loads((folder / name / "run.json").read_text())["launches"]) == 1  # not tried again
    told = cells["lossless-graphs"]
    assert told["outcome"] == "degraded"  # the replayed log is a CPU's: attention without a fast kernel, on a "GPU"
    assert told["same_pixels_as_eager"] is True
    assert told["against_eager"]["effect"]["percent"] == pytest.approx(-20, abs=1.5)
    assert "3 of 8 cells do not count" in ended.err
    assert ended.out.splitlines()[-1].startswith("record: ")
    assert " invoke ab --model " in ended.out.splitlines()[-2]


def test_other_pixels_under_graphs_are_a_fault_and_exit_7(matrix):
    ended, cells, _ = matrix("--matrix", "cuda-graph", "--quality", "lossless", "--launches", "1", graphs_differ=True)
    assert ended.code == 7
    assert cells["lossless-graphs"]["same_pixels_as_eager"] is False
    assert "NOT as eager" in ended.out
    assert cells["lossless-graphs"]["likeness"]["max_levels"] == 1
    assert cells["lossless-graphs"]["against_eager"] is None
    assert "the timings get no verdict: that takes --launches 3" in ended.err


# --- as it should be --------------------------------------------------------------------------------------------------


def test_every_cell_is_warmed_alike_and_its_first_request_is_not_counted(matrix):
    asked = ("--matrix", "cuda-graph", "--quality", "lossless", "--repeats", "2")
    ended, cells, folder = matrix(*asked, graphs_factor=0.8)
    assert ended.code == 0, ended.err
    for name, graphs in (("lossless-eager", "false"), ("lossless-graphs", "true")):
        record = json.loads((folder / name / "run.json").read_text())
        assert len(record["requests"]) == 6
        for launch in record["launches"]:
            argv = launch["command"]["argv"]
            assert "--warmup-mode=server" in argv
            assert argv[argv.index("--warmup-resolutions") + 1] == "256x256"
            assert f"--enable-breakable-cuda-graph={graphs}" in argv
            asked = folder / name / f"launch-{launch['index']}"
            counted = {request["index"] for request in record["requests"] if request["launch"] == launch["index"]}
            assert len(list(asked.glob("request-*"))) == len(counted) + 1
        assert record["workload"]["warmup"] == "start"
    assert cells["lossless-graphs"]["against_eager"]["verdict"] == "faster", "the launches are enough for a verdict"


def test_pictures_are_compared_across_qualities(matrix):
    ended, cells, _ = matrix("--matrix", "quality", "--launches", "1", gpu=False)
    assert ended.code == 0, ended.err
    assert cells["exact-eager"]["likeness"]["identical"] is True
    high = cells["high-eager"]["likeness"]
    assert high["identical"] is False
    assert high["max_levels"] == 2  # what the replay engine adds to one colour
    assert high["psnr_db"] == pytest.approx(46.9, abs=0.1)  # 20 log10(255 / sqrt(2^2 / 3))
    assert "46.88 dB" in ended.out


def test_the_order_turns_round_so_that_a_drift_falls_on_all_alike(matrix):
    ended, _, folder = matrix("--matrix", "quality", "--repeats", "1")
    assert ended.code == 0, ended.err
    started = {}
    for path in folder.glob("*/run.json"):
        for launch in json.loads(path.read_text())["launches"]:
            started[launch["started"]] = path.parent.name
    order = [started[time] for time in sorted(started)]
    there = ["exact-eager", "lossless-eager", "extra-high-eager", "high-eager"]
    assert order == [*there, *reversed(there), *there]


def test_a_dry_run_shows_the_command_of_each_cell(matrix, invoke):
    ended, _, folder = matrix("--matrix", "quality,cuda-graph", "--dry-run")
    assert ended.code == 0, ended.err
    assert [line for line in ended.out.splitlines() if line.startswith("# ")] == [
        f"# {quality}-{graphs}"
        for quality in ("exact", "lossless", "extra-high", "high")
        for graphs in ("eager", "graphs")
    ]
    assert ended.out.count("--enable-breakable-cuda-graph=true") == 4
    assert ended.err == ""
    asked = ("bench", "--model", "flux-tiny", "--matrix", "quality,cuda-graph", "--dry-run")
    noted = invoke(*asked).err
    assert (
        "note: this machine would refuse exact-graphs, lossless-graphs, extra-high-graphs, high-graphs: CUDA" in noted
    )
    assert folder is None


def test_validate_knows_a_matrix(matrix, invoke):
    _, _, folder = matrix("--matrix", "quality", "--launches", "1", "--repeats", "1")
    assert "valid matrix" in invoke("validate", folder / "matrix.json").out


def test_graphs_without_a_gpu_are_refused_before_any_cell_is_measured(invoke, replay, model, home):
    engine = replay(**NATIVE)
    ended = invoke(
        *("bench", "--model", "flux-tiny", "--engine", engine, "--model-path", model(), "--matrix", "cuda-graph")
    )
    assert ended.code == 10
    assert "CUDA graphs need a GPU, and none is visible here" in ended.err
    assert "to do: vary the quality only (--matrix)" in ended.err
    assert not (home / "runs").exists()


@pytest.fixture
def measured():
    """A matrix that was measured on a GPU, its records by cell, and what is printed of the two."""
    folder = ROOT / "docs" / "evidence" / "h200-0.5.23" / "quality"
    document = json.loads((folder / "matrix.json").read_text())
    records = {cell["name"]: store.read(folder / cell["record"]) for cell in document["cells"]}

    def shown():
        console = Console(file=io.StringIO(), width=200)
        report.show(document, records, folder / "matrix.json", console)
        return console.file.getvalue()

    return document, records, shown


def test_pictures_of_one_request_are_compared_too(measured):
    document, _, shown = measured
    for cell in document["cells"]:
        cell["outputs_identical"] = None
    rows = [line.split() for line in shown().partition("pictures")[2].splitlines() if "lossless-eager" in line]
    assert [row[:4] for row in rows[:2]] == [
        [name, "one", "request", "lossless-eager"] for name in ("exact-eager", "high-eager")
    ]
    for cell in document["cells"]:
        cell["reference"] = None
    document["cells"][1:] = []
    assert "pictures: not compared, only exact-eager has any" in shown()


def test_a_quality_that_did_not_engage_is_not_proposed(measured):
    document, records, shown = measured
    assert "quality=high" in shown().partition("next: ")[2]
    document["cells"][2] |= {"outcome": "degraded", "reason": "receipt.quality: the engine did not use a fusion"}
    assert "quality=high" not in shown().partition("next: ")[2]
    records["high-eager"]["preflight"] = [
        {"id": "gpu.idle", "state": "warn", "saw": "pid 1", "means": "m", "todo": "t"}
    ]
    assert "next: when nothing else runs here: invoke " in shown()
