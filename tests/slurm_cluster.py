"""A real Slurm on this machine: munged, slurmctld and a slurmd for each node name, all in one folder.

Nodes have GPUs that only Slurm knows of. Nothing of the machine's own Slurm is read or changed.
"""

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from helpers import wait_until

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo", "scontrol", "srun")
SBIN = ("/usr/sbin", "/usr/local/sbin", "/sbin")
"""Where Debian has the daemons; a user's PATH may lack it."""
MARK = "TEST_SLURM_NODE"
"""Of every process of a node: the variable that a slurmd is started with, which its steps and their jobs inherit."""

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=20
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0,defer_batch=0,bf_interval=1
GresTypes=gpu
ReturnToService=2
SlurmdTimeout=8
InactiveLimit=0
KillWait=30
MinJobAge=300
MessageTimeout=10
UnkillableStepTimeout=60
{nodes}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=9
PartitionName=short Nodes=ALL MaxTime=1 State=UP
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def find(program):
    """Return the place of a program of Slurm; without it the tests fail under CI, and say so elsewhere."""
    path = os.pathsep.join((os.environ.get("PATH", ""), *SBIN))
    found = shutil.which(program, path=path)
    if found is None:
        why = f"no {program}: apt-get install slurm-wlm munge (sweeps are tested on a real Slurm)"
        if os.environ.get("CI"):
            pytest.fail(f"CI must not skip this: {why}")
        pytest.skip(why)
    return found


class Cluster:
    """Slurm with these nodes; each has ``cores`` and ``gpus`` that are only counted.

    Its folder has a short name: that of a socket in it may have 107 bytes, and a test's own folder takes most of them.
    """

    def __init__(self, nodes=("alpha", "beta", "gamma"), cores=2, gpus=2):
        for program in PROGRAMS:
            find(program)
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        self.nodes = nodes
        self.daemons = {}
        (self.folder / "state").mkdir()
        self._configure(cores, gpus)
        self.env = {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def _configure(self, cores, gpus):
        host = socket.gethostname().partition(".")[0]
        lines = [
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={free_port()} CPUs={cores} RealMemory=100"
            f" Gres=gpu:{gpus} Feature={node},any State=UNKNOWN"
            for node in self.nodes
        ]
        user = "root" if os.getuid() == 0 else getpass.getuser()  # not every container sets USER
        text = CONFIGURATION.format(host=host, port=free_port(), user=user, folder=self.folder, nodes="\n".join(lines))
        (self.folder / "slurm.conf").write_text(text)
        for number in range(gpus):
            (self.folder / f"gpu{number}").touch()  # a GPU of Slurm has a file, whatever it is
        (self.folder / "gres.conf").write_text(f"AutoDetect=off\nName=gpu File={self.folder}/gpu[0-{gpus - 1}]\n")
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)

    def _start(self, name, *argv, **variables):
        log = (self.folder / f"{name}.out").open("ab")
        self.daemons[name] = subprocess.Popen(
            argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=os.environ | self.env | variables,
            start_new_session=True,
        )  # fmt: skip

    def start(self):
        munge = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munge.pid", "log-file": "munge.log",
                 "seed-file": "munge.seed"}  # fmt: skip
        options = [f"--{name}={self.folder / file}" for name, file in munge.items()]
        self._start("munged", find("munged"), "--foreground", "--force", *options)
        wait_until((self.folder / "munge.socket").exists, "munged has made no socket", 30)
        self.start_controller()
        for node in self.nodes:
            self.start_node(node)
        wait_until(lambda: self.states() == dict.fromkeys(self.nodes, "idle"), "not every node became idle", 60)
        return self

    def start_controller(self):
        self._start("slurmctld", find("slurmctld"), "-D", "-i")

    def start_node(self, node):
        self._start(node, find("slurmd"), "-D", "-N", node, **{MARK: node})

    def kill(self, name):
        """Kill a daemon with signal 9; what a slurmd had started goes on."""
        daemon = self.daemons.pop(name)
        daemon.kill()
        daemon.wait()

    def lose(self, node):
        """Kill everything of a node with signal 9, as if its machine had lost its power."""
        self.kill(node)
        for process in self.processes_of(node):
            with_no_error(os.kill, process, signal.SIGKILL)

    def processes_of(self, node):
        """Return the processes of a node: its steps have the mark of its slurmd, their jobs what Slurm sets."""
        marks = (f"{MARK}={node}".encode(), f"SLURMD_NODENAME={node}".encode())
        mine = f"SLURM_CONF={self.folder}/".encode()
        found = []
        for process in map(int, filter(str.isdigit, os.listdir("/proc"))):
            environment = with_no_error(Path(f"/proc/{process}/environ").read_bytes, or_else=b"")
            if mine in environment and any(mark in environment for mark in marks):
                found.append(process)
        return found

    def run(self, *argv):
        """Return a command of Slurm that has ended, and what it printed."""
        return subprocess.run(
            [find(argv[0]), *argv[1:]], env=os.environ | self.env, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip

    def states(self):
        lines = self.run("sinfo", "--noheader", "--Node", "--format=%N %T").stdout.split("\n")
        return dict(line.split() for line in lines if len(line.split()) == 2)

    def jobs(self):
        """Return the jobs that are waiting or running, one line each; Slurm has to answer, if slowly."""
        for _ in range(5):
            asked = self.run("squeue", "--noheader", "--array", "--format=%i %T %r %N")
            if asked.returncode == 0:
                break
            time.sleep(1)
        assert asked.returncode == 0, asked.stderr
        return asked.stdout.splitlines()

    def stop(self):
        self.run("scancel", "--user", str(os.getuid()))
        for name in reversed(list(self.daemons)):
            self.daemons[name].terminate()
        for node in self.nodes:
            for process in self.processes_of(node):
                with_no_error(os.kill, process, signal.SIGKILL)
        for daemon in self.daemons.values():
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def with_no_error(call, *arguments, or_else=None):
    try:
        return call(*arguments)
    except OSError:
        return or_else
