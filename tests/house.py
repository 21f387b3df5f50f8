"""The architecture of ``bench/``, read from the files: rooms, floors, circles and upward imports.

``python tests/house.py`` prints it; `test_layers.py` holds it.
"""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "bench"

FLOORS = {
    "errors": 0, "paths": 0, "supervisor": 0, "orphans": 0, "interrupts": 0, "redact": 0, "conversation": 0,
    "options": 1, "process": 1, "stats": 1, "files": 1, "safe_text": 1,
    "schema": 2,
    "catalog": 3, "machine": 3, "mistakes": 3,
    "record": 4, "fallback": 4,
    "engine": 5,
    "models": 6,
    "upstream": 7, "preflight": 7,
    "run": 8,
    "fidelity": 9, "profiling": 9,
    "reach": 10,
    "accuracy": 11, "compare": 11,
    "sweep": 12, "serving": 12, "bisect": 12,
    "report": 13,
    "task": 14, "tour": 14,
    "completion": 15,
    "verbs": 16,
}  # fmt: skip
"""A file imports its own room and rooms of lower floors."""

OUTSIDE = {"inside"}
"""Programs for an engine's interpreter: they import nothing of this package and nothing imports them."""


def modules() -> dict[str, Path]:
    """Return every module of the package by its dotted name, without the programs for an engine."""
    found = {}
    for path in sorted(BENCH.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[1] not in OUTSIDE and parts != ("bench", "__init__"):
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path) -> list[tuple[str, bool]]:
    """Return (dotted name, whether only for type checkers) of each import of a file, as it is written."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in typing_only) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [(f"{node.module}.{alias.name}", id(node) in typing_only) for alias in node.names]
    return found


def graph() -> dict[str, set[str]]:
    """Return the modules that each module imports, type-checking imports included."""
    known = modules()
    edges: dict[str, set[str]] = {}
    for name, path in known.items():
        targets = set()
        for imported, _ in imports(path):
            owner = imported if imported in known else imported.rpartition(".")[0]
            if owner in known and owner != name:
                targets.add(owner)
        edges[name] = targets
    return edges


def room(module: str) -> str:
    """Return the room of a module: the folder or the file right below ``bench/``."""
    return module.split(".")[1]


def upward() -> list[str]:
    """Return the imports that do not go down, as "importer -> imported"."""
    return [
        f"{name} -> {target}"
        for name, targets in graph().items()
        for target in sorted(targets)
        if room(target) != room(name) and FLOORS[room(target)] >= FLOORS[room(name)]
    ]


def circle() -> list[str]:
    """Return the modules of one circle of imports, first and last the same; empty without a circle."""
    try:
        list(TopologicalSorter(graph()).static_order())
    except CycleError as error:
        return list(error.args[1])
    return []


def main() -> None:
    """Print rooms by floor, then circles and upward imports."""
    edges = graph()
    for floor in sorted(set(FLOORS.values())):
        names = [name for name in FLOORS if FLOORS[name] == floor]
        counts = [f"{name} ({sum(room(module) == name for module in edges)})" for name in names]
        print(f"floor {floor:2}: {', '.join(counts)}")
    print(f"modules: {len(edges)}, imports between them: {sum(map(len, edges.values()))}")
    print(f"circles: {' -> '.join(circle()) or 0}")
    print(f"upward imports: {', '.join(upward()) or 0}")


if __name__ == "__main__":
    main()
