"""How a bisection goes on and ends, from comparisons whose results are known: nothing is measured."""

import io
import itertools
import math
import shlex
import subprocess
from dataclasses import replace
from functools import partialmethod
from pathlib import Path

import planted
import pytest
from rich.console import Console

from bench.bisect import again, course, measuring, run
from bench.bisect.course import Course, Design, End, Result
from bench.compare import ab
from bench.engine import find, history, number, pins
from bench.engine.history import Commit, Range
from bench.errors import (
    BenchError,
    EngineFailed,
    EvidenceMissing,
    FallbackDetected,
    PreflightFailed,
    RecordEdited,
    TimedOut,
    UsageError,
)
from bench.record import campaign
from bench.report import bisect as report
from bench.report import live, text
from bench.run.options import Options

NAMES = [f"{number:040x}" for number in range(9)]
RANGE = Range(
    checkout=Path(), good=NAMES[0], bad=NAMES[-1], dirty=False,
    commits=tuple(Commit(sha=name, subject="s", parents=(NAMES[at],), before=NAMES[at])
                  for at, name in enumerate(NAMES[1:])),
)  # fmt: skip


def result(planned, **known):
    return Result(part=planned.part, why=planned.why, baseline=planned.baseline, candidate=planned.candidate, **known)


def ended(going, measure):
    """Go on to the end by results that ``measure`` gives."""
    while not isinstance(planned := going.following(), End):
        going.results.append(result(planned, **measure(planned)))
    return planned


def of_pixels(unknown, culprit=5):
    """Return what compares pixels, of which those of the comparisons in ``unknown`` cannot be."""

    def measure(planned):
        baseline, candidate = (int(name, 16) >= culprit for name in (planned.baseline, planned.candidate))
        differs = None if unknown(planned) else baseline != candidate
        return {"differences": (0.0,), "differs": differs, "record": "steps/x"}

    return measure


def of_pixels_course():
    return Course(known=RANGE, design=Design(what=course.FIDELITY), limited=False, broken={})


def test_pixels_of_the_ends_that_cannot_be_compared_are_not_equal():
    end = ended(of_pixels_course(), of_pixels(lambda planned: planned.why == course.GOOD_BAD))
    assert end.outcome == course.INCONCLUSIVE
    assert end.told == "the pixels of good and bad cannot be compared: see steps/x"


def test_a_commit_whose_pixels_cannot_be_compared_is_skipped():
    going = of_pixels_course()
    end = ended(going, of_pixels(lambda planned: planned.why == course.STEP and planned.candidate == NAMES[4]))
    assert end.commits == (NAMES[4], NAMES[5])
    assert end.outcome == course.SET
    assert going.skipped == {NAMES[4]: "its pixels cannot be compared: see steps/x"}


def test_a_likeliest_whose_pixels_cannot_be_held_against_its_parents_may_be_one_outside_of_the_paths():
    for limited, outcome in ((False, course.CULPRIT), (True, course.SET)):
        going = replace(of_pixels_course(), limited=limited)
        end = ended(going, of_pixels(lambda planned: planned.why == course.DECISIVE))
        assert (end.outcome, end.commits) == (outcome, (NAMES[5],))


def test_pixels_that_the_parent_shares_are_not_told_as_a_time():
    going = of_pixels_course()
    measure = of_pixels(lambda _: False)
    end = ended(going, lambda planned: {
        **measure(planned), "reason": "faster by 1 %", **({"differs": False} if planned.why == course.DECISIVE else {}),
    })  # fmt: skip
    assert (end.outcome, end.commits) == (course.INCONCLUSIVE, (NAMES[5],))
    assert end.told.endswith("against its parent it shows no difference: the same pixels")


def of_times(effects):
    """Return what measures pairs with a little noise, by each commit's slowdown in percent."""

    def measure(planned):
        effect = effects(int(planned.candidate, 16)) - effects(int(planned.baseline, 16))
        differences = tuple(
            math.log1p(effect / 100) + noise for noise in (0.0001, -0.0002, 0.0001, 0.0)[: planned.pairs]
        )
        bad = planned.why == course.GOOD_BAD
        return {"differences": differences, "verdict": "slower" if bad else "same", "reason": "seen"}

    return measure


def test_two_that_share_a_change_are_not_said_to_make_no_difference():
    going = Course(known=RANGE, design=Design(), limited=False, broken={})
    for why, baseline, candidate, effect in (
        (course.GOOD_GOOD, 0, 0, 0.0), (course.GOOD_BAD, 0, 8, 3.0), (course.DECISIVE, 4, 5, 1.5),
    ):  # fmt: skip
        planned = course.Planned(part="1", why=why, baseline=NAMES[baseline], candidate=NAMES[candidate], pairs=4)
        known = of_times(lambda at, effect=effect, first=candidate: effect if at >= first > 0 else 0.0)(planned)
        going.results.append(result(planned, **known))
    end = going.following()
    assert end.outcome == course.INCONCLUSIVE
    assert "explains +1.5 of +3.0 %: more than one commit may share it" in end.told


# --- whose fault ------------------------------------------------------------------------------------------------------

PLANNED = course.Planned(part="003-step", why=course.STEP, baseline="a" * 40, candidate="b" * 40, pairs=1)


@pytest.mark.parametrize(
    ("error", "skipped"),
    [
        (PreflightFailed("GPU 0 is used by another run (pid 4242)", where="/runs/x/candidate/launch-1"), False),
        (UsageError("the folder cannot be made: No space left on device", where="/runs"), False),
        (RecordEdited("a file has changed", where="/runs/x/candidate/run.json"), False),
        (EngineFailed("the engine's interpreter does not work", where="/environments/python"), False),
        (EngineFailed("the engine crashed", where="/runs/x/baseline/launch-1/engine.log"), False),
        (EngineFailed("the engine crashed", where="/runs/x/candidate/launch-1/engine.log"), True),
        (FallbackDetected("torch_sdpa", where="log line 4: falls back\n         /runs/x/candidate"), True),
        (TimedOut("stopped", where="/runs/x/candidate/launch-1/engine.log"), True),
        (EvidenceMissing("no proof", where="/runs/x/candidate"), True),
        (EngineFailed(f"resolve.py failed in engine source:{'b' * 12}: no module", where="/inside/resolve.py"), True),
        (EngineFailed(f"resolve.py failed in engine source:{'a' * 12}: no module", where="/inside/resolve.py"), False),
    ],
)
def test_a_commit_is_skipped_only_for_what_its_engine_did(tmp_path, monkeypatch, error, skipped):
    engines = engines_in(tmp_path, good=PLANNED.baseline)
    check_fault(engines, monkeypatch, PLANNED, error, PLANNED.candidate if skipped else None)


def check_fault(engines, monkeypatch, planned, error, commit):
    """Let a comparison fail, and hold that it skips this commit; None: that it is raised."""

    def failed(*_words, **_options):
        raise error

    monkeypatch.setattr(ab, "measure", failed)
    monkeypatch.setattr(pins, "required", lambda _checkout, _commit: frozenset())
    if commit is not None:
        known = engines.compare(planned)
        assert (known.candidate, known.skipped) == (commit, error.what)
    else:
        with pytest.raises(BenchError) as raised:
            engines.compare(planned)
        assert raised.value is error


def engines_in(folder, good):
    worktrees = measuring.Worktrees(
        known=replace(RANGE, good=good),
        folder=folder,
        made={name: folder / measuring.WORKTREES / name[:12] for name in (PLANNED.baseline, PLANNED.candidate)},
    )
    return measuring.Engines(
        options=Options(), configuration=None, metric="total", design=Design(), worktrees=worktrees, folder=folder,
        display=Quiet(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("error", "skipped"),
    [
        (EngineFailed("the engine crashed", where="/runs/x/baseline/launch-1/engine.log"), True),
        (EngineFailed(f"resolve.py failed in engine source:{'a' * 12}: no module", where="/inside/resolve.py"), True),
        (EngineFailed("the engine's interpreter does not work", where="/environments/python"), False),
        (PreflightFailed("GPU 0 is used by another run (pid 4242)", where="/runs/x/baseline/launch-1"), False),
    ],
)
def test_a_parent_that_fails_in_the_decisive_comparison_is_skipped(tmp_path, monkeypatch, error, skipped):
    decisive = replace(PLANNED, part="009-decisive", why=course.DECISIVE)
    check_fault(
        engines_in(tmp_path, good=NAMES[0]), monkeypatch, decisive, error, decisive.baseline if skipped else None
    )


def test_a_commit_that_cannot_be_installed_is_skipped(tmp_path, monkeypatch):
    def requires(_checkout, commit):
        return frozenset({"torch==2", "no-such==1"} if commit == PLANNED.candidate else {"torch==2"})

    def failed(_configuration, requirements, _tell):
        raise EngineFailed(f"its requirements cannot be installed: {requirements}")

    monkeypatch.setattr(pins, "required", requires)
    monkeypatch.setattr(pins, "environment", failed)
    monkeypatch.setattr(find, "find", lambda _over: find.unasked())
    known = engines_in(tmp_path, good=PLANNED.baseline).compare(PLANNED)
    assert known.candidate == PLANNED.candidate
    assert known.skipped == "its requirements cannot be installed: ['no-such==1']"


def test_a_commit_that_needs_an_environment_over_an_engine_nox_did_not_build_is_skipped(home, monkeypatch):
    def requires(_checkout, commit):
        return frozenset({"torch==2", "xyz==1"} if commit == PLANNED.candidate else {"torch==2"})

    monkeypatch.setattr(pins, "required", requires)
    monkeypatch.setattr(find, "find", lambda _over: find.unasked())
    known = engines_in(home, good=PLANNED.baseline).compare(PLANNED)
    assert known.candidate == PLANNED.candidate
    assert known.skipped.startswith(
        "it requires something else than good, which is installed only over what nox built: "
    )


# --- commands, in process ---------------------------------------------------------------------------------------------


class Quiet:
    def observe(self, *_block):
        pass

    def begin(self, *_pair):
        pass

    def tell(self, _told):
        pass

    def expect(self, _pairs):
        pass


def commit(folder, **files):
    for name, told in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(told)
    planted.git(folder, "add", "-A")
    planted.git(folder, "commit", "-qm", "a commit")
    return planted.git(folder, "rev-parse", "HEAD").strip()


@pytest.fixture
def repository(home, monkeypatch):
    """Make a history of five commits whose last is slow; a commit's number is in its file `n`."""
    folder = home / "repository"
    folder.mkdir()
    planted.git(folder, "init", "-q", "-b", "main")
    commit(folder, n="100", f="0")
    for at in range(1, 5):
        commit(folder, **({"f": str(at)} if at % 2 else {"other": str(at)}))
    commit(folder, n="120", f="9")
    calls = []

    def of(_command, place, _commit, _timeout_s):
        calls.append(place)
        return float((place / "n").read_text()) * (1 + 0.0005 * (len(calls) % 3 - 1))

    monkeypatch.setattr(number, "of", of)
    return folder


def begun(folder, **changes):
    asked = {"source": str(folder), "good": "HEAD~5", "bad": "HEAD", "command": "x", **changes}
    return run.begin(Options(), run.Question(**asked), Design(pairs=4), display=Quiet())


def test_a_parent_that_fails_in_the_decisive_comparison_leaves_the_two_that_cannot_be_told_apart(
    repository, monkeypatch, capsys
):
    measured = number.of
    parent, last = (planted.git(repository, "rev-parse", name).strip() for name in ("HEAD~1", "HEAD"))
    calls = []

    def of(command, place, commit, timeout_s):
        calls.append(commit)
        if calls.count(parent) > 1:
            raise EngineFailed("the command ended with exit code 3: it broke", where=place)
        return measured(command, place, commit, timeout_s)

    monkeypatch.setattr(number, "of", of)
    document = begun(repository).document
    assert document["comparisons"][-1]["why"] == course.DECISIVE
    assert (document["outcome"], document["culprits"]) == (course.SET, [parent, last])
    assert [entry["commit"] for entry in document["commits"] if entry["skipped"]] == [parent]
    report.show(document, text.stdout())
    told = " ".join(capsys.readouterr().out.split())
    assert "one of 2 commits that cannot be told apart" in told
    assert f"skipped: {parent[:12]} a commit: the command ended with exit code 3" in told


def test_paths_that_bad_touches_leave_it_or_one_outside(repository, capsys):
    document = begun(repository, paths=("f",)).document
    last = planted.git(repository, "rev-parse", "HEAD").strip()
    assert document["culprits"] == [last]
    assert document["told"].startswith("this commit, or one outside of the paths")
    report.show(document, text.stdout())
    assert "or one outside of the paths" in " ".join(capsys.readouterr().out.split())


def test_without_a_parent_that_runs_paths_leave_a_commit_or_one_outside(repository, monkeypatch, capsys):
    commit(repository, other="later")
    measured = number.of
    parent, last = (planted.git(repository, "rev-parse", name).strip() for name in ("HEAD~2", "HEAD~1"))

    def of(command, place, name, timeout_s):
        if name == parent:
            raise EngineFailed("the command ended with exit code 3: it broke", where=place)
        return measured(command, place, name, timeout_s)

    monkeypatch.setattr(number, "of", of)
    document = begun(repository, good="HEAD~6", paths=("n",)).document
    assert (document["outcome"], document["culprits"]) == (course.SET, [last])
    assert document["told"].startswith("this commit, or one outside of the paths")
    report.show(document, text.stdout())
    assert "exit code 3: it broke" in " ".join(capsys.readouterr().out.split())


@pytest.fixture
def cut_off(home, monkeypatch):
    """Return what cuts a bisection off when it would end, and its folder."""

    def cut(folder, **changes):
        with monkeypatch.context() as patched:
            patched.setattr(campaign.Campaign, "end", interrupted)
            with pytest.raises(KeyboardInterrupt):
                begun(folder, **changes)
        (state,) = (home / "runs").glob("*/campaign.json")
        return state.parent

    def interrupted(_self):
        raise KeyboardInterrupt

    return cut


def test_an_interrupt_at_the_start_names_the_command_once_there_is_something_to_resume(repository, home, monkeypatch):
    write = campaign.Campaign.write

    def interrupted(state, *, is_written):
        if is_written:
            write(state)
        raise KeyboardInterrupt

    for is_written in (False, True):
        monkeypatch.setattr(campaign.Campaign, "write", partialmethod(interrupted, is_written=is_written))
        with pytest.raises(KeyboardInterrupt) as cut:
            begun(repository)
        notes = getattr(cut.value, "__notes__", [])
        folders = sorted((home / "runs").glob("*/campaign.json"))
        assert len(folders) == is_written
        words = [f"--resume {place.parent.name[-6:]} --source {repository} --run x` goes on" for place in folders]
        assert [note.partition(" bisect ")[2] for note in notes if note.startswith(campaign.TO_DO)] == words


def test_one_that_was_killed_after_its_record_ends_when_it_is_resumed(repository, cut_off):
    folder = cut_off(repository)
    assert (folder / run.DOCUMENT).is_file()
    document = run.resume(folder, Options(), str(repository), "x", display=Quiet()).document
    assert document["outcome"] == course.CULPRIT
    assert not (folder / campaign.STATE).exists()


def test_a_branch_that_moved_does_not_move_a_bisection(repository, cut_off):
    folder = cut_off(repository)
    last = planted.git(repository, "rev-parse", "HEAD").strip()
    commit(repository, f="later")
    document = run.resume(folder, Options(), str(repository), "x", display=Quiet()).document
    assert (document["bad"], document["culprits"]) == (last, [last])


def test_a_command_with_a_secret_is_resumed_by_typing_it_again(repository, cut_off):
    command = "HF_TOKEN=hf_abcdefghijklmnopqrst python3 number.py"
    folder = cut_off(repository, command=command)
    assert "hf_abcdefghij" not in (folder / campaign.STATE).read_text()
    with pytest.raises(UsageError, match="no record chooses the code"):
        run.resume(folder, Options(), str(repository), "python3 number.py", display=Quiet())
    document = run.resume(folder, Options(), str(repository), command, display=Quiet()).document
    assert document["outcome"] == course.CULPRIT


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("Total: 1234.56 ms", 1234.56), ("4 steps, 2.5e-3", 0.0025), ("0.5", 0.5), ("of 3: .25", 0.25),
        ("Total: 1,234.56 ms", "1,234.56"), ("1_234", "1_234"), ("= 1.234.567", "1.234.567"), ("1.234,5", "1.234,5"),
        ("1\u202f234.5 ms", "1\u202f234.5"),
    ],
)  # fmt: skip
def test_a_number_is_read_whole_or_not_at_all(tmp_path, line, value):
    command = f"echo {shlex.quote(line)}"
    if isinstance(value, float):
        assert number.of(command, tmp_path, "x", 60) == value
    else:
        with pytest.raises(EngineFailed, match="the command's last number has separators") as refused:
            number.of(command, tmp_path, "x", 60)
        assert refused.value.what.endswith(f": {value}")


def test_a_command_has_no_metric(repository):
    with pytest.raises(UsageError, match="a command's number is what it prints"):
        begun(repository, metric="nonsense")


# --- the history ------------------------------------------------------------------------------------------------------


def read(folder, good, **options):
    return history.read(folder, good, "HEAD", **{"first_parent": False, "paths": (), **options})


def test_a_history_of_its_own_is_refused_with_what_to_do(repository):
    good = planted.git(repository, "rev-parse", "HEAD").strip()
    planted.git(repository, "checkout", "-q", "--orphan", "other")
    commit(repository, b="1")
    planted.git(repository, "checkout", "-q", "main")
    planted.git(repository, "merge", "-q", "-X", "ours", "--allow-unrelated-histories", "-m", "merge", "other")
    with pytest.raises(UsageError, match="begins a history of its own"):
        read(repository, good)
    assert len(read(repository, good, first_parent=True).commits) == 1


def test_a_subject_may_hold_any_character(repository):
    commit(repository, f="x")
    planted.git(repository, "commit", "-q", "--amend", "-m", "one\x01two")
    assert read(repository, "HEAD~1").commits[0].subject == "one\x01two"


PY = "python/sglang/x.py"


def test_only_what_the_package_breaks_breaks_a_commit(repository):
    good = commit(repository, **{"python/sglang/old.py": "print 'two'\n"})
    commit(repository, **{"tests/fixture.py": "print 'two'\n"})
    commit(repository, **{"python/sglang/old.py": "print 'three'\n"})
    commit(repository, **{"python/sglang/deep.py": f"x = {'-' * 100_000}1\n"})
    assert history.broken(read(repository, good)) == {}
    broken = commit(repository, **{PY: "def f(:\n"})
    assert history.broken(read(repository, good)) == {broken: f"{PY} is not Python that can be parsed"}


def test_a_range_of_which_nothing_can_be_imported_is_refused(repository):
    good = planted.git(repository, "rev-parse", "HEAD").strip()
    commit(repository, **{PY: "def f(:\n"})
    bad = commit(repository, f="x")
    commit(repository, **{PY: "x = 1\n"})
    with pytest.raises(UsageError, match="none of the 2 commits between can be imported"):
        begun(repository, good=good, command=None)
    with pytest.raises(UsageError, match=f"bad cannot be imported: {PY} is not Python that can be parsed"):
        begun(repository, good=good, bad=bad, command=None)


def test_a_command_runs_in_commits_that_cannot_be_parsed(repository):
    commit(repository, **{PY: "def f(:\n"})
    assert begun(repository, good="HEAD~6").document["outcome"] == course.CULPRIT


# --- again ------------------------------------------------------------------------------------------------------------


def test_a_checkout_over_a_configuration_is_written_and_read_in_one_way():
    for place, over in (("/a@b/c", None), ("/a@b/c", "sglang-0.5.23"), ("../sglang", None), ("./x", "replay")):
        assert find.source_parts(find.source_spec(place, over)) == (place, over)


def test_the_decisive_comparison_is_made_again_as_it_was():
    options = Options(
        model="flux", steps=8, width=512, repeats=4, engine="sglang-0.5.23", extra=("--vae-tiling", "true"),
        preset_file=Path("my presets.toml"),
    )  # fmt: skip
    over = {"a" * 40: "sglang-0.5.23", "b" * 40: "sglang-0.5.23+0123456789ab"}
    told = again.of_engines("/data/my sglang", options.document(), "denoise", Design(), over)
    trees, _, compared = told.rpartition(" && ")
    assert trees.startswith(f"git -C '/data/my sglang' worktree add --detach \"$PWD/{'a' * 12}\" {'a' * 40} && git")
    words = shlex.split(compared)
    arm = f"source:./{'b' * 12}@sglang-0.5.23+0123456789ab steps=8 width=512 --vae-tiling=true"
    assert words[words.index("--candidate") + 1] == arm
    for pair in (("--preset-file", "my presets.toml"), ("--metric", "denoise"), ("--margin", "3%"), ("--pairs", "8")):
        assert pair in set(itertools.pairwise(words))


def test_a_command_is_run_again_in_both_commits(repository, tmp_path):
    commits = [planted.git(repository, "rev-parse", name).strip() for name in ("HEAD~1", "HEAD")]
    told = again.of_command(str(repository), 'cat n; echo "; $BISECT_COMMIT" # it\'s', commits)
    ended = subprocess.run(["bash", "-c", told], cwd=tmp_path, capture_output=True, text=True, check=True)
    lines = [line for line in ended.stdout.splitlines() if not line.startswith("HEAD is now")]
    assert lines == [f"100; {commits[0]}", f"120; {commits[1]}"]


# --- shown ------------------------------------------------------------------------------------------------------------


def test_the_line_counts_the_pairs_of_the_comparison_that_is_made():
    display = live.Pairs(Console(file=io.StringIO()), pairs=8, requests=4, starting="running the command")
    display.begin(8, "good-good")
    display.expect(16)
    display.begin(1, "good-bad")
    assert display.line() == "pair 1/16, running the command"


def test_the_effect_of_the_ends_stands_beside_the_culprits(repository, capsys):
    report.show(begun(repository).document, text.stdout())
    told = " ".join(capsys.readouterr().out.split())
    assert "effect: the command's number: slower by at least" in told
    assert "2 files changed, 2 insertions(+), 2 deletions(-)" in told
    assert "files: 2: 2 files" not in told
