"""Text of others, full of what a terminal, Markdown or a spreadsheet would obey, through every verb that shows any."""

import csv
import gzip
import json
import re
import shutil

import pytest
from helpers import LOGS, NATIVE, record_path
from test_safe_text import MarkdownIt
from trace_writer import CPU, FLUX

from bench import safe_text

EVIL = "\x1b]52;c;ZXZpbA==\x07\x9b2J\u202e[/nope][bold]<script>![i](https://x.org)|=1+1 \x1b[2J\r"
"""The clipboard (OSC 52), an erased screen (CSI, C0 and C1), reversed text, rich's markup, HTML, an image."""

OWN = re.compile(r"\x1b\[(?:[0-9;]*m|\?25[lh]|2K|1A)|\r")
"""Rich's styles and moving line."""
DUMP = LOGS / "cpu" / "warmup_request.json"
PRESET = {"description": EVIL, "model": "owner/model", "modality": "image", "prompt": EVIL, "seed": 7}


def toml(key, values):
    return f"[{json.dumps(key)}]\n" + "\n".join(f"{name} = {json.dumps(value)}" for name, value in values.items())


@pytest.fixture
def preset_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        toml(f"mine{EVIL}", PRESET) + "\n" + toml("mine", PRESET | {"arguments": [f"--lora-nickname={EVIL}"]})
    )
    return path


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "evil.log"
    lines = f"Falling back to diffusers backend for {EVIL}\nLoaded vae: {EVIL} (diffusers version)\nError: {EVIL}\n"
    path.write_bytes((LOGS / "cpu" / "warmup_request.log").read_bytes() + lines.encode())
    return path


@pytest.fixture
def dump(tmp_path):
    path = tmp_path / "perf.json"
    document = json.loads(DUMP.read_text())
    document["steps"].append({"name": f"Stage{EVIL}", "duration_ms": 1.0})
    document["total_duration_ms"] += 10
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def records(bench, home):
    """Return two run directories, one of whose records says evil things wherever a text is free."""
    path = record_path(bench())
    record = json.loads(path.read_text())
    record["label"] = record["stopped_because"] = EVIL
    record["launches"][0]["command"]["argv"] += [EVIL, "```\n# h"]
    other = home / "runs" / "20260101T000000Z-bench-x-000000"
    shutil.copytree(path.parent, other)
    (other / "run.json").write_text(json.dumps(record | {"id": other.name}))
    return path.parent, other


def kernels(document):
    for event in document["traceEvents"]:
        if event.get("cat") in ("kernel", "cpu_op") or str(event.get("name")).startswith("nn.Module: "):
            event["name"] += EVIL
    return document


@pytest.fixture(params=[FLUX, CPU], ids=["GPU", "CPU"])
def trace(request, tmp_path):
    path = tmp_path / f"{EVIL.replace('/', '')}.trace.json"
    path.write_text(json.dumps(kernels(json.loads(gzip.decompress(request.param.read_bytes())))))
    return path


def is_safe(ended, *, quotes=True):
    for shown in (ended.out, ended.err):
        plain = OWN.sub("", shown)
        assert safe_text.terminal(plain) == plain
        assert "Traceback" not in shown
    assert not quotes or "script" in ended.out + ended.err, "the text is shown, made safe"


COLOURS = pytest.mark.parametrize("env", [{}, {"FORCE_COLOR": "1"}], ids=["plain", "colours"])


@COLOURS
@pytest.mark.parametrize("more", [[], ["--json"], ["--dump", DUMP]], ids=["text", "json", "dump"])
def test_attest(invoke, log, more, env):
    is_safe(invoke("attest", "--log", log, *more, env=env))


def test_attest_names_what_it_cannot_read(invoke):
    is_safe(invoke("attest", "--log", f"/nowhere/{EVIL}"))


@COLOURS
@pytest.mark.parametrize("more", [[], ["--json"], ["--repeats", "2"]], ids=["text", "json", "session"])
def test_bench(bench, more, env):
    ended = bench(*more, scenario=NATIVE | {"lines": [f"Error: {EVIL}"], "exit": 1}, env=env)
    is_safe(ended, quotes="--repeats" not in more)  # a session shows no line of the engine's


@pytest.mark.parametrize("option", ["--model", "--engine", "--model-path", "--preset-file", "--quality", "--label"])
def test_a_mistake_is_quoted_safely(bench, option):
    is_safe(bench(option, f"/dev/null/{EVIL}"))


def test_a_word_that_cannot_be_read_is_quoted_safely(invoke):
    is_safe(invoke("bench", f"--script{EVIL}"))
    is_safe(invoke(EVIL))


@pytest.mark.parametrize("model", ["mine", f"mine{EVIL}"])
def test_a_dry_run(invoke, replay, preset_file, model):
    name = replay(**NATIVE)
    is_safe(invoke("bench", "--model", model, "--preset-file", preset_file, "--engine", name, "--dry-run"))


@COLOURS
@pytest.mark.parametrize("more", [[], ["--json"]], ids=["text", "json"])
def test_models(invoke, preset_file, more, env):
    is_safe(invoke("models", "--preset-file", preset_file, *more, env=env))


def test_json_says_what_it_said(invoke, preset_file):
    ended = invoke("models", "--json", "--preset-file", preset_file)
    assert ended.code == 0, ended.err
    shown = json.loads(ended.out)
    assert shown["mine"]["prompt"] == EVIL


@COLOURS
@pytest.mark.parametrize("more", [[], ["--json"], ["--markdown"]], ids=["text", "json", "markdown"])
def test_compare(invoke, records, more, env):
    is_safe(invoke("compare", *records, *more, env=env), quotes="--markdown" in more)
    path = records[1] / "run.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"host": record["host"] | {"cpu": EVIL}}))
    is_safe(invoke("compare", *records, *more, env=env))


@pytest.mark.parametrize("more", [[], ["--markdown"]], ids=["text", "markdown"])
def test_compare_of_dumps(invoke, dump, more, home):
    content = json.loads(dump.read_text())
    other = home / "other.json"
    other.write_text(json.dumps(content | {"total_duration_ms": content["total_duration_ms"] + 1}))
    is_safe(invoke("compare", dump, other, "--metric", f"Stage{EVIL}", *more))


def rendered(source):
    """Return the kinds of everything in a Markdown page."""
    tokens = MarkdownIt("commonmark").enable("table").parse(source)
    return {token.type for token in tokens} | {inner.type for token in tokens for inner in token.children or ()}


MARKUP = {"image", "link_open", "html_inline", "html_block"}


def test_markdown_for_a_pull_request_holds_no_markup_of_a_record(invoke, records):
    source = invoke("compare", *records, "--markdown").out
    assert source, invoke("compare", *records, "--markdown").err
    own = source.replace("<details><summary>how both were run</summary>", "").replace("</details>", "")
    assert not rendered(own) & (MARKUP | {"heading_open"})
    assert rendered(own) >= {"table_open", "fence"}


def test_history(invoke, records):
    is_safe(invoke("history", "--model", "flux-tiny"), quotes=False)
    is_safe(invoke("history", "--model", "flux-tiny", "--json"))


def test_names_of_runs_and_files(invoke, records, home):
    runs = home / "runs"
    shutil.copytree(records[1], runs / f"20260102T000000Z-bench-{EVIL.replace('/', '')}-000001")
    is_safe(invoke("baseline.set", runs / f"20260102T000000Z-bench-{EVIL.replace('/', '')}-000001"))
    is_safe(invoke("baseline.show"))
    is_safe(invoke("completion", "bash", "--line", "invoke compare "))
    is_safe(invoke("validate", next(runs.glob("20260102*")) / "run.json"))
    is_safe(invoke("compare", "last", next(runs.glob("20260102*"))))


def test_a_record_that_violates_its_schema(invoke, home):
    path = home / "run.json"
    path.write_text(json.dumps({"schema": "run-record", "schema_version": EVIL}))
    is_safe(invoke("validate", path))


@COLOURS
def test_profile(invoke, trace, only_run, env):
    is_safe(invoke("profile", "--trace", trace, "--full", env=env))
    report = only_run() / "report"
    assert not rendered((report / "report.md").read_text()) & MARKUP
    assert "<script>![i]" not in (report / "report.html").read_text()


def test_profile_diff(invoke, trace, only_run, request):
    has_gpu_events = request.node.callspec.params["trace"] == FLUX
    ended = invoke("profile-diff", trace)
    is_safe(ended)
    assert ended.code == (0 if has_gpu_events else 1)
    if has_gpu_events:
        assert not rendered((only_run() / "diff.md").read_text()) & MARKUP
        assert "<script>![i]" not in (only_run() / "diff.html").read_text()


def test_no_kernel_is_a_formula(invoke, tmp_path, only_run):
    path = tmp_path / "x.trace.json"
    document = json.loads(gzip.decompress(FLUX.read_bytes()))
    for event in document["traceEvents"]:
        if event.get("cat") in ("kernel", "cpu_op"):
            event["name"] = f"=HYPERLINK({event['name']})"
    path.write_text(json.dumps(document))
    assert invoke("profile", "--trace", path).code == 0
    with gzip.open(only_run() / "report" / "events.csv.gz", "rt") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert any(cell.startswith("'=HYPERLINK") for cell in cells)
    assert not [cell for cell in cells if cell.startswith(("=", "+", "@"))]
