"""Signals must not rot: whether an installed engine's source can still say what the signals listen for.

The source is read as text and parsed, never imported. A message's holes (``{x}``, ``%s``) are filled with a digit,
which is a word, a number and a name at once, and the signals' patterns are matched against the result: that finds a
message however its literal is broken over lines. Where a pattern asks for what stands in a hole, the signal's
``emitter`` names a literal to look for instead.
"""

from __future__ import annotations

import ast
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.catalog.signals import applies, triaged
from bench.errors import UsageError
from bench.fallback.matcher import Matcher

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.catalog.signals import Signal

LIBRARY = "library"
HOLE = "1"
PLACEHOLDER = re.compile(r"%[-+#0]*\d*(?:\.\d+)?[sdrfgxieEGc]|\{[^{}]*\}")
DEGRADES = re.compile(
    r"fall(?:ing|s)? ?back|fell back|fallback|sequential|clamp|capping|truncat|resiz|silently|degrad|slow|incomplete"
    r"|missing|mismatch|unmatched|unmerged|unmodified|ignor|skipp|disabl|unavailable|unsupported|ineffective|no effect"
    r"|\bnot\b|cannot|\bfail|kv_gather|re-?rout|defaulting|default |instead|anyway|overrid|retry|exceed|idle|dummy"
    r"|differ",
    re.IGNORECASE,
)
"""The words of a message that somebody has to look at: heard by a signal, or triaged with the reason."""
SPOKEN = frozenset({"info", "warning", "warn", "error", "exception", "critical"})
"""Logging methods that the engine prints at ``--log-level=info``, which the workbench pins; debug is never seen."""
ELSEWHERE = frozenset({"test", "tests", "benchmarks", "tools", "__pycache__"})
"""Folders that never run in a launch. Hidden ones neither: upstream's own helper lies in one and holds old signals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A text that the engine's source holds; ``spoken`` if it goes to a log that is printed at level info."""

    text: str
    file: str
    line: int
    spoken: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Emitters:
    """What an engine's source says about the signals.

    ``gone``: signals that claim this version, but whose message is nowhere in it. ``unheard``: messages about a
    degradation that no signal listens for and nobody triaged. ``unparsed``: files in a newer syntax than this Python's,
    searched as bare text.
    """

    version: str | None
    files: int
    gone: tuple[Signal, ...]
    unheard: tuple[Message, ...]
    unparsed: tuple[str, ...]


def check(package: Path, signals: Sequence[Signal], *, version: str | None) -> Emitters:
    """Compare the log signals that apply to ``version`` with the source in ``package`` (``site-packages/sglang``).

    Raises:
        UsageError: the folder does not hold a diffusion engine.
    """
    root = package / "multimodal_gen"
    if not root.is_dir():
        raise UsageError("no diffusion engine is installed there", where=root, todo="name an engine's sglang folder")
    heard = [s for s in signals if s.on == "log" and applies(s.versions, version)]
    by_pattern = [s for s in heard if s.emitter is None]
    by_literal = [s for s in heard if s.emitter not in (None, LIBRARY)]
    matcher = Matcher([s.pattern for s in by_pattern])
    looked_at = triaged()
    found: set[str] = set()
    unheard: dict[str, Message] = {}
    unparsed = []
    files = 0
    for path in _files(root):
        files += 1
        source = path.read_text(encoding="utf-8", errors="replace")
        found.update(s.id for s in by_literal if s.emitter is not None and s.emitter in source)
        name, inside = str(path.relative_to(package)), str(path.relative_to(root))
        try:
            texts = list(messages(source, name))
        except (SyntaxError, ValueError):
            unparsed.append(name)
            texts = [
                Message(text=PLACEHOLDER.sub(HOLE, line), file=name, line=number, spoken=False)
                for number, line in enumerate(source.splitlines(), 1)
            ]
        for message in texts:
            matched = matcher.find(message.text)
            found.update(by_pattern[index].id for index in matched)
            if (
                message.spoken
                and not matched
                and DEGRADES.search(message.text)
                and not any(s.emitter is not None and s.emitter in message.text for s in by_literal)
                and not any(entry.covers(message.text, inside) for entry in looked_at)
            ):
                unheard.setdefault(message.text, message)
    return Emitters(
        version=version,
        files=files,
        gone=tuple(s for s in heard if s.emitter != LIBRARY and s.id not in found),
        unheard=tuple(unheard.values()),
        unparsed=tuple(unparsed),
    )


def messages(source: str, file: str) -> Iterator[Message]:
    """Yield the texts of more than one word in a Python source, holes filled, docstrings left out.

    Raises:
        SyntaxError, ValueError: the source is not Python that this interpreter can parse.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the engine's odd escapes are not our reader's business
        waiting: list[tuple[ast.AST, bool]] = [(ast.parse(source, file), False)]
    while waiting:
        node, spoken = waiting.pop()
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        text = _rendered(node)
        if text is not None:
            if " " in text:
                yield Message(text=text, file=file, line=getattr(node, "lineno", 0), spoken=spoken)
            continue
        speaks = isinstance(node, ast.Call) and _speaks(node.func)
        waiting.extend((child, speaks) for child in ast.iter_child_nodes(node))


def _files(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if f not in ELSEWHERE and not f.startswith("."))
        yield from (Path(folder) / name for name in sorted(names) if name.endswith(".py"))


def _speaks(function: ast.expr) -> bool:
    """Tell whether a call prints its text: ``logger.warning_once``, ``warnings.warn``, ``self.log_info``."""
    if not isinstance(function, ast.Attribute):
        return False
    name = function.attr.removesuffix("_once")
    if name.startswith("log_"):
        return name.removeprefix("log_") in SPOKEN
    receiver = ast.unparse(function.value).lower()
    return name in SPOKEN and ("log" in receiver or receiver == "warnings")


def _rendered(node: ast.AST) -> str | None:
    """Return the text of a string expression with its holes filled; None if it is not a string."""
    if isinstance(node, ast.Constant):
        return PLACEHOLDER.sub(HOLE, node.value).replace("%%", "%") if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(_rendered(part) or HOLE for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
        return _rendered(node.left)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _rendered(node.left), _rendered(node.right)
        return None if left is None and right is None else (left or HOLE) + (right or HOLE)
    return None
