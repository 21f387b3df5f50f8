"""Every command of the README and the docs is taken by the real tasks and sessions; the quick ones are executed."""

import json
import math
import re
import shlex
import sys
import tomllib

import pytest
from helpers import ROOT
from invoke import Program
from invoke.exceptions import ParseError

sys.path.insert(0, str(ROOT))
import tasks
from bench import schema
from bench.tour import steps

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "docs" / "evidence" / "README.md"]
SHELL_BLOCK = re.compile(r"^```(?:console|sh|bash|zsh|fish)\n(.*?)^```", re.MULTILINE | re.DOTALL)
ANY_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
NAMED_FILE = re.compile(r"^```\w+\n# ([\w.-]+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:\S*/)?(?:invoke|nox)(?: [^`]+)?)`")
OTHERS = {"python3", "pip", "uv", "source", "git", "cd", "ln", "cp", "mkdir"}
"""What a page may tell a person to type besides ours."""
NOX_OPTIONS = {"-s", "--session", "--sessions", "-l", "--list"}
READS_ONLY = {"models", "signals", "validate", "completion"}
SESSIONS = set(re.findall(r"^@nox\.session.*\n(?:@.*\n)*def (\w+)", (ROOT / "noxfile.py").read_text(), re.MULTILINE))
CONFIGURATIONS = re.findall(r'^    "(sglang-[\d.]+)": Configuration', (ROOT / "noxfile.py").read_text(), re.MULTILINE)


def parts(line):
    """Yield the commands of a line as lists of words, without the variables set before them."""
    line = re.sub(r"<\((.*?)\)", r"; \1", line.removeprefix("$ "))  # source <(...): both are commands
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    words = []
    for word in [*lexer, ";"]:
        if word and set(word) <= set("|&;"):
            while words and re.fullmatch(r"\w+=\S*", words[0]):
                words = words[1:]
            if words:
                yield words
            words = []
        else:
            words.append(word)


def commands():
    """Yield (page, words) for each command in a block for a shell, and each Invoke or Nox command in running text."""
    for page in PAGES:
        text = page.read_text()
        for block in SHELL_BLOCK.findall(text):
            for line in block.replace("\\\n", " ").splitlines():
                for words in parts(line):
                    yield page, words
        for found in INLINE.findall(ANY_BLOCK.sub("", text)):
            yield page, shlex.split(found)


def program(words):
    return words[0].rpartition("/")[2]


def parsed(words, monkeypatch):
    """Parse a command with the real namespace and return the tasks that it would run; fail if it is refused."""
    monkeypatch.setattr(sys, "argv", words)
    parser = Program(namespace=tasks.ns)
    parser.create_config()
    parser.parse_core(words)
    parser.load_collection = lambda: None
    parser.collection = tasks.ns
    try:
        parser.parse_tasks()
    except ParseError as error:
        pytest.fail(f"{shlex.join(words)}: {error}")
    return parser


ALL = list(commands())
OURS = {f"{page.name}: {shlex.join(words)}": words for page, words in ALL if program(words) in ("invoke", "inv", "nox")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_tells_nobody_to_type_what_no_test_knows(page):
    unknown = {program(words) for its, words in ALL if its == page} - {"invoke", "inv", "nox"} - OTHERS
    assert not unknown, f"{page.name}: {unknown}"


@pytest.mark.parametrize("words", OURS.values(), ids=OURS)
def test_a_documented_command_is_real(words, monkeypatch):
    if program(words) == "nox":
        own, extra = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
        named = [word for word in own[1:] if not word.startswith("-")]
        assert {word for word in own[1:] if word.startswith("-")} <= NOX_OPTIONS
        assert not named or set(own) & {"-s", "--session", "--sessions"}, "nox takes no bare names"
        for name in named:
            session, _, configuration = name.removesuffix(")").partition("(")
            assert session in SESSIONS, session
            assert not configuration or configuration in CONFIGURATIONS, configuration
        if not extra or named[0] not in tasks.ns.task_names:
            return
        words = ["invoke", named[0], *extra]
    if len(words) == 2 and words[1] in tasks.ns.task_names:
        return  # a verb that is talked about
    found = parsed(words, monkeypatch)
    assert found.tasks or found.args.help.value or found.args.list.value or len(words) == 1


@pytest.mark.parametrize("step", steps.STEPS, ids=lambda step: step.name)
def test_a_step_of_the_tour_is_a_real_command(step, monkeypatch):
    engine = ["--engine", "sglang-0.5.23"] if step.takes_engine else []
    assert len(parsed(["invoke", *step.command, *engine], monkeypatch).tasks) == 1


@pytest.mark.parametrize("command", [command for _, command in steps.ON_A_GPU])
def test_what_the_tour_tells_to_do_on_a_gpu_is_real(command, monkeypatch):
    assert len(parsed(shlex.split(command), monkeypatch).tasks) == 1


# --- executed ---------------------------------------------------------------------------------------------------------


def is_quick_and_safe(words):
    """Tell whether a command only reads, needs no engine's libraries, no network and no run of one's own."""
    if program(words) == "nox":
        return False
    task = next((word for word in words[1:] if not word.startswith("-")), None)
    if task is None or "--dry-run" in words:
        return len(words) > 1
    if "--list" in words:
        return task in ("assets", "tour")
    if task == "validate":
        # a file of the repository, or one that the page itself shows
        return all("/" not in word or (ROOT / word).exists() for word in words[2:])
    return task in READS_ONLY and not {"--check-engine", "--check-upstream"} & set(words)


QUICK = sorted({shlex.join(words) for _, words in ALL if is_quick_and_safe(words)})


@pytest.mark.parametrize("command", QUICK)
def test_a_quick_command_runs(command, invoke, replay, home, tmp_path):
    """In a folder that holds the files which the pages show, with stand-ins for the engines they name."""
    for name in CONFIGURATIONS:
        replay(name=name, version=name.removeprefix("sglang-"))
    (home / "runs").mkdir()
    for page in PAGES:
        for name, content in NAMED_FILE.findall(page.read_text()):
            (tmp_path / name).write_text(content)
    words = [word if not (tmp_path / word).is_file() else str(tmp_path / word) for word in shlex.split(command)[1:]]
    ended = invoke(*words)
    assert ended.code == 0, ended.err
    assert ended.out


ENTRIES = re.compile(r"^```toml\n# bench/catalog/([\w/.-]+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SCHEMAS = {"presets": "preset", "signals": "signal", "fast_paths.toml": "fast-path", "families": "family"}


@pytest.mark.parametrize(
    ("place", "entry"),
    [(place, tomllib.loads(text)) for page in PAGES for place, text in ENTRIES.findall(page.read_text())],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_entry_that_a_page_shows_keeps_its_schema(place, entry):
    kind = SCHEMAS[place.partition("/")[0]]
    documents = [entry] if kind == "family" else entry.values() if kind == "preset" else entry[kind.replace("-", "_")]
    for document in documents:
        assert schema.violations(document, kind) == []
    assert kind == "family" or (ROOT / "bench" / "catalog" / place).is_file()


def test_every_finding_has_its_row_in_the_guide():
    from bench.catalog import signals

    parts = {signal.id.partition(".")[0] for signal in signals.signals()}
    parts |= {"evidence", "dump", "output", "process", "request", "arguments", "gpu", "cpu"}
    guide = (ROOT / "docs" / "fallback.md").read_text()
    assert not {part for part in parts if f"`{part}.…`" not in guide}


def test_the_guide_to_records_has_every_field_and_no_other():
    schema = json.loads((ROOT / "schemas" / "run-record.json").read_text())
    parts = schema["properties"]
    tables = (ROOT / "docs" / "records.md").read_text().partition("## The run record")[2].partition("\n- ")[0]
    named = [
        {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
        for table in re.split(r"^\| field.* \| says \|$", tables, flags=re.MULTILINE)[1:]
    ]
    documented = (
        schema, parts["workload"], parts["launches"]["items"], parts["requests"]["items"], parts["timings"],
    )  # fmt: skip
    assert named == [set(part["properties"]) for part in documented]


WINNER = re.compile(
    r"(FASTER|SLOWER): [\w ]+: (faster|slower) by at least ([\d.]+) % \(estimate ([\d.]+) %; "
    r"[\d.]+ % interval ([+-][\d.]+) to ([+-][\d.]+) %\)\. (?:The estimate [^.]*\. )?"
    r"Shows at least ([\d.]+) %: (yes|no)"
)


def test_no_example_of_a_winner_contradicts_itself():
    """The near end leads, the estimate is the middle of the interval, and the claim takes the whole interval."""
    examples = [found for page in PAGES for found in WINNER.findall(" ".join(page.read_text().split()))]
    assert examples
    for verdict, word, least, estimate, low, high, margin, shows in examples:
        ends = sorted((float(low), float(high)), key=abs)
        assert word == verdict.lower() == ("slower" if ends[0] > 0 else "faster")
        assert abs(ends[0]) == float(least)
        middle = 100 * (math.sqrt((1 + ends[0] / 100) * (1 + ends[1] / 100)) - 1)
        assert abs(middle) == pytest.approx(float(estimate), abs=0.011)
        assert shows == ("yes" if float(least) >= float(margin) else "no")


def test_no_page_quotes_a_smallest_effect_beside_a_verdict():
    """Only the evidence of methodology 1 has one, and says that it is wrong."""
    quoting = [page for page in PAGES if re.search(r"smallest (detectable )?effect", page.read_text())]
    assert [page.parent.name for page in quoting] == ["evidence"]
    assert "are of methodology 1" in " ".join(quoting[0].read_text().split())


def test_the_pages_have_commands():
    assert len(OURS) > 60
    assert len(QUICK) > 10


def test_every_page_is_in_the_index():
    index = (ROOT / "README.md").read_text()
    for page in PAGES[1:]:
        if page.parent == ROOT / "docs":
            assert f"](docs/{page.name})" in index, page.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_named_files_are_there(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / target).exists(), target
    for name in re.findall(r"`((?:bench|tests|schemas|docs|benchmarks)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), name


def test_the_readme_stays_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130
