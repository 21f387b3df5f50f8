"""Completion, as the shells ask for it: the scripts are really sourced, and TAB is really pressed."""

import json
import os
import pty
import re
import select
import shlex
import shutil
import subprocess
import sys
import time

import pytest
from helpers import ROOT

SHELLS = ("bash", "zsh", "fish")
SOURCE = {
    "bash": "source <({python} -m invoke completion bash)",
    "zsh": "source <({python} -m invoke completion zsh)",
    "fish": "{python} -m invoke completion fish | source",
}
INTERACTIVE = {"bash": ["bash", "--norc", "-i"], "zsh": ["zsh", "-f", "-i"], "fish": ["fish", "--no-config", "-i"]}
SECONDS = 240.0


def shells(*names):
    """Return the shells as parameters; bash is everywhere, and .ci/run installs the others where it can."""
    return [
        pytest.param(name, marks=pytest.mark.skipif(not shutil.which(name), reason=f"{name} is not here"))
        for name in names
    ]


@pytest.fixture
def complete(invoke):
    def ask(line, **settings):
        ended = invoke("completion", "bash", "--line", line, **settings)
        assert ended.code == 0, ended.err
        assert ended.err == ""
        return [row.partition("\t")[0] for row in ended.out.splitlines()]

    return ask


@pytest.fixture
def runs(home):
    for name, file in {"20261101-old": "run.json", "20261102-cut": "run.partial.json", "20261103-other": "x"}.items():
        (home / "runs" / name).mkdir(parents=True)
        (home / "runs" / name / file).write_text("{}")
    return home / "runs"


# --- unhappy first ----------------------------------------------------------------------------------------------------


def test_an_unknown_shell_is_named(invoke):
    ended = invoke("completion", "tcsh")
    assert ended.code == 1
    assert "'tcsh'" in ended.err
    assert "SHELL takes bash, fish or zsh" in ended.err


@pytest.mark.parametrize(
    "line",
    [
        "invoke bench --model no-such-preset",
        "invoke bench --image ",  # a file: left to the shell
        "invoke bench --seed ",  # a number
        "invoke bench -- --vae",  # the engine's own flags
        "invoke bench --label 'an open quote",
        "invoke compare ",  # there is not one record yet
        "invoke bench --resume ",
    ],
)
def test_nothing_is_offered_where_nothing_is_known(complete, line):
    assert complete(line) == []


def test_a_broken_environment_does_not_break_a_tab(complete, home):
    folder = home / "environments" / "engine-half"
    folder.mkdir(parents=True)
    (folder / "engine.json").write_text("{ half")
    assert complete("invoke bench --engine ") == ["source:"]


# --- what is offered --------------------------------------------------------------------------------------------------


def test_tasks_and_options_are_those_that_invoke_knows(complete, invoke):
    listed = [task["name"] for task in json.loads(invoke("--list", "--list-format", "json").out)["tasks"]]
    assert set(listed) <= set(complete("invoke "))
    assert {"baseline.set", "baseline.unset"} <= set(complete("inv base"))
    options = set(re.findall(r"^  (--[\w-]+)", invoke("--help", "bench").out, re.MULTILINE))
    assert set(complete("invoke bench --")) - {"--help"} == options
    assert "--model" not in complete("invoke bench --model flux --")
    assert complete("invoke --help profile-d") == ["profile-diff"]


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("invoke bench --model flux-ti", ["flux-tiny"]),
        ("BENCH_RUNS=/x /venv/bin/invoke bench --model flux-ti", ["flux-tiny"]),
        ("invoke bench --model=flux-ti", ["--model=flux-tiny"]),
        ("invoke bench --model flux-tiny,sd3-t", ["flux-tiny,sd3-tiny"]),
        ("invoke checkpoint --model s", ["sd3"]),
        ("invoke checkpoint --size ", ["tiny", "full"]),
        ("invoke accuracy --check component,", ["component,trajectory", "component,golden"]),
        ("invoke bench --tag nigh", ["nightly"]),
        ("invoke bench --quality ex", ["exact", "extra-high"]),
        ("invoke bench --matrix quality,", ["quality,cuda-graph"]),
        ("invoke signals --category comp", ["compile", "component"]),
        ("invoke attest --expect d", ["diffusers"]),
        ("invoke tour --step fall", ["fallback"]),
        ("invoke tour --from fall", ["fallback"]),
    ],
)
def test_values_are_offered(complete, line, wanted):
    assert complete(line) == wanted


def test_every_preset_is_offered(complete, invoke):
    assert set(complete("invoke bench --model ")) == set(json.loads(invoke("models", "--json").out))


def test_engines_are_those_that_were_built(complete, replay):
    replay(name="one", version="0.5.23")
    assert complete("invoke bench --engine ") == ["one", "source:"]
    assert complete("invoke signals --check-engine ") == ["one"]
    assert complete("invoke ab --candidate o") == ["one"]


def test_records_are_offered_newest_first(complete, runs):
    cut, old = str(runs / "20261102-cut"), str(runs / "20261101-old")
    assert complete("invoke compare ") == ["last", cut, old]
    assert complete(f"invoke compare {old} {runs}/") == [cut, old]
    assert complete("invoke bench --resume ") == ["last", cut]
    assert complete("invoke baseline.set ") == complete("invoke baseline.unset ") == ["last", cut, old]


def test_a_label_is_offered_as_the_name_of_a_run(complete, runs):
    (runs / "20261101-old" / "run.json").write_text('{"id": "x", "label": "before"}')
    assert complete("invoke compare bef") == ["before"]


def test_the_words_of_an_arm_are_offered(complete):
    assert complete("invoke ab --candidate com") == ["compile"]
    assert complete("invoke ab --baseline qual") == ["quality="]


def test_every_list_of_values_belongs_to_an_option():
    import tasks  # noqa: F401 - it fills VERBS
    from bench.completion.values import LISTS
    from bench.task import VERBS

    named = {option.completes for verb in VERBS.values() for option in verb.options if option.completes}
    assert named == set(LISTS)


# --- in the shells themselves -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", SHELLS)
def test_the_scripts_name_this_interpreter_and_no_other_path(invoke, shell):
    text = invoke("completion", shell).out
    assert shlex.quote(sys.executable) in text
    assert "@" not in re.sub(r"\(@\)|\[@\]", "", text)
    assert str(ROOT) not in text.replace(sys.executable, "")


@pytest.mark.parametrize("shell", shells(*SHELLS))
def test_the_scripts_are_of_their_shells_syntax(invoke, shell, tmp_path):
    script = tmp_path / f"completion.{shell}"
    script.write_text(invoke("completion", shell).out)
    ended = subprocess.run([shell, "-n", script], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def press_tab(shell, typed, wanted, *, folder=ROOT):
    """Type into an interactive shell with the completion sourced, press TAB, and wait until the text is there."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.environ.update(TERM="dumb", PS1="> ", COLUMNS="200")
        os.execvp(INTERACTIVE[shell][0], INTERACTIVE[shell])
    seen = ""
    try:
        ready = "source-" + "done"
        source = SOURCE[shell].format(python=shlex.quote(sys.executable))
        os.write(terminal, f"cd {shlex.quote(str(ROOT))}; {source}; cd -; echo source-'done'\n".encode())
        for text, expected in ((None, ready), (typed + "\t", wanted)):
            deadline = time.monotonic() + SECONDS
            if text is not None:
                os.write(terminal, text.encode())
                seen = ""
            while expected not in seen.replace("\b", ""):
                assert time.monotonic() < deadline, f"{shell} showed {seen!r}"
                if select.select([terminal], [], [], 0.1)[0]:
                    seen += os.read(terminal, 4096).decode(errors="replace")
        return seen
    finally:
        os.kill(child, 9)
        os.close(terminal)
        os.waitpid(child, 0)


@pytest.mark.parametrize("shell", shells("bash", "zsh"))
@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("invoke bench --model flux-ti", "flux-tiny "),
        ("invoke bench --model=flux-ti", "--model=flux-tiny "),
        ("invoke bench --model flux-tiny,sd3-t", "flux-tiny,sd3-tiny "),
        ("invoke profile-d", "profile-diff "),
    ],
)
def test_tab_in_an_interactive_shell(home, shell, typed, wanted):
    press_tab(shell, typed, wanted)


@pytest.mark.parametrize("shell", shells("bash", "zsh"))
def test_another_project_keeps_its_own_completion(home, shell, tmp_path):
    """What is sourced once is used everywhere: elsewhere Invoke's own answer is given, and no task runs."""
    other = tmp_path / "other"
    (other / "bin").mkdir(parents=True)
    program = other / "bin" / "invoke"
    program.write_text('#!/bin/sh\n[ "$1" = --complete ] && echo deploy-this\n')
    program.chmod(0o755)
    press_tab(shell, f"PATH={shlex.quote(str(other / 'bin'))}:$PATH\ninvoke dep", "deploy-this ", folder=other)


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not here")
@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("invoke bench --model flux-ti", "flux-tiny"),
        ("invoke comp", "compare"),
        ("invoke validate tests/conf", "tests/conftest.py"),
    ],
)
def test_fish_completes(home, line, wanted):
    """fish tells what it would offer, without a terminal."""
    source = SOURCE["fish"].format(python=shlex.quote(sys.executable))
    ended = subprocess.run(
        ["fish", "--no-config", "-c", f"{source}; complete -C {shlex.quote(line)}"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=SECONDS,
    )  # fmt: skip
    assert ended.stderr == ""
    assert wanted in [row.partition("\t")[0] for row in ended.stdout.splitlines()]
