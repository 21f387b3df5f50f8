"""Random bytes for every reader of what others wrote: a BenchError or a value, never a traceback or a gigabyte.

`nox -s fuzz` gives each reader FUZZ_SECONDS (60) and prints how many files it read. What fails is kept in
tests/data/fuzz/READER and read first by the next run, and by `test_fuzz_seeds.py` with every other test.
"""

import copy
import functools
import hashlib
import json
import os
import random
import re
import resource
import time

import pytest
from helpers import DATA, LOGS, invoke_in_process, record_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench import redact, safe_text
from bench.catalog import presets, signals
from bench.errors import BenchError
from bench.fallback import attest, dump, media
from bench.fallback.expectation import PROGRAM, Expectation
from bench.fallback.guard import Guard
from bench.models import checkpoint
from bench.process import LONGEST_LINE_BYTES, _Lines
from bench.profiling import analysis, reader
from bench.record import baselines, documents
from bench.serving import arrivals

SECONDS = float(os.environ.get("FUZZ_SECONDS", "60"))
SEEDS = DATA / "fuzz"
MOST_BYTES = 1 << 30

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["steps", "ts", "dur", "args"]), inner),
)
SMALL = st.integers(0, 3)
EVENT = st.fixed_dictionaries(
    {"ph": st.sampled_from("XsfMC") | JSON},
    optional={
        "cat": st.sampled_from(["kernel", "cpu_op", "cuda_runtime", "python_function", "user_annotation"]) | JSON,
        "ts": NUMBERS | JSON,
        "dur": NUMBERS | JSON,
        "name": st.sampled_from(["nn.Module: A_0", "denoise_step", "conv", "k"]) | JSON,
        "args": st.fixed_dictionaries({}, optional={"correlation": SMALL | JSON, "External id": JSON}) | JSON,
        **dict.fromkeys(("pid", "tid"), st.integers(0, 2) | JSON),
    },
)
TRACE = st.fixed_dictionaries({"traceEvents": st.lists(EVENT) | JSON}, optional={"deviceProperties": JSON})


# --- documents: a good one with a few of its values changed -----------------------------------------------------------


def places(value, above=()):
    """Yield the path of every value in a document."""
    yield above
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in members:
        yield from places(inner, (*above, name))


def changed(document, changes):
    """Return a copy of a document with values, chosen by a number, replaced or (``...``) removed."""
    document = copy.deepcopy(document)
    for number, value in changes:
        known = list(places(document))[1:]
        if not known:
            break
        *above, last = known[number % len(known)]
        holder = functools.reduce(lambda inner, name: inner[name], above, document)
        if value is ...:
            del holder[last]
        else:
            holder[last] = value
    return document


def like(document):
    change = st.tuples(st.integers(0, 1 << 16), JSON | st.just(...))
    return st.builds(changed, st.just(document), st.lists(change, max_size=4))


def texts(document):
    whole = document.map(lambda value: json.dumps(value, indent=2).encode())
    cut = st.builds(lambda text, place: text[: place % (len(text) + 1)], whole, st.integers(0))
    return st.binary() | document.map(lambda value: json.dumps(value).encode()) | whole | cut


def toml(document):
    """Return a preset file with these values, which TOML may not be able to hold."""
    return "\n".join(["[mine]", *(f"{name} = {json.dumps(value)}" for name, value in document.items())]).encode()


PRESET = {
    "description": "d", "model": "owner/model", "modality": "image", "prompt": "p", "seed": 1, "width": 64,
    "height": 64, "environment": {"A": "b"}, "arguments": ["--x"], "tags": ["t"],
}  # fmt: skip
DUMP = json.loads((LOGS / "cpu" / "warmup_request.json").read_text())
ARRIVAL = st.fixed_dictionaries({}, optional={"at_s": NUMBERS | JSON, "timestamp": NUMBERS, "prompt": st.text() | JSON})


# --- logs: the lines that signals and evidence listen for, in any surroundings ----------------------------------------

HEARD = [entry.example for entry in (*signals.signals(), *signals.evidence())]
EXAMPLE = st.integers(0, len(HEARD) - 1).map(HEARD.__getitem__)
FILLER = st.builds(lambda text, times: text * times, st.text(max_size=20), st.sampled_from([1, 1, 1, 50, 4000]))
LINE = EXAMPLE | FILLER | st.builds("".join, st.lists(EXAMPLE | FILLER, max_size=3))
LOG = st.builds(
    lambda lines, ends: "".join(map("".join, zip(lines, ends, strict=False))).encode(errors="replace"),
    st.lists(LINE, max_size=12),
    st.lists(st.sampled_from(["\n", "\n", "\n", "\r\n", "\r", "", "\x1b[0m\n"]), min_size=12, max_size=12),
)


def found(blocks):
    """Return what a guard hears in blocks: findings by kind, component and line, and the evidence.

    How often is left out of a log with a line that comes in pieces, in each of which it may be heard.
    """
    blocks = list(blocks)
    whole = max(map(len, re.split(rb"[\r\n]", b"".join(blocks)))) < LONGEST_LINE_BYTES
    guard, number = Guard(Expectation(launch=PROGRAM, version=None), stop=False), 1
    for block in blocks:
        guard.observe(block, number)
        number += block.count(b"\n")
    heard = {
        (*key, finding.line, finding.severity, finding.count if whole else None)
        for key, finding in guard.findings.items()
    }
    proofs = {(proof.id, proof.seen if whole else proof.seen > 0, proof.line) for proof in guard.proofs()}
    return heard, proofs, guard.lines


def split(content, random_):
    """Yield a log in the blocks that `process.stream` makes of it, however it arrives."""
    lines, place = _Lines(), 0
    while place < len(content):
        size = random_.choice([1, 7, 100, 5000, 70_000])
        if (block := lines.feed(content[place : place + size])) is not None:
            yield block[0]
        place += size
    if (block := lines.finish()) is not None:
        yield block[0]


def read_log(path):
    content = path.read_bytes()
    whole = found([content] if content else [])
    for seed in range(3):
        assert found(split(content, random.Random(seed))) == whole
    with path.open("rb") as file:
        assert found(attest._blocks(file)) == whole
    assert redact.log(content).count(b"\n") == content.count(b"\n")
    attest.attest(str(path))


def read_record(path):
    """Read a run's record with every verb that reads records; there is a good one beside it."""
    run = path.parent / "runs" / "20260101T000000Z-bench-x-000000"
    run.mkdir(exist_ok=True)
    (run / "run.json").write_bytes(path.read_bytes())
    good = next(folder for folder in run.parent.iterdir() if folder.is_dir() and folder != run)
    for words in (
        ("compare", good, run), ("compare", run, good, "--markdown"), ("history", "--model", "flux-tiny"),
        ("validate", run), ("baseline.set", run),
    ):  # fmt: skip
        ended = invoke_in_process(*words)
        assert "Traceback" not in ended.err, ended.err
        assert safe_text.terminal(ended.out + ended.err) == ended.out + ended.err


def read_index(path):
    folder = path.parent / "model"
    folder.mkdir(exist_ok=True)
    (folder / "model_index.json").write_bytes(path.read_bytes())
    checkpoint.inspect(folder)


def read_baselines(path):
    (path.parent / baselines.BASELINES).write_bytes(path.read_bytes())
    baselines.baselines(path.parent)


def read_image(path):
    for suffix in (".png", ".mp4"):
        other = path.with_suffix(suffix)
        other.write_bytes(path.read_bytes())
        try:
            media.look(other)
        except media.Undecodable as fault:
            safe_text.terminal(str(fault)).encode()


def read_trace(path):
    reader.read(path)
    analysis.analyse([path])


def printed(path):
    text = path.read_bytes().decode(errors="replace")
    shown = safe_text.shown(text)
    assert safe_text.shown(shown) == shown
    safe_text.markdown(text).encode()
    json.loads(safe_text.json(json.dumps(redact.document({"text": text, "words": text.split()}))))


def png():
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(file, "PNG")
    return file.getvalue()


def overwritten(content, changes):
    made = bytearray(content)
    for place, value in changes:
        made[place % len(made)] = value
    return bytes(made)


IMAGE = st.builds(overwritten, st.just(png()), st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=8))
INDEX = {"_class_name": "FluxPipeline", "vae": ["diffusers", "AutoencoderKL"]}

READERS = {
    "document": (documents.validate, texts(JSON)),
    "record": (read_record, None),
    "perf dump": (dump.load, texts(like(DUMP))),
    "presets": (presets.read_file, st.binary() | st.text().map(str.encode) | like(PRESET).map(toml)),
    "trace": (read_trace, texts(TRACE)),
    "log": (read_log, LOG | st.binary()),
    "image": (read_image, IMAGE | st.binary()),
    "model index": (read_index, texts(like(INDEX))),
    "baselines": (read_baselines, texts(st.dictionaries(st.text(), JSON))),
    "arrivals": (
        arrivals.replay,
        st.binary() | st.lists(ARRIVAL).map(lambda lines: "\n".join(map(json.dumps, lines)).encode()),
    ),
    "text": (printed, st.binary() | st.text("\x1b[]0;\x07\x9b\u202e=:/@-_ hf.\n", max_size=200).map(str.encode)),
}


def read(name, path, content):
    """Read a file with a reader, which must know the fault of what it refuses."""
    path.write_bytes(content)
    try:
        READERS[name][0](path)
    except BenchError as error:
        safe_text.shown(error).encode()


def seeds(name):
    """Return the files that broke a reader once."""
    return sorted((SEEDS / name.replace(" ", "_")).glob("*"))


def keep(name, content):
    """Keep a file that broke a reader."""
    folder = SEEDS / name.replace(" ", "_")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / hashlib.sha256(content).hexdigest()[:12]).write_bytes(content)


@pytest.fixture
def bounded():
    """Let this process take a gigabyte more than it has; what takes it fails."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MOST_BYTES, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.mark.parametrize("name", READERS)
def test_a_reader_raises_nothing_but_our_own_errors(name, tmp_path, bench, bounded, capsys):
    contents = READERS[name][1]
    if contents is None:
        contents = texts(like(record_of(bench())))
    end, count, last, path = time.monotonic() + SECONDS, 0, b"", tmp_path / "file"
    for seed in seeds(name):
        read(name, path, seed.read_bytes())

    @settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
    @given(contents)
    def attack(content):
        nonlocal count, last
        count, last = count + 1, content
        read(name, path, content)

    try:
        while time.monotonic() < end:
            attack()
    except BaseException:
        keep(name, last)  # Hypothesis ends with the smallest that fails
        raise
    with capsys.disabled():
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        print(f"\n{name}: {count:,} files in {SECONDS:g} s, peak {peak} MiB")
    assert peak << 20 < MOST_BYTES
