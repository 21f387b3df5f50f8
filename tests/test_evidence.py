"""The page of evidence: each figure is what its file says, each document is valid, each verdict is given again."""

import json
import re
from decimal import Decimal
from pathlib import Path

import pytest
from helpers import ROOT

from bench.record import documents
from bench.stats.comparison import limits

FOLDER = ROOT / "docs" / "evidence"
PAGE = (FOLDER / "README.md").read_text()
FIGURES = re.findall(r"^\| (.+?) \| (\S+)(?: \S+)? \| `(\S+\.json:.+?)` \|$", PAGE, re.MULTILINE)
VERDICTS = re.findall(r"^\| ([\w./-]+) \| .+ \| (native|degraded|invalid)\b.* \|$", PAGE, re.MULTILINE)
KINDS = {
    *("run.json", "perf.json", "comparison.json", "accuracy.json", "unguarded.json", "report.json"),
    *("probe.json", "tried.json", "matrix.json", "load.json"),
}


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
    """Return the value of places that are divided by or taken from one another, from left to right; `1` is itself."""
    first, *rest = re.split(r" ([/-]) ", expression)
    value = at(first)
    for sign, place in zip(rest[::2], rest[1::2], strict=True):
        operand = Decimal(place) if place.isdigit() else at(place)
        value = value / operand if sign == "/" else value - operand
    return value


def version_of(folder):
    """Return the engine's version of a folder's record; of one without a record that of the first page."""
    record = next((path for name in ("run.json", "load.json") for path in folder.rglob(name)), None)
    return "0.5.17" if record is None else json.loads(record.read_text())["engine"]["version"]


@pytest.mark.parametrize(("what", "figure", "place"), FIGURES, ids=[row[2] for row in FIGURES])
def test_a_figure_is_what_its_file_says(what, figure, place):
    exact = computed(place)
    if "e" in figure:
        assert f"{exact:.2e}".replace("e-3", "e-03").replace("e-2", "e-02") == figure
    elif end := re.search(r"interval\.(low|high)[._]percent$", place):
        low, _, high = limits(float(exact), float(exact)).removesuffix(" %").partition(" to ")
        assert Decimal(figure) == Decimal(low if end[1] == "low" else high)
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
    served = sorted((FOLDER / name).glob("load.json"))
    for log in [log for log in logs if not served or log.parent == FOLDER / name]:
        dump = next(iter(sorted(log.parent.rglob("perf.json"))), None)
        named = ["--dump", dump] if dump else []
        ended = invoke("attest", "--log", log, *named, "--engine-version", version_of(FOLDER / name), "--json")
        said = json.loads(ended.out)
        assert said["outcome"] == outcome
        assert ended.code == (said["exit_code"] if outcome == "invalid" else 0)
        assert (outcome == "invalid") == (ended.code in {4, 5})


def test_the_verdicts_are_called_those_of_the_log_alone():
    heads = re.findall(r"^\| folder \| what was run \| (.+) \|$", PAGE, re.MULTILINE)
    assert heads == ["verdict of `attest --log`"] * 3


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


def test_the_page_tells_which_runs_shared_a_card():
    folder = FOLDER / "h200-0.5.23"
    cards = {}
    for path in (*folder.rglob("run.json"), *folder.rglob("probe.json")):
        record = json.loads(path.read_text())
        [card] = [record["device"]] if "device" in record else record["devices"]["items"]
        cards.setdefault(card["uuid"], set()).add(path.relative_to(folder).parts[0])
    said = re.search(r"has the UUID: (.+?)\. ", PAGE, re.DOTALL)[1].split(";")
    runs = {name for names in cards.values() for name in names}
    assert sorted(sorted(runs & set(re.split(r"[\s,]+", card))) for card in said) == sorted(map(sorted, cards.values()))


def test_the_served_runs_had_one_card():
    folder = FOLDER / "h200-0.5.23-served"
    paths = [path for name in ("run.json", "load.json", "probe.json") for path in folder.rglob(name)]
    records = [json.loads(path.read_text()) for path in paths]
    cards = [[record["device"]] if "device" in record else record["devices"]["items"] for record in records]
    assert len(records) == 8
    assert len({card["uuid"] for [card] in cards}) == 1


def test_what_upstream_says_is_exit_code_0_each_time():
    said = {path.name: path.read_text() for path in (FOLDER / "upstream").glob("*.txt")}
    assert all(text.rstrip().endswith("exit code 0") for text in said.values())
    assert "fell back to the diffusers backend" in said["helper-0.5.23-uncaught.txt"]
    assert "+23.3%" in said["compare-slower.txt"]


def test_nothing_large_lies_there():
    assert max(path.stat().st_size for path in Path(FOLDER).rglob("*") if path.is_file()) < 2 << 20


def test_the_sentences_that_lead_the_page_have_their_figures_from_its_tables():
    lead = PAGE.split("\n## ")[0]
    said = re.findall(r"\*\*(-?[\d.]+)\*\*", lead)
    assert len(said) >= 6
    assert set(said) <= {figure for _, figure, _ in FIGURES}


def test_the_picture_is_drawn_from_its_report():
    from bench.report import plots, profile_plots

    shown = re.search(r"!\[.+\]\((\S+\.svg)\)", PAGE)[1]
    report = json.loads((FOLDER / shown).with_name("report.json").read_text())
    waterfall = next(plot for plot in profile_plots.of_gpu(report["traces"][0]["gpu"]) if plot.name == "waterfall")
    assert (FOLDER / shown).read_text() == plots.still(waterfall, "wide") + "\n"
