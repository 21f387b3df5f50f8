"""The house rules: who may import whom, who may start a process, and that every function can be seen whole."""

import ast
import inspect

import house
import pytest
from helpers import ROOT

MODULES = house.modules()
FILES = [*MODULES.values(), ROOT / "tasks.py", ROOT / "noxfile.py"]
LONGEST_FUNCTION, MOST_PARAMETERS = 60, 8
WORKING = {"process", "supervisor", "engine", "models", "machine", "upstream", "sweep", "tour", "completion", "task"}
"""Rooms that launch, fetch, measure or know the command line."""


def short(path):
    return str(path.relative_to(ROOT))


def importers(name, *, paths=tuple(FILES)):
    return {
        short(path)
        for path in paths
        for imported, typing_only in house.imports(path)
        if not typing_only and (imported == name or imported.startswith(f"{name}."))
    }


# --- floors -----------------------------------------------------------------------------------------------------------


def test_the_floors_are_those_of_the_rooms_that_exist():
    assert set(house.FLOORS) == {house.room(module) for module in MODULES}


def test_imports_go_down():
    assert house.upward() == []


def test_no_file_imports_itself_by_way_of_others():
    assert house.circle() == []


# --- who may do what --------------------------------------------------------------------------------------------------


def test_only_process_imports_subprocess():
    assert importers("subprocess", paths=MODULES.values()) == {"bench/process.py"}


OURS = {
    "bench/tour/shell.py": ["[sys.executable, '-m', 'invoke', *words]"],
    "bench/sweep/cell.py": ["[sys.executable, '-m', 'invoke', *words]"],
    "bench/sweep/local.py": ["[sys.executable, '-m', 'bench.sweep.cell', *words]"],
}
"""Files outside of engine/ and machine/ that start a process, and which: our own verbs, under a guard as ever."""


def test_only_engine_and_machine_start_processes_and_the_others_our_own_program():
    starters = importers("bench.process")
    assert "bench/engine/launch.py" in starters
    inside = ("bench/engine/", "bench/machine/")
    assert {name for name in starters if not name.startswith(inside)} == set(OURS)


@pytest.mark.parametrize("name", OURS)
def test_what_starts_our_own_program_knows_no_other(name):
    calls = [
        ast.unparse(node.args[0])
        for node in ast.walk(ast.parse((ROOT / name).read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("process.stream", "process.capture")
    ]
    assert calls == OURS[name]


def test_only_task_imports_invoke():
    assert importers("invoke") == {"bench/task.py"}


def test_reports_import_nothing_that_launches_fetches_or_measures():
    """Not by way of others either: whatever a report imports at run time is followed to the end."""
    edges = {
        name: {imported for imported, typing_only in house.imports(path) if not typing_only}
        for name, path in MODULES.items()
    }
    waiting = [(name, name) for name in MODULES if house.room(name) == "report"]
    seen, working = set(), []
    while waiting:
        name, way = waiting.pop()
        for imported in edges[name]:
            owner = imported if imported in MODULES else imported.rpartition(".")[0]
            if owner not in MODULES or owner in seen:
                continue
            seen.add(owner)
            waiting.append((owner, f"{way} -> {owner}"))
            if house.room(owner) in WORKING:
                working.append(f"{way} -> {owner}")
    assert working == []


def test_nox_and_bench_do_not_know_each_other():
    assert importers("nox") == {"noxfile.py"}
    assert "noxfile.py" not in importers("bench")


@pytest.mark.parametrize("library", ["torch", "sglang", "diffusers", "transformers"])
def test_no_engine_library_is_ever_imported_by_the_runner(library):
    assert importers(library) == set()


def test_programs_for_the_engine_import_nothing_of_ours_and_nothing_imports_them():
    assert importers("bench", paths=(ROOT / "bench" / "inside").glob("*.py")) == set()
    assert importers("bench.inside") == set()


def test_a_launch_without_a_guard_is_a_type_error():
    from bench.engine.launch import guarded

    parameter = inspect.signature(guarded).parameters["guard"]
    assert parameter.default is inspect.Parameter.empty
    assert parameter.kind is inspect.Parameter.KEYWORD_ONLY


# --- size -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((ROOT / "bench").rglob("*.py")), ids=short)
def test_a_function_can_be_seen_whole(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            assert lines <= LONGEST_FUNCTION, f"{node.name}: {lines} lines"
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            parameters = [argument for argument in given if argument.arg not in ("self", "cls")]
            assert len(parameters) <= MOST_PARAMETERS, f"{node.name}: {len(parameters)} parameters"
