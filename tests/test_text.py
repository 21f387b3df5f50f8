"""What is printed for people: no word is cut, no line ends in blanks, a command can be copied."""

import io
import json
import re

import pytest
from rich.console import Console

from bench.report import text

COMMAND = "invoke compare runs/20261129T184800Z-bench-flux-tiny-abc123 runs/20261129T184900Z-bench-flux-tiny-abc124"


@pytest.mark.parametrize(
    ("given", "columns", "wanted"),
    [
        ("short enough", 12, "short enough"),
        ("one two three", 8, "one two\nthree"),
        ("error: it is so\n  to do: mend what is wrong", 20, "error: it is so\n  to do: mend what\n    is wrong"),
        ("see /a/path/that/is/longer than that", 12, "see /a/path/that/is/longer\nthan that"),
        ("then `invoke doctor --model x` says", 14, "then `invoke doctor --model x`\nsays"),
        (f"next: {COMMAND}", 40, f"next:\n{COMMAND}"),
        (f"next: once for each side: {COMMAND}", 80, f"next: once for each side:\n{COMMAND}"),
        ("what to do next: invoke ab --pairs 3", 30, "what to do next:\ninvoke ab --pairs 3"),
        ("see invoke models --tag tiny; then name one", 14, "see\ninvoke models --tag tiny;\nthen name one"),
        ("lined   up", 10, "lined   up"),
    ],
)
def test_lines_are_broken_between_words_only(given, columns, wanted):
    assert text.wrapped(given, columns) == wanted


@pytest.mark.parametrize("columns", [40, 80, 160])
def test_a_table_breaks_no_word_and_ends_no_line_in_blanks(invoke, columns):
    signals = json.loads(invoke("signals", "--json").out)
    lines = invoke("signals", env={"COLUMNS": str(columns)}).out.splitlines()
    assert not [line for line in lines if line != line.rstrip()]
    shown = " ".join(lines).split()
    assert {signal["id"] for signal in signals} <= set(shown)
    assert {word for signal in signals for word in signal["means"].split()} <= set(shown)


@pytest.mark.parametrize("words", [("models", "--model", "wan-t2v"), ("assets", "--list"), ("signals",)])
def test_on_a_narrow_terminal_words_stay_whole(invoke, words):
    wide = invoke(*words).out
    narrow = invoke(*words, env={"COLUMNS": "60", "FORCE_COLOR": "1"}).out
    plain = re.sub(r"\x1b\[[0-9;]*m", "", narrow)
    if words[0] != "models":  # whose rows end with an ellipsis where they do not fit
        assert set(wide.split()) - set(plain.split()) == set()
    assert not [line for line in plain.splitlines() if line != line.rstrip()]
    assert not [line for line in plain.splitlines() if len(line) > 60 and max(map(len, line.split())) < 50]


def test_further_lines_begin_below_the_end_of_a_head():
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=30)
    text.line(console, "model: it is not on this machine", head="fail    ", style="red")
    assert console.file.getvalue() == "fail    model: it is not on\n        this machine\n"
