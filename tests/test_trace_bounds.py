"""Traces that were made to exhaust the machine: refused in bounded memory."""

import json
import subprocess
import sys

import pytest
from helpers import ROOT
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import BenchError
from bench.profiling import events, reader
from tests.trace_writer import kineto

READ = """
import resource, sys; sys.path.insert(0, sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
from pathlib import Path
from bench.errors import InvalidDocument
from bench.profiling import events, reader
try:
    trace = reader.read(Path(sys.argv[2]))
    print(trace.events, "events,", trace.unreadable, "unreadable")
except InvalidDocument as error:
    print(error)
"""
EVENT = {"ph": "X", "cat": "kernel", "name": "k", "pid": 0, "tid": 7, "ts": 1.0, "dur": 1.0}


def deep(where, levels, opening, closing):
    nested = opening * levels + "1" + closing * levels
    if where == "head":
        return f'{{"x": {nested}, "traceEvents": []}}'
    return json.dumps({"traceEvents": [EVENT | {"args": "HERE"}]}).replace('"HERE"', nested)


@pytest.mark.parametrize("where", ["event", "head"])
@pytest.mark.parametrize("brackets", [('{"a":', "}"), ("[", "]"), ('[{"[]]]]]]":', "}]")])
def test_a_deeply_nested_trace_is_refused_in_a_gigabyte(tmp_path, where, brackets):
    path = tmp_path / "trace.json"
    path.write_text(deep(where, 100_000, *brackets))
    ended = subprocess.run(
        [sys.executable, "-c", READ, str(ROOT), str(path)], capture_output=True, text=True, timeout=300, check=False
    )
    assert "nested more than 500 deep" in ended.stdout, ended.stderr[-500:]


@pytest.mark.parametrize(
    ("member", "make"),
    [
        ("name", lambda number: f"kernel_{number}"),
        ("tid", lambda number: number),
        ("args", lambda number: {"Input Dims": [[number]]}),
    ],
    ids=["names", "threads", "shapes"],
)
def test_names_without_end_are_refused_in_a_gigabyte(tmp_path, member, make):
    """Ten million different names took gigabytes: each was kept."""
    path = tmp_path / "trace.json"
    category = "kernel" if member == "name" else "cpu_op"
    with path.open("w") as file:
        file.write('{"traceEvents": [')
        for number in range(70_000):
            file.write("," * bool(number) + json.dumps(EVENT | {"cat": category, member: make(number)}))
        file.write("]}")
    ended = subprocess.run(
        [sys.executable, "-c", READ, str(ROOT), str(path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert "more than 65,536 different names, or 256 MiB of them" in ended.stdout, ended.stderr[-500:]


@pytest.mark.parametrize("brackets", [('{"a":', "}"), ("[", "]")])
def test_a_deeply_nested_event_in_kinetos_layout_is_left_out_in_a_gigabyte(tmp_path, brackets):
    opening, closing = brackets
    events = [EVENT | {"args": {"x": "HERE" if number == 2 else 1}, "ts": float(number)} for number in range(4)]
    path = tmp_path / "trace.json"
    path.write_text(kineto(events).replace('"HERE"', opening * 1_000_000 + "1" + closing * 1_000_000))
    ended = subprocess.run(
        [sys.executable, "-c", READ, str(ROOT), str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "3 events, 1 unreadable\n"), ended.stderr[-500:]


def test_brackets_in_names_are_no_nesting(tmp_path):
    path = tmp_path / "trace.json"
    many = [EVENT | {"name": "f[" * 9 + '\\"{', "ts": float(number)} for number in range(2000)]
    path.write_text(json.dumps({"traceEvents": many}))
    assert len(reader.read(path).gpu) == 2000


@pytest.mark.parametrize("value", ["1e308", "-1e308", "1" * 400, "null", '"x"', "[]"])
@pytest.mark.parametrize("member", ["ts", "dur"])
def test_a_number_that_is_none_is_an_error_and_no_traceback(tmp_path, member, value):
    path = tmp_path / "trace.json"
    text = json.dumps({"traceEvents": [EVENT | {member: "HERE"}, EVENT]}).replace('"HERE"', value)
    path.write_text(text)
    with pytest.raises(BenchError):
        reader.read(path)


@given(
    st.recursive(st.text('[]{}"\\\\ax'), lambda inner: st.lists(inner) | st.dictionaries(st.text('"\\\\[{'), inner)),
    st.integers(1, 9),
)
def test_nesting_is_that_of_the_parser_however_the_text_is_cut(value, size):
    def depth(value):
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
        return 0 if inner is None else 1 + max(map(depth, inner), default=0)

    text, nesting = json.dumps(value).encode(), events.Nesting()
    chunks = [text[place : place + size] for place in range(0, len(text), size)]
    assert max(nesting.deepest_of(chunk) for chunk in chunks) == depth(value)
