"""The page of evidence: each figure is what its file says, each document is valid, each verdict is given again."""

import json
import re
from decimal import Decimal
from pathlib import Path

import pytest
from helpers import ROOT

from bench.record import documents

FOLDER = ROOT / "docs" / "evidence"
PAGE = (FOLDER / "README.md").read_text()
FIGURES = re.findall(r"^\| (.+?) \| (\S+)(?: \S+)? \| `(\S+\.json:.+?)` \|$", PAGE, re.MULTILINE)
VERDICTS = re.findall(r"^\| (\w+) \| .+ \| (degraded|invalid)\b.* \|$", PAGE, re.MULTILINE)
KINDS = {"run.json", "perf.json", "comparison.json", "accuracy.json", "unguarded.json", "report.json"}


def at(place):
    """Return the number at file:field; a name finds the item of a list that is called so."""
    file, _, field = place.partition(":")
    value = json.loads((FOLDER / file).read_text(), parse_float=Decimal)
    for name in field.split("."):
        if isinstance(value, list):
            value = value[int(name)] if name.isdigit() else next(item for item in value if item["name"] == name)
        else:
            value = value[name]
    return Decimal(value)


def computed(expression):
    first, *rest = re.split(r" ([/-]) ", expression)
    value = at(first)
    for sign, place in zip(rest[::2], rest[1::2], strict=True):
        value = value / at(place) if sign == "/" else value - at(place)
    return value


@pytest.mark.parametrize(("what", "figure", "place"), FIGURES, ids=[row[2] for row in FIGURES])
def test_a_figure_is_what_its_file_says(what, figure, place):
    exact = computed(place)
    if "e" in figure:
        assert f"{exact:.2e}".replace("e-3", "e-03").replace("e-2", "e-02") == figure
    else:
        shown = Decimal(figure)
        assert abs(exact - shown) <= Decimal(1).scaleb(shown.as_tuple().exponent) / 2


def test_every_row_of_the_tables_is_held_against_a_file():
    rows = [line for line in PAGE.splitlines() if line.startswith("|") and ".json:" in line]
    assert len(rows) == len(FIGURES) > 30


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.json")), ids=lambda path: str(path.relative_to(FOLDER)))
def test_every_document_is_valid(path):
    assert path.name in KINDS or path.name == "perf.profiled.json"
    assert documents.validate(path)


@pytest.mark.parametrize(("name", "outcome"), VERDICTS, ids=[row[0] for row in VERDICTS])
def test_attest_gives_the_verdict_that_the_page_states(invoke, name, outcome):
    logs = sorted((FOLDER / name).rglob("engine.log"))
    assert logs
    for log in logs:
        dump = next(iter(sorted(log.parent.rglob("perf.json"))), None)
        named = ["--dump", dump] if dump else []
        ended = invoke("attest", "--log", log, *named, "--engine-version", "0.5.17", "--json")
        assert json.loads(ended.out)["outcome"] == outcome
        assert ended.code == (0 if outcome == "degraded" else 4)


def test_diffusers_on_purpose_is_what_it_was_meant_to_be(invoke):
    folder = FOLDER / "diffusers"
    ended = invoke("attest", "--log", folder / "engine.log", "--dump", folder / "perf.json", "--expect", "diffusers")
    assert ended.code == 0, ended.err


def test_logs_and_dumps_are_those_that_the_records_name():
    import hashlib

    checked = 0
    for path in FOLDER.rglob("run.json"):
        record = json.loads(path.read_text())
        entries = [launch["log"] for launch in record["launches"]]
        entries += [request["perf_dump"] for request in record["requests"]]
        for entry in entries:
            file = path.parent / entry["file"]
            assert hashlib.sha256(file.read_bytes()).hexdigest() == entry["sha256"], file
            checked += 1
    assert checked > 40


def test_what_upstream_says_is_exit_code_0_each_time():
    said = {path.name: path.read_text() for path in (FOLDER / "upstream").glob("*.txt")}
    assert all(text.rstrip().endswith("exit code 0") for text in said.values())
    assert "fell back to the diffusers backend" in said["helper-0.5.23-uncaught.txt"]
    assert "+23.3%" in said["compare-slower.txt"]


def test_nothing_large_lies_there():
    assert max(path.stat().st_size for path in Path(FOLDER).rglob("*") if path.is_file()) < 2 << 20
