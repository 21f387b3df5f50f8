"""The statements of a Python file: which one a line belongs to, and why one that was never reached was not.

A line runs as a part of its statement: the arguments of a call that spans ten lines run with the call. Of a compound
statement (``if``, ``def``) only the header counts; its body is made of statements of their own.
"""

from __future__ import annotations

import ast
import io
import tokenize
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

NOT_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
KEYWORDS_ALONE = {"else", "try", "finally"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
LEAVES: dict[type[ast.stmt], str] = {
    ast.Return: "returned",
    ast.Raise: "raised",
    ast.Continue: "went to the next turn",
    ast.Break: "left the loop",
}
SHOWN_CHARACTERS = 60

Node = ast.stmt | ast.ExceptHandler | ast.match_case


@dataclass(slots=True, eq=False)
class Statement:
    """A statement: its own lines (of a compound one the header's), and the block that it stands in."""

    node: Node
    first: int
    last: int
    parent: Statement | None
    block: list[Statement] = field(repr=False)
    """The statements of the block that it stands in, in order."""
    name_of_block: str
    """The field of the parent that the block is: body, orelse, finalbody, handlers or cases."""

    def ran(self, lines: Collection[int]) -> bool:
        """Tell whether any of its own lines is among those that ran."""
        return any(line in lines for line in range(self.first, self.last + 1))

    @property
    def is_compiled(self) -> bool:
        """Whether it stands in a function that is compiled for a device, whose lines never run as Python."""
        above: Statement | None = self
        while above is not None:
            if isinstance(above.node, FUNCTIONS) and any(_is_jit(mark) for mark in above.node.decorator_list):
                return above is not self or self.first != above.first
            above = above.parent
        return False


def _is_jit(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return ast.unparse(called).rpartition(".")[2] in {"jit", "kernel"}


@dataclass(frozen=True, slots=True)
class Module:
    """The statements of a file, outer ones first."""

    statements: list[Statement]
    code_lines: frozenset[int]
    """Lines that hold more than a comment, a keyword alone, or a statement that does nothing."""

    def at(self, line: int) -> Statement | None:
        """Return the innermost statement that a line is a part of; None for a line without code."""
        if line not in self.code_lines:
            return None
        own = [known for known in self.statements if known.first <= line <= known.last]
        return own[-1] if own else None


def split(text: str) -> list[str]:
    """Return the lines of a file's text as Python counts them: a form feed, for one, ends none."""
    return io.StringIO(text, newline=None).read().split("\n")


def read(text: str) -> Module | None:
    """Return the statements of a file's text, None where Python of this version cannot parse it."""
    try:
        tree = ast.parse(text)
        tokens = list(tokenize.generate_tokens(io.StringIO(text, newline=None).readline))
    except (SyntaxError, ValueError, tokenize.TokenError):
        return None
    statements: list[Statement] = []
    for block in _blocks(tree):
        _add(statements, None, *block)
    idle = {line for known in statements if _does_nothing(known) for line in range(known.first, known.last + 1)}
    words: dict[int, list[str]] = {}
    for token in tokens:
        if token.type not in NOT_CODE:
            for line in range(token.start[0], token.end[0] + 1):
                words.setdefault(line, []).append(token.string)
    code = {line for line, found in words.items() if found[0] not in KEYWORDS_ALONE or len(found) > 2}  # noqa: PLR2004
    return Module(statements, frozenset(code - idle))


def _does_nothing(known: Statement) -> bool:
    """Tell whether Python makes no code of a statement: a documentation string, a declaration, an ``if False``."""
    node = known.node
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.If | ast.While):
        return isinstance(node.test, ast.Constant)
    if isinstance(node, ast.AnnAssign):
        return node.value is None and known.parent is not None and not isinstance(known.parent.node, ast.ClassDef)
    return isinstance(node, ast.Global | ast.Nonlocal)


def _blocks(node: ast.AST) -> Iterator[tuple[str, list[Node]]]:
    for name in ("body", "handlers", "cases", "orelse", "finalbody"):
        if isinstance(found := getattr(node, name, None), list) and found:
            yield name, found


def _add(statements: list[Statement], parent: Statement | None, name: str, nodes: list[Node]) -> None:
    block: list[Statement] = []
    for node in nodes:
        first, last = _own_lines(node)
        known = Statement(node, first, last, parent, block, name)
        block.append(known)
        statements.append(known)
        for inner in _blocks(node):
            _add(statements, known, *inner)


def _own_lines(node: Node) -> tuple[int, int]:
    """Return the first and last line of a statement without those of the blocks in it."""
    start = _start(node)
    inner = [_start(block[0]) for _, block in _blocks(node)]
    if inner:
        head = getattr(node, "test", None) or getattr(node, "iter", None) or getattr(node, "subject", None)
        least = head.end_lineno if isinstance(head, ast.expr) and head.end_lineno else getattr(node, "lineno", start)
        return start, max(least, min(inner) - 1)
    return start, getattr(node, "end_lineno", None) or start


def _start(node: Node) -> int:
    if isinstance(node, ast.match_case):
        pattern: ast.pattern = node.pattern
        return pattern.lineno
    decorators = getattr(node, "decorator_list", [])
    first: int = min([node.lineno, *(mark.lineno for mark in decorators)])
    return first


# --- why not ----------------------------------------------------------------------------------------------------------


def why_not(known: Statement, ran: Collection[int]) -> str:
    """Return the nearest thing that was evaluated and went another way, given the lines of the file that ran."""
    here: Statement | None = known
    while here is not None:
        if (left := _left_before(here, ran)) is not None:
            return left
        if here.parent is not None and (told := _not_entered(here.parent, here.name_of_block, ran)) is not None:
            return told
        here = here.parent
    return "nothing of this file ran"


def _left_before(here: Statement, ran: Collection[int]) -> str | None:
    """Return how the block was left before this statement; None if it was not entered as far as is known."""
    if here.name_of_block in ("handlers", "cases"):
        return None
    earlier = here.block[: here.block.index(here)]
    last = next((known for known in reversed(earlier) if known.ran(ran)), None)
    if last is None:
        return None
    if isinstance(last.node, ast.If) and not last.node.orelse and (how := LEAVES.get(type(last.node.body[-1]))):
        return f"`{_shown(last.node.test)}` was true at line {last.first}, and {how}"
    return f"the block was left at line {last.first}"


def _not_entered(owner: Statement, block: str, ran: Collection[int]) -> str | None:
    """Return how it came that a block was not entered whose owner was evaluated; None if that was not, either."""
    node, line = owner.node, owner.first
    told = f"the block at line {line} was left"
    if isinstance(node, ast.If) and isinstance(node.test, ast.Constant) and block == "body" and not node.test.value:
        return f"`if {_shown(node.test)}` at line {line}: Python leaves this block out"
    if isinstance(node, FUNCTIONS):
        return f"{node.name}() at line {node.lineno} was not called"
    if not owner.ran(ran):
        return None
    if isinstance(node, ast.If | ast.While):
        told = f"`{_shown(node.test)}` was {'false' if block == 'body' else 'true'} at line {line}"
    elif isinstance(node, ast.For | ast.AsyncFor):
        told = f"the loop at line {line} " + ("had nothing to do" if block == "body" else "was left early")
    elif isinstance(node, ast.match_case | ast.Match):
        told = f"no case matched at line {line}"
    elif isinstance(node, ast.ExceptHandler) or block == "handlers":
        told = f"nothing was raised that is handled below line {line}"
    return told


def _shown(expression: ast.expr) -> str:
    text = ast.unparse(expression)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
