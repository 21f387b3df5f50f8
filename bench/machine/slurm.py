"""What Slurm says: the jobs of a sweep, and why one waits; and cancelling them.

Source of the states and of the columns: squeue(1), sections JOB STATE CODES and --format.
"""

from __future__ import annotations

import getpass
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench import process
from bench.errors import EngineFailed, UsageError

if TYPE_CHECKING:
    from collections.abc import Collection

SECONDS = 30.0
COLUMNS = "%F|%K|%T|%r|%N|%j"
"""The array's id, the index in it, state, why it waits, nodes, name."""
ENDED = frozenset(
    {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE", "PREEMPTED"}
)
TOO_LONG = frozenset({"TIMEOUT", "DEADLINE"})
"""Of these, those of a job that would end so again."""
WAITING = "PENDING"
UNSAID = frozenset({"None", "NULL", ""})
"""What stands in a reason's place before Slurm has considered the job."""
NEVER = frozenset(
    {"BadConstraints", "PartitionNodeLimit", "PartitionTimeLimit", "AccountNotAllowed", "InvalidAccount", "InvalidQOS",
     "QOSNotAllowed", "QOSTimeLimit", "QOSJobLimit", "AssocMaxWallDurationPerJobLimit", "AssocMaxGRESPerJob",
     "QOSMaxGRESPerJob", "QOSMaxWallDurationPerJobLimit", "QOSMaxNodePerJobLimit", "AssocMaxNodePerJobLimit",
     "DependencyNeverSatisfied", "JobHeldAdmin", "JobHeldUser", "launch"}
)  # fmt: skip
"""Reasons that do not pass unless a person changes the job or the cluster; launch: "launch failed requeued held"."""
UNTIL_REPAIRED = frozenset({"ReqNodeNotAvail", "PartitionDown", "PartitionInactive"})
"""Reasons that pass once somebody brings nodes or the partition back; a reboot takes minutes."""


class SlurmSilent(EngineFailed):
    """Slurm does not answer; its controller may be down for a while."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job, or one task of an array: ``index`` is 0 outside of an array."""

    array: str
    index: int
    state: str
    reason: str
    node: str
    name: str

    @property
    def why(self) -> str:
        """The first word of the reason, which details may follow: ``ReqNodeNotAvail, UnavailableNodes:n1``."""
        return re.split(r"[^A-Za-z]", self.reason, maxsplit=1)[0]

    @property
    def id(self) -> str:
        """The id that scancel takes."""
        return f"{self.array}_{self.index}"

    @property
    def has_ended(self) -> bool:
        """Whether it neither waits nor runs."""
        return self.state in ENDED


def require() -> None:
    """Raise UsageError on a machine without Slurm's programs."""
    missing = [name for name in ("sbatch", "srun", "squeue", "scancel") if shutil.which(name) is None]
    if missing:
        raise UsageError(
            f"this machine has no Slurm: {', '.join(missing)} is not on PATH",
            todo="run it on a login node, or leave --on slurm out",
        )


def jobs(prefix: str) -> list[Job]:
    """Return this user's jobs whose name begins so, those that ended a short while ago included.

    Raises:
        SlurmSilent: Slurm does not answer.
    """
    argv = ["squeue", "--noheader", "--array", "--states=all", f"--user={getpass.getuser()}", f"--format={COLUMNS}"]
    ended = process.capture(argv, timeout_s=SECONDS)
    if ended.exit_code:
        raise SlurmSilent(f"Slurm does not answer: {_first(ended.stderr)}", todo="it is asked again")
    found = []
    for line in ended.stdout.splitlines():
        array, index, state, reason, node, name = (part.strip() for part in line.split("|", 5))
        if name.startswith(prefix):
            place = int(index) if index.isdigit() else 0
            found.append(Job(array=array, index=place, state=state, reason=reason, node=node, name=name))
    return found


def cancel(ids: Collection[str]) -> None:
    """Cancel jobs by their ids; those that have ended are not an error.

    Raises:
        SlurmSilent: Slurm does not answer.
    """
    if not ids:
        return
    ended = process.capture(["scancel", *sorted(ids)], timeout_s=SECONDS)
    if ended.exit_code and "Invalid job id" not in ended.stderr:
        raise SlurmSilent(f"Slurm does not answer: {_first(ended.stderr)}", todo="cancel again")


def _first(text: str) -> str:
    return (text.strip().splitlines() or ["it printed nothing"])[0]
