"""The house rules: who may import whom, who may start a process, and that every task is guarded."""

import ast
import importlib.util
import inspect

import pytest
from helpers import ROOT

# A room imports rooms of lower floors, and its own.
FLOORS = {
    "errors": 0, "paths": 0, "supervisor": 0,
    "schema": 1, "process": 1,
    "catalog": 2, "record": 2, "decode": 2,
    "fallback": 3, "documents": 3, "quality": 3,
    "engine": 4,
    "checkpoint": 5,
    "preflight": 6,
    "measure": 7, "profiling": 7, "accuracy": 7, "sweep": 7,
    "report": 8, "tour": 8, "completion": 9,
    "task": 10,
    "verbs": 11,
}  # fmt: skip
MODULES = sorted(path for path in (ROOT / "bench").rglob("*.py") if "inside" not in path.parts)


def imports(path):
    """Yield (module, at run time) for each import in a file, TYPE_CHECKING blocks as not at run time."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) not in typing_only
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"bench.{alias.name}" for alias in node.names] if node.module == "bench" else [node.module]
            for name in names:
                yield name, id(node) not in typing_only


def room(path):
    return path.relative_to(ROOT / "bench").with_suffix("").parts[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path):
    mine = room(path)
    if mine == "__init__":
        return
    for name, at_run_time in imports(path):
        if name.startswith("bench.") and at_run_time:
            other = name.split(".")[1]
            assert other == mine or FLOORS[other] < FLOORS[mine], f"{mine} imports {other}"


def importers(module):
    return {
        str(path.relative_to(ROOT))
        for path in [*MODULES, ROOT / "tasks.py"]
        for name, at_run_time in imports(path)
        if at_run_time and (name == module or name.startswith(f"{module}."))
    }


def test_only_process_imports_subprocess():
    assert importers("subprocess") == {"bench/process.py"}


def test_only_engine_starts_processes_and_the_tour_our_own_invoke():
    """The tour types our own verbs, which launch under a guard as ever; it knows no other program."""
    starters = importers("bench.process")
    assert "bench/engine/launch.py" in starters
    assert {name for name in starters if not name.startswith("bench/engine/")} == {"bench/tour/shell.py"}
    calls = [
        node
        for node in ast.walk(ast.parse((ROOT / "bench" / "tour" / "shell.py").read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("process.")
    ]
    assert [ast.unparse(call.args[0]) for call in calls] == ["[sys.executable, '-m', 'invoke', *words]"]


def test_only_task_imports_invoke():
    assert importers("invoke") == {"bench/task.py"}


def test_nox_and_bench_do_not_know_each_other():
    assert importers("nox") == set()
    assert not {name for name, _ in imports(ROOT / "noxfile.py") if name.startswith("bench")}


def test_no_engine_library_is_ever_imported_by_the_runner():
    for library in ("torch", "sglang", "diffusers", "transformers"):
        assert importers(library) == set()


def test_programs_for_the_engine_import_nothing_of_ours():
    for path in (ROOT / "bench" / "inside").glob("*.py"):
        assert not [name for name, _ in imports(path) if name.startswith("bench")], path


def test_nothing_imports_the_programs_for_the_engine():
    assert importers("bench.inside") == set()


def test_a_launch_without_a_guard_is_a_type_error():
    from bench.engine.launch import launch

    parameter = inspect.signature(launch).parameters["guard"]
    assert parameter.default is inspect.Parameter.empty
    assert parameter.kind is inspect.Parameter.KEYWORD_ONLY


@pytest.fixture(name="ns", scope="module")
def _ns():
    spec = importlib.util.spec_from_file_location("tasks_under_test", ROOT / "tasks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ns


def test_every_task_is_guarded_and_explained(ns):
    from bench.task import GuardedTask

    assert set(ns.task_names) >= {"bench", "checkpoint", "models", "validate"}
    for name in ns.task_names:
        task = ns[name]
        assert isinstance(task, GuardedTask), name
        assert (task.__doc__ or "").strip(), name
        explained = set(task.help)
        options = {argument.names[0] for argument in task.get_arguments()}
        assert options <= explained, f"{name}: no help for {options - explained}"


@pytest.mark.parametrize(
    "path", [*MODULES, ROOT / "tasks.py", ROOT / "noxfile.py"], ids=lambda path: str(path.relative_to(ROOT))
)
def test_a_module_can_be_seen_whole(path):
    assert len(path.read_text().splitlines()) <= 300
