"""Options are declared once: parser, conversion, help, completion and the page of all options read that place."""

import dataclasses
import json
import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest
from helpers import ROOT, check_golden
from invoke import Program
from invoke.collection import Collection

from bench import options
from bench.completion import candidates
from bench.errors import BenchError, UsageError
from bench.options import MEASURING, Kind, nested, option
from bench.report import options as report
from bench.run.options import QUALITIES, REQUIRED, Options
from bench.task import VERBS, GuardedTask, namespace, task

sys.path.insert(0, str(ROOT))
import tasks


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Options of every kind."""

    run: Options = nested(Options, "model", "repeats", "torch_compile", "warmup", repeats={"default": 3, "least": 2})
    files: tuple[Path, ...] = option(many=True, kind=Kind.PATH, help="files")
    seed: int | None = option(None, kind=Kind.WHOLE, least=0, help="seed")
    limit_s: float = option(1.0, name="limit", kind=Kind.NUMBER, least=0.1, help="limit")
    precision: float | None = option(None, kind=Kind.PERCENTAGE, help="precision")
    colour: str = option("red", choices={"red": "warm", "blue": "cold"}, help="colour")
    checks: tuple[str, ...] = option((), name="check", kind=Kind.NAMES, choices={"a": "", "b": ""}, help="checks")
    trace: tuple[Path, ...] = option((), kind=Kind.PATH, repeated=True, help="trace")
    throw_away: str | None = option(None, group=MEASURING, completes="presets", help="an option that one field adds")


def test_the_help_of_a_quality_says_what_the_catalogue_says():
    """Read without the names of versions: each meaning that a quality has in a version is in its help."""
    rows = tomllib.loads((ROOT / "bench" / "catalog" / "qualities.toml").read_text())["quality"]
    words = {"exact": r"\bexact\b|bit-identical", "rounding": r"\brounding\b", "approximate": r"\bapproximate\b"}
    for quality, told in QUALITIES.items():
        meanings = {row["means"][quality] for row in rows if quality in row["means"]}
        assert {meaning for meaning, pattern in words.items() if re.search(pattern, told)} == meanings, quality


def ran(*words, monkeypatch):
    """Run a task that takes `Sample` as a person would type it; return the options object that its body got."""
    given = []

    @task(Sample, example="sample F")
    def sample(c, options):
        given.append(options)

    argv = ["invoke", "sample", *words]
    monkeypatch.setattr(sys, "argv", argv)
    Program(namespace=Collection(sample)).run(argv, exit=False)
    return given[0] if given else None


LEAVE_OUT = "\n  to do: leave it out for the default"

# --- unhappy first ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        ({"seed": "many"}, "--seed takes a whole number of at least 0, not 'many'" + LEAVE_OUT),
        ({"seed": "-1"}, "--seed takes a whole number of at least 0, not '-1'" + LEAVE_OUT),
        ({"seed": "1.5"}, "--seed takes a whole number of at least 0, not '1.5'" + LEAVE_OUT),
        ({"repeats": "1"}, "--repeats takes a whole number of at least 2, not '1'" + LEAVE_OUT),
        ({"limit": "nan"}, "--limit takes a number of at least 0.1, not 'nan'" + LEAVE_OUT),
        ({"precision": "100%"}, "--precision takes a percentage such as 1%, not '100%'" + LEAVE_OUT),
        ({"precision": "some"}, "--precision takes a percentage such as 1%, not 'some'" + LEAVE_OUT),
        ({"colour": "bleu"}, "--colour takes red or blue, not 'bleu'\n  to do: did you mean blue?"),
        ({"check": "a,c"}, "--check takes a or b, not 'c'"),
        ({"check": "a,b,a"}, "--check names a twice\n  to do: name it once"),
        (
            {"seed": "99999999999999999999"},
            "--seed takes a whole number below 1e15, not '99999999999999999999'" + LEAVE_OUT,
        ),
        ({"limit": "inf"}, "--limit takes a number below 1e15, not 'inf'" + LEAVE_OUT),
        ({"check": " , "}, "--check takes one or more names separated by commas, not ' , '"),
        (
            {"torch-compile": True, "no-torch-compile": True},
            "--torch-compile and --no-torch-compile exclude each other",
        ),
    ],
)
def test_a_wrong_text_names_the_option_and_what_it_takes(texts, says):
    with pytest.raises(UsageError) as error:
        options.build(Sample, {"files": ["x"], **texts})
    assert str(error.value) == says


def test_a_group_of_options_cannot_be_narrowed_to_a_field_that_it_lacks():
    with pytest.raises(TypeError, match="Options has no field stpes"):
        nested(Options, "stpes")


def test_an_error_names_the_option_that_mends_it(monkeypatch, capsys):
    @task(Sample, example="sample F")
    def sample(c, options):
        raise BenchError("it took too long", todo="give it more time", field="limit_s")

    argv = ["invoke", "sample", "f"]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit):
        Program(namespace=Collection(sample)).run(argv)
    assert capsys.readouterr().err == "error: it took too long\n  to do: give it more time (--limit)\n"


# --- from the field to everything that reads it -----------------------------------------------------------------------


def test_what_is_typed_fills_the_options_object(monkeypatch):
    given = ran(
        *("f1", "--seed", "0", "f2", "--limit=2.5", "--precision", "2%", "--check", "b,a", "f3", "--trace", "t1"),
        *("--trace=t2", "--no-warmup", "--torch-compile", "--model=sd3"),
        monkeypatch=monkeypatch,
    )
    assert given == Sample(
        run=Options(model="sd3", repeats=3, torch_compile=True, warmup=False),
        files=(Path("f1"), Path("f2"), Path("f3")),
        seed=0,
        limit_s=2.5,
        precision=0.02,
        checks=("a", "b"),
        trace=(Path("t1"), Path("t2")),
    )


def test_one_more_field_reaches_parser_help_completion_and_page(monkeypatch, capsys):
    """The field `throw_away` of `Sample` is named nowhere else."""
    assert ran("f", "--throw-away", "sd3", monkeypatch=monkeypatch).throw_away == "sd3"

    @task(Sample, example="sample F")
    def sample(c, options):
        """Try it."""

    Program(namespace=Collection(sample)).run(["invoke", "--help", "sample"], exit=False)
    shown = capsys.readouterr().out
    assert re.search(r"measuring:\n(?:  .*\n)*  --throw-away=TEXT +an option that one field adds", shown)

    known = dict(VERBS)
    try:
        namespace(sample)
        verbs = {"sample": VERBS["sample"]}
    finally:
        VERBS.clear()
        VERBS.update(known)
    assert candidates.complete("invoke sample --throw", verbs) == {"--throw-away": "an option that one field adds"}
    assert "flux-tiny" in candidates.complete("invoke sample --throw-away flux-", verbs)
    assert "| `--throw-away=TEXT` | an option that one field adds |" in report.page(verbs)


def test_the_terminate_signal_is_left_as_it_was(monkeypatch):
    import signal

    before = signal.getsignal(signal.SIGTERM)
    ran("f", monkeypatch=monkeypatch)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("kind", "goes_on"),
    [("bench", "`invoke bench --resume 00ab12` goes on"), ("profile", "`invoke profile --model flux` measures again")],
)
def test_an_interrupt_says_what_was_kept_and_how_to_go_on(monkeypatch, capsys, tmp_path, kind, goes_on):
    monkeypatch.setenv("BENCH_RUNS", str(tmp_path))

    @task(example="sample")
    def sample(c):
        run = tmp_path / "20261124T100000Z-bench-flux-00ab12"
        run.mkdir()
        record = {"requests": [{}, {}], "kind": kind, "preset": {"key": "flux"}}
        (run / "run.partial.json").write_text(json.dumps(record))
        raise KeyboardInterrupt

    argv = ["invoke", "sample"]
    with pytest.raises(SystemExit):
        Program(namespace=Collection(sample)).run(argv)
    shown = capsys.readouterr().err
    assert "kept: 2 requests" in shown
    assert goes_on in shown


# --- the verbs --------------------------------------------------------------------------------------------------------


def test_the_page_of_options_is_what_the_verbs_declare():
    check_golden(ROOT / "docs" / "options.md", report.page(VERBS))


@pytest.mark.parametrize("name", sorted(tasks.ns.task_names))
def test_a_verb_is_guarded_and_explained_and_has_an_example(name):
    verb = tasks.ns[name]
    assert isinstance(verb, GuardedTask)
    assert verb.summary
    assert all(known.help for known in verb.declared())
    assert shlex.split(verb.example)[0] == name


def test_the_choices_are_what_the_engine_and_the_gates_know():
    from bench.engine.spelling import QUALITY_SINCE
    from bench.fidelity.thresholds import THRESHOLDS
    from bench.upstream.suite import SUITES
    from bench.verbs.accuracy import SUITES as OFFERED

    assert set(QUALITIES) == set(QUALITY_SINCE)
    assert set(REQUIRED) == set(THRESHOLDS)
    assert set(OFFERED) == set(SUITES)
