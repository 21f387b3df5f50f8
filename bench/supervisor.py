"""Run one command and outlive nothing of it: a small program between the workbench and an engine.

    python -I -S supervisor.py -- PROGRAM [ARGUMENT ...]

Standard input is the lifeline: nobody writes to it, and its end means that whoever started this program is gone
(finished with it, interrupted, or killed with ``kill -9``: the kernel closes the pipe in each case). Then every process
below this one is killed. On Linux this process is a "child subreaper" (prctl(2)), so that a worker whose parent died
still comes here and cannot hide; elsewhere the process group is what is killed.

Exit code: the command's own; 128 + signal if it was ended by one; 127 if it could not be started.
It runs as a file of its own, with nothing imported but a few modules of the standard library, to start in ~20 ms.
"""

import ctypes
import os
import select
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
GRACE_SECONDS = 1.0  # a resource tracker or a pool of helpers ends by itself right after the main process


def prctl(option: int, value: int) -> None:
    """Set a property of this process (Linux; elsewhere nothing happens)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def descendants() -> list[int]:
    """Return the process ids below this process, zombies left out (Linux; empty elsewhere)."""
    children: dict[int, list[int]] = {}
    alive = set()
    for name in os.listdir("/proc") if sys.platform == "linux" else ():
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                # the command name is in brackets and may hold anything, so read from behind the last one
                state, parent = file.read().rpartition(b")")[2].split()[:2]
        except OSError:
            continue
        children.setdefault(int(parent), []).append(int(name))
        if state not in (b"Z", b"X"):
            alive.add(int(name))
    found, queue = [], [os.getpid()]
    while queue:
        for child in children.get(queue.pop(), ()):
            queue.append(child)
            if child in alive:
                found.append(child)
    return found


def kill_all(group: int) -> None:
    """Kill everything below this process, again and again until nothing is left to kill."""
    while True:
        try:
            os.killpg(group, signal.SIGKILL)
        except OSError:
            pass
        for process in descendants():
            try:
                os.kill(process, signal.SIGKILL)
            except OSError:
                pass
        if reap({}):
            return
        time.sleep(0.005)


def reap(ended: dict[int, int]) -> bool:
    """Collect ended children into ``ended`` (process id to wait status) without waiting; return whether none is left.

    Orphans count as children here, so none left means that the whole tree is gone, zombies and all.
    """
    while True:
        try:
            process, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return True
        if process == 0:
            return False
        ended[process] = status


def start(argv: list[str]) -> int:
    """Start the command in a session of its own; return its process id."""
    process = os.fork()
    if process:
        return process
    try:
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.execvp(argv[0], argv)
    except OSError as error:
        os.write(2, f"cannot start {argv[0]}: {error.strerror}\n".encode())
    os._exit(127)


def main() -> int:
    """Supervise; return the exit code."""
    argv = sys.argv[2:]
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the lifeline alone decides: it also ends when a signal ends the task
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)

    command = start(argv)
    status = None
    deadline = None
    while True:
        ended: dict[int, int] = {}
        none_left = reap(ended)
        status = ended.get(command, status)
        if status is not None:
            deadline = deadline or time.monotonic() + GRACE_SECONDS
            if none_left or time.monotonic() > deadline:
                break
        readable, _, _ = select.select([0, wake_read], [], [], None if status is None else 0.02)
        if wake_read in readable:
            os.read(wake_read, 4096)
        if 0 in readable and not os.read(0, 4096):
            break
    kill_all(command)
    if status is None:
        return 128 + signal.SIGKILL
    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


if __name__ == "__main__":
    os._exit(main())
