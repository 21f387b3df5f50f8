"""A page: what every report is made of, whatever it is about, and its forms as HTML, Markdown, CSV and OpenMetrics.

Each kind of document has a module that turns it into a `Page`. The order of a page is that of a reader's questions: the
answer in one sentence, whether it may be believed, the numbers, how they were made.
"""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import io
import json
import re
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench import files, paths
from bench.errors import UsageError
from bench.report import plots
from bench.report.plots import Plot
from bench.report.tables import Table
from bench.safe_text import code, csv_cell, masked
from bench.safe_text import markdown as escaped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

TEMPLATES = paths.PACKAGE / "report" / "templates"
TONES = {
    **dict.fromkeys(("native", "passed", "faster", "same"), "good"),
    **dict.fromkeys(("degraded", "disturbed", "inconclusive", "void", "unattested"), "warn"),
    **dict.fromkeys(("invalid", "failed", "slower", "not native"), "bad"),
}
"""How an outcome is coloured; what is neither good nor bad is plain. The word itself always stands there too."""

METRIC_PREFIX = "sglang_diffusion_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Todo:
    """One action, as text."""

    saving: str
    title: str
    state: str
    todo: str
    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A PNG with what it shows; none has ``png`` None and a reason as its title."""

    title: str
    png: bytes

    @property
    def address(self) -> str:
        """Return it as an address that needs no network."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """Pictures side by side."""

    title: str
    note: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command that a reader may copy."""

    title: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Commands:
    """Commands with a button each that copies them."""

    title: str
    commands: tuple[Command, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One figure for a dashboard, in base units (seconds, bytes) by the end of its name."""

    name: str
    value: float
    labels: Mapping[str, str]


Block = Plot | Table | Pictures | Commands


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A report.

    ``answer`` answers the reader's question; ``outcome`` is the verdict that stands beside every number, and ``notes``
    are sentences that belong below the ``facts``. ``documents`` and the ``evidence`` that they name are embedded, by
    their place below the run directory, so that the page can be judged again; ``data`` are the values behind it, as
    columns and rows, and ``samples`` the figures for a dashboard.
    """

    kind: str
    title: str
    answer: str
    outcome: str
    warnings: tuple[str, ...] = ()
    todos: tuple[Todo, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    blocks: tuple[Block, ...] = ()
    documents: Mapping[str, Any] = field(default_factory=dict)
    evidence: Mapping[str, bytes] = field(default_factory=dict)
    data: tuple[tuple[object, ...], ...] = ()
    samples: tuple[Sample, ...] = ()

    @property
    def headline(self) -> str:
        """Return the answer as sentences: with a capital letter first, and a full stop at the end."""
        return f"{self.answer[:1].upper()}{self.answer[1:].removesuffix('.')}."

    @property
    def tone(self) -> str:
        """Return how the outcome is coloured."""
        return TONES.get(self.outcome, "plain")


def html(page: Page) -> str:
    """Return a page as one HTML file that needs nothing else."""
    import jinja2  # noqa: PLC0415 - only a report need pay for it
    import markupsafe  # noqa: PLC0415 - see above

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def trusted(text: str) -> markupsafe.Markup:
        return markupsafe.Markup(text)  # noqa: S704 - our own files, and plots whose text was escaped

    def prose(text: str) -> markupsafe.Markup:
        """Return text with what stands in backticks as code."""
        shapes = ("{}", "<code>{}</code>")
        parts = (trusted(shapes[place % 2]).format(part) for place, part in enumerate(CODE.split(text)))
        return markupsafe.Markup().join(parts)

    def breakable(text: markupsafe.Markup) -> markupsafe.Markup:
        """Return escaped text whose long names, such as kernels', may be broken at their underscores; its dates not."""
        broken = LONG_NAME.sub(lambda name: name[0].replace("_", "_<wbr>"), text)
        return trusted(DATE.sub(r'<span class="whole">\g<0></span>', broken))

    environment.filters["prose"] = prose
    environment.filters["breakable"] = breakable
    pictured = [block for block in page.blocks if isinstance(block, Plot)]
    scripts = [plots.library()] if pictured else []
    scripts.append((TEMPLATES / "page.js").read_text(encoding="utf-8"))
    return environment.get_template("page.html.j2").render(
        page=page,
        style=trusted((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        scripts=[trusted(script) for script in scripts],
        policy=trusted(f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {_hashes(scripts)}"),
        kind=lambda block: type(block).__name__,
        drawn={plot.title for plot in pictured},
        stills={plot.name: {size: trusted(plots.still(plot, size)) for size in plots.WIDTHS} for plot in pictured},
        specs=trusted(_json({plot.name: plot.spec() for plot in pictured})),
        embedded=trusted(_json(_embedded(page))) if page.evidence else "",
    )


def _embedded(page: Page) -> dict[str, Any]:
    packed = {name: base64.b64encode(gzip.compress(data, mtime=0)).decode() for name, data in page.evidence.items()}
    return {"documents": page.documents, "evidence": packed}


LONG_NAME = re.compile(r"\S{25,}")
DATE = re.compile(r"\b\d{4}-\d\d-\d\d\b")
CODE = re.compile(r"`([^`]+)`")
KIND = re.compile(r'<p class="kind">([^<]+)</p>')
EMBEDDED = re.compile(r'<script type="application/json" id="embedded">(.*?)</script>', re.DOTALL)


def unpack(path: Path, folder: Path) -> None:
    """Write what a page holds into a folder, as it was in the run directory; what the page left out is left out.

    Raises:
        UsageError: it cannot be read, or is not a page with records.
    """
    try:
        content = path.read_text(encoding="utf-8")
        found = EMBEDDED.search(content)
        held = json.loads(found[1]) if found else {"documents": {}}
        contents = {name: json.dumps(document).encode() for name, document in held["documents"].items()}
        contents |= {name: gzip.decompress(base64.b64decode(data)) for name, data in held.get("evidence", {}).items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, EOFError, zlib.error) as error:
        raise UsageError(f"the page cannot be read: {error}", where=path) from error
    if not contents and (kind := KIND.search(content)) is not None:
        raise UsageError(f"this page ({kind[1]}) has no evidence in it", where=path, todo="name the run itself")
    if not contents:
        raise UsageError(
            "this file holds nothing to judge again: no record with its evidence",
            where=path,
            todo="name a page that `invoke report` wrote of a run, or the run itself",
        )
    for name, data in contents.items():
        place = files.below(folder, [name])
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)


def write(page: Page, path: Path) -> None:
    """Write a page whole or not at all, over an earlier one: it can always be made again from its documents.

    Raises:
        UsageError: it cannot be written.
    """
    text = html(page)
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise UsageError(f"cannot be written: {error.strerror}", where=path, todo="choose another file") from error


def _hashes(scripts: list[str]) -> str:
    """Return the scripts that a browser may run: these, byte by byte, and no other."""
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)


def _json(document: Mapping[str, Any]) -> str:
    """Return a document as it may stand in a script element: nothing in it ends the element or begins a comment."""
    return json.dumps(document, ensure_ascii=False).replace("<", "\\u003c")


def markdown(page: Page) -> str:
    """Return a page as Markdown without this machine's folders; plots are left out, the tables have their numbers."""
    return masked("\n".join(_lines(page)) + "\n")


def _lines(page: Page) -> Iterator[str]:
    yield f"# {escaped(page.title)}"
    yield ""
    yield f"**{escaped(page.outcome.upper())}**: {escaped(page.headline)}"
    if page.todos or page.facts:
        yield ""
    for number, todo in enumerate(page.todos, 1):
        yield f"{number}. **{todo.saving}** {escaped(todo.title)} ({todo.state}): {escaped(todo.todo)}."
        yield f"   {escaped(todo.evidence)}"
    if page.todos:
        yield ""
    yield from (f"- {name}: {escaped(value)}" for name, value in page.facts)
    yield from (f"- {escaped(note)}" for note in page.notes)
    if page.warnings:
        yield ""
        yield "## Warnings"
        yield ""
        yield from (f"- {escaped(warning)}" for warning in page.warnings)
    for block in page.blocks:
        if isinstance(block, Table):
            yield from table_lines(block)
        elif isinstance(block, Commands):
            for command in block.commands:
                yield from ("", f"{escaped(command.title)}:", "", *code(command.text))


def table_lines(table: Table) -> Iterator[str]:
    """Yield the lines of a table under its title."""
    yield ""
    yield f"## {table.title}"
    yield ""
    yield escaped(table.note)
    yield ""
    yield "| " + " | ".join(escaped(column.name) for column in table.columns) + " |"
    yield "|" + "|".join("--:" if column.right else ":--" for column in table.columns) + "|"
    for row in table.rows:
        yield "| " + " | ".join(map(escaped, row)) + " |"


def comma_separated(page: Page) -> str:
    """Return the values behind a page as CSV, in full precision; a value that is unknown is empty."""
    text = io.StringIO()
    lines = ([csv_cell(cell) if isinstance(cell, str) else cell for cell in line] for line in page.data)
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def openmetrics(page: Page) -> str:
    """Return a page's figures as OpenMetrics text, for a dashboard; none of a run that does not count."""
    lines: list[str] = []
    for name in dict.fromkeys(sample.name for sample in page.samples):
        unit = name.rpartition("_")[2]
        lines.append(f"# TYPE {METRIC_PREFIX}{name} gauge")
        if unit in ("seconds", "bytes", "ratio"):
            lines.append(f"# UNIT {METRIC_PREFIX}{name} {unit}")
        for sample in page.samples:
            if sample.name == name:
                labels = ",".join(f'{label}="{_quoted(value)}"' for label, value in sample.labels.items())
                lines.append(f"{METRIC_PREFIX}{name}{{{labels}}} {sample.value!r}")
    return "\n".join([*lines, "# EOF"]) + "\n"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
