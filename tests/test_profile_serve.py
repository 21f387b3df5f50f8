"""`invoke profile --serve` on a server that stands in: what is refused, what goes wrong, and what is shown."""

import json
import signal

import pytest
from helpers import DATA, ROOT, cut_off, processes_like

from bench import schema
from bench.serving import traced

TRACE = str(DATA / "traces" / "flux-h200.trace.json.gz")


@pytest.fixture(name="profile")
def _profile(replay, home, tiny, invoke, monkeypatch):
    """Profile a server that stands in; return how it ended and its record, None without one."""
    monkeypatch.setattr(traced, "UNLOADED_S", 0.5)

    def run(*arguments, **scenario):
        (home / "served").mkdir()
        program = str(ROOT / "tests" / "stand_in_server.py")
        hung = str(home / "served" / "hung")
        replay(name="served", serves=program, service_s=0.02, hang_in=(), hung=hung, **scenario)
        words = ("--model", "flux-tiny", "--preset-file", tiny, "--engine", "served")
        ended = invoke("profile", "--serve", *words, *arguments)
        assert processes_like("stand_in_server.py", home / "runs") == []
        records = list((home / "runs").glob("*-profile-flux-tiny-*/load.json"))
        return ended, records[0] if records else None

    return run


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--nsys",), "--serve traces one request of a server, so --nsys would be ignored"),
        (("--try", "--pairs", "2"), "so --try, --pairs would be ignored"),
        (("--trace", TRACE), "--trace runs nothing, so --serve would be ignored"),
        (("--rate", "1e-6"), "at --rate 1e-06 the load lasts 7000000 s, and --timeout is 3600"),
    ],
)
def test_what_does_not_go_with_a_server_is_refused(invoke, home, words, says):
    ended = invoke("profile", "--serve", *words)
    assert (ended.code, says in ended.err) == (1, True), ended.err
    assert not (home / "runs").exists()


@pytest.mark.parametrize("words", [("--rate", "2"), ("--dry-run",)])
def test_what_only_a_server_takes_is_refused_without_one(invoke, home, words):
    ended = invoke("profile", *words)
    assert (ended.code, "without --serve no server is traced, so" in ended.err) == (1, True), ended.err
    assert not (home / "runs").exists()


@pytest.mark.parametrize("words", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("version", "preset", "says"),
    [
        ("0.5.21", "flux-tiny", "SGLang 0.5.21 cannot trace an image request of a server"),
        ("0.5.23", "wan-t2v", "preset wan-t2v makes video: only image requests of a server are traced so far"),
    ],
)
def test_a_server_that_cannot_trace_is_refused_before_it_starts(invoke, replay, home, words, version, preset, says):
    ended = invoke("profile", "--serve", "--model", preset, "--engine", replay(version), *words)
    assert (ended.code, says in ended.err) == (1, True), ended.err
    assert not (home / "runs").exists()


def test_a_dry_run_prints_the_server_and_the_traced_request(invoke, replay, home):
    ended = invoke("profile", "--serve", "--model", "flux-tiny", "--engine", replay(), "--dry-run", "--all-stages")
    assert ended.code == 0, ended.err
    assert "SGLANG_DIFFUSION_TORCH_PROFILER_DIR=" in ended.out
    last = ended.out.splitlines()[-1]
    assert last.startswith("# request 5 of the 8 that load it: POST /v1/images/generations {")
    assert '"seed": 46,' in last
    assert '"profile": true, "num_profiled_timesteps": 5, "profile_all_stages": true' in last
    assert not (home / "runs").exists()


@pytest.mark.parametrize(
    ("scenario", "says"),
    [
        ({}, "the profiler left no trace"),
        ({"trace": TRACE, "dies": True}, "the server ended during the load"),
    ],
    ids=["no trace", "a dead server"],
)
def test_without_a_trace_the_record_says_why(profile, scenario, says):
    ended, path = profile(**scenario)
    assert (ended.code, says in ended.err) == (3, True), ended.out + ended.err
    record = json.loads(path.read_text())
    assert (record["complete"], record["profiled"]) == (False, None)
    assert says in record["failure"]["what"]
    assert not (path.parent / "report").exists()


@pytest.mark.parametrize("hang_steps", [4, None], ids=["in the warm-up", "in the traced request"])
def test_ctrl_c_leaves_no_server_and_no_profile(replay, home, tiny, invoke, hang_steps):
    hung = home / "served" / "hung"
    hung.parent.mkdir()
    program = str(ROOT / "tests" / "stand_in_server.py")
    replay(name="served", serves=program, service_s=0.02, hang_in=(1,), hung=str(hung), hang_steps=hang_steps)
    words = ("--model", "flux-tiny", "--preset-file", tiny, "--engine", "served", "--rate", "2")
    code, err = cut_off(signal.SIGINT, hung, home, "profile", "--serve", *words)
    assert (code, "interrupted" in err) == (130, True), err
    assert "next: " not in err
    (folder,) = (home / "runs").iterdir()
    record = json.loads((folder / "load.json").read_text())
    assert schema.violations(record, "load-record") == []
    assert (record["complete"], record["profiled"], record["failure"]["exit_code"]) == (False, None, 130)
    assert not (folder / "report").exists()
    assert invoke("report", folder).code == 0
    assert "No figure of this load test counts: interrupted" in (folder / "report.html").read_text()


def test_a_request_under_load_becomes_a_profile(profile, invoke):
    ended, path = profile("--steps-profiled", "2", trace=TRACE)
    assert ended.code == 0, ended.out + ended.err
    assert ended.out.startswith("Profile of flux-tiny on NVIDIA H200, SGLang 0.5.23, 256x256, 4 steps\n")
    shown = " ".join(ended.out.split())
    assert "verdict of the run native, 8 of 8 required pieces of evidence" in shown
    assert "the profiler was on, so the traced request is not a timing" in shown
    assert " a request without load, median of " in shown
    assert "; 50.00 ms a denoise step" in shown
    assert "one request of a server; others in flight: " in shown
    assert "what to do first" in shown
    assert "invoke loadtest --model flux-tiny --engine served --preset-file " in ended.err.split("next: ")[1]
    record = json.loads(path.read_text())
    assert schema.violations(record, "load-record") == []
    assert record["instrument"] == record["launches"][0]["instrument"] == {"stage_sync": False, "profiler": True}
    assert [phase["name"] for phase in record["phases"]] == ["warm", "closed-1", "traced"]
    rows = [json.loads(line) for line in path.with_name("rows.jsonl").read_text().splitlines()]
    loaded = [row["index"] for row in rows if row["phase"] == "traced"]
    assert record["profiled"]["request"] == loaded[traced.BEFORE]
    assert len(loaded) == traced.BEFORE + 1 + traced.AFTER
    validated = invoke("validate", path.parent)
    assert validated.code == 0, validated.err
    (trace,) = (path.parent / "traces").iterdir()
    trace.write_bytes(b"")
    assert "was changed" in invoke("validate", path.parent).err
