"""Bisections of small histories whose culprit is known, by a command that prints a number."""

import json
import os
import shlex
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import planted
import pytest
from helpers import DATA, ROOT, invoke_command, wait_for_task
from test_reach import checkout  # noqa: F401 - a fixture

from bench.engine import find, pins

COMMITS = 24
NUMBER = "python3 number.py"
NOISE = """
import hashlib, math, os, pathlib
here = pathlib.Path(__file__).parent
calls = pathlib.Path(os.environ["CALLS"])
with calls.open("a") as file:
    file.write(os.environ["BISECT_COMMIT"] + "\\n")
    count = file.tell() // 41
exec((here / "cost.py").read_text())
unit = int(hashlib.sha256(f"{count} {os.environ.get('SEED', '')}".encode()).hexdigest()[:8], 16) / 2**32
print(100 * COST * math.exp(float(os.environ.get("NOISE", "0.002")) * (2 * unit - 1)))
"""
"""A command with noise of its own: its n-th call is the same each time a test runs."""


def commit(folder, subject, **files):
    for name, text in files.items():
        (folder / name.replace("_py", ".py")).write_text(text)
    planted.git(folder, "add", "-A")
    planted.git(folder, "commit", "-qm", subject, "--allow-empty")
    return planted.git(folder, "rev-parse", "HEAD").strip()


@pytest.fixture
def history(home, monkeypatch):
    """Make a history; ``changes`` are the files of some commits by number; return its folder and its hashes."""
    monkeypatch.setenv("CALLS", str(home / "calls"))

    def make(changes, count=COMMITS):
        folder = home / "repository"
        folder.mkdir()
        planted.git(folder, "init", "-q", "-b", "main")
        names = [commit(folder, "start", number_py=NOISE, cost_py="COST = 1\n")]
        names += [
            commit(folder, f"commit {number}", **changes.get(number, {"notes": str(number)}))
            for number in range(1, count + 1)
        ]
        return folder, names

    return make


@pytest.fixture
def bisect(invoke):
    def run(folder, good, bad, *arguments, command=NUMBER, env=None):
        words = ("bisect", "--source", folder, "--good", good, "--bad", bad, "--run", command)
        words += ("--pairs", "3", *arguments)
        return invoke(*words, env=env)

    return run


def record(home):
    (path,) = (home / "runs").glob("*-bisect-*/bisect.json")
    return json.loads(path.read_text())


def slow(cost=1.08):
    return {"cost_py": f"COST = {cost}\n"}


# --- refused before anything is measured ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("good", "bad", "arguments", "said"),
    [
        ("nowhere", "main", [], "no revision 'nowhere' here"),
        ("main", "main~3", [], "the endpoints are the wrong way round: --good main~3 --bad main"),
        ("main", "main", [], "the same commit"),
        ("side", "main", [], "have no history in common"),
        ("main~3", "main", ["--paths", "nothing/here"], "no commit between main~3 and main touches nothing/here"),
        ("main~3", "main", ["--what", "fidelity"], "a command gives a number and no pixels"),
    ],
)
def test_a_range_that_cannot_be_bisected_is_refused_first(history, bisect, home, good, bad, arguments, said):
    folder, _ = history({}, 4)
    planted.git(folder, "checkout", "-q", "--orphan", "other")
    planted.git(folder, "commit", "-qm", "another root")
    planted.git(folder, "branch", "side")
    planted.git(folder, "checkout", "-q", "main")
    ended = bisect(folder, good, bad, *arguments)
    assert (ended.code, said in ended.err) == (1, True), ended.err
    assert not (home / "calls").exists()
    assert not (home / "runs").exists()


def test_what_is_not_a_repository_is_refused(bisect, tmp_path):
    ended = bisect(tmp_path, "a", "b")
    assert ended.code == 1
    assert "not a git checkout" in ended.err


def test_equal_endpoints_end_the_bisection(history, bisect, home):
    folder, names = history({5: slow(1.001)}, 8)
    ended = bisect(folder, names[0], names[8])
    assert ended.code == 9
    assert "endpoints equal" in ended.err
    assert record(home)["outcome"] == "endpoints-equal"
    assert not any(known["why"] == "step" for known in record(home)["comparisons"])


def test_a_host_that_is_too_noisy_is_said_with_what_it_would_take(history, bisect, home):
    folder, names = history({5: slow()}, 8)
    ended = bisect(folder, names[0], names[8], env={"NOISE": "0.3", "SEED": "1"})  # of any order
    assert ended.code == 10
    assert "this host is too noisy for an effect of 3 %: the bisection would take about" in ended.err
    assert len(record(home)["comparisons"]) == 1


def test_a_command_that_fails_in_good_ends_at_once(history, bisect):
    folder, names = history({5: slow()}, 8)
    ended = bisect(folder, names[0], names[8], command="echo broken >&2; exit 3")
    assert ended.code == 3
    assert "exit code 3: broken" in ended.err
    assert planted.git(folder, "worktree", "list").count("\n") == 1


# --- found ------------------------------------------------------------------------------------------------------------


def test_the_culprit_is_found_among_24(history, bisect, home):
    folder, names = history({
        15: {**slow(), "pyproject.toml": 'dependencies = ["torch==2"]\n'},
    })  # fmt: skip
    (folder / "notes").write_text("not committed")
    ended = bisect(folder, names[0], names[24])
    assert ended.code == 0, ended.err
    document = record(home)
    assert document["culprits"] == [names[15]]
    assert document["probability"] > 0.95
    assert document["about"]["pins"] == ['+dependencies = ["torch==2"]']
    assert (document["dirty"], (folder / "notes").read_text()) == (True, "not committed")
    assert "left alone" in ended.out
    assert planted.git(folder, "worktree", "list").count("\n") == 1
    assert not list((home / "runs").glob("*/worktrees"))


def test_commits_that_cannot_run_are_skipped_and_what_is_left_is_a_set(history, bisect, home):
    folder, names = history({4: {"gate": "x"}, 6: slow(), 7: {"gate": ""}}, 8)
    ended = bisect(folder, names[0], names[8], command=f"test ! -s gate || exit 125; {NUMBER}")
    assert ended.code == 9
    document = record(home)
    assert document["outcome"] == "set"
    assert document["culprits"] == names[4:8]
    skipped = {entry["commit"] for entry in document["commits"] if entry["skipped"]}
    assert skipped
    assert skipped <= set(names[4:7])


def test_paths_leave_commits_out_and_say_when_none_of_them_did_it(history, bisect, home):
    folder, names = history({3: {"other": "x"}, 5: slow(), 6: {"other": "y"}}, 8)
    ended = bisect(folder, names[0], names[8], "--paths", "other")
    assert ended.code == 9
    assert "no commit that touches the paths did it" in ended.err
    assert [entry["commit"] for entry in record(home)["commits"]] == [names[3], names[6]]


@pytest.mark.parametrize("first_parent", [True, False])
def test_a_culprit_on_a_merged_branch(history, bisect, home, first_parent):
    folder, names = history({}, 3)
    planted.git(folder, "checkout", "-qb", "side", names[1])
    side = [commit(folder, f"side {number}", **({"cost_py": "COST = 1.08\n"} if number == 2 else {f"s{number}": "x"}))
            for number in range(1, 4)]  # fmt: skip
    planted.git(folder, "checkout", "-q", "main")
    planted.git(folder, "merge", "-q", "--no-ff", "-m", "merge side", "side")
    merge = planted.git(folder, "rev-parse", "HEAD").strip()
    last = commit(folder, "after", after="x")
    ended = bisect(folder, names[0], last, *(["--first-parent"] if first_parent else []))
    assert ended.code == 0, ended.err
    assert record(home)["culprits"] == [merge if first_parent else side[1]]


def test_an_interrupt_names_the_whole_command_that_goes_on(history, home):
    folder, names = history({15: slow()})
    command = 'sleep 300.75; echo "$1"'
    words = ("bisect", "--source", folder, "--good", names[0], "--bad", names[24], "--run", command)
    task = subprocess.Popen(
        invoke_command(*words), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    wait_for_task(task, lambda: list((home / "runs").glob("*/campaign.json")), "it has not begun")
    task.send_signal(signal.SIGINT)
    _, err = task.communicate(timeout=60)
    assert task.returncode == 130, err
    (state,) = (home / "runs").glob("*/campaign.json")
    again = shlex.join(["bisect", "--resume", state.parent.name[-6:], "--source", str(folder), "--run", command])
    assert f"to do: `invoke {again}` goes on\n" in err


def test_kill_9_then_resume_finds_the_same_and_measures_nothing_twice(history, bisect, home, invoke, monkeypatch):
    folder, names = history({15: slow()})
    monkeypatch.setenv("NOISE", "0.02")
    stop = home / "stop"
    command = f'test ! -e "{stop}" || sleep 300.5; {NUMBER}'
    words = ("bisect", "--source", folder, "--good", names[0], "--bad", names[24], "--run", command, "--pairs", "3")
    task = subprocess.Popen(
        invoke_command(*words), cwd=ROOT, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )

    def pairs_of_steps():
        states = list((home / "runs").glob("*/campaign.json"))
        finished = json.loads(states[0].read_text())["finished"] if states else []
        return [entry for entry in finished if "step pair" in entry["part"]]

    wait_for_task(task, lambda: len(pairs_of_steps()) >= 2, "no step was finished", within_s=280)
    stop.touch()
    os.kill(task.pid, signal.SIGKILL)
    task.wait()
    (state,) = (home / "runs").glob("*/campaign.json")
    before = [entry for entry in json.loads(state.read_text())["finished"] if "pair" in entry["part"]]
    calls = len((home / "calls").read_text().splitlines())
    stop.unlink()
    refused = invoke("bisect", "--resume", state.parent, "--source", folder)
    assert refused.code == 1
    assert "no record chooses the code that is run" in refused.err
    ended = invoke("bisect", "--resume", state.parent, "--source", folder, "--run", command)
    assert ended.code == 0, ended.err
    document = record(home)
    assert document["culprits"] == [names[15]]
    total = len((home / "calls").read_text().splitlines())
    assert total - calls == 2 * (document["pairs"] - len(before)), "what was finished was not measured again"
    assert planted.git(folder, "worktree", "list").count("\n") == 1
    assert not (state.parent / "worktrees").exists()
    assert not state.exists()
    left = subprocess.run(["pgrep", "-f", "sleep 300.5"], capture_output=True, text=True, check=False)
    assert left.stdout == ""


# --- engines ----------------------------------------------------------------------------------------------------------

FACES_ITS_CODE = """
import multimodal_gen
try:
    import stand_in
except ImportError:
    stand_in = None
from multimodal_gen import DiffGenerator as Replayed
from sglang import stage


class DiffGenerator(Replayed):
    def generate(self, **asked):
        trace = TRACES + ("cpu" if stage.FACTOR == 1 else "cache-dit-cpu-0.5.23") + ".trace.json.gz"
        factor = stage.FACTOR if stand_in is None else stand_in.FACTOR
        multimodal_gen.SCENARIO |= {"factor": factor, "shift": stage.SHIFT, "trace": trace}
        return super().generate(**asked)
"""
"""A replay engine whose times, pictures and kernels come from the checkout's own code, or from what it requires."""

UV = """#!/bin/sh
echo "$@" >> "$UV_CALLS"
for last; do :; done
case $last in slow*) sleep 1;; esac
case $last in *no-such*) echo "no version of no-such==1" >&2; exit 1;; esac
echo "FACTOR = 1.3" > "$(dirname "$4")/../site/stand_in.py"
"""
"""An installer that knows one package, and fails on another."""


@pytest.fixture
def uv(home, monkeypatch):
    """Put the installer on PATH; return what gives its calls."""
    program = home / "installer" / "uv"
    program.parent.mkdir()
    program.write_text(UV)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("UV_CALLS", str(home / "uv-calls"))
    (home / "uv-calls").touch()
    return lambda: (home / "uv-calls").read_text().splitlines()


def project(*requirements):
    return f"[project]\nname = 'sglang'\ndependencies = {json.dumps(['torch==2.11.0', *requirements])}\n"


@pytest.fixture
def engines(checkout, home, tiny):  # noqa: F811 - fixtures
    """Make a history of the small engine: commit 2 cannot be imported, 4 is slow, 5 changes pixels."""
    scenario = home / "environments" / "engine-replay" / "replay.json"
    scenario.write_text(json.dumps(json.loads(scenario.read_text()) | {"within": 0.002, "between": 0.002}))
    package = checkout / "python" / "sglang"
    (package / "multimodal_gen" / "__init__.py").write_text(
        FACES_ITS_CODE.replace("TRACES", repr(f"{DATA / 'traces'}/"))
    )
    plain = "FACTOR, SHIFT = 1.0, 0\n"
    names = []
    for number in range(7):
        text = plain.replace("1.0", "1.1" if number >= 4 else "1.0").replace("0\n", "9\n" if number >= 5 else "0\n")
        text = text if number != 2 else f"import a_package_that_is_not_there\n{text}"
        (package / "stage.py").write_text(f"{text}# remark {number}\n")
        if number == 4:
            (package / "multimodal_gen" / "tiers.py").write_text("QUALITY = 'high'\n")
        planted.git(checkout, "add", "-A")
        planted.git(checkout, "commit", "-qm", f"commit {number}")
        names.append(planted.git(checkout, "rev-parse", "HEAD").strip())
    words = ("bisect", "--model", "flux-tiny", "--preset-file", tiny, "--engine", "replay", "--source", checkout)
    return (*words, "--good", names[0], "--bad", names[6], "--repeats", "1", "--pairs", "3"), names


def test_engines_are_bisected_by_time(engines, invoke, home, checkout):  # noqa: F811 - a fixture
    words, names = engines
    ended = invoke(*words, "--metric", "denoise")
    assert ended.code == 0, ended.err
    document = record(home)
    assert document["culprits"] == [names[4]]
    assert document["about"]["reach"].startswith("reach: ")
    changes = {row["name"]: (row["base"], row["head"]) for row in document["about"]["kernels"]["changes"]}
    assert changes["aten::item"] == (0, 28)
    assert "aten::item" in ended.out
    assert document["about"]["quality"] == ["+QUALITY = 'high'"]
    folder = next((home / "runs").glob("*-bisect-*"))
    for known in document["comparisons"]:
        assert known["skipped"] or (folder / known["record"]).is_file()
    assert invoke("validate", folder).code == 0
    assert planted.git(checkout, "worktree", "list").count("\n") == 1


def of_pins(engines, checkout, *requirements):  # noqa: F811 - no fixture here
    """Commit the requirements of a history's further commits, one after the other; return its words and its names."""
    words, names = engines
    made = []
    for number, required in enumerate(requirements):
        file = checkout / "python" / "pyproject.toml"
        file.write_text(f"{project(*required)}# remark {number}\n")
        planted.git(checkout, "add", "-A")
        planted.git(checkout, "commit", "-qm", f"requirements {number}")
        made.append(planted.git(checkout, "rev-parse", "HEAD").strip())
    words = [made[0] if word == names[0] else made[-1] if word == names[6] else word for word in words]
    return words, made


def test_a_commit_that_requires_something_else_runs_over_it(engines, invoke, home, checkout, uv):  # noqa: F811
    slow = ("stand-in==2",)
    words, names = of_pins(engines, checkout, (), (), slow, slow)
    ended = invoke(*words, "--metric", "denoise")
    assert ended.code == 0, ended.err
    document = record(home)
    assert document["culprits"] == [names[2]], "its code is that of good: what it requires is slow"
    assert any("stand-in==2" in line for line in document["about"]["pins"])
    (call,) = uv()
    assert call.startswith("pip install --python ")
    assert call.endswith("--prerelease=allow -- stand-in==2")
    assert "@replay+" in document["again"]
    assert not (home / "environments" / "engine-replay" / "site" / "stand_in.py").exists()


def test_bad_that_cannot_be_installed_is_said_before_anything_is_measured(engines, invoke, home, checkout, uv):  # noqa: F811
    words, _ = of_pins(engines, checkout, (), (), ("no-such==1",))
    ended = invoke(*words)
    assert ended.code == 3
    assert "its requirements cannot be installed over replay: no version of no-such==1" in ended.err
    assert not (home / "runs").exists()
    assert not list((home / "environments" / "pinned").iterdir()), "half of an environment"


def test_programs_inside_packages_are_in_an_environment_over_another(home, replay, uv):
    replay()
    program = home / "environments" / "engine-replay" / "site" / "torch" / "bin" / "torch_shm_manager"
    program.parent.mkdir(parents=True)
    program.write_text("x")
    place = find.pinned(pins.environment("replay", ["stand-in==2"], lambda _: None))
    assert (place / "site" / "torch" / "bin" / "torch_shm_manager").read_text() == "x"
    assert (place / "bin" / "python").is_file()
    assert len(uv()) == 1


def test_two_bisections_build_an_environment_once(replay, uv):
    replay()
    with ThreadPoolExecutor(2) as both:
        names = list(both.map(lambda _: pins.environment("replay", ["slow==1"], lambda _: None), range(2)))
    assert names[0] == names[1]
    assert len(uv()) == 1


@pytest.mark.parametrize("line", ["--target=/somewhere", "--index-url=https://example.org", "-r other.txt", ""])
def test_a_requirement_that_is_an_option_is_never_given_to_the_installer(engines, invoke, home, checkout, uv, line):  # noqa: F811
    words, _ = of_pins(engines, checkout, (), (), (line,))
    ended = invoke(*words)
    assert ended.code == 3
    assert f"python/pyproject.toml has a line that is not a requirement: {line}" in ended.err
    assert not uv()
    assert not (home / "runs").exists()


def test_engines_are_bisected_by_pixels(engines, invoke, home):
    words, names = engines
    ended = invoke(*words, "--what", "fidelity")
    assert ended.code == 0, ended.err
    document = record(home)
    assert document["culprits"] == [names[5]]
    assert (document["effect"], document["ends"]) == (None, None), "times, which nobody asked about"
    assert "effect: the pixels changed" in ended.out
