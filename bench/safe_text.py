"""Text of others made safe for where it is shown: a terminal, a Markdown page, a cell of a CSV file."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from bench import paths, redact

SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, the cursor
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"  # OSC, DCS, SOS, PM, APC
    r"|\x1b[ -/]+[0-~]"  # character sets
    r"|\x1b[0-Z\\^-~]"  # single functions
)
"""Whole control sequences of ECMA-48; of one that never ends the first character becomes harmless, and no more."""

UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what turns the direction of text
    "\u2028\u2029\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
OWN_COMMAND = r"(?<!`)`(?:invoke|nox) [\w .,=~%/\"'()-]*`(?!`)"
"""A command in a sentence, which Markdown shows as code; nothing in it can end the code or a table's cell."""

MARKDOWN = re.compile(
    rf"{OWN_COMMAND}|"
    r"[\\`*\[\]<>#!|~&$@]|(?<!\w)_|_(?!\w)|:(?=//|[A-Za-z]\w*:)|^[-=](?=[-= ]*$)|^(?:[-+]|\d+[.)])(?=\s|$)"
)
"""A command, and what is markup on GitHub, where it would be: no underscore in a word, no point of a number."""

FOLDER = r"(?:[^\s'\"/:,;`]|[':,;](?=[\w\\-]))+/"
LOCAL_PATH = re.compile(
    r"(?P<kept>\w[\w+.-]{0,20}\\?://[^/\s'\"`<>](?:[^\s'\"`<>:,;]|[:,;](?!/\w))*)"  # an address: it names a host
    rf"|(?P<before>\\?://|(?<![\w-])-[A-Za-z]*|(?<![\w./~)\]}}*?+#$%-]))/(?:{FOLDER})+"
)
"""An address, or an absolute path's folders: its slash ends no name, but a scheme without a host or a short option."""

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""How a cell begins that a spreadsheet computes, full-width signs included (OWASP, CSV injection)."""


def terminal(text: str, keep: str = "\n\t") -> str:
    """Return ``text`` without control sequences, and other controls as hexadecimal escapes; ``keep`` stays.

    Call it with ``keep=""`` for what belongs on one line.
    """
    return UNSAFE.sub(lambda match: match[0] if match[0] in keep else _escape(match[0]), SEQUENCE.sub("", text))


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}"  # noqa: PLR2004 - what two digits hold


def shown(text: object) -> str:
    """Return what is printed for a person: text without control sequences and without secrets."""
    return redact.text(terminal(str(text)))


def markdown(text: str) -> str:
    """Return ``text`` on one line so that Markdown shows it as it is: no markup, HTML, link, mention or table cell."""
    line = re.sub(r"\s+", " ", terminal(text, keep="\n\t")).strip()
    return re.sub(r"(?i)\b(www)\.", r"\1\\.", MARKDOWN.sub(lambda match: _backslashed(match[0]), line))


def masked(page: str) -> str:
    """Return a text without the folders of this machine: of a local path only the last part is left.

    The machine's own roots go first, as a path with a blank cannot be told from a sentence.
    """
    for root in sorted({Path.home(), paths.ROOT, Path(tempfile.gettempdir())}, reverse=True):
        if len(root.parts) > 2:  # noqa: PLR2004 - one folder, as /tmp, names nobody
            told = "|".join(re.escape(way) for way in (str(root), markdown(str(root))))
            page = re.sub(rf"(?:{told})(?![\w-])", "/...", page)
    return LOCAL_PATH.sub(lambda match: match["kept"] or f"{match['before']}.../", page)


def code(lines: str, language: str = "sh") -> list[str]:
    """Return lines as a Markdown block of code that nothing in them can end."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", lines)), default=0))
    return [f"{fence}{language}", terminal(lines, keep="\n"), fence]


def _backslashed(markup: str) -> str:
    """Return markup with a backslash before its last character, which is punctuation; a command as it is."""
    return markup if len(markup) > 1 and markup[0] == "`" else f"{markup[:-1]}\\{markup[-1]}"


def json(text: str) -> str:
    """Return a JSON text with controls in its strings as escapes: the value stays the same."""
    return UNSAFE.sub(lambda match: match[0] if match[0] == "\n" else f"\\u{ord(match[0]):04x}", text)


def csv_cell(text: str) -> str:
    """Return ``text`` so that no spreadsheet takes it for a formula; the csv module quotes the rest."""
    return f"'{text}" if text.startswith(FORMULA) else text
