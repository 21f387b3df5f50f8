"""Whether a change ran: real checkouts of a small engine of our own, under the real tracer."""

import json
import os
import shutil
import subprocess
import sys
import tempfile

import planted
import pytest
from conftest import write_session_modules
from helpers import DATA, NATIVE, ROOT

from bench.engine import pins, source
from bench.errors import PreflightFailed, UsageError
from bench.reach import changes, lines

PACKAGE = {
    "multimodal_gen/__init__.py": """
        import os
        import subprocess
        import sys

        from multimodal_gen import DiffGenerator as Replayed
        from sglang import stage

        class DiffGenerator(Replayed):
            @classmethod
            def from_pretrained(cls, **asked):
                stage.load()
                return super().from_pretrained(**asked)

            def generate(self, **asked):
                stage.denoise(self.served)
                rank = dict(os.environ, RANK="1")
                subprocess.run([sys.executable, "-c", "from sglang import worker; worker.work()"], env=rank, check=True)
                return super().generate(**asked)
    """,
    "stage.py": """
        import os

        LIMIT = 4


        def load():
            steps = [1, 2]
            return steps


        def denoise(served):
            total = 0
            if served == 0:
                total += 1
            if os.environ.get("NOBODY_SETS_THIS"):
                total += 2
                return total
            for step in range(LIMIT):
                total += step
            return total


        def unused(value):
            return value
    """,
    "worker.py": """
        def work():
            return 1
    """,
    "other_family.py": """
        def forward():
            return 1
    """,
}


def dedented(text):
    return "\n".join(line.removeprefix("        ") for line in text.strip("\n").splitlines()).rstrip() + "\n"


@pytest.fixture
def checkout(home, replay):
    """A checkout over a replay engine, whose own code really runs; committed."""
    replay(**NATIVE)
    folder = home / "checkout"
    package = folder / "python" / "sglang"
    for name, text in PACKAGE.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(dedented(text))
    write_session_modules(package)
    planted.git(folder, "init", "-q", "-b", "main")
    planted.git(folder, "add", "-A")
    planted.git(folder, "commit", "-qm", "base")
    planted.git(folder, "tag", "v0.5.23")
    return folder


@pytest.fixture
def reach(invoke, checkout, tiny):
    def run(*arguments, engine=None):
        engine = engine or f"source:{checkout}@replay"
        return invoke("reach", "--model", "flux-tiny", "--preset-file", tiny, "--engine", engine, *arguments)

    return run


def change(checkout, old, new, name="stage.py"):
    path = checkout / "python" / "sglang" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def scenario(home, **changes):
    path = home / "environments" / "engine-replay" / "replay.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def parts(ended):
    document = json.loads(ended.out)
    return {(part["file"].rpartition("/")[2], part["first"]): part for part in document["parts"]}


# --- what cannot be asked ---------------------------------------------------------------------------------------------


def test_nothing_changed_is_said_before_anything_is_started(reach, home):
    ended = reach()
    assert ended.code == 1
    assert "nothing differs from commit" in ended.err
    assert "--diff BASE...HEAD" in ended.err
    assert not (home / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--diff", "nowhere...HEAD"], "no revision 'nowhere' here"),
        (["--diff", "main...old"], "old is not what is checked out"),
        (["--diff", "main", "--uncommitted"], "--diff and --uncommitted exclude each other"),
    ],
)
def test_a_diff_that_is_not_of_what_runs_is_refused(reach, checkout, home, arguments, said):
    planted.git(checkout, "commit", "-qm", "empty", "--allow-empty")
    planted.git(checkout, "tag", "old", "HEAD~1")
    ended = reach(*arguments)
    assert (ended.code, said in ended.err) == (1, True), ended.err
    assert not (home / "runs").exists()


def test_an_installed_engine_has_no_change_of_its_own(reach):
    ended = reach(engine="replay")
    assert ended.code == 1
    assert "reach needs an engine that runs from a checkout" in ended.err


def test_a_traced_launch_that_falls_back_shows_nothing(reach, checkout, home):
    change(checkout, "steps = [1, 2]", "steps = [1, 2, 3]")
    scenario(home, fall_back_at=2)
    ended = reach()
    assert ended.code == 4
    assert not list((home / "runs").glob("*/reach.json"))


# --- a git that fails is not a git that finds nothing -----------------------------------------------------------------


@pytest.fixture
def failing_git(home, monkeypatch):
    """Put a git on PATH that does something else where its arguments match a shell pattern."""

    def make(pattern, instead):
        program = home / "failing" / "git"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\ncase "$*" in {pattern}) {instead};; esac\nexec {shutil.which("git")} "$@"\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")

    return make


@pytest.mark.parametrize(
    ("pattern", "command"),
    [
        ("*' diff '*--binary*", "diff"),
        ("*' diff '*--name-status*", "diff"),
        ("*' ls-files '*--full-name*", "ls-files"),
        ("*' ls-tree '*", "ls-tree"),
        ("*' show '*", "show"),
    ],
)
def test_a_git_that_fails_does_not_say_that_nothing_differs(reach, checkout, home, failing_git, pattern, command):
    change(checkout, "LIMIT = 4", "LIMIT = 5")
    failing_git(pattern, "echo out of memory >&2; exit 128")
    ended = reach()
    assert ended.code == 10, ended.err
    assert f"`git {command}` failed: out of memory" in ended.err
    assert not (home / "runs").exists()


def test_a_git_that_gives_no_answer_makes_no_clean_checkout(reach, checkout, failing_git, monkeypatch):
    change(checkout, "LIMIT = 4", "LIMIT = 5")
    failing_git("*' diff '*", "exec sleep 20")
    monkeypatch.setattr(source, "GIT_SECONDS", 1)
    ended = reach()
    assert (ended.code, "failed: no answer in 1 s" in ended.err) == (10, True), ended.err


def test_a_diff_program_of_the_user_hides_no_change(checkout, monkeypatch):
    change(checkout, "LIMIT = 4", "LIMIT = 5")
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", "true")
    assert source.read(checkout).changes_sha256 is not None


def test_a_commit_without_a_project_file_requires_nothing_and_an_unreadable_one_is_unknown(checkout, failing_git):
    assert pins.required(checkout, "HEAD") == frozenset()
    (checkout / pins.PROJECT).write_text("[project]\ndependencies = ['a']\n")
    planted.git(checkout, "add", "-A")
    planted.git(checkout, "commit", "-qm", "a project file")
    assert pins.required(checkout, "HEAD") == {"a"}
    failing_git("*' show '*", "exit 128")
    with pytest.raises(PreflightFailed, match="`git show` failed"):
        pins.required(checkout, "HEAD")


def test_a_folder_that_is_no_git_checkout_is_said_to_be_none(checkout, monkeypatch):
    shutil.rmtree(checkout / ".git")
    with pytest.raises(UsageError, match="not a git checkout"):
        source.read(checkout)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError, match="not a git checkout"):
        source.read(checkout)


# --- what became of each line -----------------------------------------------------------------------------------------


def test_each_planted_line_fares_as_it_must(reach, checkout):
    change(checkout, "LIMIT = 4\n", "LIMIT = 3\n")
    change(checkout, "steps = [1, 2]\n", "steps = [1, 2, 3]\n")
    change(checkout, "        total += 1\n", "        total += 10\n")
    change(checkout, "        total += 2\n", "        total += 20\n")
    change(checkout, "        total += step\n", "        total += 2 * step\n")
    change(checkout, "def unused(value):\n    return value", "def unused(value):\n    return [\n        value,\n    ]")
    change(checkout, "    total = 0\n", "    total = 0\n    if False:\n        total = 9\n")
    change(checkout, "    return 1", "    return 2", "other_family.py")
    change(checkout, "    return 1", "    return 2", "worker.py")
    ended = reach("--json")
    assert ended.code == 0, ended.err
    found = parts(ended)
    fared = {place: part["ran"] for place, part in found.items()}
    assert fared == {
        ("stage.py", 3): "import",
        ("stage.py", 7): "load",
        ("stage.py", 14): "never",
        ("stage.py", 16): "warm-up",
        ("stage.py", 18): "never",
        ("stage.py", 21): "request",
        ("stage.py", 26): "never",
        ("worker.py", 2): "request",
        ("other_family.py", 2): "never",
    }
    because = {place: part["because"] for place, part in found.items()}
    assert because["stage.py", 14] == "`if False` at line 13: Python leaves this block out"
    assert because["stage.py", 16] == "in the request: `served == 0` was false at line 15"
    assert because["stage.py", 18] == "`os.environ.get('NOBODY_SETS_THIS')` was false at line 17"
    assert because["stage.py", 26] == "unused() at line 25 was not called"
    assert because["other_family.py", 2] == "no process loaded this file"
    assert found["worker.py", 2]["processes"] == ["rank 1: MainProcess"]
    assert found["stage.py", 21]["processes"] == ["MainProcess"]


def test_a_change_that_never_runs_ends_so(reach, checkout):
    change(checkout, "    return value", "    return 2 * value")
    ended = reach()
    assert ended.code == 9
    assert "no changed line ran on the measured path" in ended.err
    assert "unused() at line 23 was not called" in ended.out


def test_lines_that_only_went_are_looked_for_in_the_base(reach, checkout, home, monkeypatch):
    change(checkout, "        total += step\n", "        pass\n")
    change(checkout, "    return value\n", "    pass\n")
    planted.git(checkout, "commit", "-qam", "head")
    change(checkout, "    for step in range(LIMIT):\n        pass\n", "")
    (home / "real").mkdir()
    (home / "link").symlink_to("real")
    monkeypatch.setattr(tempfile, "tempdir", str(home / "link"))  # where the base is checked out
    ended = reach("--json")
    assert ended.code == 0, ended.err
    (part,) = parts(ended).values()
    assert (part["side"], part["ran"], part["first"], part["last"]) == ("gone", "request", 18, 19)
    assert planted.git(checkout, "worktree", "list").count("\n") == 1


def test_commits_since_a_base_are_judged(reach, checkout):
    planted.git(checkout, "checkout", "-qb", "mine")
    change(checkout, "    return value", "    return 2 * value")
    planted.git(checkout, "commit", "-qam", "mine")
    planted.git(checkout, "checkout", "-q", "main")
    change(checkout, "LIMIT = 4", "LIMIT = 5")
    planted.git(checkout, "commit", "-qam", "theirs")
    planted.git(checkout, "checkout", "-q", "mine")
    ended = reach("--diff", "main...HEAD", "--json")
    assert set(parts(ended)) == {("stage.py", 24)}, "what only main has is not mine"
    ended = reach("--diff", "main..HEAD", "--json")
    assert set(parts(ended)) == {("stage.py", 3), ("stage.py", 24)}


def test_comments_alone_start_no_engine(reach, checkout, home):
    change(checkout, "LIMIT = 4", "# so many\nLIMIT = 4")
    ended = reach()
    assert ended.code == 9
    assert "the change holds no code" in ended.err
    assert not list((home / "runs").glob("*/traced"))


def test_what_is_not_python_is_said_and_not_judged(reach, checkout):
    kernel = checkout / "python" / "sglang" / "kernel.cu"
    kernel.write_text("__global__ void f() {}\n")
    change(checkout, "    return value", "    return 2 * value")
    ended = reach()
    assert ended.code == 9
    assert "kernel.cu: not Python" in ended.out
    assert "of the rest only the kernels can tell" in ended.out


TABLE = """
import json
import pathlib

import multimodal_gen
from multimodal_gen import DiffGenerator as Replayed
from sglang import stage


class DiffGenerator(Replayed):
    def generate(self, **asked):
        stage.denoise(self.served)
        here = pathlib.Path(__file__).parent
        trace = json.loads((here / "kernels.json").read_text())["trace"]
        if (here / "chance").exists():
            trace = (here / "chance").read_text()
        multimodal_gen.SCENARIO |= {"trace": TRACES + trace} if trace else {}
        return super().generate(**asked)
"""
"""A replay engine whose kernels are those of the trace that its own table names, or that a file beside it names."""


@pytest.fixture
def table(checkout):
    """Return what writes the engine's table of kernels, which is not Python; the base's is committed."""
    package = checkout / "python" / "sglang" / "multimodal_gen"

    def write(trace):
        (package / "kernels.json").write_text(json.dumps({"trace": trace}))

    (package / "__init__.py").write_text(TABLE.replace("TRACES", repr(f"{DATA / 'traces'}/")))
    write("cpu.trace.json.gz")
    planted.git(checkout, "add", "-A")
    planted.git(checkout, "commit", "-qm", "a table")
    return write


def test_of_what_is_not_python_the_kernels_are_listed_and_settle_nothing(reach, table, home, invoke):
    table("cache-dit-cpu-0.5.23.trace.json.gz")
    ended = reach("--json")
    assert ended.code == 9, ended.err
    document = json.loads(ended.out)
    assert document["outcome"] == "unknown"
    assert document["means"].endswith(
        "differ between one start of each side, and starts of the same code may differ too"
    )
    assert document["not_python"] == ["python/sglang/multimodal_gen/kernels.json"]
    assert document["launches"] == [], "no line could be traced"
    changes = {row["name"]: (row["base"], row["head"]) for row in document["kernels"]["changes"]}
    assert changes["aten::scaled_dot_product_attention"] == (0, 26)
    assert changes["aten::item"] == (0, 28)
    for launch in document["kernels"]["launches"].values():
        assert "SGLANG_DIFFUSION_TORCH_PROFILER_DIR" in launch["command"]["environment"]
    (folder,) = (home / "runs").iterdir()
    assert not list(folder.rglob("run*.json")), "a traced request leaves no record of a run"
    assert invoke("validate", folder).code == 0


def test_the_same_kernels_settle_nothing_of_what_is_not_python(reach, table, checkout):
    (checkout / "python" / "sglang" / "kernel.cu").write_text("__global__ void f() {}\n")
    ended = reach()
    assert ended.code == 9
    assert "kernels: both sides ran the 19 kernels and operators of the traced denoise steps equally often" in ended.out
    assert "a kernel whose code changed keeps its name, so equal names say nothing about the other lines" in ended.err


def test_kernels_that_cannot_be_traced_are_unknown_with_the_reason(reach, table):
    table(None)
    ended = reach()
    assert ended.code == 9
    assert "kernels: unknown, the profiler left no trace" in ended.out
    assert "of the rest only the kernels can tell" in ended.err


def test_lines_that_ran_settle_it_and_kernels_are_shown_when_asked_for(reach, table, checkout):
    table("cache-dit-cpu-0.5.23.trace.json.gz")
    change(checkout, "        total += step\n", "        total += 2 * step\n")
    assert json.loads(reach("--json").out)["kernels"] is None
    ended = reach("--prove-kernels")
    assert ended.code == 0, ended.err
    assert "aten::item" in ended.out
    assert "changed lines ran on the measured path" in ended.out


@pytest.mark.parametrize("text", ["    return 2 * value", "    return value\n\n\nAT_IMPORT = 1"])
def test_kernels_that_differ_settle_nothing_of_lines_that_can_be_traced(reach, table, checkout, text):
    package = checkout / "python" / "sglang" / "multimodal_gen"
    (package / "chance").write_text("cache-dit-cpu-0.5.23.trace.json.gz")
    change(checkout, "    return value", text)
    ended = reach("--prove-kernels")
    assert ended.code == 9, ended.err
    assert "aten::item" in ended.out
    assert "no changed line ran on the measured path" in ended.err


def test_pages_and_compiled_files_are_no_change_of_the_code(reach, checkout):
    cache = checkout / "python" / "sglang" / "__pycache__"
    cache.mkdir(exist_ok=True)
    (cache / "stage.cpython-311.pyc").write_bytes(b"x")
    (checkout / "README.md").write_text("new\n")
    change(checkout, "    return value", "    return 2 * value")
    document = json.loads(reach("--json").out)
    assert (document["not_python"], document["outcome"]) == ([], "not-reached")


def test_a_kernel_in_python_is_not_called_dead(reach, checkout):
    change(checkout, "def unused(value):\n    return value", "@triton.jit\ndef unused(value):\n    return 2 * value")
    change(checkout, "import os", "import os\nclass triton:\n    jit = staticmethod(lambda made: made)")
    ended = reach("--json")
    fared = {part["first"]: part["ran"] for part in parts(ended).values()}
    assert fared[27] == "compiled"


def test_code_that_was_commented_out_went(reach, checkout):
    change(checkout, "        total += step\n", "        # total += step\n        pass\n")
    change(checkout, "    steps = [1, 2]\n    return steps", "    steps = [1, 2]\n    # return steps")
    document = json.loads(reach("--json").out)
    told = [(part["side"], part["first"], part["last"], part["ran"]) for part in document["parts"]]
    assert told == [("new", 20, 20, "request"), ("gone", 8, 8, "load")]


@pytest.mark.parametrize(
    ("old", "new", "is_new", "is_gone"),
    [
        ("a()\nb()\n", "a()\n# b()\n", [], [2]),
        ("a()\nb()\n", 'a()\n"""b()"""\n', [], [2]),
        ("a()\nb()\n", "a()\nc()  # b()\n", [2], []),
        ("a()\n# b()\n", "a()\nb()\n", [2], []),
        ("a()\n# b\nc()\n", "a()\n# d\n", [], [3]),
        ("s = '\x85\u2028'\n\fa()\r\nb()\rd()\n", "s = '\x85\u2028'\n\fa()\nc()\nd()\n", [3], []),
        ("s = '\x85\u2028'\n\fa()\r\nb()\rd()\n", "s = '\x85\u2028'\n\fa()\nb()\n", [], [4]),
    ],
)
def test_only_code_takes_the_place_of_code(old, new, is_new, is_gone):
    changed = changes.Change(name="m.py", before=old, after=new)
    assert (changed.new_lines(), changed.gone_lines()) == (is_new, is_gone)


# --- A/B --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def two(checkout, home):
    """The base in a worktree beside the checkout, which is to be changed."""
    planted.git(checkout, "worktree", "add", "--detach", home / "base", "main")
    return ("--baseline", f"source:{home / 'base'}@replay", "--candidate", f"source:{checkout}@replay")


@pytest.fixture
def ab(invoke, tiny, two):
    words = ("ab", "--model", "flux-tiny", "--preset-file", tiny, *two, "--repeats=2", "--margin=5%", "--pairs=3")
    return lambda *arguments, metric="denoise": invoke(*words, "--metric", metric, *arguments)


def test_same_of_a_change_that_never_ran_is_no_verdict(invoke, ab, checkout, home):
    scenario(home, within=0.002)
    change(checkout, "    return value", "    return 2 * value")
    ended = ab()
    assert ended.code == 9, ended.err
    (folder,) = (home / "runs").iterdir()
    document = json.loads((folder / "comparison.json").read_text())
    assert document["reach"]["outcome"] == "not-reached"
    assert document["comparison"]["verdict"] == "inconclusive"
    assert "the arms ran the same code" in document["comparison"]["reason"]
    assert document["comparison"]["interval"]["high_percent"] < 5, "by its interval it would have been same"
    assert invoke("validate", folder).code == 0


def test_kernels_of_the_request_settle_nothing_of_the_load(table, ab, home):
    scenario(home, within=0.002)
    table("cache-dit-cpu-0.5.23.trace.json.gz")
    ended = ab("--prove-kernels", metric="load")
    (folder,) = (home / "runs").iterdir()
    known = json.loads((folder / "comparison.json").read_text())["reach"]
    assert known["kernels"]["changes"], ended.err
    assert (known["measured"], known["outcome"]) == (["load", "import"], "unknown")


def test_same_of_a_change_that_ran_is_same(ab, checkout, home):
    scenario(home, within=0.002)
    change(checkout, "        total += step\n", "        total += 2 * step\n")
    ended = ab()
    assert ended.code == 0, ended.err
    assert "1 changed line of code in 1 file: 1 ran in the request" in ended.out


def test_no_timed_request_was_traced(ab, checkout, home):
    scenario(home, within=0.002)
    change(checkout, "    return value", "    return 2 * value")
    ab()
    (folder,) = (home / "runs").iterdir()
    timed = [json.loads((folder / arm / "run.json").read_text()) for arm in ("baseline", "candidate")]
    launches = [launch for record in timed for launch in record["launches"]]
    assert len(launches) >= 6
    for launch in launches:
        variables = launch["command"]["environment"]
        assert variables.keys().isdisjoint({"BENCH_REACH", "TORCHDYNAMO_DISABLE"})
        assert "tracer" not in variables.get("PYTHONPATH", "")
    (traced,) = json.loads((folder / "reach" / "reach.json").read_text())["launches"]
    assert "BENCH_REACH" in traced["command"]["environment"]
    assert traced["command"]["environment"]["TORCHDYNAMO_DISABLE"] == "1", "what is under @torch.compile runs no lines"
    assert not list((folder / "reach").rglob("run*.json")), "a traced request leaves no record of a run"


@pytest.mark.parametrize("arguments", [["--no-prove-ran"], ["--prove-ran", "--no-prove-ran"]])
def test_the_trace_can_be_left_out(ab, checkout, home, arguments):
    scenario(home, within=0.002)
    change(checkout, "    return value", "    return 2 * value")
    ended = ab(*arguments)
    assert ended.code == (0 if len(arguments) == 1 else 1), ended.err
    assert not list((home / "runs").glob("*/reach"))


# --- the tracer by itself ---------------------------------------------------------------------------------------------


def traced(folder, program, **variables):
    """Run a program under the tracer; return what each of its processes wrote."""
    (folder / "phase").write_bytes(b"r")
    (folder / "wanted").write_text(f"{folder / 'module.py'}\n")
    environment = os.environ | {"BENCH_REACH": str(folder), **variables}
    environment["PYTHONPATH"] = f"{ROOT / 'bench' / 'inside' / 'tracer'}{os.pathsep}{folder}"
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    return [file.read_text().splitlines() for file in folder.glob("lines-*")]


def test_threads_forks_and_spawned_processes_are_traced(tmp_path):
    (tmp_path / "module.py").write_text(
        "def f():\n    return 1\n\n\ndef g():\n    return 2\n\n\ndef h():\n    return 3\n"
    )
    (tmp_path / "main.py").write_text(
        "import multiprocessing, module, os, threading\n"
        "if __name__ == '__main__':\n"
        "    threading.Thread(target=module.f).start()\n"
        "    for kind, what in (('fork', module.g), ('spawn', module.h)):\n"
        "        child = multiprocessing.get_context(kind).Process(target=what, name=kind)\n"
        "        child.start(); child.join()\n"
    )
    main = tmp_path / "main.py"
    found = traced(tmp_path, f"import runpy; runpy.run_path({str(main)!r}, run_name='__main__')")
    by_name = {rows[0].partition(" ")[2]: rows[1:] for rows in found}
    assert "r x 0 2" in by_name["MainProcess"]
    assert by_name["fork"] == ["r x 0 6"]
    assert "r x 0 10" in by_name["spawn"]
    assert "r i 0 1" in by_name["MainProcess"]


def test_the_sitecustomize_that_was_there_runs_too(tmp_path):
    (tmp_path / "module.py").touch()
    (tmp_path / "sitecustomize.py").write_text("import pathlib; pathlib.Path(__file__).with_name('was-here').touch()\n")
    traced(tmp_path, "import sitecustomize; assert 'was-here' in open(sitecustomize.__file__).read()")
    assert (tmp_path / "was-here").exists()


# --- statements -------------------------------------------------------------------------------------------------------

CASES = [
    ("def f(a):\n    if a:\n        return 1\n    return 2\n", 4, {1, 2, 3}, "`a` was true at line 2, and returned"),
    ("if a:\n    x = 1\nelse:\n    x = 2\n", 4, {1, 2}, "`a` was true at line 1"),
    ("if a:\n    x = 1\nelif b:\n    x = 2\nelse:\n    x = 3\n", 6, {1, 3, 4}, "`b` was true at line 3"),
    ("for x in y:\n    z = 1\n", 2, {1}, "the loop at line 1 had nothing to do"),
    ("while x:\n    z = 1\n", 2, {1}, "`x` was false at line 1"),
    ("try:\n    x = 1\nexcept ValueError:\n    x = 2\n", 4, {1, 2}, "nothing was raised that is handled below line 1"),
    ("def f():\n    g()\n    x = 1\n", 3, {1, 2}, "the block was left at line 2"),
    ("class A:\n    def f(self):\n        if x:\n            return 1\n", 4, {1, 2}, "f() at line 2 was not called"),
    ("match x:\n    case 1:\n        y = 1\n    case 2:\n        y = 2\n", 5, {1, 2, 3}, "no case matched at line 1"),
]


@pytest.mark.parametrize(("text", "line", "ran", "said"), CASES)
def test_the_nearest_condition_that_went_the_other_way_is_named(text, line, ran, said):
    module = lines.read(text)
    assert lines.why_not(module.at(line), ran) == said


def test_lines_without_code_belong_to_no_statement():
    text = (
        'def f():\n    """Say.\n\n    More.\n    """\n    # why\n\n'
        "    try:\n        return g(\n            1,  # one\n        )\n    finally:\n        h()\n"
    )
    module = lines.read(text)
    assert [number for number in range(1, 14) if module.at(number)] == [1, 9, 10, 11, 13]
    assert module.at(11).first == 9
    assert lines.read("def f(:\n") is None
