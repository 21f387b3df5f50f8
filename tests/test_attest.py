"""`invoke attest`: runs made elsewhere, judged by the same code."""

import gzip
import json
import subprocess
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from helpers import LOGS, NATIVE, ROOT, check_golden, invoke_command, record_path

from bench import schema
from bench.run import selftest
from bench.run.options import Options

EVIDENCE = ROOT / "docs" / "evidence"


def attest(invoke, name, *more, dump=True):
    arguments = ["attest", "--log", LOGS / f"{name}.log", *more]
    if dump and (LOGS / f"{name}.json").exists():
        arguments += ["--dump", LOGS / f"{name}.json"]
    return invoke(*arguments)


@pytest.mark.parametrize(
    ("name", "version", "outcome", "code", "decisive"),
    [
        ("cpu/awq_pipeclass", "0.5.23", "NATIVE", 0, ""),
        ("cpu/awq_sglang", "0.5.23", "INVALID", 4, "diffusers.quant_name"),
        ("cpu/diffusers", "0.5.23", "INVALID", 4, "diffusers.explicit"),
        ("cpu/native_0.5.17", "0.5.17", "DEGRADED", 0, ""),
        ("cpu/port_collision", "0.5.23", "INVALID", 3, "proc.port"),
        ("cpu/save_failure", "0.5.23", "INVALID", 3, "proc.request_failed"),
        ("cpu/unkclass_auto", "0.5.23", "INVALID", 4, "diffusers.no_native_class"),
        ("cpu/unkclass_sglang", "0.5.23", "INVALID", 3, "native.class_unregistered"),
        ("cpu/unknown_flag", "0.5.23", "INVALID", 3, "proc.arguments"),
        ("cpu/warmup_flag", "0.5.23", "INVALID", 3, "proc.arguments"),
        ("cpu/warmup_request", "0.5.23", "NATIVE", 0, ""),
        ("h200/native_eager", "0.5.17", "DEGRADED", 0, ""),
        ("h200/diffusers_eager", "0.5.17", "INVALID", 4, "diffusers.generic_config"),
        ("h100/generator", "0.5.23", "NATIVE", 0, ""),
        ("h100/graphs", "0.5.23", "DEGRADED", 0, ""),
        ("h100/bench", "0.5.23", "NATIVE", 0, ""),
        ("h100/profile", "0.5.23", "INVALID", 4, "proc.profile"),
    ],
)
def test_every_captured_run_gets_the_verdict_it_deserves(invoke, name, version, outcome, code, decisive):
    ended = attest(invoke, name, "--engine-version", version)
    assert ended.code == code, ended.out + ended.err
    assert outcome in ended.out.splitlines()[0]
    assert decisive in ended.err
    assert attest(invoke, name).code == code, "without a version all signals judge, with the same result here"


@pytest.mark.parametrize(
    ("version", "line", "finding", "code"),
    [
        ("0.5.17", "CFG gating summary: fraction=0.100, gate_step=2/20, computed=2, reused=18", "cache.cfg_gate", 4),
        ("0.5.18", "cuDNN SDPA failed (no plan); falling back to FlashAttention for 64.", "attn.cudnn_fail", 0),
        ("0.5.19", "Detected a quantized model format ('awq'). The native", "diffusers.quant_name", 4),
        ("0.5.20", "Progressive denoising: mode=dct levels=2 delta=0.010 initial=32x32", "cache.progressive", 4),
        ("0.5.21", "Failed to apply CUDA VAE optimizations; using the unmodified VAE.", "kernel.vae_unmodified", 0),
        ("0.5.22", "CFG parallel enabled but the CFG group world size is 1 (", "cfg.parallel_sequential", 4),
        ("0.5.22", "LoRA adapter is set, but not effective. Please", "lora.without_effect", 4),
        ("0.5.22", "Loading safetensors with the turbo reader", None, 0),
    ],
)
def test_a_line_of_a_version_in_between_is_judged(invoke, tmp_path, version, line, finding, code):
    """Constructed: a native log of 0.5.23 on a GPU, with a line that the version's source can write."""
    rows = (LOGS / "h100/generator.log").read_text(encoding="utf-8").splitlines()
    middle = len(rows) // 2
    log = tmp_path / "engine.log"
    log.write_text("\n".join([*rows[:middle], f"[11-24 10:00:00] {line}", *rows[middle:]]) + "\n")
    ended = invoke("attest", "--log", log, "--engine-version", version, "--json")
    assert ended.code == code, ended.out + ended.err
    said = {entry["id"]: entry["severity"] for entry in json.loads(ended.out)["findings"]}
    assert (finding is None and json.loads(ended.out)["outcome"] == "native") or finding in said


def test_degraded_is_said_in_words(invoke):
    ended = attest(invoke, "h200/native_eager", "--engine-version", "0.5.17")
    check_golden("attest_h200_native_eager.txt", "\n".join(x.rstrip() for x in ended.out.splitlines()) + "\n")
    flowing = " ".join(ended.out.split())
    assert "transformers' or diffusers' class" in flowing
    assert "layerwise offload" in flowing


def test_the_verdict_is_a_document(invoke):
    ended = attest(invoke, "h200/native_eager", "--json")
    document = json.loads(ended.out)
    assert schema.violations(document, "verdict") == []
    parts = {part["name"]: part["implementation"] for part in document["components"]}
    assert parts == {
        "transformer": "sgl-diffusion", "vae": "sgl-diffusion", "text_encoder": "transformers",
        "text_encoder_2": "sgl-diffusion",
    }  # fmt: skip
    assert all(finding["line"] for finding in document["findings"] if finding["source"] == "log")


def test_a_reference_arm_has_to_be_diffusers(invoke):
    assert attest(invoke, "h200/diffusers_eager", "--expect", "diffusers").code == 0
    native = attest(invoke, "cpu/warmup_request", "--expect", "diffusers")
    assert native.code == 4
    assert "native" in native.out


@pytest.mark.parametrize("name", ["cpu/awq_sglang", "h200/native_eager"])
def test_gzip_and_standard_input_give_the_same_verdict(invoke, home, name):
    plain = attest(invoke, name, "--json", dump=False)
    packed = home / "log.gz"
    packed.write_bytes(gzip.compress((LOGS / f"{name}.log").read_bytes()))
    assert invoke("attest", "--log", packed, "--json").out == plain.out
    with (LOGS / f"{name}.log").open("rb") as log:
        piped = subprocess.run(
            invoke_command("attest", "--log", "-", "--json"), cwd=ROOT, stdin=log, capture_output=True, check=False
        )
    assert piped.stdout.decode() == plain.out
    assert piped.returncode == plain.code


def test_a_fallback_whose_log_was_silenced_is_not_native(invoke, home):
    kept = [x for x in (LOGS / "cpu/awq_sglang.log").read_text().splitlines(keepends=True) if "[11-22" not in x]
    (home / "log").write_text("".join(kept))
    ended = invoke("attest", "--log", home / "log")
    assert ended.code == 5
    assert "or not at log level info" in ended.err
    with_dump = invoke("attest", "--log", home / "log", "--dump", LOGS / "cpu/awq_sglang.json")
    assert with_dump.code == 4
    assert "dump.diffusers_stage" in with_dump.out


def test_a_warm_up_that_never_ran_is_not_taken_at_its_word(invoke, home):
    """0.5.23 with --warmup-mode=server runs none and still prints "Warmed-up request processed"."""
    log = (LOGS / "cpu/warmup_request.log").read_text(errors="replace")
    claimed = [x for x in log.replace('"warmup_mode": "request"', '"warmup_mode": "server"').splitlines(keepends=True)
               if "Warmup requests" not in x]  # fmt: skip
    (home / "log").write_text("".join(claimed))
    ended = invoke("attest", "--log", home / "log", "--engine-version", "0.5.23")
    assert ended.code == 5
    assert "a warm-up request finished" in ended.out


@pytest.mark.parametrize(
    ("stamp", "code", "says"),
    [
        ("2026-11-21T10:04:08.9+00:00", 6, "left over from another run"),
        ("2026-11-22T09:31:40.0+00:00", 6, "left over from another run"),
        ("2026-11-22T02:34:08.9+00:00", 0, "NATIVE"),
    ],
    ids=["a day before", "half an hour and a bit before", "another time zone"],
)
def test_a_dump_left_over_from_another_run_is_refused(invoke, home, stamp, code, says):
    dump = json.loads((LOGS / "cpu/warmup_request.json").read_text()) | {"timestamp": stamp}
    (home / "perf.json").write_text(json.dumps(dump))
    ended = invoke("attest", "--log", LOGS / "cpu/warmup_request.log", "--dump", home / "perf.json")
    assert (ended.code, says in ended.out) == (code, True), ended.out


@pytest.mark.parametrize("stamp", ["2026-11-22T09:04:08.9+00:00", "2025-11-22T10:04:08.9+00:00"])
def test_a_dump_of_an_hourly_job_is_refused_by_its_times(invoke, home, stamp):
    """A whole number of hours apart may be another time zone; what the stages took tells the two apart."""
    dump = json.loads((LOGS / "cpu/warmup_request.json").read_text()) | {"timestamp": stamp}
    for step in (*dump["steps"], *dump["denoise_steps_ms"]):
        step["duration_ms"] /= 10
    dump["total_duration_ms"] /= 10
    (home / "perf.json").write_text(json.dumps(dump))
    ended = invoke("attest", "--log", LOGS / "cpu/warmup_request.log", "--dump", home / "perf.json")
    assert ended.code == 6
    assert "dump.log" in ended.out


def test_steps_that_the_engine_changed_are_another_workload(invoke, home):
    log = (LOGS / "cpu/warmup_request.log").read_text(errors="replace").replace("infer_steps: 4", "infer_steps: 8")
    (home / "log").write_text(log)
    ended = invoke("attest", "--log", home / "log", "--dump", LOGS / "cpu/warmup_request.json")
    assert ended.code == 4
    assert "dump.steps" in ended.out


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "No such file"), (b"", "the log is empty"), (b"\x1f\x8b\x08\x00cut", "the gzip file is incomplete")],
)
def test_a_log_that_cannot_be_read_is_one_clear_error(invoke, home, content, says):
    if content is not None:
        (home / "log").write_bytes(content)
    ended = invoke("attest", "--log", home / "log")
    assert ended.code == 1
    assert says in ended.err
    assert ended.out == ""


def test_what_is_asked_wrongly_is_said(invoke):
    assert "nothing to judge was named\n  to do: --log FILE" in invoke("attest").err
    alone = invoke("attest", "--dump", "README.md")
    assert (alone.code, alone.out) == (1, "")
    assert "a perf dump alone is not judged" in alone.err
    assert "where: README.md\n  to do: add --log FILE" in alone.err
    other = invoke("attest", "--log", LOGS / NATIVE["log"], "--dump", "README.md")
    assert other.code == 6
    assert "not JSON" in other.out
    assert "name the perf dump that the engine wrote" in other.out
    absent = invoke("attest", "--log", LOGS / NATIVE["log"], "--dump", "nope.json")
    assert (absent.code, absent.out) == (1, "")
    assert "error: the perf dump cannot be read: No such file or directory\n  where: nope.json" in absent.err
    assert "to do: name the perf dump that the engine wrote" in absent.err
    alone = invoke("attest", "--dump", "nope.json")
    assert (alone.code, alone.out) == (1, "")
    assert "error: no such perf dump\n  where: nope.json\n  to do: name one that exists" in alone.err
    wrong = invoke("attest", "--log", LOGS / "cpu/diffusers.log", "--expect", "nativ")
    assert wrong.code == 1
    assert "did you mean native" in wrong.err


def test_the_self_test_shows_which_fault_runs_and_what_its_engine_does(invoke, replay, tiny, home):
    shown, heard = [], []

    @contextmanager
    def display(*told):
        shown.append(told)
        yield SimpleNamespace(observe=lambda block, line: heard.append((len(shown), block)))

    asked = Options(model="flux-tiny", preset_file=tiny, engine=replay(**NATIVE))
    results = selftest.run(asked, lambda result: None, display)
    names = [result.fault.name for result in results]
    assert shown[:2] == [("clean", "fault 1/6", 6), ("quantised-name", "fault 2/6", 5)]
    assert [name for name, _, _ in shown] == names
    assert {place for place, block in heard if b"server_args" in block} == {1, 2, 3, 4, 5, 6}
    assert results[0].outcome == "native"
    history = invoke("history", "--model", "flux-tiny", "--json")
    assert (history.code, history.out) == (0, "[]\n"), "the clean run is measured beside nothing that it could tell"


@pytest.mark.parametrize("words", [("attest",), ("validate",), ("bench", "--resume"), ("report",)])
def test_a_run_that_left_only_a_log_is_told_from_one_that_is_not_there(invoke, home, words):
    folder = home / "runs" / "20261130T033859Z-bench-flux-tiny-a61ca2"
    folder.mkdir(parents=True)
    (folder / "engine.log").write_text("cut off\n")
    ended = invoke(*words, "a61ca2")
    assert (ended.code, ended.out) == (1, "")
    assert "this folder has no record, only the engine's log" in ended.err
    assert f"where: {folder}\n  to do: `invoke attest --log {folder}/engine.log` judges the log" in ended.err
    assert "no run is called 'a61ca3'" in invoke(*words, "a61ca3").err


def test_a_run_is_judged_again_by_what_it_is_called(invoke, bench):
    path = record_path(bench("--label", "before"))
    for name, shown in (("last", f"last ({path.parent.name[-6:]})"), ("before", "before")):
        ended = invoke("attest", name)
        assert (ended.code, ended.out) == (0, f"{shown}: run: native\n"), ended.err


@pytest.mark.parametrize(
    ("names", "code", "says"),
    [
        (
            ("caught",),
            4,
            "; diffusers.generic_config: the engine configured itself for the diffusers backend",
        ),
        (("h200-0.5.23/named-4bit",), 3, "named-4bit: run: invalid; output.none: no output was produced"),
        (("h200-0.5.23/named-4bit", "caught", "eager"), 4, "eager: run: degraded"),
    ],
)
def test_a_run_that_does_not_count_ends_as_it_did(invoke, names, code, says):
    ended = invoke("attest", *(EVIDENCE / name for name in names))
    assert (ended.code, ended.err) == (code, "")
    assert says in ended.out


@pytest.mark.parametrize(
    ("failure", "code", "says"),
    [
        ({"exit_code": 130, "what": "interrupted"}, 130, "cut off: interrupted"),
        ({"exit_code": 8, "what": "it took too long"}, 8, "cut off: it took too long"),
        (None, 130, "cut off, or still running"),
    ],
)
def test_a_run_that_was_cut_off_is_told_and_ends_as_it_did(invoke, bench, failure, code, says):
    path = record_path(bench())
    record = json.loads(path.read_text()) | {"complete": False, "failure": failure}
    path.with_name("run.partial.json").write_text(json.dumps(record))
    path.unlink()
    ended = invoke("attest", "last")
    assert (ended.code, ended.out) == (code, f"last ({path.parent.name[-6:]}): run: native; {says}\n"), ended.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("last",), "last names no run"),
        (("absent",), "no run is called 'absent'"),
        (("./absent.html",), "no such file or folder"),
        (("README.md",), "this file holds nothing to judge again"),
        (("docs",), "neither a run nor a comparison"),
        ((EVIDENCE / "eager" / "perf.json",), "this file is not a record"),
        (("last", "--json"), "leave --log, --dump, --json, --expect and --engine-version out"),
        (("last", "--dump", "perf.json"), "a run or a page holds its own logs and dumps"),
        (("last", "--expect", "native"), "a run or a page holds its own logs and dumps"),
        (("last", "--engine-version", "0.5.17"), "a run or a page holds its own logs and dumps"),
    ],
)
def test_what_is_no_run_and_no_page_is_refused_with_what_is(invoke, words, says):
    ended = invoke("attest", *words)
    assert (ended.code, ended.out) == (1, "")
    assert says in ended.err
    assert "Errno" not in ended.err


def test_signals_are_listed_and_filtered(invoke):
    everything = json.loads(invoke("signals", "--json").out)
    assert len(everything) > 150
    components = json.loads(invoke("signals", "--category", "component", "--json").out)
    assert {signal["category"] for signal in components} == {"component"}
    assert components[0]["id"] in invoke("signals", "--category", "component").out
    assert "component" in invoke("signals", "--category", "componant").err


def test_arguments_that_were_cut_are_not_read(invoke, home):
    """A collector cuts long lines: what was asked for is in the rest, so nothing says that it was delivered."""
    log = (LOGS / "cpu/warmup_request.log").read_text(errors="replace")
    kept = [line[:2000] for line in log.splitlines() if "Warmup requests" not in line]
    (home / "log").write_text("\n".join(kept))
    ended = invoke("attest", "--log", home / "log", "--engine-version", "0.5.23")
    assert ended.code == 5
    assert "printed, as a whole" in ended.out


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ('"timestamp": "2026-13-45T99:99:99Z"', "is not a timestamp"),
        ('"total_duration_ms": 1e999', "too large a number"),
    ],
)
def test_a_dump_that_no_engine_wrote_is_one_clear_error(invoke, home, change, says):
    name = change.partition(":")[0]
    lines = (LOGS / "cpu/warmup_request.json").read_text().splitlines()
    broken = [f"  {change}," if line.strip().startswith(name) else line for line in lines]
    assert broken != lines
    (home / "perf.json").write_text("\n".join(broken))
    ended = invoke("attest", "--log", LOGS / "cpu/warmup_request.log", "--dump", home / "perf.json")
    assert ended.code == 6
    assert says in ended.out + ended.err
    assert "Traceback" not in ended.err


def test_a_long_log_takes_no_more_memory_than_a_short_one(home):
    """A megabyte against 200, on standard input; a log is somebody's, and may be of any length."""
    noise = b"[11-22 08:53:49] an ordinary line of an engine that talks too much, of very many\n" * 12_500
    program = (
        "import runpy, sys; sys.argv = ['invoke', 'attest', '--log', '-', '--engine-version', '0.5.17']\n"
        "try: runpy.run_module('invoke', run_name='__main__')\n"
        "finally: open('PEAK', 'w').write(next(x for x in open('/proc/self/status') if x.startswith('VmHWM')))\n"
    ).replace("PEAK", str(home / "peak"))
    peaks = []
    for blocks in (1, 200):
        command = [sys.executable, "-c", program]
        with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as task:
            task.stdin.write((LOGS / "h200/native_eager.log").read_bytes())
            for _ in range(blocks):
                task.stdin.write(noise)
            task.stdin.close()
            assert task.wait() == 0
        peaks.append(int((home / "peak").read_text().split()[1]))
    assert peaks[1] < peaks[0] + 20_000, "KiB"


def test_what_is_not_a_version_is_refused(invoke):
    ended = invoke("attest", "--log", LOGS / "cpu" / "diffusers.log", "--engine-version", "banana")
    assert (ended.code, ended.out) == (1, "")
    assert "--engine-version takes a version such as 0.5.23, not 'banana'" in ended.err
