"""Sweeps: from axes to cells, and cells on this machine, on a replay engine."""

import contextlib
import fcntl
import json
import os
import pty
import random
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path

import kubernetes_validate
import pytest
from helpers import (
    NATIVE,
    ROOT,
    invoke_command,
    processes_like,
    stand_in_for_accuracy,
    wait_for_task,
    wait_until,
)  # fmt: skip
from sweep_support import FIRST_CELL, document, results, seeds_measured, states, sweep_of_one, write_file, write_sweep

from bench.record import campaign, documents
from tests.trace_writer import FLUX_H100


def started(*arguments):
    return subprocess.Popen(
        invoke_command(*arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def cell_lines(ended):
    return [line for line in ended.out.splitlines() if re.match(r"[0-9a-f]{16}(-\d)?  ", line)]


# --- planning: unhappy paths first ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[measure]", "not TOML"),
        ("", "'measure' is a required property"),
        ("measure = []", "$.measure"),
        ("[[measure]]\naxes = {}", "$.measure[0].axes"),
        ("[[measure]]\naxes = { model = [] }", "the axis model has no value, so there is nothing to measure"),
        ('[[measure]]\naxes = { modle = ["flux-tiny"] }', "no axis of bench is called 'modle'"),
        ('[[measure]]\naxes = { model = ["flux-tony"] }', "no model is called 'flux-tony'"),
        ('[[measure]]\naxes = { model = ["tag:nope"] }', "no tag is called 'nope'"),
        ('[[measure]]\naxes = { model = ["flux-tiny"], quality = ["best"] }', "--quality takes"),
        ('[[measure]]\naxes = { model = ["flux-tiny"], seed = ["x"] }', "--seed takes a whole number"),
        ('[[measure]]\naxes = { model = ["flux-tiny"], torch-compile = [1] }', "--torch-compile is a flag"),
        ('[[measure]]\naxes = { model = ["flux-tiny"], resume = ["x"] }', "no axis of bench is called 'resume'"),
        ('[[measure]]\naxes = { model = ["flux-tiny"], output-dir = ["x"] }', "no axis of bench is called"),
        ('[[measure]]\nkind = "profile"\naxes = { model = ["flux-tiny"], quality = ["exact"] }', "no axis of profile"),
        ('[[measure]]\nkind = "walk"\naxes = { model = ["flux-tiny"] }', "'walk' is not one of"),
        ('[[measure]]\naxes = { model = ["flux-tiny"] }\noptions = { model = "flux" }', "cannot be fixed as well"),
        ('[[measure]]\naxes = { model = ["flux-tiny"] }\nexclude = [{ seed = 1 }]', "nothing is left out"),
        ('[[measure]]\naxes = { model = ["flux-tiny"] }\nexclude = [{ model = "flux-tiny" }]', "nothing is left"),
        ('slurm = { color = "red" }\n[[measure]]\naxes = { model = ["flux-tiny"] }', "color"),
    ],
)
def test_a_file_that_cannot_be_planned_says_why(invoke, replay, tmp_path, text, says):
    path = tmp_path / "sweep.toml"
    path.write_text(text)
    ended = invoke("sweep", path, "--dry-run", env={"BENCH_ENGINE": replay()})
    assert ended.code == 1
    assert says in ended.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "nothing says what is measured"),
        (["--model", "flux-tiny", "--set", "quality"], "--set takes NAME=VALUE"),
        (["--model", "flux-tiny", "--set", "seed="], "--set takes NAME=VALUE"),
        (["--model", "flux-tiny", "--set", "seed=1", "--set", "seed=2"], "this axis is given twice"),
        (["--model", "flux-tiny", "--set", "sead=1"], "did you mean seed"),
        (["--model", "flux-tiny", "--kind", "ab", "--set", "metric=nonsense"], "no metric is called 'nonsense'"),
        (["--model", "flux-tiny", "--engine", "nope", "--dry-run"], "no built engine is called 'nope'"),
        (["--model", "flux-tiny", "--on", "moon"], "--on takes local or slurm"),
        (["--model", "flux-tiny", "--replicate-hosts", "2"], "this machine is one host"),
        (["--model", "flux-tiny", "--parallel", "2"], "are for --on slurm"),
    ],
)
def test_a_command_that_cannot_be_planned_says_why(invoke, replay, words, says):
    ended = invoke("sweep", *words, env={"BENCH_ENGINE": replay()})
    assert ended.code == 1
    assert says in ended.err


def test_without_slurm_that_is_said(invoke, replay, tmp_path):
    ended = invoke(
        "sweep", "--model", "flux-tiny", "--on", "slurm", env={"BENCH_ENGINE": replay(), "PATH": str(tmp_path)}
    )
    assert ended.code == 1
    assert "this machine has no Slurm: sbatch" in ended.err


def test_a_dry_run_prints_every_combination_once_and_runs_nothing(invoke, replay, home):
    axes = ("--model", "flux-tiny,sd3-tiny", "--set", "quality=exact,lossless", "--set", "seed=1,2")
    engine = {"BENCH_ENGINE": replay()}
    ended = invoke("sweep", *axes, "--kind", "bench,ab", "--dry-run", env=engine)
    assert ended.code == 1
    assert "no axis of ab is called 'quality'" in ended.err
    ended = invoke("sweep", *axes, "--dry-run", env=engine)
    assert ended.code == 0
    lines = cell_lines(ended)
    assert len({line.split()[0] for line in lines}) == len(lines) == 8
    assert "8 cells, 0 of them finished; how long they take is unknown" in ended.out
    assert not (home / "runs").exists()


def test_what_is_said_in_two_ways_is_one_cell_and_another_engine_is_another(invoke, replay):
    """flux-tiny has a seed of its own; saying it changes nothing."""
    plain = ("sweep", "--model", "flux-tiny", "--dry-run")
    engine, newer = replay(), replay(version="0.5.24", name="newer")

    def cell(*more, by=engine):
        (line,) = cell_lines(invoke(*plain, *more, env={"BENCH_ENGINE": by}))
        return line.split()[0]

    first = cell()
    assert cell("--repeats", "1") == cell("--set", "seed=42") == cell("--engine", engine) == first
    assert len({first, cell("--repeats", "2"), cell("--set", "steps=3"), cell(by=newer)}) == 4


def test_a_higher_priority_comes_first_and_excludes_are_left_out(invoke, replay, tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text(
        '[[measure]]\naxes = { model = ["flux-tiny"], seed = [1, 2], steps = [3, 4] }\n'
        "exclude = [{ seed = 1, steps = 3 }]\n"
        '[[measure]]\npriority = 5\nkind = "ab"\naxes = { model = ["sd3-tiny"], candidate = ["compile"] }\n'
        '[[measure]]\nkind = "accuracy"\naxes = { model = ["tag:tiny"] }\n'
    )
    ended = invoke("sweep", path, "--dry-run", env={"BENCH_ENGINE": replay()})
    assert ended.code == 0, ended.err
    labels = [line.split("  ")[1] for line in cell_lines(ended)]
    assert labels[0] == "ab sd3-tiny candidate=compile"
    assert labels[1:4] == [f"bench flux-tiny seed={seed} steps={steps}" for seed, steps in ((1, 4), (2, 3), (2, 4))]
    assert {label.split()[0] for label in labels[4:]} == {"accuracy"}
    assert len(labels) > 6


def test_ten_thousand_cells_are_planned_in_flat_memory(replay, home):
    """What the planner keeps of a cell is its name: 10,000 take little more than 1,000."""
    import tracemalloc

    from bench.sweep.cells import Planner, Wanted
    from bench.sweep.measures import Measure
    from bench.verbs.bench import BenchOptions

    engine, peaks = replay(), {}
    for count in (1_000, 10_000):
        measure = Measure(
            axes={"model": ("flux-tiny",), "seed": tuple(map(str, range(count)))}, options={"engine": engine}
        )
        planner = Planner(Wanted(kinds={"bench": BenchOptions}, preset_file=None, runs=home / "runs"))
        tracemalloc.start()
        assert sum(1 for _ in planner.cells([measure])) == count
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks[10_000] - peaks[1_000] < 8 << 20


@pytest.mark.parametrize(
    ("extra", "gpus"),
    [(("--num-gpus=4", "--num-gpus", "8"), "8 GPUs"), (("--num_gpus=2",), "2 GPUs"), (("--num-gpus=1",), "1 GPU,")],
)
def test_the_gpus_that_the_engines_own_arguments_ask_for_are_those_of_the_cell(invoke, replay, extra, gpus):
    words = ("sweep", "--model", "flux-tiny", "--dry-run", "--", *extra)
    ended = invoke(*words, env={"BENCH_ENGINE": replay()})
    assert ended.code == 0, ended.err
    assert gpus in cell_lines(ended)[0]
    assert "1 cell, 0 of them finished" in ended.out


@pytest.mark.parametrize(
    "words",
    [
        ("--set", "model-path=https://me:pass4word@host/model"),
        ("--", "--api-key", "mellon99"),
        ("--", "--token=mellon"),
    ],
)
def test_a_cell_with_a_secret_in_its_words_is_refused(invoke, replay, home, words):
    ended = invoke("sweep", "--model", "flux-tiny", *words, env={"BENCH_ENGINE": replay()})
    assert ended.code == 1
    assert "give it as a variable" in ended.err
    assert not (home / "runs").exists()


@pytest.fixture
def source(replay, home):
    """The path from the root of the repository to a checkout of an engine, whose dependencies are those of replay."""
    replay()
    checkout = home / "x"
    (checkout / "python" / "sglang").mkdir(parents=True)
    (checkout / "python" / "sglang" / "__init__.py").touch()
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message=x"]):
        identity = ("-c", "user.name=x", "-c", "user.email=x@x")
        subprocess.run(["git", "-C", checkout, *identity, *words], check=True)
    return os.path.relpath(checkout, ROOT)


def test_a_variable_that_names_the_engine_means_the_same_where_cells_run(invoke, source, monkeypatch):
    from bench.sweep import local

    given = []
    monkeypatch.setenv("BENCH_ENGINE", f"source:{source}@replay")
    monkeypatch.setattr(local.process, "stream", lambda _, **more: given.append(more["env"]["BENCH_ENGINE"]))
    assert invoke("sweep", "--model", "flux-tiny", "--retries", "0").code == 1
    assert given == [f"source:{ROOT / source}@replay"]


@pytest.fixture
def cell(invoke, place):
    """Return the one cell of a sweep of flux-tiny; nothing is run."""

    def planned(*more):
        kubernetes = ("--emit", "k8s", "--image", "x", "--volume-claim", "x")
        ended = invoke("sweep", "--model", "flux-tiny", "--name", "mine", *more, *kubernetes)
        assert ended.code == 0, ended.err
        (made,) = document(place)["cells"]
        return made

    return planned


def test_a_path_that_is_typed_means_the_same_where_cells_run(cell, source, model, place):
    own = os.path.relpath(model(), ROOT)
    made = cell("--engine", f" source:{source}@replay", "--set", f"model-path={own}", "--set=image=y.png")
    there = {f"--engine=source:{ROOT / source}@replay", f"--model-path={ROOT / own}", f"--image={ROOT}/y.png"}
    assert there < {*made["words"]}
    assert "image=y.png" in made["label"]
    goes_on = f" --engine source:{ROOT / source}@replay --set model-path={ROOT / own} --set=image={ROOT}/y.png "
    assert goes_on in document(place)["command"]
    made = cell("--kind", "ab", "--set", f"candidate=engine=source:{source}@replay steps=2", "--engine", "replay")
    assert f"--candidate=engine=source:{ROOT / source}@replay steps=2" in made["words"]
    assert f" 'candidate=engine=source:{ROOT / source}@replay steps=2' " in document(place)["command"]


def test_a_path_in_the_folder_of_the_user_is_there_where_cells_run(cell, replay, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    made = cell("--engine", replay(), "--set", "model-cache-root=~/c")
    assert f"--model-cache-root={tmp_path}/c" in made["words"]


def test_a_golden_that_is_called_by_the_name_of_its_run_is_found_where_cells_run(invoke, cell, replay, place):
    run = place.with_name("20260101T000000Z-bench-flux-tiny-abcdef")
    run.mkdir(parents=True)
    (run / "run.json").touch()
    load = ("--kind", "loadtest", "--engine", replay(), "--set")
    for name in ("last", "abcdef"):
        assert f"--golden={run}" in cell(*load, f"golden={name}")["words"]
        assert f" --set golden={run} " in document(place)["command"]
    ended = invoke("sweep", "--model", "flux-tiny", *load, "golden=before", "--dry-run")
    assert (ended.code, "no run is called 'before'" in ended.err) == (1, True)


# --- cells on this machine --------------------------------------------------------------------------------------------


def test_every_cell_is_measured_once_and_again_only_what_is_new(invoke, file, place, model, replay):
    ended = invoke("sweep", file(seeds=3))
    assert ended.code == 0, ended.err
    assert "3 done of 3 cells" in ended.out
    assert "\x1b" not in ended.out + ended.err
    told = ended.err.splitlines()
    assert sum(": native on " in line for line in told) == 3, ended.err
    assert 3 <= len(told) <= 6, ended.err  # that a cell runs is told too, unless it ends between two looks at the disk
    assert seeds_measured(place) == [1, 2, 3]
    assert states(place) == {("finished", 0): 3}
    for result in results(place).values():
        assert result["host"]["identity"]
        assert result["total_ms"] > 0
        assert result["outcome"] == "native"
    before = {path: path.stat().st_mtime_ns for path in place.glob("cells/*/*/runs/*/run.json")}
    write_file(place.parents[1] / "mine.toml", "replay", model(), seeds=4)
    ended = invoke("sweep", place.parents[1] / "mine.toml")
    assert ended.code == 0, ended.err
    assert seeds_measured(place) == [1, 2, 3, 4]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    dry = invoke("sweep", place.parents[1] / "mine.toml", "--dry-run")
    assert "4 cells, 4 of them finished; about" in dry.out or "4 of them finished" in dry.out
    status = invoke("sweep-status", place)
    assert "4 done of 4 cells" in status.out
    assert invoke("validate", place).code == 0


KINDS = {
    "bench": ("run-record", '{ engine = "replay", repeats = 2 }', {0}, "native"),
    "ab": ("ab-record", '{ baseline = "replay", candidate = "slow", pairs = 3, repeats = 1 }', {7}, "slower: total "),
    "loadtest": ("load-record", '{ engine = "server", rate = 5, duration = 1 }', {0, 9}, "native"),
    "accuracy": ("accuracy-report", '{ engine = "replay", model-path = "MODEL" }', {0}, "passed"),
    "profile": ("run-record", '{ engine = "replay", steps-profiled = 2 }', {0}, "native"),
}
"""What a cell's record is, its options, its exit code (a busy machine disturbs a load test), its outcome."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_of_each_kind_ends_with_its_record_and_says_what_came_of_it(
    invoke, replay, model, tiny, place, home, monkeypatch, kind
):
    steady = NATIVE | {"between": 0.001, "within": 0.0005}
    replay(**steady, trace=str(FLUX_H100))
    replay(name="slow", **steady, factor=3)
    stand_in = str(ROOT / "tests" / "stand_in_server.py")
    replay(name="server", serves=stand_in, service_s=0.005, hang_in=[], hung=str(home / "hung"))
    stand_in_for_accuracy(home / "environments" / "engine-replay")
    monkeypatch.setenv("BENCH_GOLDENS", str(home / "goldens"))
    monkeypatch.setenv("BENCH_ACCURACY_REPLAY", "{}")
    record, options, codes, outcome = KINDS[kind]
    path = home / "mine.toml"
    path.write_text(
        f'[[measure]]\nkind = "{kind}"\naxes = {{ model = ["flux-tiny"] }}\noptions = {options}\n'.replace(
            "MODEL", str(model())
        )
    )
    ended = invoke("sweep", path, "--preset-file", tiny)
    (result,) = results(place).values()
    log = (place / result["log"]).read_text()
    assert ended.code == result["exit_code"], (ended.err, log)
    assert ended.code in codes, log
    assert documents.validate(place / result["record"]) == record
    assert result["outcome"].startswith(outcome)
    assert "1 done of 1 cell\n" in ended.out
    assert outcome.strip() in invoke("sweep-status", place).out
    said = "slower, or short of what was required" if ended.code == 7 else "inconclusive"
    assert (f"{said}: 1 of 1 cells" in ended.err) == bool(ended.code)
    # an unwelcome result is not measured again
    assert invoke("sweep", path, "--preset-file", tiny, "--retry-failed").code == ended.code
    assert len(list(place.glob("cells/*/[0-9]*"))) == 1


@pytest.mark.parametrize("record", [None, "{}"])
def test_a_cell_without_a_valid_record_is_not_done(invoke, file, place, monkeypatch, record):
    """Its verb ended well, but left nothing that conforms to a schema."""
    from bench.sweep import cell

    folder, _ = sweep_of_one(place)
    run = folder.of_cell(FIRST_CELL.id) / "1" / "runs" / "20260101T000000Z-bench-flux-tiny-000000"
    ended = {"state": "finished", "exit_code": 0, "reason": None}

    def verb(_, own):
        if record is not None:
            run.mkdir(parents=True)
            (run / "run.json").write_text(record)
        return ended

    monkeypatch.setattr(cell, "_invoke", verb)
    cell.run(place, FIRST_CELL.id, 1)
    ended = invoke("sweep-status", place)
    assert "1 failed of 1 cell\n" in ended.out
    assert ("it left no record" if record is None else "the record is not valid") in results(place)[FIRST_CELL.id][
        "reason"
    ]


def test_a_cell_that_fails_is_named_with_its_log_and_measured_again_only_if_asked(invoke, file, place):
    path = file(seeds=2, scenario={"log": "cpu/awq_sglang.log"})
    ended = invoke("sweep", path)
    assert ended.code == 4
    assert "2 of 2 cells are not done" in ended.err
    assert "cell.log" in ended.out
    attempts = sorted(place.glob("cells/*/[0-9]*"))
    assert invoke("sweep", path).code == 4
    assert sorted(place.glob("cells/*/[0-9]*")) == attempts
    assert invoke("sweep", path, "--retry-failed").code == 4
    assert len(list(place.glob("cells/*/[0-9]*"))) == 4


def test_a_cell_that_hangs_is_stopped_at_its_limit(invoke, file, place):
    ended = invoke("sweep", file(seeds=1, scenario=NATIVE | {"linger_s": 300}), "--limit", "0.1")
    assert ended.code == 8
    (result,) = results(place).values()
    assert result["state"] == "timed out"
    assert "stopped at its limit of 0.1 minutes" in ended.out


def test_a_full_disk_ends_a_cell_with_its_reason_and_no_other(invoke_program, file, replay, place):
    """As the kernel reports it to a process with a limit; the log of the one engine is too long for it."""
    path = file(seeds=1)
    replay(name="talks", version="0.5.17", **NATIVE, flood_bytes=3_000_000)
    path.write_text(
        path.read_text().replace("seed = [1]", 'engine = ["talks", "replay"]').replace('engine = "replay", ', "")
    )
    ended = invoke_program("sweep", path, shell_before="ulimit -f 1024")
    assert ended.code == 1, ended.out
    assert "1 done, 1 failed of 2 cells" in ended.out
    (failed,) = (result for result in results(place).values() if result["exit_code"])
    assert "File too large" in failed["reason"]


def test_a_cell_that_cannot_write_its_status_is_given_up_and_says_why(invoke_program, file, place):
    """Only the cell's own processes have no room: their interpreter is told so."""
    site = place.parents[1] / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import resource, sys\n"
        "if 'bench.sweep.cell' in ' '.join(sys.orig_argv):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
    )
    ended = invoke_program("sweep", file(seeds=2), "--retries", "1", env={"PYTHONPATH": str(site)})
    assert ended.code == 1
    assert states(place) == {("given up", None): 2}
    for result in results(place).values():
        assert "lost 2 times without a result: its process ended: " in result["reason"]
        assert "File too large" in result["reason"]


def drawn(text):
    """Return the lines that a terminal shows after this text: what `rich` uses to draw in place, and nothing else."""
    lines, row = [""], 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part == "\x1b[1A":
            row -= 1
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part[0] not in "\r\x1b":
            lines[row] += part
        else:
            assert part == "\r" or part[-1] == "m" or part in {"\x1b[?25l", "\x1b[?25h"}, part
    return [line.rstrip() for line in lines]


@pytest.mark.parametrize("columns", [80, 160])
def test_the_live_table_is_drawn_in_place_and_leaves_nothing(file, columns):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    command = invoke_command("sweep", file(seeds=2, scenario=NATIVE | {"linger_s": 3}))
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    task = subprocess.Popen(
        command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, env=environment | {"TERM": "xterm-256color"}
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # EIO: the task has closed its side
        while block := os.read(ours, 65536):
            shown += block
    os.close(ours)
    text = shown.decode()
    assert task.wait(60) == 0, text
    frames = text.split("\x1b[1A\x1b[2K\x1b[1A")
    assert len(frames) > 3
    assert any("1 running, 1 waiting of 2 cells" in frame for frame in frames)
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1
    lines = drawn(text)
    every = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", text.replace("\x1b[1A", "\n")).splitlines()
    # what is to be typed is one line, however long
    assert max(len(line) for line in every if not line.startswith(("invoke ", "sweep: "))) <= columns
    assert sum("end to end" in line for line in lines) == 1  # the last table, and no remains of a live one
    assert "2 done of 2 cells" in lines


def children(process):
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def test_a_cell_that_decides_nothing_says_why(invoke, file, place):
    path = file(seeds=1)
    path.write_text(path.read_text().replace("options = {", 'options = { precision = "1%", max-repeats = 5,'))
    ended = invoke("sweep", path)
    assert ended.code == 9, ended.err
    (result,) = results(place).values()
    assert result["reason"].startswith("the median "), result


def test_a_cell_whose_verb_is_killed_is_begun_again(file, place):
    task = started("sweep", file(seeds=1, scenario=NATIVE | {"linger_s": 300}))
    wait_for_task(task, lambda: list(place.glob("cells/*/1/status.json")), "no cell has begun")
    (path,) = place.glob("cells/*/1/status.json")
    cell = json.loads(path.read_text())["process"]
    (verb,) = wait_for_task(
        task, lambda: [v for keeper in children(cell) for v in children(keeper)], "no verb has begun"
    )
    os.kill(verb, signal.SIGKILL)
    wait_for_task(task, lambda: list(place.glob("cells/*/2/status.json")), "it is not begun again")
    status = json.loads(path.read_text())
    assert (status["state"], status["reason"]) == ("stopped", "it was killed by signal 9")
    assert results(place) == {}
    task.send_signal(signal.SIGINT)
    task.communicate(timeout=60)


def test_a_cell_that_dies_again_and_again_is_given_up(invoke, file, place, tmp_path):
    """Its process is killed from outside each time, as the kernel does when memory runs out."""
    path = file(seeds=1, scenario=NATIVE | {"linger_s": 300})
    task = started("sweep", path, "--retries", "1")
    killed = set()
    while len(killed) < 2:
        statuses = [json.loads(p.read_text()) for p in place.glob("cells/*/[0-9]*/status.json")]
        running = [s["process"] for s in statuses if s["process"] not in killed]
        for process in running:
            os.kill(process, signal.SIGKILL)
            killed.add(process)
        wait_for_task(
            task, lambda: len(list(place.glob("cells/*/[0-9]*/status.json"))) > len(killed) - 1, "begun again"
        )
    out, _ = task.communicate(timeout=60)
    assert task.returncode == 1, out
    (result,) = results(place).values()
    assert result["state"] == "given up"
    assert "lost 2 times without a result" in result["reason"]
    assert not processes_like("replay", tmp_path / "runs")


def test_a_killed_controller_takes_its_cells_along_and_the_next_goes_on(invoke, file, place, home):
    path = file(seeds=3, scenario=NATIVE | {"linger_s": 1})
    task = started("sweep", path)
    wait_for_task(task, lambda: results(place), "no cell has ended")
    refused = invoke("sweep", path)
    assert refused.code == 1
    assert f"still in progress (process {task.pid})" in refused.err
    task.kill()
    task.communicate()
    wait_until(lambda: not processes_like("invoke", home / "runs"), "a cell outlives its controller")
    assert "cut off" in invoke("sweep-status", place).out or len(results(place)) > 0
    ended = invoke("sweep", path)
    assert ended.code == 0, ended.err
    assert seeds_measured(place) == [1, 2, 3]


def test_cancel_ends_the_controller_and_its_cells(invoke, file, place, home):
    task = started("sweep", file(seeds=2, scenario=NATIVE | {"linger_s": 300}))
    wait_for_task(task, lambda: list(place.glob("cells/*/1/status.json")), "no cell has begun")
    ended = invoke("sweep-cancel", place)
    assert ended.code == 0, ended.err
    assert "cancelled: its controller" in ended.out
    out, _ = task.communicate(timeout=60)
    assert task.returncode == 130, out
    assert "the sweep was cancelled" in out
    assert not processes_like("invoke bench", home / "runs")
    (status,) = (json.loads(p.read_text()) for p in place.glob("cells/*/1/status.json"))
    assert (status["state"], status["reason"]) == ("stopped", "the sweep was cancelled")
    with campaign.hold(place):
        assert results(place) == {}


def test_a_cell_that_is_stopped_just_before_its_process_starts_is_not_waited_for(home, monkeypatch):
    from bench.sweep import executor, local

    folder, _ = sweep_of_one(home / "runs" / "sweep-mine")
    stream, stopping, ends = local.process.stream, threading.Event(), []
    stop_all = local.process.stop_all

    def late(_, **more):
        stopping.wait()
        ends.append(stream(["sleep", "60"], **more))

    monkeypatch.setattr(local.process, "stream", late)
    monkeypatch.setattr(local.process, "stop_all", lambda: (stop_all(), stopping.set()))
    on = local.Local(folder)
    on.begin([executor.Task(cell=FIRST_CELL.document(), attempt=1)])
    on.stop()
    (ended,) = ends
    assert ended.exit_code != 0


def test_a_verb_that_starts_as_its_sweep_is_cancelled_is_stopped(home, monkeypatch):
    from bench.sweep import cell

    folder, _ = sweep_of_one(home / "runs" / "sweep-mine")
    stop_all, stopping, ends = cell.process.stop_all, threading.Event(), []

    def late(_, own):
        folder.cancel()
        stopping.wait()
        ends.append(cell.process.stream(["sleep", "60"], env={}, log=own / "cell.log", observer=cell.Unread()))
        return {"state": "finished", "exit_code": ends[0].exit_code, "reason": None}

    monkeypatch.setattr(cell, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(cell, "_invoke", late)
    monkeypatch.setattr(cell.process, "stop_all", lambda: (stop_all(), stopping.set()))
    cell.run(folder.path, FIRST_CELL.id, 1)
    status = folder.status(FIRST_CELL.id, 1)
    assert (status["state"], status["reason"]) == ("stopped", "the sweep was cancelled")
    assert ends[0].exit_code != 0


def test_an_attempt_that_was_overtaken_never_becomes_the_result(file, place, invoke):
    """A lost node's job may still run while its cell is begun again elsewhere: it ends itself, or ends second."""
    path = file(seeds=1, scenario=NATIVE | {"linger_s": 300})
    task = started("sweep", path)
    wait_for_task(task, lambda: list(place.glob("cells/*/1/status.json")), "no cell has begun")
    (name,) = (cell["id"] for cell in document(place)["cells"])
    (place / "cells" / name / "9").mkdir()
    status = place / "cells" / name / "1" / "status.json"
    wait_for_task(task, lambda: json.loads(status.read_text())["state"] != "running", "it goes on")
    assert json.loads(status.read_text())["reason"] == "a later attempt has begun"
    assert results(place) == {}
    task.send_signal(signal.SIGINT)
    out, _ = task.communicate(timeout=60)
    assert task.returncode == 130, out
    assert f"`invoke sweep {path}` goes on" in out


def test_a_sweep_that_was_begun_before_it_said_its_command_is_shown_and_cancelled(invoke, place):
    write_sweep(place, {(0, "a"): 1000.0}, waiting=["later"])
    earlier = document(place)
    del earlier["command"]
    (place / "sweep.json").write_text(json.dumps(earlier))
    ended = invoke("sweep-status", place)
    assert ended.code == 0, ended.err
    assert "1 done, 1 waiting of 2 cells" in ended.out
    assert f"next: invoke sweep-status {place}\n" in ended.out
    assert invoke("sweep-cancel", place).code == 0


@pytest.mark.parametrize("command", ["", "invoke", "rm -rf x", "invoke sweeping", "invoke sweep 'open"])
def test_a_command_that_no_sweep_writes_is_no_next_step(invoke, place, command):
    sweep_of_one(place)
    (place / "sweep.json").write_text(json.dumps(document(place) | {"command": command}))
    ended = invoke("sweep-status", place)
    assert ended.code == 1, ended.out
    assert "command" in ended.err
    assert "next:" not in ended.out


@pytest.mark.parametrize("form", [("--output-dir={0}",), ("--output-dir", "{0}")])
def test_the_next_step_of_a_sweep_goes_from_any_folder(invoke, file, tmp_path, form):
    here = os.path.relpath(tmp_path, ROOT)
    out = f"{here}/out=2"
    path = file(seeds=1, scenario={"log": "cpu/awq_sglang.log"}).rename(tmp_path / "lr=1.toml")
    ended = invoke("sweep", f"./{os.path.relpath(path, ROOT)}", *(word.format(out) for word in form))
    assert ended.code == 4, ended.err
    absolute = " ".join(form).format(ROOT / out)
    assert f"next: invoke sweep {ROOT / os.path.relpath(path, ROOT)} {absolute} --retry-failed\n" in ended.out


def test_what_is_not_a_sweep_is_refused(invoke, home):
    (home / "runs").mkdir()
    for verb in ("sweep-status", "sweep-cancel"):
        ended = invoke(verb, home / "runs")
        assert ended.code == 1
        assert "this is not the folder of a sweep" in ended.err
        assert not Path(home / "runs" / "cancelled").exists()


def test_a_name_is_not_taken_for_the_folder_of_that_name_here(invoke, file, home, monkeypatch):
    monkeypatch.chdir(home)
    (home / "mine").mkdir()
    assert invoke("sweep", file(seeds=1)).code == 0
    ended = invoke("sweep-status", "mine")
    assert ended.code == 0, ended.err
    assert "1 done of 1 cell\n" in ended.out


# --- hosts ------------------------------------------------------------------------------------------------------------


def measured(slow=None, cells=8, noise=0.002, per_host=2):
    """Cells on two of three hosts each, in turn; ``slow`` names a host and how many times as long it takes."""
    from bench.sweep.hosts import Measured

    draw = random.Random(7)
    made = []
    for cell in range(cells):
        for place in range(per_host):
            host = "abc"[(cell + place) % 3]
            factor = slow[1] if slow and slow[0] == host else 1
            made.append(Measured(cell=str(cell), host=host, total_ms=1000 * (cell + 1) * factor * draw.gauss(1, noise)))
    return made


@pytest.mark.parametrize(
    ("case", "outliers"),
    [
        ({}, []),
        ({"slow": ("b", 1.08)}, ["b"]),
        ({"slow": ("c", 0.9)}, ["c"]),
        ({"slow": ("b", 1.01)}, []),
        ({"slow": ("b", 1.08), "noise": 0.1}, []),
        ({"slow": ("b", 1.08), "per_host": 1}, []),
        ({"slow": ("b", 1.08), "cells": 2}, []),
    ],
)
def test_a_host_is_named_only_if_it_differs_by_more_than_chance_and_3_percent(case, outliers):
    from bench.sweep import hosts

    found = hosts.effects(measured(**case))
    assert [one.host for one in found if one.is_outlier] == outliers
    told = [line for line in hosts.told(found) if "outlier" in line]
    assert len(told) == len(outliers)
    assert all(("% faster on c" if outliers == ["c"] else "% slower on b") in line for line in told)


def of_hosts(slow=1.0):
    """Return times of eight cells on two of three hosts each; cells on b take ``slow`` times as long."""
    return {
        (cell, "abc"[(cell + place) % 3]): 1000.0 * (cell + 1) * (slow if "abc"[(cell + place) % 3] == "b" else 1)
        + 0.1 * place
        for cell in range(8)
        for place in range(2)
    }


def test_the_page_of_a_sweep_has_every_cell_and_names_the_host_that_is_unlike_the_rest(invoke, place):
    write_sweep(place, of_hosts(1.2), failed=["broken"], waiting=["later"])
    ended = invoke("report", "--sweep", place, "--markdown")
    assert ended.code == 0, ended.err
    assert "**FAILED**: 16 done, 1 waiting, 1 failed of 18 cells." in ended.out
    assert re.search(r"outlier: cells are 20 % slower on b than on the median host", ended.out)
    assert "broken: failed: it fell back" in ended.out
    rows = [line for line in ended.out.splitlines() if line.startswith("| 0000")]
    assert len(rows) == 18
    assert "| cell 0 | done | native | a | 1,000.0 ms |" in rows[0]
    assert not (place / "report.html").exists()


def test_the_page_of_a_sweep_is_written_beside_it_and_takes_its_name(invoke, place):
    write_sweep(place, {(0, "a"): 1000.0})
    ended = invoke("report", "--sweep", "mine")
    assert ended.code == 0, ended.err
    assert "1 done of 1 cell." in (place / "report.html").read_text()
    values = invoke("report", "--sweep", place, "--csv").out.splitlines()
    assert values[1].split(",")[1:6] == ["cell 0", "done", "native", "a", "1000.0"]
    told = invoke("report", "--sweep", place, "--openmetrics").out
    assert re.search(r'sglang_diffusion_cell_total_seconds{.*what="cell 0".*} 1\.0', told)


@pytest.mark.parametrize(
    ("outcome", "badge"),
    [
        ("native", "native"),
        ("native: capacity 0.52/s", "native"),
        ("faster: total time -3.12 %", "done"),
        ("inconclusive: total time +0.20 %", "inconclusive"),
        ("degraded: capacity 0.52/s", "degraded"),
        ("slower: total time +3.12 %", "slower"),
        ("void", "void"),
        ("failed", "failed"),
    ],
)
def test_the_badge_of_a_sweep_is_the_worst_answer_of_any_cell(invoke, place, outcome, badge):
    write_sweep(place, {(0, "a"): 1000.0, (1, "a"): 1000.0}, outcomes={1: outcome})
    assert invoke("report", "--sweep", place).code == 0
    assert re.findall(r'class="outcome">([^<]*)<', (place / "report.html").read_text()) == [badge]


def test_what_is_not_a_sweep_has_no_page(invoke, home):
    (home / "runs").mkdir()
    ended = invoke("report", "--sweep", home / "runs")
    assert (ended.code, "this is not the folder of a sweep" in ended.err) == (1, True)
    ended = invoke("report", "last", "--sweep", "mine")
    assert (ended.code, "one of the four" in ended.err) == (1, True)


# --- Kubernetes -------------------------------------------------------------------------------------------------------


def test_cells_become_jobs_that_the_schema_of_kubernetes_accepts(invoke, file, place):
    path = file(seeds=2)
    ended = invoke("sweep", path, "--emit", "k8s")
    assert ended.code == 1
    assert "--image NAME --volume-claim NAME" in ended.err
    ended = invoke(
        "sweep", path, "--emit", "k8s", "--image", "lab/workbench:1", "--volume-claim", "runs", "--retries", "1"
    )
    assert ended.code == 0, ended.err
    assert "never run by this tool's tests" in ended.err
    assert "kubectl delete" not in ended.err
    assert f"next: invoke sweep-status {place}\n" in invoke("sweep-status", place).out
    jobs = json.loads(ended.out)["items"]
    for job in jobs:
        kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)
    names = {job["metadata"]["name"] for job in jobs}
    assert names == {f"sweep-mine-{cell['id']}" for cell in document(place)["cells"]}
    (container,) = jobs[0]["spec"]["template"]["spec"]["containers"]
    assert container["resources"] == {"limits": {"nvidia.com/gpu": "1"}}
    # what a Job would run in its container is run here
    for job in jobs:
        (container,) = job["spec"]["template"]["spec"]["containers"]
        subprocess.run([sys.executable, *container["command"][1:]], cwd=ROOT, check=True, timeout=120)
    assert seeds_measured(place) == [1, 2]
    assert "nothing to cancel: nothing of this sweep runs; " in invoke("sweep-cancel", place).out
    ended = invoke("sweep", path, "--emit", "k8s", "--image", "lab/workbench:1", "--volume-claim", "runs")
    assert "kubectl delete jobs -l sweep=sweep-mine\n" in ended.err
    assert json.loads(ended.out)["items"][0]["metadata"]["labels"]["sweep"] == "sweep-mine"


def test_a_cell_on_kubernetes_is_followed_begun_again_if_killed_and_ended_by_cancel(invoke, file, place, replay, model):
    path = file(seeds=1, scenario=NATIVE | {"linger_s": 300})
    ended = invoke("sweep", path, "--emit", "k8s", "--image", "lab/workbench:1", "--volume-claim", "runs")
    (job,) = json.loads(ended.out)["items"]
    words = [sys.executable, *job["spec"]["template"]["spec"]["containers"][0]["command"][1:]]
    pod = subprocess.Popen(words, cwd=ROOT)
    wait_for_task(pod, lambda: list(place.glob("cells/*/1/status.json")), "the cell has not begun")
    shown = invoke("sweep-status", place).out
    assert "1 running of 1 cell\n" in shown
    assert f"next: invoke sweep-status {place}\n" in shown
    refused = invoke("sweep", path)
    assert refused.code == 1
    assert "kubectl delete" not in ended.err
    assert f"next: invoke sweep-status {place}\n" in invoke("sweep-status", place).out
    assert "still Jobs on Kubernetes" in refused.err
    pod.terminate()
    assert pod.wait(60) == 130  # so that Kubernetes begins it again
    assert "its Jobs on Kubernetes" in invoke("sweep-cancel", place).out
    assert f"next: invoke sweep {path} --emit k8s " in invoke("sweep-status", place).out
    subprocess.run(words, cwd=ROOT, check=True, timeout=60)
    assert len(list(place.glob("cells/*/[0-9]*"))) == 1
    replay(name="quick", **NATIVE)
    ended = invoke("sweep", write_file(path, "quick", model(), seeds=1))
    assert ended.code == 0, ended.err
    assert "nothing to cancel: nothing of this sweep runs; " in invoke("sweep-cancel", place).out
    ended = invoke("sweep", path, "--emit", "k8s", "--image", "lab/workbench:1", "--volume-claim", "runs")
    assert "kubectl delete jobs -l sweep=sweep-mine\n" in ended.err
    assert json.loads(ended.out)["items"][0]["metadata"]["labels"]["sweep"] == "sweep-mine"
