"""Cancelling a sweep from anywhere: a mark in its folder, and the end of its jobs in Slurm."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from bench.errors import EngineFailed, UsageError
from bench.machine import slurm as machine
from bench.record import campaign
from bench.sweep import kubernetes, slurm
from bench.sweep.folder import SLURM

if TYPE_CHECKING:
    from bench.sweep.folder import Folder

CONTROLLER_SECONDS = 180.0


def everything(folder: Folder) -> str:
    """Stop all that runs of a sweep and return what that was, in words; empty if nothing ran.

    Its attempts and its controller see the mark within a second or two; the jobs of Slurm are cancelled besides.

    Raises:
        UsageError: this is not the folder of a sweep, or its jobs are in a Slurm that this machine does not have.
        EngineFailed: Slurm does not answer, or something has not ended in time.
    """
    document = folder.read()
    on_slurm = document["executor"] == SLURM or folder.may_have_jobs()
    on_kubernetes = kubernetes.may_run(folder, document)
    if on_slurm:
        machine.require()
    jobs: set[str] = set()
    with contextlib.suppress(machine.SlurmSilent):  # the mark comes first if Slurm does not answer
        if on_slurm:  # those that see the mark may have ended by the next look
            jobs |= {job.id for job in slurm.jobs(folder)}
    folder.cancel()
    jobs |= slurm.stop(folder) if on_slurm else set()
    had_controller = _wait_for_controller(folder)
    jobs |= slurm.stop(folder) if on_slurm else set()  # what the controller submitted meanwhile
    parts = [f"{len(jobs)} job{'' if len(jobs) == 1 else 's'}"] if on_slurm else []
    parts += ["its controller"] if had_controller else []
    parts += ["its Jobs on Kubernetes, which end when they see it"] if on_kubernetes else []
    return " and ".join(parts)


def _wait_for_controller(folder: Folder) -> bool:
    """Wait for the end of the sweep's controller on this machine; tell whether it had one."""
    deadline, had_one = time.monotonic() + CONTROLLER_SECONDS, False
    while True:
        try:
            with campaign.hold(folder.path):
                return had_one
        except UsageError as error:
            had_one = True
            if time.monotonic() > deadline:
                raise EngineFailed("its controller has not ended", where=folder.path, todo=error.what) from error
        time.sleep(0.2)
