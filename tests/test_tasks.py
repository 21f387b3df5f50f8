"""The tasks as a person runs them; failures that the real engine cannot be made to have come from a replay engine."""

import json
import os
import re
import shlex
import subprocess
import sys

import pytest
from helpers import (
    NATIVE,
    ROOT,
    check_golden,
    invoke_command,
    processes_like,
    record_of,
    wait_for_task,
    wait_until,
)

sys.path.insert(0, str(ROOT))
import tasks
from bench.run.options import QUALITIES
from bench.task import VERBS

MARKER = "sleep 300.125"
EVIDENCE = ROOT / "docs" / "evidence"


# --- usage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--model", "flux-tyni"), ["no model is called 'flux-tyni'", "did you mean flux-tiny"]),
        (("--engine", "sglang-9"), ["no built engine is called 'sglang-9'", 'nox -s "engine(sglang-9)"']),
        (("--engine", "compil"), ["no built engine is called 'compil'", "built: replay; an engine is also path (the"]),
        (("--engine", "replya"), ["did you mean replay? built: replay"]),
        (("--engine", "sglang-9+0123"), ["; `invoke bisect` builds it again when a commit requires it"]),
        (("--steps", "many"), ["--steps takes a whole number of at least 1, not 'many'", "leave it out"]),
        (("--steps", "0"), ["--steps takes a whole number of at least 1, not '0'"]),
        (("--timeout", "nan"), ["--timeout takes a number of at least 0.1, not 'nan'"]),
        (("--width", "4"), ["--width takes a whole number of at least 8"]),
        (("--torch-compile", "--no-torch-compile"), ["exclude each other"]),
        (("--model-path", "/no/such/folder"), ["no such model folder", "/no/such/folder"]),
        (("--preset-file", "/no/such/file.toml"), ["cannot be read", "/no/such/file.toml", "name a file that exists"]),
        (("--warmups", "2"), ["bench has no option --warmups", "each engine start serves one request that does not"]),
        (("--zzzz",), ["bench has no option --zzzz", "`invoke bench --help` lists its options"]),
        (("--modle", "x"), ["bench has no option --modle", "did you mean --model?"]),
        (("--repeat", "3"), ["bench has no option --repeat", "did you mean --repeats?"]),
        (("flux-tiny",), ["bench does not take the word 'flux-tiny'", "did you mean --model flux-tiny?"]),
        (("nonsense",), ["bench does not take the word 'nonsense'", "`invoke bench --help` lists its options"]),
        (("--steps",), ["--steps takes a whole number, and none was given", "type --steps=N: denoise steps"]),
        (("--label",), ["--label takes a value, and none was given", "type --label=LABEL: a word for"]),
        (("--width", "256", "--width", "512"), ["--width takes one value, and two were given: 256 and 512"]),
        (("--width=256", "--steps", "2", "--width=512"), ["two were given: 256 and 512", "leave one out"]),
        (("--width", "256", "--width"), ["--width takes a whole number, and none was given"]),
        (("--model", "FLUX-TINY"), ["no model is called 'FLUX-TINY'", "did you mean flux-tiny?"]),
        (("--model", "black-forest-labs/FLUX.1-dev"), ["did you mean flux?"]),
        (("--model", "qqqq"), ["`invoke models` lists the 84"]),
        (("--", "--backend=diffusers"), ["--backend cannot be passed to the engine: the workbench pins it"]),
        (("--", "--log-level=warning"), ["--log-level cannot be passed to the engine"]),
        (("--", "--steps=3"), ["--steps is an option of this task", "use --steps of this task, before --"]),
        (("--", "--vae-tiling=true", "--dry-run"), ["use --dry-run of this task, before --"]),
        (("--", "--not-a-flag=1"), ["sglang 0.5.23 does not know --not-a-flag"]),
        (("--", "--warmup-res=1x1"), ["sglang 0.5.23 does not know --warmup-res", "--warmup-res"]),
        (("--", "--foo-path=x"), ["sglang 0.5.23 does not know --foo-path"]),
        (("--", "'unclosed"), ["cannot be split into arguments"]),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, tuple) else None,
)
def test_a_users_mistake_is_one_clear_error(invoke, replay, model, only_run, home, arguments, says):
    defaults = ["--engine", replay(), "--model-path", model(), "--model", "flux-tiny"]
    for option in set(arguments) & {"--engine", "--model-path", "--model"}:
        place = defaults.index(option)
        del defaults[place : place + 2]
    ended = invoke("bench", *defaults, *arguments)
    assert ended.code == 1
    assert ended.out == ""
    for text in says:
        assert text in ended.err
    assert not (home / "runs").exists(), "nothing may be left of a run that could not start"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda m: (m / "model_index.json").write_text("{not json"), "model_index.json cannot be read"),
        (lambda m: (m / "model_index.json").write_text("{}"), "names no pipeline class"),
        (lambda m: (m / "model_index.json").unlink(), "no model_index.json"),
        (lambda m: (m / "vae" / "config.json").unlink(), "component vae is named in model_index.json but missing"),
        (lambda m: (m / "vae" / "model.safetensors").write_bytes(b"\xff" * 100), "not a safetensors file, or cut"),
        (
            lambda m: (m / "vae" / "x.safetensors.index.json").write_text('{"weight_map": {"a": "gone.safetensors"}}'),
            "weights are missing: gone.safetensors",
        ),
    ],
)
def test_a_broken_checkpoint_is_named_before_anything_starts(invoke, replay, model, home, spoil, says):
    folder = model()
    spoil(folder)
    ended = invoke("bench", "--model", "flux-tiny", "--engine", replay(), "--model-path", folder)
    assert ended.code == 1
    assert says in ended.err
    assert str(folder) in ended.err
    assert not (home / "runs").exists()


def test_an_output_folder_that_cannot_be_made_is_named(bench):
    ended = bench("--output-dir", "/proc/nope")
    assert ended.code == 10
    assert "write.runs: /proc/nope is not writable" in ended.err
    assert "name another folder with --output-dir" in ended.err


@pytest.mark.parametrize("name", sorted(tasks.ns.task_names))
def test_every_verb_explains_itself_where_words_are_expected_too(invoke, name):
    ended = invoke(name, "--help")
    assert ended.code == 0, ended.err
    assert f"invoke {tasks.ns[name].example}" in ended.out
    assert f"{tasks.ns[name].summary}\n" in invoke(name, "--help", env={"COLUMNS": "160"}).out
    for option in VERBS[name].options:
        assert f"\n  {option.typed}" in ended.out, f"{option.typed} is not listed"


@pytest.mark.parametrize("name", sorted(tasks.ns.task_names))
def test_the_help_of_a_verb_fits_80_columns_and_breaks_between_words_only(invoke, name):
    narrow, wide = (invoke(name, "--help", env={"COLUMNS": columns}).out for columns in ("80", "1000"))
    assert not [line for line in narrow.splitlines() if len(line) > 80]
    assert set(wide.split()) == set(narrow.split())
    assert {word for option in VERBS[name].options for word in option.explained.split()} <= set(narrow.split())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("help", "bench"), ["no task is called 'help'", "`invoke TASK --help` explains a task"]),
        (("banch",), ["no task is called 'banch'", "did you mean bench?"]),
        (("compare",), ["compare needs FILES ...", "`invoke compare --help`"]),
        (("compare", "--metrik", "x"), ["compare has no option --metrik", "did you mean --metric?"]),
        (("completion", "--lin", "x"), ["completion has no option --lin", "did you mean --line?"]),
        (("bench", "--size", "768x1024"), ["bench has no option --size", "--width and --height"]),
        (("bench", "--gpus=2"), ["bench has no option --gpus", "CUDA_VISIBLE_DEVICES"]),
        (("bench", "--open"), ["bench has no option --open", "`invoke report last`"]),
        (("ab", "--yes"), ["ab has no option --yes", "asks no questions"]),
        (("bench", "-m", "flux"), ["bench has no option -m", "did you mean --model?"]),
        (("bench", "--version"), ["bench has no option --version", "`invoke doctor` names the versions"]),
        (("-m", "flux"), ["invoke has no option -m", "follow its name, e.g. `invoke bench --model flux`"]),
        (("history", "--size", "2"), ["history has no option --size", "`invoke history --help` lists its options"]),
        (("bench", "--format", "x"), ["bench has no option --format", "`invoke bench --help` lists its options"]),
        (("bench", "repeat"), ["bench does not take the word 'repeat'", "did you mean --repeats?"]),
    ],
)
def test_a_command_line_that_cannot_be_read_is_answered_with_what_was_meant(invoke, words, says):
    ended = invoke(*words)
    assert (ended.code, ended.out) == (1, "")
    for text in says:
        assert text in ended.err


def test_invoke_alone_shows_where_to_begin(invoke):
    ended = invoke()
    commands = re.findall(r"invoke (\w+)", ended.out)
    assert ended.code == 0
    assert {"doctor", "bench", "ab", "profile", "accuracy", "attest"} <= set(commands)
    assert "sudo" not in ended.out
    assert max(map(len, ended.out.splitlines())) <= 80


@pytest.mark.parametrize(
    "words",
    [
        ("models",), ("models", "--json"), ("signals",), ("compare", "--help"), ("--list",),
        ("bench", "--tag", "tiny", "--dry-run"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_reader_that_has_gone_hears_nothing(words, replay):
    """The pipe is closed before anything is printed, whatever the size of its buffer."""
    ended = without_reader(words, BENCH_ENGINE=replay())
    assert (ended.returncode, ended.stderr) == (141, "")


def without_reader(words, **env):
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run(
        ["bash", "-c", '"$@"; exit $?', "bash", *invoke_command(*words)],
        cwd=ROOT,
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env=os.environ | env,
    )
    os.close(write)
    assert "Traceback" not in ended.stderr
    return ended


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("compare", EVIDENCE / "h200-0.5.23-served" / "compile"), 7),
        (("compare", EVIDENCE / "h200-0.5.23-served" / "compile", "--json"), 7),
        (("attest", EVIDENCE / "caught"), 4),
        (("attest", "--log", EVIDENCE / "caught" / "engine.log"), 4),
        (("attest", EVIDENCE / "eager"), 141),
    ],
)
def test_a_reader_that_has_gone_hides_no_verdict(words, code):
    ended = without_reader(words)
    assert ended.returncode == code
    assert "Broken" not in ended.stderr


@pytest.mark.parametrize(("words", "code"), [(("compare", "nosuch"), 1), (("models",), 0)])
def test_without_a_stdout_a_task_ends_as_with_one(words, code, home):
    command = ["bash", "-c", 'exec "$@" >&-', "bash", *invoke_command(*words)]
    ended = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)
    assert (ended.returncode, "Traceback" in ended.stderr) == (code, False), ended.stderr


def test_no_engine_at_all_names_the_command_that_builds_one(invoke, tmp_path):
    ended = invoke("bench", "--model", "flux-tiny", env={"PATH": "/nowhere"})
    assert ended.code == 1
    assert 'nox -s "engine(sglang-0.5.23)"' in ended.err


def test_the_one_engine_that_is_built_is_taken(invoke, replay, model, home):
    replay(name="built", **NATIVE)
    ended = invoke("bench", "--model", "flux-tiny", "--model-path", model(), env={"PATH": "/nowhere"})
    assert ended.code == 0, ended.err
    assert "[built]" in ended.out


def test_of_several_engines_the_named_or_the_default_one_is_taken(replay, monkeypatch, home):
    from bench.engine import find
    from bench.errors import UsageError

    monkeypatch.setenv("PATH", "/nowhere")
    for name in ("one", "other"):
        replay(name=name)
    with pytest.raises(UsageError, match="name one or other, which are built"):
        find.find(None)
    replay(name=find.DEFAULT_CONFIGURATION)
    assert find.find(None).name == find.DEFAULT_CONFIGURATION
    with pytest.raises(UsageError, match="`sglang` is not on PATH"):
        find.find("path")
    monkeypatch.setenv("BENCH_ENGINE", "other")
    assert find.find(None).name == "other"
    assert find.find("one").name == "one"


@pytest.mark.parametrize(("verb", "program"), [("bench", "generate"), ("loadtest", "serve")])
def test_a_dry_run_needs_no_engine_and_says_so(invoke, verb, program):
    ended = invoke(verb, "--model", "flux-tiny", "--dry-run", env={"PATH": "/nowhere"})
    assert ended.code == 0, ended.err
    assert "no engine was named or found: this is the command for sglang 0.5.23" in ended.err
    assert f"sglang {program}" in ended.out.replace("\\\n", " ")


def test_a_dry_run_for_an_engine_that_is_not_built_is_refused(invoke):
    by_variable = invoke("bench", "--model", "flux-tiny", "--dry-run", env={"BENCH_ENGINE": "sglang-9"})
    assert (by_variable.code, by_variable.out) == (1, "")
    ended = invoke("bench", "--model", "flux-tiny", "--engine", "sglang-9", "--dry-run")
    assert ended.code == 1
    assert "no built engine is called 'sglang-9'" in ended.err


def test_an_engine_whose_interpreter_is_broken_says_so(invoke, replay, home):
    name = replay()
    python = home / "environments" / f"engine-{name}" / "bin" / "python"
    python.write_text("#!/bin/sh\necho 'libpython3.so: cannot open' >&2\nexit 1\n")
    ended = invoke("bench", "--model", "flux-tiny", "--engine", name)
    assert ended.code == 3
    assert "libpython3.so: cannot open" in ended.err


def test_a_preset_that_asks_for_more_than_a_version_can_is_refused(invoke, replay):
    ended = invoke("bench", "--model", "flux", "--engine", replay(version="0.5.17"), "--dry-run")
    assert ended.code == 1
    assert "sglang 0.5.17 does not know --component-residency" in ended.err
    assert "0.5.18 to 0.5.23" in ended.err


def test_the_program_ends_as_its_task_does(invoke_program):
    """The one usage error that is tried in an interpreter of its own."""
    ended = invoke_program("bench", "--model", "flux-tyni")
    assert (ended.code, ended.out) == (1, "")
    assert "did you mean flux-tiny" in ended.err


# --- dry run ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["0.5.11", "0.5.17", "0.5.23"])
def test_a_dry_run_prints_a_command_that_a_shell_reads_back(invoke, replay, home, version):
    name = replay(version=version)
    ended = invoke("bench", "--model", "flux-tiny", "--engine", name, "--dry-run", "--", "--vae-tiling=true")
    assert (ended.code, ended.err) == (0, "")
    words = shlex.split(ended.out.replace("\\\n", " "))
    environment = dict(word.split("=", 1) for word in words[: words.index("generate") - 1])
    arguments = words[words.index("generate") + 1 :]
    ports = [a for a in arguments if a.startswith(("--master-port", "--scheduler-port"))]
    assert len({port.partition("=")[2] for port in ports}) == 2
    fixed = [a.replace(str(home), "HOME").replace(str(ROOT), "ROOT") for a in arguments if a not in ports]
    shown = "\n".join([*(f"{k}={v}" for k, v in environment.items()), *fixed]) + "\n"
    key = next(word for word in fixed if "checkpoints/" in word).split("checkpoints/")[1].split("/")[0]
    check_golden(f"dry_run_{version}.txt", shown.replace(key, "KEY"))
    assert not (home / "runs").exists()
    assert not (home / "cache").exists()


def test_a_dry_run_as_json_is_one_object(invoke, replay):
    asked = ("--model", "flux-tiny", "--engine", replay(), "--dry-run", "--json")
    known = {
        ("bench", "--launches", "3", "--repeats", "2"): [("flux-tiny", 3, 2)],
        ("bench", "--matrix", "quality", "--repeats", "2"): [(f"{name}-eager", 3, 2) for name in QUALITIES],
        ("reference",): [("flux-tiny", 1, 1)],
        ("ab", "--candidate", "steps=8", "--pairs", "3"): [("baseline", 3, 4), ("candidate", 3, 4)],
        ("ab", "--candidate", "steps=8", "--pairs", "1"): [("baseline", 1, 4), ("candidate", 1, 4)],
    }
    for (verb, *words), wanted in known.items():
        ended = invoke(verb, *asked, *words)
        assert ended.code == 0, ended.err
        document = json.loads(ended.out)
        assert [(run["name"], run["launches"], run["requests"]) for run in document["runs"]] == wanted
        for run in document["runs"]:
            assert any(word.startswith("--model-path=") for word in run["argv"]) or verb == "ab"
            assert run["environment"]
        assert document["refused"] == []


def test_a_dry_run_of_servers_as_json_is_one_object(invoke, replay):
    asked = ("loadtest", "--model", "flux-tiny", "--engine", replay(), "--dry-run", "--json")
    (run,) = json.loads(invoke(*asked).out)["runs"]
    assert "serve" in run["argv"]
    two = json.loads(invoke(*asked, "--candidate", "steps=8").out)["runs"]
    assert [run["name"] for run in two] == ["baseline", "candidate"]
    refused = invoke("sweep", "--model", "flux-tiny", "--dry-run", "--json")
    assert (refused.code, refused.out) == (1, "")
    assert "to do: leave --json out" in refused.err


# --- runs -------------------------------------------------------------------------------------------------------------


def test_a_native_run_is_recorded_and_shown(bench, only_run):
    ended = bench("--label", "first-try")
    assert ended.code == 0, ended.err
    run = only_run()
    assert sorted(os.listdir(run)) == ["engine.log", "outputs", "perf.json", "run.json"]
    record = record_of(ended)
    assert record["verdict"]["outcome"] == "native"
    assert record["timings"]["metrics"]["denoise_ms"] == pytest.approx(1594.807939999555)
    assert record["timings"]["metrics"]["peak_allocated_mib"] is None
    assert record["weights"] == {"kind": "real", "sha256": record["weights"]["sha256"], "model": "FLUX.1-dev-tiny"}
    assert len(record["weights"]["sha256"]) == 64
    assert record["requests"][0]["outputs"][0]["width"] == 256
    assert ended.out.splitlines()[-1] == f"record: {run / 'run.json'}"
    assert "NATIVE" in ended.out
    assert "1,594.8 ms" in ended.out
    assert "n/a" in ended.out


def test_the_report_is_what_it_was(bench, model):
    """The golden text of what a person reads; machine, paths and what else runs here are taken out."""
    ended = bench()
    changing = ("device ", "output: ", "record: ", "whole launch")
    shown = [line.rstrip() for line in ended.out.splitlines() if not line.startswith(changing)]
    text = "\n".join(shown).replace(str(model()), "MODEL").replace("when nothing else runs here: ", "")
    check_golden("report_native.txt", f"{text}\n")


def test_json_holds_the_record_and_nothing_else(bench, only_run):
    ended = bench("--json")
    assert ended.code == 0
    assert json.loads(ended.out) == json.loads((only_run() / "run.json").read_text())


def test_two_runs_never_touch_each_others_files(invoke, replay, model, home):
    engine, folder = replay(**NATIVE), model()
    command = ["bench", "--model", "flux-tiny", "--engine", engine, "--model-path", folder]
    first = invoke(*command)
    before = {path: path.read_bytes() for path in (home / "runs").rglob("*") if path.is_file()}
    second = invoke(*command)
    assert (first.code, second.code) == (0, 0)
    assert len(list((home / "runs").iterdir())) == 2
    assert {path: path.read_bytes() for path in before} == before


def test_an_invalid_line_stops_everything_at_once(bench, only_run, home):
    scenario = {"log": "cpu/awq_sglang.log", "dump": "cpu/awq_sglang.json", "children": 2, "linger_s": 600,
                "pause_after": "Falling back to diffusers backend", "pause_s": 600}  # fmt: skip
    ended = bench(scenario=scenario)
    assert ended.code == 4
    assert not processes_like(MARKER, home / "runs")
    record = record_of(ended)
    assert record["timings"] is None
    assert record["verdict"]["findings"][0]["id"].startswith("diffusers.")
    assert " ms" not in ended.out
    assert "INVALID" in ended.out
    assert not (only_run() / "perf.json").exists()


def test_a_rejected_runs_dump_is_set_aside(bench, only_run):
    ended = bench(scenario=NATIVE | {"dump_changes": {"denoise_steps_ms": []}})
    assert ended.code == 4
    assert not (only_run() / "perf.json").exists()
    assert (only_run() / "perf.rejected.json").exists()
    assert record_of(ended)["launches"][0]["rejected"]["perf_dump"]["file"] == "perf.rejected.json"


@pytest.mark.parametrize(
    ("scenario", "code", "finding"),
    [
        ({"log": "cpu/save_failure.log", "image": False}, 3, None),
        ({"log": "cpu/unkclass_sglang.log", "image": False, "exit": 1}, 3, "native.class_unregistered"),
        ({"lines": ["nothing of interest"], "image": False, "exit": 0}, 3, "output.none"),
        ({"lines": ["a quiet log"], "dump": "cpu/warmup_request.json"}, 5, None),
        ({"log": "cpu/warmup_request.log"}, 6, "dump.unreadable"),
        (NATIVE | {"dump_changes": {"timestamp": "2026-11-20T10:00:00+00:00"}}, 6, "dump.timestamp"),
        (NATIVE | {"dump_changes": {"total_duration_ms": 0}}, 6, "dump.unreadable"),
        (NATIVE | {"dump_changes": {"total_duration_ms": 10**400}}, 6, "dump.unreadable"),
        ({"log": "cpu/warmup_request.log", "dump_is": "folder"}, 6, "dump.unreadable"),
        ({"log": "cpu/warmup_request.log", "dump_is": "fifo"}, 6, "dump.unreadable"),
        ({"log": "cpu/warmup_request.log", "dump_is": "/dev/zero"}, 6, "dump.unreadable"),
        (NATIVE | {"png_says": (30_000, 30_000)}, 3, "output.broken"),
        (NATIVE | {"size": (128, 256)}, 4, "output.size"),
        (NATIVE | {"colours": 1}, 4, "output.one_colour"),
        (NATIVE | {"exit": 1}, 3, "process.exit"),
    ],
)
def test_a_run_that_proves_nothing_has_its_own_exit_code(bench, scenario, code, finding):
    ended = bench(scenario=scenario)
    assert ended.code == code, ended.out + ended.err
    record = record_of(ended)
    assert record["timings"] is None
    if finding is not None:
        assert record["verdict"]["findings"][0]["id"] == finding
    assert ended.err.rstrip().endswith("run.json")


def test_weights_of_full_size_are_not_made_where_no_gpu_would_run_them(invoke, replay, home, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    ended = invoke("bench", "--model", "flux-full-synthetic", "--engine", replay(**NATIVE))
    assert ended.code == 10
    assert "flux-full-synthetic has weights of full size, and no GPU is visible here" in ended.err
    assert "to do: run it where a GPU is" in ended.err
    assert not list((home / "cache").rglob("FLUX*"))


def test_a_run_over_its_time_is_stopped_and_says_so(bench, invoke, only_run, home):
    ended = bench("--timeout", "2", scenario=NATIVE | {"children": 2, "linger_s": 600})
    assert ended.code == 8
    assert not processes_like(MARKER, home / "runs")
    assert record_of(ended)["verdict"]["findings"][0]["id"] == "process.timeout"
    assert re.search(r"^next: invoke bench --model flux-tiny .*--timeout 4$", ended.out, re.MULTILINE)
    page = invoke("report", only_run(), "--markdown").out
    (todo,) = re.findall(r"To do: .*", page)
    assert todo == "To do: give it a longer time limit"


def test_a_limit_on_file_size_is_an_error_without_a_record(bench, only_run):
    """A full disk, as the kernel reports it to a process with a limit."""
    ended = bench(scenario=NATIVE | {"flood_bytes": 3_000_000}, shell_before="ulimit -f 1024")
    assert ended.code == 1
    assert "File too large" in ended.err
    assert not (only_run() / "run.json").exists()


def test_kill_9_leaves_no_process_and_nothing_that_looks_finished(replay, model, home, only_run):
    scenario = NATIVE | {"children": 2, "linger_s": 600}
    command = invoke_command("bench", "--model", "flux-tiny", "--engine", replay(**scenario), "--model-path", model())
    task = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for_task(
        task, lambda: len(processes_like(MARKER, home / "runs")) == 2, "the engine's children have not started"
    )
    task.kill()
    task.wait()
    wait_until(lambda: not processes_like(MARKER, home / "runs"), "the engine's processes are still there")
    assert not (only_run() / "run.json").exists()


# --- lists ------------------------------------------------------------------------------------------------------------


def test_models_lists_every_preset(invoke):
    shown, as_json = invoke("models"), json.loads(invoke("models", "--json").out)
    assert set(as_json) >= {"flux", "flux-tiny"}
    assert as_json["flux"]["model"] == "black-forest-labs/FLUX.1-dev"
    for key in as_json:
        assert key in shown.out


def test_a_users_own_preset_file_works(invoke, replay, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        '[mine]\ndescription = "of my own"\nmodel = "owner/model"\nmodality = "image"\nprompt = "a cat"\nseed = 7\n'
    )
    ended = invoke("bench", "--model", "mine", "--preset-file", path, "--engine", replay(), "--dry-run")
    assert ended.code == 0, ended.err
    assert "--model-path=owner/model" in ended.out
    assert "HF_HUB_OFFLINE" not in ended.out


def test_secrets_do_not_reach_the_record(bench, only_run):
    ended = bench(env={"HF_TOKEN": "hf_topsecret", "CUDA_MODULE_LOADING": "LAZY"})
    assert ended.code == 0
    assert "hf_topsecret" not in (only_run() / "run.json").read_text()
    environment = record_of(ended)["launches"][0]["command"]["environment"]
    assert environment["HF_TOKEN"] == "<set, not shown>"
    assert environment["CUDA_MODULE_LOADING"] == "LAZY"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("checkpoint", "--model", "flux-tiny", "--out", "x"), "did you mean flux?"),
        (("evidence",), "evidence needs --base, the revision to measure against, or --from"),
        (("evidence", "--base", "main", "--source", "/nope"), "error: no such folder\n  where: /nope"),
        (("history", "--csv"), "--json prints the points, --plot writes a page"),
        (("history", "--since", "yesterday"), "to do: write year, month and day"),
        (("evidence-check", "nope.zip"), "to do: name the one that `invoke evidence` wrote"),
        (("compare", "runs/BEFORE", "runs/AFTER"), "to do: a run is called last"),
        (("sweep", "nope.toml"), "to do: name a file that exists"),
        (("bench", "--model", "flux-tiny", "--tag", "tiny"), "to do: leave all but one out"),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, tuple) else None,
)
def test_a_mistake_ends_with_what_to_do(invoke, words, says):
    ended = invoke(*words)
    assert ended.code == 1
    assert says in ended.err
