"""Sweeps on a real Slurm, which these tests start on this machine: three nodes, GPUs that only Slurm counts."""

import json
import subprocess
from collections import Counter

import pytest
from helpers import NATIVE, ROOT, invoke_command, processes_like, wait_for_task, wait_until
from slurm_cluster import Cluster
from sweep_support import document, results, seeds_measured, states, write_file

from bench.record import documents

MINUTES = 240.0
"""What a loaded machine may take; nothing here measures time."""


@pytest.fixture(scope="module")
def cluster():
    made = Cluster()
    try:
        yield made.start()
    finally:
        made.stop()


@pytest.fixture
def slurm(cluster, monkeypatch):
    """The cluster, with every node up and no job, and its commands on this process's way."""
    for name, value in cluster.env.items():
        monkeypatch.setenv(name, value)
    if "slurmctld" not in cluster.daemons:
        cluster.start_controller()
    for node in cluster.nodes:
        if node not in cluster.daemons:
            cluster.start_node(node)
    wait_until(lambda: cluster.states() == dict.fromkeys(cluster.nodes, "idle"), "not every node is idle", MINUTES)
    return cluster


def started(path, *more):
    return subprocess.Popen(
        invoke_command("sweep", path, "--on", "slurm", *more), cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def node_with_a_cell(place):
    """Return a node on which a cell has begun, None without one: Slurm calls a job running before its cell begins."""
    statuses = (json.loads(path.read_text()) for path in place.glob("cells/*/1/status.json"))
    return next((status["host"]["node"] for status in statuses if status["state"] == "running"), None)


def attempts_measured(place):
    """Return how many attempts at each cell have ended with a record."""
    statuses = [json.loads(path.read_text()) for path in place.glob("cells/*/[0-9]*/status.json")]
    return Counter(status["cell"] for status in statuses if status["state"] == "finished")


def first_state(place):
    """Return what the first attempt at the one cell of a sweep says of itself."""
    (status,) = place.glob("cells/*/1/status.json")
    return json.loads(status.read_text())["state"]


def test_twelve_cells_a_lost_node_and_a_controller_killed_twice(slurm, invoke, file, place, home):
    """A node loses its power while cells run on it, and the controller is killed before and after that."""
    is_lost = home / "is_lost"
    path = file(seeds=12, scenario=NATIVE | {"linger_until": str(is_lost)})
    first = started(path)
    wait_for_task(first, lambda: len(slurm.jobs()) >= 6, "no array was submitted", MINUTES)
    first.kill()
    first.communicate()
    second = started(path)
    lost = wait_for_task(second, lambda: node_with_a_cell(place), "no cell has begun", MINUTES)
    slurm.lose(lost)
    is_lost.touch()
    wait_for_task(second, lambda: len(results(place)) >= 4, "no further cell has ended", MINUTES)
    refused = invoke("sweep", path, "--on", "slurm")
    assert refused.code == 1
    assert f"still in progress (process {second.pid})" in refused.err
    second.kill()
    second.communicate()
    ended = invoke("sweep", path, "--on", "slurm")
    assert ended.code == 0, ended.err
    assert "12 done of 12 cells" in ended.out
    assert seeds_measured(place) == list(range(1, 13))
    assert states(place) == {("finished", 0): 12}
    assert set(attempts_measured(place).values()) == {1}
    assert 2 in {result["attempt"] for result in results(place).values()}
    for result in results(place).values():
        assert documents.validate(place / result["record"]) == "run-record"
        assert result["host"]["node"] in slurm.nodes
        assert result["job"]
    assert len(list((place / "submissions").iterdir())) == 1
    assert slurm.jobs() == []
    assert not processes_like("invoke bench", home / "runs")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ('constraint = "nope"', "it cannot be placed: Invalid feature specification"),
        ("gpus = 9", "it cannot be placed: Requested node configuration is not available"),
        ('partition = "nope"', "it cannot be placed: Invalid partition name specified"),
        ('partition = "short"', "it cannot be placed: Slurm says PartitionTimeLimit"),
    ],
)
def test_a_cell_that_slurm_cannot_place_is_given_up_with_its_reason(slurm, invoke, file, place, settings, says):
    ended = invoke("sweep", file(seeds=1, more=f"[slurm]\n{settings}"), "--on", "slurm")
    assert ended.code == 1
    assert says in ended.err
    assert states(place) == {("given up", None): 1}
    wait_until(lambda: slurm.jobs() == [], "a job is left", 30)


def test_cancel_leaves_no_job_and_no_process_and_the_sweep_may_go_on_here(
    slurm, invoke, file, place, home, replay, model
):
    task = started(file(seeds=8, scenario=NATIVE | {"linger_s": 300}))
    wait_for_task(task, lambda: processes_like("invoke bench", home / "runs"), "no cell has begun", MINUTES)
    ended = invoke("sweep-cancel", place)
    assert ended.code == 0, ended.err
    assert "8 jobs" in ended.out
    out, _ = task.communicate(timeout=60)
    assert task.returncode == 130, out
    assert slurm.jobs() == []
    assert not processes_like("invoke bench", home / "runs")
    assert not processes_like("submitit", home / "runs")
    assert results(place) == {}
    waiting = invoke("sweep-status", place)
    assert "next: invoke sweep " in waiting.out
    assert " --on slurm\n" in waiting.out
    here = write_file(place.parents[1] / "mine.toml", "quick", model(), seeds=1)
    replay(name="quick", **NATIVE)
    ended = invoke("sweep", here)
    assert ended.code == 0, ended.err
    assert seeds_measured(place) == [1]


def test_a_job_that_was_cancelled_by_hand_is_not_begun_again_until_asked(slurm, invoke, file, place):
    path = file(seeds=2, scenario=NATIVE | {"linger_s": 2})
    task = started(path, "--parallel", "1")
    jobs = wait_for_task(
        task, lambda: [j for j in slurm.jobs() if len(slurm.jobs()) == 2], "nothing was submitted", MINUTES
    )
    waiting = next(line.split()[0] for line in sorted(jobs, reverse=True))
    slurm.run("scancel", waiting)
    out, _ = task.communicate(timeout=240)
    assert task.returncode == 1, out
    assert "cancelled by hand" in out
    assert seeds_measured(place) == [1]
    ended = invoke("sweep", path, "--on", "slurm")
    assert ended.code == 0, ended.err
    assert seeds_measured(place) == [1, 2]


def test_slurm_may_be_down_while_cells_run_and_while_they_are_submitted(slurm, invoke, file, place, tmp_path):
    """A controller that finds no Slurm waits; what it submitted in vain comes to be one job once Slurm is back."""
    is_told = tmp_path / "is told"
    path = file(seeds=3, scenario=NATIVE | {"linger_until": str(is_told)})
    told = tmp_path / "told"
    silence = "Slurm does not answer"
    slurm.kill("slurmctld")
    with told.open("w") as out:
        task = subprocess.Popen(invoke_command("sweep", path, "--on", "slurm"), cwd=ROOT, stdout=out, stderr=out)
        wait_for_task(task, lambda: silence in told.read_text(), "it is not said that Slurm is silent", MINUTES)
        slurm.start_controller()
        wait_for_task(task, lambda: slurm.states() and slurm.jobs(), "nothing was submitted", 2 * MINUTES)
        before = told.read_text().count(silence)
        slurm.kill("slurmctld")
        wait_for_task(task, lambda: told.read_text().count(silence) > before, "it is not said again", MINUTES)
        is_told.touch()
        slurm.start_controller()
        assert task.wait(240) == 0, told.read_text()
    assert seeds_measured(place) == [1, 2, 3]
    assert set(attempts_measured(place).values()) == {1}


def test_a_submission_that_was_cut_off_is_found_in_slurm_by_its_name(slurm, invoke, file, place):
    """The controller is killed between the end of sbatch and its note of the job's id."""
    path = file(seeds=2, scenario=NATIVE | {"linger_s": 3})
    task = started(path)
    note = place / "submissions" / "1.json"
    wait_for_task(task, lambda: note.exists() and json.loads(note.read_text())["job"], "nothing was submitted", MINUTES)
    task.kill()
    task.communicate()
    job = json.loads(note.read_text())["job"]
    note.write_text(json.dumps(json.loads(note.read_text()) | {"job": None}))
    ended = invoke("sweep", path, "--on", "slurm")
    assert ended.code == 0, ended.err
    assert [path.name for path in (place / "submissions").iterdir()] == ["1.json"]
    assert json.loads(note.read_text())["job"] == job
    assert set(attempts_measured(place).values()) == {1}


def test_a_node_that_is_cut_off_and_goes_on_gives_no_second_result(slurm, file, place, home):
    """Only the slurmd dies: Slurm begins the cell again elsewhere while its first attempt is still at work."""
    is_overtaken = home / "is_overtaken"
    task = started(file(seeds=1, scenario=NATIVE | {"linger_until": str(is_overtaken)}))
    wait_for_task(task, lambda: list(place.glob("cells/*/1/status.json")), "the cell has not begun", MINUTES)
    (status,) = (json.loads(path.read_text()) for path in place.glob("cells/*/1/status.json"))
    slurm.kill(status["host"]["node"])
    wait_for_task(task, lambda: first_state(place) != "running", "the first attempt goes on", MINUTES)
    is_overtaken.touch()
    out, _ = task.communicate(timeout=240)
    assert task.returncode == 0, out
    (result,) = results(place).values()
    ended = {json.loads(path.read_text())["state"] for path in place.glob("cells/*/[0-9]*/status.json")}
    assert "running" not in ended
    assert seeds_measured(place) == [1]
    assert sum(attempts_measured(place).values()) == 1, (result, ended)


def test_a_cell_that_makes_room_for_an_urgent_job_is_begun_again_by_slurm(slurm, file, place, home):
    is_stopped = home / "is_stopped"
    scenario = NATIVE | {"linger_until": str(is_stopped)}
    task = started(file(seeds=1, scenario=scenario, more='[slurm]\nconstraint = "alpha"'))
    wait_for_task(task, lambda: list(place.glob("cells/*/1/status.json")), "the cell has not begun", MINUTES)
    urgent = ("--partition=urgent", "--nodelist=alpha", "--exclusive", "--output=/dev/null", "--wrap=sleep 3")
    assert slurm.run("sbatch", *urgent).returncode == 0
    wait_for_task(task, lambda: first_state(place) != "running", "the cell makes no room", MINUTES)
    is_stopped.touch()
    out, _ = task.communicate(timeout=240)
    assert task.returncode == 0, out
    assert "1 done of 1 cell\n" in out
    (result,) = results(place).values()
    (first,) = (json.loads(path.read_text()) for path in place.glob("cells/*/1/status.json"))
    assert (first["state"], result["attempt"]) == ("stopped", 2)
    assert first["job"] == result["job"]
    assert len(list((place / "submissions").iterdir())) == 1


def test_a_job_that_reaches_slurms_time_limit_has_timed_out(slurm, invoke, file, place, monkeypatch):
    """The cell's own limit comes first, unless the time before it began was long: here the job's is shorter."""
    monkeypatch.setattr("bench.sweep.slurm.MARGIN_MINUTES", -5)
    ended = invoke("sweep", file(seeds=1, scenario=NATIVE | {"linger_s": 400}), "--on", "slurm", "--limit", "6")
    assert ended.code == 8
    assert "reached Slurm's time limit" in ended.err
    (result,) = results(place).values()
    assert (result["state"], result["host"] is None) == ("timed out", False)
    (status,) = (json.loads(path.read_text()) for path in place.glob("cells/*/[0-9]*/status.json"))
    assert status["state"] == "stopped"


def test_local_and_slurm_have_the_same_cells_and_settings_come_from_two_files(
    slurm, invoke, file, place, tmp_path, monkeypatch
):
    own = tmp_path / "config" / "sglang-diffusion-workbench"
    own.mkdir(parents=True)
    (own / "slurm.toml").write_text(f'partition = "nope"\nprolog = ["echo $SLURM_JOB_ID >> {tmp_path}/prolog"]\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    path = file(seeds=2, more='[slurm]\npartition = "all"\ncpus = 1')
    assert invoke("sweep", path, "--on", "slurm", "--parallel", "1", "--limit", "10").code == 0
    assert len((tmp_path / "prolog").read_text().splitlines()) == 2
    (script,) = (place / "slurm").glob("*_submission.sh")
    lines = script.read_text().splitlines()
    for line in (
        "--partition=all",
        "--array=0-1%1",
        "--time=15",
        "--gpus-per-node=1",
        "--requeue",
        "--cpus-per-task=1",
    ):
        assert f"#SBATCH {line}" in lines, lines
    cells = document(place)["cells"]
    there = invoke("sweep", path, "--name", "here", "--limit", "10")
    assert there.code == 0, there.err
    assert document(place.with_name("sweep-here"))["cells"] == cells
    assert seeds_measured(place) == seeds_measured(place.with_name("sweep-here")) == [1, 2]


def test_a_cell_is_repeated_on_another_host(slurm, invoke, file, place):
    ended = invoke("sweep", file(seeds=2), "--on", "slurm", "--replicate-hosts", "2")
    assert ended.code == 0, ended.err
    hosts = {name: result["host"]["node"] for name, result in results(place).items()}
    assert len(hosts) == 4
    for name in (name for name in hosts if "-" not in name):
        assert hosts[name] != hosts[f"{name}-2"]
