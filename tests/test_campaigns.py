"""Comparisons, matrices and batches that are cut off: what was paid for is kept, and never measured again."""

import json
import os
import signal
import subprocess

import pytest
from helpers import NATIVE, ROOT, invoke_command, processes_like, wait_for_task, wait_until

from bench import schema
from bench.errors import RecordEdited
from bench.record import campaign

STEADY = NATIVE | {"between": 0.02, "within": 0.001}
HANGS = {"hang_at": 1, "hang_in_launch": 3}
"""A third launch that does not answer: whoever cuts it off has two finished ones."""


@pytest.fixture
def presets(home, model):
    path = home / "mine.toml"
    text = (
        f'description = "replayed"\nmodel = "{model()}"\nmodality = "image"\nprompt = "p"\nseed = 1\n'
        "width = 256\nheight = 256\nsteps = 4\n"
    )
    path.write_text("".join(f'[{key}]\n{text}tags = ["mine"]\n' for key in ("one", "two", "three")))
    return path


def starts(home, engine):
    """Return how many launches an engine has had."""
    return (home / "environments" / f"engine-{engine}" / "launches").stat().st_size


def state_of(folder):
    return json.loads((folder / "campaign.json").read_text())


@pytest.fixture
def cut_off(home):
    """Start a campaign, send it a signal when so many parts are finished and the next hangs; return how it ended."""

    def run(number, parts, *arguments, hanging, meanwhile=lambda _: None):
        task = subprocess.Popen(
            invoke_command(*arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"COLUMNS": "200"},
        )  # fmt: skip

        def hangs():
            for path in (home / "runs").glob("*/campaign.json"):
                if len(state_of(path.parent)["finished"]) == parts and starts(home, hanging) == HANGS["hang_in_launch"]:
                    return path.parent
            return None

        folder = wait_for_task(task, hangs, "the launch that hangs has not come")
        meanwhile((task, folder))
        task.send_signal(number)
        out, err = task.communicate(timeout=300)
        wait_until(lambda: not processes_like("session_worker.py", home / "runs"), "an engine is still there")
        return folder, task.returncode, out, err

    return run


def ab(presets, *arguments):
    return ("ab", "--model", "one", "--preset-file", presets, "--repeats", "2", "--metric", "denoise", *arguments)


@pytest.fixture
def arms(replay, presets):
    replay(name="old", **STEADY)
    replay(name="new", **STEADY, **HANGS, seed=7)
    return ab(presets, "--baseline", "old", "--candidate", "new", "--pairs", "4")


# --- unhappy first ----------------------------------------------------------------------------------------------------


def test_what_is_going_on_is_not_resumed_beside_it(arms, invoke, cut_off):
    def try_to_resume(going_on):
        task, folder = going_on
        ended = invoke("ab", "--resume", folder)
        assert ended.code == 1
        assert f"this run is still in progress (process {task.pid})" in ended.err

    folder, *_ = cut_off(signal.SIGKILL, 2, *arms, hanging="new", meanwhile=try_to_resume)
    assert len(state_of(folder)["finished"]) == 2


def test_a_run_that_is_going_on_is_not_resumed_beside_it(home, replay, presets, invoke):
    replay(name="slow", **NATIVE, hang_at=3)
    command = ("bench", "--model", "one", "--preset-file", presets, "--engine", "slow", "--repeats", "3")
    task = subprocess.Popen(invoke_command(*command), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    partial = wait_for_task(task, lambda: list((home / "runs").glob("*/run.partial.json")), "no request is finished")[0]
    before = partial.read_bytes()
    ended = invoke("bench", "--resume", partial.parent)
    assert ended.code == 1
    assert f"still in progress (process {task.pid})" in ended.err
    assert partial.read_bytes() == before
    assert not list(partial.parent.glob("*cut-off*"))
    task.kill()
    task.wait()


def change_engine(home, replay, presets, monkeypatch):
    site = home / "environments" / "engine-new" / "site"
    (site / "sglang-0.5.23.dist-info").rename(site / "sglang-0.5.17.dist-info")
    metadata = site / "sglang-0.5.17.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("0.5.23", "0.5.17"))


def change_environment(home, replay, presets, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")


def change_preset(home, replay, presets, monkeypatch):
    presets.write_text(presets.read_text().replace("steps = 4", "steps = 5"))


def change_dump(home, replay, presets, monkeypatch):
    next((home / "runs").glob("*/candidate/launch-1/request-002/perf.json")).write_text("{}")


@pytest.mark.parametrize(
    ("change", "arguments", "code", "says"),
    [
        (change_engine, (), 1, "engine"),
        (change_environment, (), 1, "OMP_NUM_THREADS"),
        (change_preset, (), 1, "changed since the run was started: the preset"),
        (change_dump, (), RecordEdited.exit_code, "launch-1/request-002/perf.json was changed: its hash differs"),
        (None, ("--candidate", "old"), 1, "the candidate was 'new' when this began"),
        (None, ("--pairs", "9"), 1, "a resumed comparison keeps its design"),
        (None, ("--dry-run",), 1, "--dry-run cannot show them"),
    ],
    ids=["engine", "environment", "preset", "dump", "arm", "design", "dry run"],
)
def test_what_has_changed_is_not_mixed_with_what_was_measured(
    arms, cut_off, invoke, home, replay, presets, monkeypatch, change, arguments, code, says
):
    folder, *_ = cut_off(signal.SIGKILL, 2, *arms, hanging="new")
    started = starts(home, "old"), starts(home, "new")
    if change is not None:
        change(home, replay, presets, monkeypatch)
    ended = invoke("ab", "--resume", folder, *arguments)
    assert ended.code == code, ended.err
    assert says in ended.err
    assert (starts(home, "old"), starts(home, "new")) == started
    assert len(state_of(folder)["finished"]) == 2


def test_another_verb_is_named(arms, cut_off, invoke):
    folder, *_ = cut_off(signal.SIGKILL, 2, *arms, hanging="new")
    ended = invoke("bench", "--resume", folder)
    assert ended.code == 1
    assert f"`invoke ab --resume {folder}`" in ended.err
    assert "nothing to resume" in invoke("ab", "--resume", folder / "baseline").err


def test_what_was_cut_off_is_said_and_goes_on_by_its_label(arms, cut_off, invoke):
    folder, *_ = cut_off(signal.SIGKILL, 2, *arms, "--label", "mine", hanging="new")
    for word in (folder.name[-6:], "mine"):
        for verb in ("report", "attest", "compare"):
            ended = invoke(verb, word)
            assert "this is an A/B that was cut off" in ended.err, ended.err
            assert f"`invoke ab --resume {folder.name[-6:]}` goes on with it" in ended.err
    assert invoke("ab", "--resume", "mine").code in (0, 7, 9)


def test_an_arm_with_a_secret_has_to_be_given_again(replay, presets, cut_off, invoke):
    replay(name="old", **STEADY)
    replay(name="new", **STEADY, **HANGS, seed=7)
    arm = "new MY_TOKEN=hf_abcdefghijklmnop"
    asked = ab(presets, "--baseline", "old", "--candidate", arm, "--pairs", "3")
    folder, *_ = cut_off(signal.SIGKILL, 2, *asked, hanging="new")
    assert "hf_abc" not in (folder / "campaign.json").read_text()
    ended = invoke("ab", "--resume", folder)
    assert ended.code == 1
    assert "the candidate holds a secret, which was not kept" in ended.err
    assert "hf_abc" not in ended.err
    assert invoke("ab", "--resume", folder, "--candidate", arm).code in (0, 7, 9)


def test_of_a_campaign_inside_another_one_the_outer_ones_command_goes_on(tmp_path):
    for name in ("outer", "inner"):
        (tmp_path / name).mkdir()
    with pytest.raises(KeyboardInterrupt) as interrupted, campaign.begin("bisect", tmp_path / "outer", {}) as outer:
        outer.named_again = ("--source", "a b")
        with campaign.begin("ab", tmp_path / "inner", {}) as inner:
            inner.finish("pair 1")
            raise KeyboardInterrupt
    assert interrupted.value.__notes__ == [
        f"kept: 1 pair, {tmp_path}/inner",
        f"kept: 0 comparisons, {tmp_path}/outer",
        f"to do: `invoke bisect --resume {tmp_path}/outer --source 'a b'` goes on",
    ]


# --- what was paid for ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_comparison_shows_its_finished_pairs(arms, cut_off, invoke, number):
    folder, code, _, err = cut_off(number, 2, *arms, hanging="new")
    assert code == 130
    assert "Traceback" not in err
    assert "the engine and all its processes were stopped" in err
    assert f"kept: 2 pairs, {folder}" in err
    assert f"`invoke ab --resume {folder.name[-6:]}` goes on" in err
    document = json.loads((folder / "comparison.json").read_text())
    assert schema.violations(document, "ab-record") == []
    assert (document["complete"], len(document["pairs"])) == (False, 2)
    assert document["failure"] == {"exit_code": 130, "what": "interrupted after 2 of 4 pairs"}
    shown = invoke("compare", folder, "--metric", "denoise")
    assert "CUT OFF: interrupted after 2 of 4 pairs" in shown.out
    for arm in document["arms"].values():
        assert len(json.loads((folder / arm["record"]).read_text())["launches"]) == 2


def test_a_comparison_that_went_on_is_shown_as_it_was_when_it_was_cut_off(arms, cut_off, invoke, home):
    """Its records have the pairs since then too: no figure of theirs may stand beside those of the pairs shown."""
    folder, *_ = cut_off(signal.SIGINT, 2, *arms, hanging="new")
    before = {name: (folder / name).read_bytes() for name in ("comparison.json", "campaign.json")}
    document = json.loads(before["comparison.json"])
    look = ("compare", folder, "--metric", "denoise")
    then = invoke(*look).out
    assert f"next: invoke ab --resume {folder.name[-6:]}" in then
    assert invoke("ab", "--resume", folder).code in (0, 7, 9)
    for name, content in before.items():  # as while the third pair is measured
        (folder / name).write_bytes(content)
    assert invoke(*look).out == then
    with campaign.hold(folder):
        going_on = invoke(*look).out
        page = invoke("report", folder, "--markdown").out
    said = "STILL RUNNING: this is what it had when it was cut off: interrupted after 2 of 4 pairs"
    assert (
        going_on.replace(said, "CUT OFF: interrupted after 2 of 4 pairs").split("next: ")[0] == then.split("next: ")[0]
    )
    assert going_on.split("next: ")[1].startswith(f"when it has ended: invoke compare {folder.name[-6:]}")
    assert f"- {said}" in page
    embedded = json.loads(invoke("report", folder, "--json").out)
    assert len(embedded["baseline/run.json"]["launches"]) == len(document["pairs"]) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("mode", [(), ("--alternate",)], ids=["together", "one after the other"])
def test_a_comparison_goes_on_with_the_pairs_that_are_missing(arms, cut_off, invoke, home, number, mode):
    folder, *_ = cut_off(number, 2, *arms, *mode, hanging="new")
    state = state_of(folder)
    before = {path: path.read_bytes() for path in folder.glob("*/launch-[12]/**/*") if path.is_file()}
    cut = starts(home, "old")
    ended = invoke("ab", "--resume", folder, "--json")
    assert ended.code in (0, 7, 9), ended.err
    document = json.loads(ended.out)
    assert document["complete"]
    assert document == json.loads((folder / "comparison.json").read_text())
    assert document["seed"] == state["asked"]["design"]["seed"]
    kept = [{name: pair[name] for name in ("order", "waiting_cpu_percent")} for pair in document["pairs"][:2]]
    assert kept == [part["result"] for part in state["finished"]]
    pairs = len(document["pairs"])
    assert pairs in (3, 4)
    assert all(path.read_bytes() == content for path, content in before.items())
    assert (starts(home, "old") - cut, starts(home, "new") - 3) == (pairs - 2, pairs - 2)
    for name in ("baseline", "candidate"):
        record = json.loads((folder / name / "run.json").read_text())
        assert [launch["index"] for launch in record["launches"]] == list(range(1, pairs + 1))
        assert len(record["requests"]) == 2 * pairs
        assert not (folder / name / "run.partial.json").exists()
    assert not (folder / "campaign.json").exists()
    assert "nothing to resume" in invoke("ab", "--resume", folder).err


def test_a_comparison_that_is_killed_twice_in_one_pair_goes_on(replay, presets, invoke, home):
    replay(name="old", **STEADY)
    replay(name="new", **STEADY, hang_at=3, seed=7)
    scenario = home / "environments" / "engine-new" / "replay.json"

    def kill(launch, *arguments):
        """Kill it in the third pair, when the candidate's record has a request of that and the next one hangs."""
        scenario.write_text(json.dumps(json.loads(scenario.read_text()) | {"hang_in_launch": launch}))
        task = subprocess.Popen(
            invoke_command(*arguments), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

        def hangs():
            for path in (home / "runs").glob("*/candidate/run.partial.json"):
                requests = json.loads(path.read_text())["requests"]
                if starts(home, "new") == launch and requests[-1]["launch"] == 3:
                    return path.parent.parent
            return None

        folder = wait_for_task(task, hangs, "the launch that hangs has not come")
        task.kill()
        task.wait()
        wait_until(lambda: not processes_like("session_worker.py", home / "runs"), "an engine is still there")
        return folder

    folder = kill(3, *ab(presets, "--baseline", "old", "--candidate", "new", "--pairs", "4"))
    assert kill(4, "ab", "--resume", folder) == folder
    ended = invoke("ab", "--resume", folder)
    assert ended.code in (0, 7, 9), ended.err
    assert len(list(folder.glob("candidate/launch-3-cut-off-*"))) == 2
    shown = invoke("compare", folder, "--metric", "denoise")
    assert (shown.code, "disagree" in shown.err) == (ended.code, False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_matrix_goes_on_with_the_launches_that_are_missing(replay, presets, cut_off, invoke, home, number):
    engine = replay(**STEADY, **HANGS)
    asked = ("bench", "--model", "one", "--preset-file", presets, "--engine", engine, "--repeats", "2")
    folder, *_ = cut_off(number, 2, *asked, "--matrix", "quality", hanging=engine)
    ended = invoke("bench", "--resume", folder, "--json")
    assert ended.code == 0, ended.err
    assert "round 1/3, cell 3/4" in ended.err
    document = json.loads(ended.out)
    assert schema.violations(document, "matrix") == []
    assert {cell["name"]: cell["requests"] for cell in document["cells"]} == dict.fromkeys(
        ("exact-eager", "lossless-eager", "extra-high-eager", "high-eager"), 6
    )
    assert starts(home, engine) == 12 + 1
    assert not (folder / "campaign.json").exists()


def test_a_batch_goes_on_with_the_presets_that_are_missing(replay, presets, cut_off, invoke, home):
    engine = replay(**STEADY, **HANGS)
    asked = ("bench", "--tag", "mine", "--preset-file", presets, "--engine", engine, "--repeats", "2")
    folder, *_ = cut_off(signal.SIGTERM, 2, *asked, hanging=engine)
    rows = json.loads((folder / "summary.json").read_text())["rows"]
    assert sorted(row["outcome"] for row in rows) == ["native", "native", "not run"]
    ended = invoke("bench", "--resume", folder, "--json")
    assert ended.code == 0, ended.err
    assert [row["outcome"] for row in json.loads(ended.out)["rows"]] == ["native"] * 3
    assert starts(home, engine) == 3 + 1
