"""The real engine on this machine's CPU, in every configuration that nox built: `nox -s tests_engine`.

A start takes half a minute, so each serves as many tests as it can: the self-test's clean launch is the native run of
its configuration, its quantised name the stopped one, and the tour's records are those of the first configuration.
Runs that share nothing are in test_engine_runs.py, so that a second worker takes them. The tour compares times: what
needs it is marked `alone`, and no other engine runs beside it.
"""

import json
import shutil

import pytest
from engine_support import CONFIGURATIONS, MINUTES, engine_processes, invoke
from helpers import ROOT
from PIL import Image

from bench import schema
from bench.engine import find
from bench.run.selftest import FAULTS
from bench.tour import steps

pytestmark = pytest.mark.engine

TOURED = [pytest.param(CONFIGURATIONS[0], marks=pytest.mark.alone), *CONFIGURATIONS[1:]]
"""The configurations, the first of which is met by the tour."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module", params=CONFIGURATIONS)
def engine(request):
    assert request.param in find.built(), f"not built: {find.build_command(request.param)}"
    return request.param


@pytest.fixture(scope="module")
def self_test(engine, runs):
    """The self-test of each configuration, and its records by the name of the loss.

    Under CI=true the engine words its warm-up otherwise; GITHUB_ACTIONS does the same. Each wording is met on each
    machine: one configuration runs as in CI, the others as on a desk.
    """
    in_ci = str(engine == CONFIGURATIONS[-1]).lower()
    own = runs / f"self-test-{engine}"
    ended = invoke(
        "attest", "--self-test", "--engine", engine, runs=own, timeout=15 * MINUTES, CI=in_ci, GITHUB_ACTIONS=in_ci
    )
    records = {}
    for path in own.glob("*/*/run.json"):
        record = json.loads(path.read_text())
        records[record["label"].removeprefix("self-test-")] = record, path.parent
    return ended, records


@pytest.fixture(scope="module")
def native(self_test):
    """One native run of each configuration: its record and folder."""
    ended, records = self_test
    assert "clean" in records, ended.out + ended.err
    return records["clean"]


@pytest.fixture(scope="module")
def tour(runs):
    """The tour on the first configuration: how it ended, and the folder with the runs of its steps."""
    own = runs / "tour"
    return invoke("tour", "--yes", "--engine", CONFIGURATIONS[0], runs=own, timeout=20 * MINUTES), own


@pytest.fixture(scope="module", params=TOURED)
def benchmarks(request, runs):
    """A single launch and a session of ten requests of each configuration: their records and folders, by mode."""
    if request.param == CONFIGURATIONS[0]:
        _, own = request.getfixturevalue("tour")
    else:
        own = runs / f"session-{request.param}"
        for repeats in ("1", "10"):
            asked = ["--model", "flux-tiny", "--engine", request.param, "--repeats", repeats]
            ended = invoke("bench", *asked, runs=own)
            assert ended.code == 0, ended.out + ended.err
    records = [(json.loads(path.read_text()), path.parent) for path in own.glob("*-bench-*/run.json")]
    return {
        record["launches"][0]["mode"]: (record, folder)
        for record, folder in records
        if record["verdict"]["outcome"] == "native"
    }


@pytest.fixture(scope="module", params=TOURED)
def profile(request, runs):
    """The folder of a profile of each configuration, and what was shown."""
    if request.param == CONFIGURATIONS[0]:
        _, own = request.getfixturevalue("tour")
        (shown,) = (path.read_text() for path in own.glob("*-tour-*/*-profile.txt"))
    else:
        own = runs / f"profile-{request.param}"
        asked = ["--model", "flux-tiny", "--engine", request.param, "--steps-profiled", "2"]
        ended = invoke("profile", *asked, runs=own)
        assert ended.code == 0, ended.out + ended.err
        shown = ended.out
    (folder,) = own.glob("*-profile-flux-tiny-*")
    return folder, shown


def test_a_run_on_the_real_engine_is_native_and_recorded(engine, native):
    record, folder = native
    assert schema.violations(record, "run-record") == []
    assert record["verdict"]["outcome"] == "native"
    assert all(proof["holds"] for proof in record["verdict"]["evidence"])
    assert record["engine"]["version"] == engine.removeprefix("sglang-")
    assert record["weights"]["kind"] == "synthetic"
    assert len(record["timings"]["steps_ms"]) == record["preset"]["document"]["steps"] == 4
    assert record["timings"]["metrics"]["denoise_ms"] > 0
    with Image.open(folder / record["requests"][0]["outputs"][0]["file"]) as image:
        assert image.size == (256, 256)
    implementations = {part["name"]: part["implementation"] for part in record["verdict"]["components"]}
    assert implementations == dict.fromkeys(("transformer", "vae", "text_encoder", "text_encoder_2"), "sgl-diffusion")
    assert invoke("validate", folder, folder / "perf.json", runs=folder.parent).code == 0


def test_the_environments_paths_are_not_in_the_engines_identity(native):
    record, _ = native
    assert str(ROOT) not in json.dumps([record["engine"], record["host"], record["devices"], record["weights"]])


def test_a_quantised_name_is_refused_before_anything_starts(engine, native, tmp_path):
    record, _ = native
    source = next(a for a in record["launches"][0]["command"]["argv"] if a.startswith("--model-path=")).removeprefix(
        "--model-path="
    )
    model = shutil.copytree(source, tmp_path / "FLUX.1-dev-tiny-awq")
    refused = invoke("bench", "--model", "flux-tiny", "--engine", engine, "--model-path", model, runs=tmp_path / "none")
    assert refused.code == 4
    assert "--no-precheck" in refused.err
    assert not (tmp_path / "none").exists()


def test_a_quantised_name_is_stopped_at_the_line(self_test):
    record, folder = self_test[1]["quantised-name"]
    assert record["verdict"]["findings"][0]["id"].startswith("diffusers.")
    assert record["launches"][0]["stopped"] is not None
    assert "Output saved" not in (folder / "engine.log").read_text(errors="replace"), "it ran on to its end"
    assert record["timings"] is None
    assert not (folder / "perf.json").exists()


def test_each_signal_has_its_emitter_in_the_installed_engine(engine, runs):
    ended = invoke("signals", "--check-engine", engine, runs=runs)
    assert ended.code == 0, ended.out + ended.err
    assert "every signal has its emitter" in ended.out


def test_the_judge_catches_every_known_loss(engine, self_test, runs):
    ended, records = self_test
    assert ended.code == 0, ended.out + ended.err
    assert f"{len(FAULTS)} of {len(FAULTS)} as expected" in ended.out
    assert set(records) == {fault.name for fault in FAULTS}
    assert engine_processes(runs / f"self-test-{engine}") == []


def test_a_session_serves_ten_requests_with_identical_pixels(benchmarks, runs):
    record, folder = benchmarks["session"]
    assert schema.violations(record, "run-record") == []
    assert len(record["requests"]) == 10
    assert len({request["outputs"][0]["sha256"] for request in record["requests"]}) == 1
    assert record["timings"]["outputs_identical"] is True
    assert record["timings"]["summary"]["denoise_ms"]["interval"] is not None
    dumps = sorted(folder.rglob("perf.json"))
    assert len(dumps) == 1 + 10, "the first request, which does not count, has one too"
    assert invoke("validate", *dumps, runs=runs).code == 0


def test_a_session_makes_the_pixels_of_the_single_launch(benchmarks):
    """The canonical single launch is the reference: a session must run the same workload."""
    (single, _), (ten, _) = benchmarks["command-line"], benchmarks["session"]
    assert ten["requests"][0]["outputs"][0]["pixels_sha256"] == single["requests"][0]["outputs"][0]["pixels_sha256"]
    assert ten["launches"][0]["delivered"] == single["launches"][0]["delivered"]


def test_a_profile_goes_from_capture_to_html(profile):
    folder, shown = profile
    assert "No GPU events" in shown
    record = json.loads((folder / "run.json").read_text())
    assert schema.violations(record, "run-record") == []
    assert record["kind"] == "profile"
    assert record["instrument"] == {"stage_sync": False, "profiler": True}
    assert len(record["requests"]) == 3, "the traced request is not a timing"
    assert record["profiled"]["perf_dump"]["file"].endswith("perf.profiled.json")
    report = json.loads((folder / "report" / "report.json").read_text())
    assert schema.violations(report, "profile-report") == []
    assert report["context"]["about"]["instrument"] == "a profiler, off in every timed request"
    assert "<html" in (folder / "report" / "report.html").read_text()


@pytest.mark.alone
def test_the_tour_comes_to_its_end(tour):
    """Every verb once, as a newcomer meets them, each with the exit code that it has to have."""
    ended, own = tour
    assert ended.code == 0, ended.out[-4000:] + ended.err
    assert f"all {len(steps.STEPS)} steps went as expected" in ended.out
    assert ended.out.count(", as expected, after") == len(steps.STEPS)
    for _, command in steps.ON_A_GPU:
        assert command in " ".join(ended.out.split())
    (folder,) = own.glob("*-tour-flux-tiny-*")
    kept = {path.name for path in folder.glob("*.txt")}
    assert kept == {f"{number:02}-{step.name}.txt" for number, step in enumerate(steps.STEPS, 1)}
    outcomes = [json.loads(path.read_text())["verdict"]["outcome"] for path in own.glob("*-bench-*/run.json")]
    assert sorted(outcomes) == ["invalid", "native", "native"]
    (fallback,) = (path.read_text() for path in folder.glob("*-fallback.txt"))
    assert " ms" not in fallback, "a run that does not count shows no number"
    assert engine_processes(own) == []
