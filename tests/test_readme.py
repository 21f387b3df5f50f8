"""Every `invoke` and `nox` line of the README and the docs is one that the real tasks and sessions take."""

import re
import shlex
import sys

import pytest
from helpers import ROOT
from invoke import Program
from invoke.exceptions import ParseError

sys.path.insert(0, str(ROOT))
import tasks

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SESSIONS = set(re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text(), re.MULTILINE))


def commands():
    for page in PAGES:
        for block in re.findall(r"^```(?:console|sh|bash)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                for part in re.split(r"&&|\|\||;", line.removeprefix("$ ").split(" #")[0]):
                    words = shlex.split(part)
                    while words and re.fullmatch(r"\w+=\S*", words[0]):
                        words = words[1:]
                    if words and words[0].rpartition("/")[2] in ("invoke", "nox"):
                        yield pytest.param(words, id=f"{page.name}: {' '.join(words)}")


@pytest.mark.parametrize("words", list(commands()))
def test_a_documented_command_is_real(words, monkeypatch):
    program = words[0].rpartition("/")[2]
    if program == "nox":
        sessions = words[words.index("-s") + 1 :] if "-s" in words else []
        extra = sessions[sessions.index("--") + 1 :] if "--" in sessions else []
        named = sessions[: sessions.index("--")] if "--" in sessions else sessions
        for name in named:
            assert name.partition("(")[0] in SESSIONS, name
        if not extra or named[0] not in tasks.ns.task_names:
            return
        words = ["invoke", named[0], *extra]
    monkeypatch.setattr(sys, "argv", words)
    parser = Program(namespace=tasks.ns)
    parser.create_config()
    parser.parse_core(words)
    parser.load_collection = lambda: None
    parser.collection = tasks.ns
    try:
        parser.parse_tasks()
    except ParseError as error:
        pytest.fail(str(error))
    if not parser.args.list.value:
        assert parser.tasks or parser.args.help.value


def test_the_pages_have_commands():
    assert len(list(commands())) > 5
