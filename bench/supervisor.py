"""Run one command and outlive nothing of it: two small programs between the workbench and an engine.

    python -I -S supervisor.py [--remove FOLDER] -- PROGRAM [ARGUMENT ...]

The task starts the *keeper*, the keeper forks the *supervisor*, the supervisor starts the command. Standard input of
both is the lifeline: nobody writes to it, and its end means that the task is gone (finished with it, interrupted, or
killed with ``kill -9``: the kernel closes the pipe in each case). Then every process below is killed, and FOLDER, a
place for half-made things, is removed.

Which guarantee holds where, on Linux:

- Keeper and supervisor are both "child subreapers" (prctl(2)): a worker whose parent died comes to the nearest of the
  two that lives and cannot hide. Whichever dies, the other sees it and kills everything below itself. Both being
  stopped (SIGSTOP) changes nothing: PR_SET_PDEATHSIG continues the keeper when the task dies, and the supervisor when
  the keeper does; a supervisor that does not answer is killed.
- The task is the third: it is a subreaper too, a pidfd tells it of the keeper's end, and if both are killed it kills
  what comes to it (``orphans.stop``). So nothing is left as long as one of the three lives.
- A pattern that matches the workbench or the engine (``pkill -9 -f bench``) misses the keeper, whose command line says
  only its name, and a signal to the supervisor's process group or session misses it too.
- Only if all three are killed at once is the kernel alone left: PR_SET_PDEATHSIG kills the command itself, and those of
  its workers that armed it, as SGLang's do; others stay. Cgroups would not help: somebody has to live to write to
  cgroup.kill, and in most containers, where engines run, nobody may. So this needs no rights, and holds without any.

Elsewhere the command's process group is what is killed.

Exit code: the command's own; 128 + signal if it was ended by one, or 137 if the supervisor was killed; 127 if it could
not be started. It runs as a file of its own, with nothing imported but a few modules of the standard library, to start
in ~20 ms.
"""

import ctypes
import os
import select
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
GRACE_SECONDS = 1.0  # a resource tracker or a pool of helpers ends by itself right after the main process
ANSWER_SECONDS = 0.5  # a supervisor that has not stopped everything by then may be stopped itself
LONGEST_PAUSE_SECONDS = 0.1
KEEPER = b"launch-keeper"


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


def kill_all(group: int | None = None) -> None:
    """Kill everything below this process, and a process group, again and again until nothing is left to kill."""
    pause = 0.005
    while True:
        if group is not None:
            try:
                os.killpg(group, signal.SIGKILL)
            except OSError:
                pass
        if reap({}):
            return
        for process in descendants():
            try:
                os.kill(process, signal.SIGKILL)
            except OSError:
                pass
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


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


def waker() -> int:
    """Return a descriptor that becomes readable when a child ends, or when a parent's end continues this process."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    for number in (signal.SIGCHLD, signal.SIGCONT):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    return read


def exit_code(status: int) -> int:
    """Return the exit code for a wait status."""
    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def supervise(argv: list[str], keeper: int) -> int:
    """Run the command until it ends, or the lifeline or the keeper does; return the exit code."""
    prctl(PR_SET_PDEATHSIG, signal.SIGCONT)
    wake = waker()
    command = start(argv)
    status = None
    deadline = None
    while os.getppid() == keeper:
        ended: dict[int, int] = {}
        none_left = reap(ended)
        status = ended.get(command, status)
        if status is not None:
            deadline = deadline or time.monotonic() + GRACE_SECONDS
            if none_left or time.monotonic() > deadline:
                break
        readable, _, _ = select.select([0, wake], [], [], None if status is None else 0.02)
        if wake in readable:
            os.read(wake, 4096)
        if 0 in readable and not os.read(0, 4096):
            break
    kill_all(command)
    return 128 + signal.SIGKILL if status is None else exit_code(status)


def keep(supervisor: int, remove: str | None) -> int:
    """Wait for the supervisor and leave nothing below this process; return the exit code."""
    wake = waker()
    status = None
    deadline = None
    while deadline is None or time.monotonic() < deadline:
        ended: dict[int, int] = {}
        reap(ended)
        status = ended.get(supervisor)
        if status is not None:
            break
        # the end of the lifeline stays readable: it is looked at once
        readable, _, _ = select.select([wake] if deadline else [0, wake], [], [], 0.02 if deadline else None)
        if wake in readable:
            os.read(wake, 4096)
        if 0 in readable and not os.read(0, 4096):
            deadline = time.monotonic() + ANSWER_SECONDS
    kill_all()
    # a killed supervisor leaves the command half done, and the task may be killed before it sees that
    cut_off = deadline is not None or status is None or os.WIFSIGNALED(status) or lifeline_ended()
    if remove is not None and cut_off:
        import shutil  # noqa: PLC0415 - start-up time

        shutil.rmtree(remove, ignore_errors=True)
    return 128 + signal.SIGKILL if status is None else exit_code(status)


def lifeline_ended() -> bool:
    """Tell whether the task is gone."""
    return bool(select.select([0], [], [], 0)[0]) and not os.read(0, 4096)


def rename() -> None:
    """Show nothing but the keeper's name as this process's command line, as setproctitle does (Linux)."""
    if sys.platform != "linux":
        return
    try:
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        begin, end = int(fields[45]), int(fields[46])  # arg_start and arg_end, see proc_pid_stat(5)
        if end - begin > len(KEEPER):
            ctypes.memmove(begin, KEEPER.ljust(end - begin, b"\0"), end - begin)
        ctypes.CDLL(None).prctl(PR_SET_NAME, KEEPER, 0, 0, 0)
    except (OSError, IndexError, ValueError):
        pass  # then it has the name that it was started with


def main() -> int:
    """Keep and supervise; return the exit code."""
    words = sys.argv[1:]
    options, argv = words[: words.index("--")], words[words.index("--") + 1 :]
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_PDEATHSIG, signal.SIGCONT)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the lifeline alone decides: it also ends when a signal ends the task
    keeper = os.getpid()
    supervisor = os.fork()
    if supervisor == 0:
        os.setsid()
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        return supervise(argv, keeper)
    rename()
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 1)  # the end of the output is the command's
    os.dup2(nothing, 2)
    os.closerange(3, 256)
    return keep(supervisor, options[1] if options else None)


if __name__ == "__main__":
    os._exit(main())
