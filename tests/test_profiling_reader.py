from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import InvalidDocument, UsageError
from bench.profiling import source as source_module
from bench.profiling.analysis import analyse
from bench.profiling.reader import read
from tests.trace_writer import CPU, FLUX, HEAD, kernel, kineto, launch, loaded, module, op, step, write

ROOT = Path(__file__).resolve().parent.parent


def columns(trace):
    """Return all that was read, comparable."""
    found = {}
    for group in ("gpu", "calls", "operators", "modules", "annotations"):
        rows = getattr(trace, group)
        for name in rows.__slots__:
            found[group, name] = np.asarray(getattr(rows, name)).tolist()
    return found | {"names": trace.names, "signatures": trace.signatures, "threads": trace.threads}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04 rest", "a zip archive"),
        (b"\x28\xb5\x2f\xfd rest", "zstd -d"),
        (b"SQLite format 3\x00", "SQLite"),
        (b"not json at all", "text that begins with"),
        (b"\x00\x01\x02\x03", "text that begins with"),
        (b'[{"ph": "X"}]', "a JSON array"),
        (b'{"a": 1}', "no traceEvents"),
        (b'{"a": 1', "no traceEvents"),
        (b'{"a" 1}', "no traceEvents, and not JSON"),
        (b"{", "no traceEvents"),
        (b'{"traceEvents": []}', "no events"),
        (b'{\n  "schemaVersion": 1,\n  "traceEvents": [\n  ]\n}', "no events"),
        (b'{"traceEvents": {"ph": "X"}}', "no events"),
        (b'{"traceEvents": 7}', "no events"),
        (b'{"traceEvents": [1, 2, 3]}', "is not a torch.profiler event"),
        (b'{"traceEvents": [{"name": "x"}]}', "missing 'ph'"),
        (b'{"traceEvents": [{"ph": "X", "cat": "kernel", "name": "k", "dur": 1}]}', "missing 'ts'"),
        (b'{"traceEvents": [{"ph": "X", "cat": "kernel", "name": "k", "ts": "1", "dur": 1}]}', "event 1"),
    ],
)
def test_what_is_no_trace_is_refused_and_the_message_says_why(tmp_path, content, says):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(UsageError) as error:
        read(path)
    assert says in str(error.value)
    assert str(path) in str(error.value)


def test_a_file_that_is_not_there_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read(tmp_path / "absent.json")


def test_a_folder_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path)


def test_one_gigabyte_of_something_else_is_refused_in_bounded_memory(tmp_path):
    first = b'{"rows": [' + b'{"id": 1, "text": "nothing of interest"},' * 1000
    more = b'{"id": 2, "text": "still nothing of interest"},' * 22_000
    path = tmp_path / "huge.json.gz"
    with path.open("wb") as file:
        file.write(gzip.compress(first))
        member = gzip.compress(more)
        for _ in range(1024):
            file.write(member)
    program = (
        "import sys; from pathlib import Path; from bench.errors import UsageError\n"
        "from bench.profiling.reader import read\n"
        "try: read(Path(sys.argv[1]))\n"
        "except UsageError as error: print(error)\n"
        # not ru_maxrss: that of a new process begins with the peak of the one that started it
        "print(next(x.split()[1] for x in open('/proc/self/status') if x.startswith('VmHWM')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    *message, peak_kib = done.stdout.splitlines()
    assert "no traceEvents in its first 8 MiB" in message[0]
    assert int(peak_kib) < 200_000


def test_an_endless_string_is_refused_in_bounded_memory(tmp_path):
    path = tmp_path / "string.json.gz"
    member = gzip.compress(b"x" * (1 << 20))
    path.write_bytes(gzip.compress(b'{"traceEvents": [{"name": "') + member * 40)
    with pytest.raises(InvalidDocument, match="no event in its first 8 MiB"):
        read(path)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.2, 0.5, 0.7, 0.9, 0.99, 0.9999])
def test_half_a_gzip_is_a_clear_error_or_an_analysis_that_says_so(tmp_path, share):
    whole = FLUX.read_bytes()
    path = tmp_path / "cut.trace.json.gz"
    path.write_bytes(whole[: int(len(whole) * share)])
    try:
        document = analyse([path])
    except InvalidDocument as error:
        assert str(path) in str(error)  # noqa: PT017 - either ending is right
        assert "cut" in str(error) or "cannot be read" in str(error)  # noqa: PT017 - see above
        return
    trace = document["traces"][0]
    assert trace["source"]["truncated"]
    assert trace["warnings"][0].startswith("truncated: ")
    kept = [step["label"] for step in trace["gpu"]["steps"]]
    assert kept + trace["excluded"]["cut_steps"] == ["4", "5", "6"]
    assert all(step["events"] == 2105 for step in trace["gpu"]["steps"]), "a step that lacks events was kept"


def test_a_plain_file_that_was_cut_keeps_its_whole_steps(tmp_path):
    text = gzip.decompress(FLUX.read_bytes())
    path = tmp_path / "cut.json"
    path.write_bytes(text[: int(len(text) * 0.9)])
    trace = analyse([path])["traces"][0]
    assert "in the middle of the events" in trace["source"]["damage"]
    assert [step["label"] for step in trace["gpu"]["steps"]] == ["4", "5"]
    assert trace["excluded"]["cut_steps"] == ["6"]


def test_a_compact_file_that_was_cut_keeps_its_whole_steps(tmp_path):
    text = json.dumps(loaded(FLUX), separators=(",", ":"))
    path = tmp_path / "cut.json"
    path.write_text(text[: int(len(text) * 0.9)])
    trace = analyse([path])["traces"][0]
    assert trace["source"]["parser"] == "ijson"
    assert trace["source"]["truncated"]
    assert [step["label"] for step in trace["gpu"]["steps"]] == ["4", "5"]


def test_damaged_gzip_data_is_reported(tmp_path):
    whole = bytearray(FLUX.read_bytes())
    whole[len(whole) // 3 : len(whole) // 3 + 64] = bytes(64)
    path = tmp_path / "damaged.json.gz"
    path.write_bytes(whole)
    with pytest.raises(InvalidDocument, match=r"cut before|damaged|no JSON"):
        analyse([path])


def test_an_event_that_is_no_json_is_left_out_and_counted(tmp_path):
    events = [step(1, 0, 1000), *(kernel(f"k{n}", 10 + n, 1, n) for n in range(100))]
    events += [launch(n, n) for n in range(100)]
    broken = kineto(events).replace('"name": "k50"', '"name": k50').encode()
    path = tmp_path / "x.json"
    path.write_bytes(broken)
    trace = read(path)
    assert (trace.parser, len(trace.gpu), trace.unreadable, trace.damage) == ("kineto", 99, 1, None)


def test_a_compact_file_that_is_broken_in_the_middle_is_refused(tmp_path):
    path = tmp_path / "x.json"
    text = json.dumps({"traceEvents": [kernel(f"k{n}", n, 1, n) for n in range(100)]})
    path.write_text(text.replace('"k50"', "k50"))
    with pytest.raises(InvalidDocument, match="damaged near byte"):
        read(path)


def test_a_later_broken_event_is_left_out_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(source_module, "CHUNK_BYTES", 4096)
    events = [step(1, 0, 1000), *(kernel(f"k{n}", 10 + n, 1, n) for n in range(200))]
    path = tmp_path / "x.json"
    path.write_text(kineto(events).replace('"name": "k150"', '"name": k150'))
    trace = read(path)
    assert (len(trace.gpu), trace.unreadable, trace.damage) == (199, 1, None)


def test_a_file_of_broken_events_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(source_module, "CHUNK_BYTES", 4096)
    events = [step(1, 0, 1000), *(kernel(f"k{n}", 10 + n, 1, n) for n in range(400))]
    path = tmp_path / "x.json"
    good, bad = kineto(events[:100]), kineto(events).replace('"name": "k', '"name": k')
    path.write_text(good[: good.rindex("\n  ]")] + "," + bad[bad.index("\n  {", 2000) :])
    with pytest.raises(InvalidDocument, match="damaged"):
        read(path)


def test_the_fixture_is_what_its_maker_says():
    trace = read(FLUX)
    assert (trace.parser, trace.damage, trace.rank, trace.world_size) == ("kineto", None, 0, 1)
    assert trace.device["name"] == "NVIDIA H200"
    assert trace.counts["kernel"] == len(trace.gpu) - trace.counts["gpu_memset"] - trace.counts["gpu_memcpy"]
    assert {"cuLaunchKernelEx", "cudaLaunchKernel", "cudaLaunchKernelExC"} <= set(trace.names)


def test_compact_and_indented_json_give_the_same_columns(tmp_path):
    document = loaded(FLUX)
    compact, indented = tmp_path / "compact.json", tmp_path / "indented.json.gz"
    compact.write_text(json.dumps(document, separators=(",", ":")))
    indented.write_bytes(gzip.compress(json.dumps(document, indent=4).encode(), 1))
    expected = columns(read(FLUX))
    for path in (compact, indented):
        trace = read(path)
        assert trace.parser == "ijson"
        assert columns(trace) == expected
        assert trace.device["name"] == "NVIDIA H200"


def test_python_frames_are_counted_but_not_kept():
    trace = read(CPU)
    assert trace.counts["python_function"] > len(trace.modules) > 0
    assert sum(trace.counts.values()) == len(loaded(CPU)["traceEvents"])


def test_several_gzip_members_are_one_file(tmp_path):
    text = gzip.decompress(CPU.read_bytes())
    path = tmp_path / "members.json.gz"
    path.write_bytes(b"".join(gzip.compress(text[at : at + 5000]) for at in range(0, len(text), 5000)) + b"\0\0\0")
    assert columns(read(path)) == columns(read(CPU))


@pytest.mark.parametrize("chunk_bytes", [1, 3, 64, 1000, 4096])
@pytest.mark.parametrize("compressed", [False, True])
def test_chunks_of_any_size_give_the_same_columns(tmp_path, monkeypatch, chunk_bytes, compressed):
    events = [step(1, 0, 900)]
    for n in range(40):
        events += [module(f"Linear_{n}", n * 20, 10), op("aten::mm", n * 20 + 1, 5, n + 1, [[8, 8], [8, 8]])]
        events += [launch(n + 1, n * 20 + 2), kernel("nvjet", n * 20 + 9, 4, n + 1, n + 1)]
    path = write(tmp_path / ("x.json.gz" if compressed else "x.json"), events)
    expected = columns(read(path))
    monkeypatch.setattr(source_module, "CHUNK_BYTES", chunk_bytes)
    assert columns(read(path)) == expected


names = st.text(max_size=20) | st.sampled_from(["\n  },\n  {", '"}]', "nn.Module: X_1", "\n  }\n  ]", "é\u2028", "\\"])


@settings(max_examples=60)
@given(st.lists(st.tuples(names, st.floats(0, 1e9), st.floats(0, 1e6), st.integers(-1, 5)), min_size=1, max_size=30))
def test_any_names_are_read_alike_from_both_layouts(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("names")
    events = [kernel(name, start, duration, correlation) for name, start, duration, correlation in rows]
    indented = write(folder / "a.json", events)
    compact = folder / "b.json"
    compact.write_text(json.dumps(HEAD | {"traceEvents": events}))
    one, other = read(indented), read(compact)
    assert columns(one) == columns(other)
    assert [one.names[index] for index in one.gpu.name] == [row[0] for row in rows]


def test_times_keep_their_nanoseconds(tmp_path):
    events = [kernel("a", 4482480729941.877, 1.152, 1), kernel("b", 4482480729943.030, 0.001, 2)]
    trace = read(write(tmp_path / "x.json", events))
    assert trace.gpu.start_us[1] - trace.gpu.start_us[0] == pytest.approx(1.153, abs=1e-3)


def test_members_after_the_events_are_read(tmp_path):
    path = tmp_path / "x.json"
    text = kineto([kernel("a", 1, 1, 1)], {"schemaVersion": 1})
    path.write_text(text.replace('"traceName": "x.json"', '"distributedInfo": {"rank": 3, "world_size": 8}'))
    assert (read(path).rank, read(path).world_size) == (3, 8)


def test_nothing_heavy_is_imported_before_it_is_needed():
    program = (
        "import sys, bench.profiling.analysis, bench.profiling.diff, bench.report.profile_forms\n"
        "print([name for name in ('orjson', 'ijson', 'jinja2', 'matplotlib', 'jsonschema') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
