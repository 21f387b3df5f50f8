"""Random bytes for every reader of what others wrote: an error of ours or a value, never a traceback.

`nox -s fuzz` gives each reader FUZZ_SECONDS (60). Hypothesis keeps what failed in .hypothesis/ and tries it first.
"""

import json
import os
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench import safe_text, schema
from bench.catalog import presets
from bench.errors import BenchError
from bench.fallback import dump
from bench.profiling import reader
from bench.record import store

SECONDS = float(os.environ.get("FUZZ_SECONDS", "60"))

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["steps", "ts", "dur", "args"]), inner),
)
EVENT = st.fixed_dictionaries(
    {"ph": st.sampled_from("XsfMC") | JSON},
    optional={
        "cat": st.sampled_from(["kernel", "cpu_op", "cuda_runtime", "python_function", "user_annotation"]) | JSON,
        **dict.fromkeys(("ts", "dur", "name", "pid", "tid", "args"), JSON),
    },
)
TRACE = st.fixed_dictionaries({"traceEvents": st.lists(EVENT) | JSON}, optional={"deviceProperties": JSON})
STEP = st.fixed_dictionaries({"name": st.text() | JSON, "duration_ms": NUMBERS | JSON})
DUMP = st.fixed_dictionaries(
    {
        "tag": st.text(), "timestamp": st.datetimes().map(str) | st.text(), "total_duration_ms": NUMBERS,
        "steps": st.lists(STEP), "denoise_steps_ms": st.lists(JSON), "meta": JSON,
    }
)  # fmt: skip


def texts(document):
    return st.binary() | document.map(lambda value: json.dumps(value).encode()) | cut(document)


def cut(document):
    whole = document.map(lambda value: json.dumps(value, indent=2).encode())
    return st.builds(lambda text, place: text[: place % (len(text) + 1)], whole, st.integers(0))


READERS = {
    "document": (schema.read, texts(JSON)),
    "perf dump": (dump.load, texts(DUMP)),
    "record": (store.read, texts(JSON)),
    "presets": (presets.read_file, st.binary() | st.text().map(str.encode)),
    "trace": (reader.read, texts(TRACE)),
    "log": (lambda path: safe_text.terminal(path.read_bytes().decode(errors="replace")), st.binary()),
}


@pytest.mark.parametrize("name", READERS)
def test_a_reader_raises_nothing_but_our_own_errors(name, tmp_path):
    read, contents = READERS[name]
    end = time.monotonic() + SECONDS
    path = tmp_path / "file"

    @settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
    @given(contents)
    def attack(content):
        path.write_bytes(content)
        try:
            read(path)
        except BenchError as error:
            safe_text.terminal(str(error)).encode()

    while time.monotonic() < end:
        attack()
