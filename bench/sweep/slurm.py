"""Cells on Slurm: job arrays through submitit, found again by their names whatever happened to the controller.

What is to be submitted is written down before sbatch is called. A controller that is killed in between, or whose call
fails half way, asks Slurm for the name: the job is there and is taken up, or it is not and is submitted again. Should
it turn up even later, its attempt has been begun already and it ends at once.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from bench import paths
from bench.errors import EngineFailed, UsageError
from bench.machine import slurm
from bench.machine.slurm import SlurmSilent
from bench.sweep import cell, executor
from bench.sweep.executor import Seen
from bench.sweep.folder import VOID

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.machine.slurm import Job
    from bench.sweep.executor import Task
    from bench.sweep.folder import Folder

LARGEST_ARRAY = 1000
"""Slurm's MaxArraySize is 1001 by default."""
IN_FLIGHT_SECONDS = 20.0
"""Within that time a call of sbatch that a killed controller left behind has reached Slurm or given up."""
MARGIN_MINUTES = 5
"""The cell's own limit comes first, so that it can say so itself."""
SETTLE_SECONDS = 5.0
"""A result may be seen so long after its job's end: file systems that hosts share cache."""
PATIENCE_SECONDS, REPAIR_SECONDS = 20.0, 1200.0
"""A job that waits for what never comes is taken back so soon, one that waits for a node's repair so late."""
STOP_SECONDS = 120.0
SILENT = (
    *("contact slurm controller", "timed out", "Zero Bytes", "Connection refused", "connect failure", "DOWN"),
    *("Protocol authentication error", "Invalid authentication credential"),
)
"""What sbatch says if Slurm's controller does not answer, or munge is down or slow; all else is about the job."""


class Slurm:
    """Submits cells and follows their jobs; ``settings`` are those of `measures.slurm_settings`."""

    def __init__(
        self, folder: Folder, settings: Mapping[str, Any], *, throttle: int | None, retries: int, setup: str | None
    ) -> None:
        slurm.require()
        self._folder = folder
        self._settings = settings
        self._throttle = throttle
        self._retries = retries
        self._setup = setup
        self._prefix = prefix(folder)
        self._submissions = {document["name"]: document for document in folder.submissions()}
        self._written = dict.fromkeys(self._submissions, time.monotonic())
        self._ended: dict[str, float] = {}
        self._how: dict[str, Seen] = {}
        self._before: set[str] | None = None
        """The tasks that had ended before this controller first looked: they say nothing of what it begins."""
        self.silence: str | None = None

    # --- what became of the jobs ---

    def look(self) -> Mapping[str, Seen] | None:
        """Return what Slurm says of each cell that was submitted; None while it does not answer (``silence``: why)."""
        try:
            jobs = slurm.jobs(self._prefix)
        except SlurmSilent as error:
            self.silence = error.what
            return None
        self.silence = None
        by_name: dict[str, dict[int, Job]] = defaultdict(dict)
        for job in jobs:
            by_name[job.name][job.index] = job
        self._remember(by_name)
        seen: dict[str, Seen] = {}
        for name, submission in self._submissions.items():
            known = by_name.get(name, {})
            if submission["job"] is None and not self._settled(submission, known):
                seen |= {
                    task["cell"]: Seen(state=executor.WAITING, why="being submitted") for task in submission["tasks"]
                }
            elif submission["job"] != VOID:
                for index, task in enumerate(submission["tasks"]):
                    if f"{name} {index}" not in (self._before or ()):
                        seen[task["cell"]] = self._seen(f"{name} {index}", task, known.get(index))
        return seen

    def _remember(self, by_name: Mapping[str, Mapping[int, Job]]) -> None:
        """Keep, at the first look, which tasks of earlier controllers have ended."""
        if self._before is None:
            self._before = {
                f"{name} {index}"
                for name, submission in self._submissions.items()
                for index in range(len(submission["tasks"]))
                if submission["job"] is not None
                and ((job := by_name.get(name, {}).get(index)) is None or job.has_ended)
            }

    def _settled(self, submission: dict[str, Any], known: Mapping[int, Job]) -> bool:
        """Find out what became of a submission whose call of sbatch did not return; tell whether that is known."""
        if known:
            submission["job"] = next(iter(known.values())).array
        elif time.monotonic() - self._written[submission["name"]] > IN_FLIGHT_SECONDS:
            submission["job"] = VOID
        else:
            return False
        self._write(submission)
        return True

    def _seen(self, key: str, task: Mapping[str, Any], job: Job | None) -> Seen:
        if job is not None and not job.has_ended:
            self._ended.pop(key, None)
            return _alive(job)
        if time.monotonic() - self._ended.setdefault(key, time.monotonic()) < SETTLE_SECONDS:
            return Seen(state=executor.RUNNING, where=None if job is None else job.node)
        if key not in self._how:  # Slurm forgets jobs that have ended
            self._how[key] = self._end_of(key, task, job)
        return self._how[key]

    def _end_of(self, key: str, task: Mapping[str, Any], job: Job | None) -> Seen:
        """Return how a job ended; one that took too long decides its cell, one cancelled by hand is not begun again."""
        if job is not None and job.state == "CANCELLED":
            return Seen(state=executor.STOPPED, why=f"job {job.id} was cancelled by hand")
        if job is not None and job.state in slurm.TOO_LONG:
            why = f"job {job.id} reached Slurm's time limit"
            self._folder.time_out(task["cell"], why)
            return Seen(state=executor.ENDED, job=key, why=why)
        if job is None and task["attempt"] > max(self._folder.attempts(task["cell"]), default=0):
            # a task that is cancelled before it is first considered leaves nothing in Slurm
            return Seen(state=executor.STOPPED, why="its job is gone from Slurm and never began: cancelled by hand")
        how = "is not known to Slurm any more" if job is None else f"ended as {job.state} on {job.node or 'no node'}"
        return Seen(state=executor.ENDED, job=key, why=f"its job {how}")

    # --- submitting ---

    def begin(self, tasks: Sequence[Task]) -> Mapping[str, str]:
        """Submit these attempts, those that need the same as one array; return what sbatch refuses, with its words."""
        alike: dict[tuple[int, int, tuple[str, ...], str | None], list[Task]] = defaultdict(list)
        for task in tasks:
            gpus = self._settings.get("gpus", task.cell["gpus"])
            minutes = math.ceil(task.cell["limit_s"] / 60) + MARGIN_MINUTES
            alike[gpus, minutes, task.avoid, task.cell["host"]].append(task)
        refused: dict[str, str] = {}
        for (gpus, minutes, avoid, host), group in alike.items():
            for start in range(0, len(group), LARGEST_ARRAY):
                chunk = group[start : start + LARGEST_ARRAY]
                if (why := self._submit(chunk, self._parameters(gpus, minutes) | _hosts(host, avoid))) is not None:
                    refused |= {task.cell["id"]: why for task in chunk}
        return refused

    def _parameters(self, gpus: int, minutes: int) -> dict[str, Any]:
        """Return what submitit is given: sbatch's options by its own names."""
        known = {name: self._settings.get(name) for name in ("partition", "account", "qos", "constraint", "exclusive")}
        more = {
            "gpus_per_node": gpus or None,
            "cpus_per_task": self._settings.get("cpus"),
            "mem": self._settings.get("memory"),
            "array_parallelism": self._throttle,
        }
        given = {name: value for name, value in (known | more).items() if value not in (None, False)}
        return {
            **given,
            "time": minutes,
            "use_srun": False,
            "stderr_to_stdout": True,
            "setup": [*self._settings.get("prolog", ()), *([self._setup] if self._setup else [])],
            "additional_parameters": {"requeue": True, "chdir": str(paths.ROOT)},
        }

    def _submit(self, tasks: Sequence[Task], parameters: dict[str, Any]) -> str | None:
        """Submit one array; return why Slurm refuses it, None if it does not, or does not answer."""
        import submitit  # noqa: PLC0415 - only a sweep on Slurm needs it

        number = 1 + max((document["number"] for document in self._submissions.values()), default=0)
        submission = {
            "schema": "sweep-submission",
            "schema_version": 1,
            "number": number,
            "name": f"{self._prefix}{number}",
            "tasks": [{"cell": task.cell["id"], "attempt": task.attempt} for task in tasks],
            "job": None,
        }
        self._write(submission, fresh=True)
        batch = submitit.SlurmExecutor(folder=self._folder.path / "slurm")
        batch.update_parameters(job_name=submission["name"], **parameters)
        names = [task.cell["id"] for task in tasks]
        attempts = [task.attempt for task in tasks]
        place = [str(self._folder.path)] * len(tasks)
        try:
            jobs = batch.map_array(cell.in_slurm, place, names, attempts, [self._retries] * len(tasks))
        except Exception as error:  # noqa: BLE001 - submitit raises RuntimeErrors, FailedJobError and what subprocess does
            said = _said(error)
            if any(word in said for word in SILENT):
                self.silence = said
                return None
            submission["job"] = VOID
            self._write(submission)
            return said
        submission["job"] = jobs[0].job_id.partition("_")[0]
        self._write(submission)
        return None

    def _write(self, submission: dict[str, Any], *, fresh: bool = False) -> None:
        self._folder.write_submission(submission, fresh=fresh)
        if fresh:
            self._submissions[submission["name"]] = submission
            self._written[submission["name"]] = time.monotonic()

    # --- ending ---

    def drop(self, cells: Sequence[str]) -> None:
        """Cancel the jobs of cells that wait for what will not come."""
        ids = {
            f"{submission['job']}_{index}" if len(submission["tasks"]) > 1 else submission["job"]
            for submission in self._submissions.values()
            for index, task in enumerate(submission["tasks"])
            if submission["job"] not in (None, VOID) and task["cell"] in cells
        }
        try:
            slurm.cancel(ids)
        except SlurmSilent as error:
            self.silence = error.what

    def stop(self) -> None:
        """Cancel all jobs and wait until Slurm has ended them.

        Raises:
            EngineFailed: Slurm does not answer, or has not ended them in time.
        """
        stop(self._folder)


def _hosts(host: str | None, avoid: Sequence[str]) -> dict[str, str]:
    """Return sbatch's options for the host that a cell has to run on, and for those that it must not."""
    given = {"nodelist": host, "exclude": ",".join(avoid)}
    return {name: value for name, value in given.items() if value}


def prefix(folder: Folder) -> str:
    """Return how the names of a sweep's jobs begin, and those of no other, however its folder is spelled."""
    return f"sweep-{hashlib.sha256(str(folder.path.resolve()).encode()).hexdigest()[:12]}-"


def _alive(job: Job) -> Seen:
    if job.state != slurm.WAITING:
        return Seen(state=executor.RUNNING, where=job.node)
    why = None if job.why in slurm.UNSAID else f"Slurm says {job.reason}"
    patience_s = PATIENCE_SECONDS if job.why in slurm.NEVER else None
    if job.why in slurm.UNTIL_REPAIRED:
        patience_s = REPAIR_SECONDS
    return Seen(state=executor.WAITING, why=why, patience_s=patience_s)


def alive(folder: Folder) -> dict[str, Seen]:
    """Return the cells of a sweep whose jobs wait or run, by their ids.

    Raises:
        SlurmSilent: Slurm does not answer.
    """
    tasks = {submission["name"]: submission["tasks"] for submission in folder.submissions()}
    return {tasks[job.name][job.index]["cell"]: _alive(job) for job in jobs(folder) if job.name in tasks}


def leave(folder: Folder) -> None:
    """Let a sweep go on elsewhere, now that nothing of it is in Slurm.

    Raises:
        UsageError: it has jobs there, or that cannot be known.
    """
    submissions = [submission for submission in folder.submissions() if submission["job"] != VOID]
    if not submissions:
        return
    slurm.require()
    if any(submission["job"] is None for submission in submissions):
        time.sleep(IN_FLIGHT_SECONDS)  # a controller was killed while it submitted
    try:
        left = len(alive(folder))
    except SlurmSilent as error:
        raise UsageError(error.what, where=folder.path, todo="ask again, or measure it under another --name") from error
    if left:
        raise UsageError(
            f"{left} job{'' if left == 1 else 's'} of this sweep {'is' if left == 1 else 'are'} still in Slurm",
            where=folder.path,
            todo=f"go on with --on slurm, or end them first: invoke sweep-cancel {folder.path}",
        )
    for submission in submissions:
        folder.write_submission({**submission, "job": VOID})


def jobs(folder: Folder) -> list[Job]:
    """Return a sweep's jobs that wait or run.

    Raises:
        SlurmSilent: Slurm does not answer.
    """
    return [job for job in slurm.jobs(prefix(folder)) if not job.has_ended]


def stop(folder: Folder) -> set[str]:
    """Cancel a sweep's jobs, wait until Slurm has ended them, and return the ids of those that there were.

    Raises:
        EngineFailed: Slurm does not answer, or has not ended them in time.
    """
    deadline = time.monotonic() + STOP_SECONDS
    ids: set[str] = set()
    while alive := jobs(folder):
        if time.monotonic() > deadline:
            raise EngineFailed(
                f"Slurm has not ended {len(alive)} jobs in {STOP_SECONDS:g} s", todo="look with squeue, cancel again"
            )
        ids |= {job.id for job in alive}
        slurm.cancel({job.array for job in alive})
        time.sleep(1)
    return ids


def _said(error: Exception) -> str:
    """Return what sbatch said, out of submitit's error."""
    lines = [line.strip() for line in str(error).splitlines() if "sbatch: error" in line]
    told = lines[-1] if lines else (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return told.removeprefix("sbatch: error: ").removeprefix("Batch job submission failed: ")
