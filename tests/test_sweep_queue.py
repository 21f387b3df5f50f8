"""What Slurm's queue says of a sweep's cells, and what the controller makes of it: programs that print it."""

import io
import re

import pytest
import slurm_cluster
from helpers import NATIVE, check_golden
from rich.console import Console
from sweep_support import FIRST_CELL, results, sweep_of_one

from bench.machine import slurm as machine
from bench.record.sweep import RUNNING, Row
from bench.report import sweep as report
from bench.sweep import controller, slurm
from bench.sweep.executor import Task
from bench.sweep.folder import status, write_status

NAME = FIRST_CELL.id
QUEUE = """#!/bin/sh
if [ -e {place}/cancelled ]; then state=CANCELLED; else state=PENDING; fi
if [ -e {place}/state ]; then state=$(cat {place}/state); fi
echo "7|0|$state|{reason}||{prefix}1"
"""
SCANCEL = """#!/bin/sh
if [ ! -e {place}/asked ]; then touch {place}/asked; echo "Unable to contact slurm controller" >&2; exit 1; fi
touch {place}/cancelled
"""
SBATCH = """#!/bin/sh
echo "Submitted batch job 7"
"""


class Nobody:
    def update(self, rows, told):
        pass


@pytest.fixture
def submitted(tmp_path, monkeypatch):
    """Make a sweep whose cell waits in Slurm for a reason; scancel fails once."""

    def make(reason, **changes):
        folder, document = sweep_of_one(tmp_path / "runs" / "sweep-mine", "slurm", "invoke sweep mine.toml --on slurm")
        document["cells"][0].update(changes)
        submission = {
            "schema": "sweep-submission", "schema_version": 1, "number": 1, "name": f"{slurm.prefix(folder)}1",
            "tasks": [{"cell": NAME, "attempt": 1}], "job": "7",
        }  # fmt: skip
        folder.write_submission(submission, fresh=True)
        programs = tmp_path / "bin"
        programs.mkdir()
        known = {"place": tmp_path, "reason": reason, "prefix": slurm.prefix(folder)}
        for program, text in {"squeue": QUEUE, "scancel": SCANCEL, "sbatch": SBATCH, "srun": ""}.items():
            (programs / program).write_text(text.format(**known))
            (programs / program).chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
        return folder, document, slurm.Slurm(folder, {}, throttle=None, retries=0, setup=None)

    return make


@pytest.mark.parametrize(
    ("reason", "patience_s"),
    [
        ("Resources", None),
        ("PartitionTimeLimit", slurm.PATIENCE_SECONDS),
        ("ReqNodeNotAvail, UnavailableNodes:n[1-2]", slurm.REPAIR_SECONDS),
        ("ReqNodeNotAvail(Unavailable:n1)", slurm.REPAIR_SECONDS),
        ("PartitionDown", slurm.REPAIR_SECONDS),
        ("launch failed requeued held", slurm.PATIENCE_SECONDS),
        ("launch_failed_requeued_held", slurm.PATIENCE_SECONDS),
    ],
)
def test_what_a_job_waits_for_says_how_long_it_may(submitted, reason, patience_s):
    _, _, on = submitted(reason)
    seen = on.look()[NAME]
    assert seen.patience_s == patience_s
    assert seen.why == f"Slurm says {reason}"


@pytest.mark.parametrize("reason", ["None", "Priority", "ReqNodeNotAvail, UnavailableNodes:n[1-2]"])
def test_status_says_what_cells_wait_for_and_a_command_to_type(submitted, invoke, tmp_path, reason):
    folder, _, _ = submitted(reason)
    ended = invoke("sweep-status", folder.path)
    assert ended.code == 0, ended.err
    check_golden(f"sweep_status_{reason.partition(',')[0]}.txt", ended.out.replace(str(tmp_path), "HOME"))


def test_status_of_cells_without_slurm_says_that_it_was_not_asked(submitted, invoke, monkeypatch, tmp_path):
    folder, _, _ = submitted("Priority")
    monkeypatch.setenv("PATH", str(tmp_path))
    ended = invoke("sweep-status", folder.path)
    assert ended.code == 0, ended.err
    assert "this machine has no Slurm: sbatch, srun, squeue, scancel is not on PATH" in ended.err
    assert "1 waiting of 1 cell\n" in ended.out


def test_a_cell_that_says_it_runs_is_cut_off_if_slurm_knows_no_job_of_it(submitted, invoke, tmp_path):
    folder, _, _ = submitted("Priority")
    (tmp_path / "cancelled").touch()
    # by the clock of a node that is years ahead
    write_status(status(NAME, 1, state="running", started="2099-01-01T00:00:00+00:00"), folder.claim(NAME, 1))
    ended = invoke("sweep-status", folder.path)
    assert "1 cut off of 1 cell\n" in ended.out
    assert "next: invoke sweep mine.toml --on slurm\n" in ended.out


@pytest.mark.parametrize(
    ("reason", "changes", "says"),
    [
        ("PartitionTimeLimit", {}, "it cannot be placed: Slurm says PartitionTimeLimit"),
        ("Resources", {"host": "n1"}, "it cannot be placed: host n1 was not free in "),
    ],
)
def test_a_cell_is_taken_back_even_if_slurm_is_silent_at_first(submitted, monkeypatch, reason, changes, says):
    monkeypatch.setattr(slurm, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(controller, "PINNED_SECONDS", 0.5)
    folder, document, on = submitted(reason, **changes)
    rows = controller.Controller(folder, document["cells"], on, retries=0).run(Nobody())
    assert [row.state for row in rows] == ["failed"]
    assert says in results(folder.path)[NAME]["reason"]
    assert machine.jobs(slurm.prefix(folder))[0].state == "CANCELLED"


def of_one_cell(replay, model):
    """Return the words of a sweep of one cell that has the folder of `submitted`."""
    engine = replay(**NATIVE)
    return ("sweep", "--model", "flux-tiny", "--engine", engine, "--set", f"model-path={model()}", "--name", "mine")


@pytest.mark.parametrize(
    ("state", "code", "todo", "next_step"),
    [
        ("TIMEOUT", 8, "with --retry-failed measures them again; --limit gives each more minutes", "--retry-failed"),
        ("CANCELLED", 1, "; the same command measures them again\n", "--on slurm"),
    ],
)
def test_a_job_that_slurm_ended_is_not_begun_again_by_itself(
    submitted, invoke, replay, model, monkeypatch, tmp_path, state, code, todo, next_step
):
    monkeypatch.setattr(slurm, "SETTLE_SECONDS", 0)
    folder, _, _ = submitted("None")
    (folder.path / "submissions" / "1.json").unlink()
    (tmp_path / "state").write_text(state)
    ended = invoke(*of_one_cell(replay, model), "--on", "slurm")
    assert ended.code == code, ended.err
    assert todo in ended.err
    assert re.search("^next: invoke sweep .*", ended.out, re.MULTILINE)[0].endswith(next_step)
    timed_out = [("timed out", 8, "job 7_0 reached Slurm's time limit")]
    told = [(one["state"], one["exit_code"], one["reason"]) for one in results(folder.path).values()]
    assert told == (timed_out if state == "TIMEOUT" else [])


def test_a_sweep_is_cancelled_under_another_spelling_of_its_folder(submitted, invoke, tmp_path):
    folder, _, _ = submitted("Resources")
    (tmp_path / "asked").touch()
    (tmp_path / "link").symlink_to(folder.path.parent)
    ended = invoke("sweep-cancel", tmp_path / "link" / folder.path.name)
    assert ended.code == 0, ended.err
    assert "cancelled: 1 job" in ended.out


def test_a_job_that_ends_as_it_sees_the_mark_is_counted(submitted, invoke, tmp_path):
    folder, _, _ = submitted("None")
    (tmp_path / "state").write_text("RUNNING")
    squeue = tmp_path / "bin" / "squeue"
    squeue.write_text(
        squeue.read_text().replace(f"{tmp_path}/state ", f"{tmp_path}/state -a ! -e {folder.path}/cancelled ")
    )
    (tmp_path / "cancelled").touch()
    ended = invoke("sweep-cancel", folder.path)
    assert ended.code == 0, ended.err
    assert "cancelled: 1 job;" in ended.out


@pytest.mark.parametrize("said", ["Protocol authentication error", "Unable to contact slurm controller"])
def test_what_slurm_says_while_it_is_disturbed_is_no_refusal_of_the_job(submitted, tmp_path, said):
    _, document, on = submitted("None")
    text = f"#!/bin/sh\necho 'sbatch: error: Batch job submission failed: {said}' >&2\nexit 1\n"
    (tmp_path / "bin" / "sbatch").write_text(text)
    assert on.begin([Task(cell=document["cells"][0], attempt=1)]) == {}
    assert on.silence == said


@pytest.mark.parametrize("cause", ["refused", "TIMEOUT"])
def test_a_replica_is_given_up_if_the_cell_before_it_ended_without_a_host(
    submitted, invoke, replay, model, monkeypatch, tmp_path, cause
):
    monkeypatch.setattr(slurm, "SETTLE_SECONDS", 0)
    monkeypatch.setattr(controller, "LOOK_SECONDS", 0.05)
    folder, _, _ = submitted("None")
    (folder.path / "submissions" / "1.json").unlink()
    if cause == "refused":
        (tmp_path / "bin" / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: Invalid partition' >&2\nexit 1\n")
    else:
        (tmp_path / "state").write_text(cause)
    ended = invoke(*of_one_cell(replay, model), "--on", "slurm", "--replicate-hosts", "2")
    assert "2 of 2 cells are not done" in ended.err
    assert "the same command with --retry-failed measures them again" in ended.err
    (reason,) = (result["reason"] for name, result in results(folder.path).items() if name.endswith("-2"))
    assert re.fullmatch("it needs another host than cell [0-9a-f]{16}, which ran on none", reason)


def test_a_replica_is_not_given_up_if_the_cell_before_it_was_stopped_by_hand_before_it_began(
    submitted, invoke, replay, model, monkeypatch, tmp_path
):
    monkeypatch.setattr(slurm, "SETTLE_SECONDS", 0)
    monkeypatch.setattr(controller, "LOOK_SECONDS", 0.05)
    folder, _, _ = submitted("None")
    (folder.path / "submissions" / "1.json").unlink()
    (tmp_path / "state").write_text("CANCELLED")
    ended = invoke(*of_one_cell(replay, model), "--on", "slurm", "--replicate-hosts", "2")
    assert "2 of 2 cells are not done" in ended.err
    assert re.search(r"-2 .*: stopped: it needs another host than cell \w{16}, which was stopped before", ended.err)
    assert "above; the same command measures them again\n" in ended.err
    assert results(folder.path) == {}


def test_a_sweep_goes_on_elsewhere_only_when_none_of_its_jobs_is_left(submitted, invoke, monkeypatch, replay, model):
    folder, _, _ = submitted("Resources")
    here = of_one_cell(replay, model)
    with monkeypatch.context() as context:
        context.setenv("PATH", "/nowhere")
        assert "this machine has no Slurm" in invoke(*here).err
    ended = invoke(*here)
    assert ended.code == 1
    assert "1 job of this sweep is still in Slurm" in ended.err
    assert f"invoke sweep-cancel {folder.path}" in ended.err
    (folder.path.parents[1] / "asked").touch()
    ended = invoke("sweep-cancel", folder.path)
    assert ended.code == 0, ended.err
    assert "cancelled: 1 job" in ended.out
    ended = invoke(*here)
    assert ended.code == 0, ended.err
    monkeypatch.setenv("PATH", "/nowhere")  # from now on it has nothing to do with Slurm
    assert invoke("sweep-cancel", folder.path).code == 0


@pytest.mark.parametrize(("ci", "ends"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_without_slurm_its_tests_are_skipped_except_in_ci(tmp_path, monkeypatch, ci, ends):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(slurm_cluster, "SBIN", ())
    with pytest.raises(ends, match="apt-get install slurm-wlm munge"):
        slurm_cluster.Cluster()


def test_a_sweep_in_a_pipe_says_every_half_a_minute_how_far_it_is():
    console, now = Console(file=io.StringIO(), width=200), [0.0]
    with report.Progress(console, clock=lambda: now[0]) as progress:
        for now[0] in (0.0, 20.0, 31.0, 45.0, 62.0):
            progress.update([Row(id="abc", label="flux-tiny", state=RUNNING)], None)
    lines = console.file.getvalue().splitlines()
    assert lines == ["[   0.0 s] abc flux-tiny: running", "[  31.0 s] 1 running", "[  62.0 s] 1 running"]
