"""What the workbench itself costs: starting, reading, matching, stopping; each against a baseline of the same run."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from _ratio import median_s, show  # noqa: E402

from bench import process  # noqa: E402
from bench.errors import FallbackDetected  # noqa: E402
from bench.fallback.expectation import Expectation  # noqa: E402
from bench.fallback.guard import Guard  # noqa: E402
from bench.fallback.matcher import Matcher  # noqa: E402

LOG = ROOT / "tests" / "data" / "logs" / "h200" / "native_eager.log"
LOG_BYTES = 100_000_000
NOISE = "[11-22 08:53:49] an ordinary line of an engine that talks too much, number 0123456789 of very many\n"
FLOOD = f"import sys\nblock = {NOISE!r} * 1000\nfor _ in range({LOG_BYTES} // len(block)): sys.stdout.write(block)\n"
BAD = "[11-22 09:46:02] Falling back to diffusers backend"


def quiet(*argv: str) -> None:
    """Run a command and forget its output."""
    subprocess.run(argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def starting() -> None:
    """Time `invoke --list` and a dry run against an empty Python."""
    from bench.engine import find  # noqa: PLC0415

    empty = median_s(lambda: quiet(sys.executable, "-c", "pass"), 10)
    invoke = (sys.executable, "-m", "invoke")
    cases = {
        "invoke --list": ((*invoke, "--list"), "< 0.4 s"),
        "a TAB behind --model": ((*invoke, "completion", "bash", "--line", "invoke bench --model f"), "< 0.5 s"),
    }
    for name in list(find.built())[:1]:
        dry = (*invoke, "bench", "--model", "flux-tiny", "--engine", name, "--dry-run")
        cases["invoke bench --dry-run"] = (dry, "< 0.6 s")
    for title, (argv, aim) in cases.items():
        took = median_s(lambda argv=argv: quiet(*argv), 7)
        show(title, f"{took:.3f} s", f"python -c pass: {empty:.3f} s", took / empty, aim)


def reading() -> None:
    """Time a 100 MB log through runner and guard against the same child with its output thrown away."""
    thrown = median_s(lambda: quiet(sys.executable, "-c", FLOOD), 3)

    def guarded() -> None:
        with tempfile.TemporaryDirectory() as folder:
            guard = Guard(Expectation(version="0.5.23"))
            argv = [sys.executable, "-c", FLOOD]
            process.stream(argv, env=os.environ, log=Path(folder) / "log", observer=guard)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    took = median_s(guarded, 3)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    show("a 100 MB log, runner and guard", f"{took:.2f} s", f"output discarded: {thrown:.2f} s", took / thrown, "< 2 s")
    show("  memory it takes", f"{grown:.0f} MiB", "the log: 95 MiB", grown / 95, "flat")


def matching() -> None:
    """Time all signals against the lines of a real log, against one plain search for one of them."""
    guard = Guard(Expectation(version="0.5.23"), stop=False)
    patterns = [signal.pattern for signal in guard._log_signals]  # noqa: SLF001
    matcher, one = Matcher(patterns), "Falling back to diffusers backend"
    lines = LOG.read_text(encoding="utf-8", errors="replace").splitlines()

    def each(action: object) -> float:
        samples = []
        for _ in range(30):
            for line in lines:
                start = time.perf_counter()
                action(line)  # type: ignore[operator]
                samples.append(time.perf_counter() - start)
        return statistics.median(samples)

    every, single = each(matcher.find), each(lambda line: one in line)
    title = f"{len(patterns)} signals against one line, median"
    show(title, f"{every * 1e6:.2f} us", f"one substring: {single * 1e6:.2f} us", every / single, "< 5 us")


def stopping() -> None:
    """Time from an invalid line to no process left, against killing one idle process."""

    def kill_one() -> float:
        idle = subprocess.Popen(["sleep", "60"])
        start = time.perf_counter()
        idle.kill()
        idle.wait()
        return time.perf_counter() - start

    samples = []
    for _ in range(9):
        with tempfile.TemporaryDirectory() as folder:
            stamp = Path(folder) / "stamp"
            script = f"sleep 60 & setsid sleep 60 & date +%s.%N > {stamp}; echo '{BAD}'; sleep 60"
            try:
                process.stream(
                    ["bash", "-c", script], env=os.environ, log=Path(folder) / "log", observer=Guard(Expectation())
                )
            except FallbackDetected:
                samples.append(time.time() - float(stamp.read_text()))
    took, one = statistics.median(samples), statistics.median(kill_one() for _ in range(9))
    show(
        "an invalid line to no process left",
        f"{took:.3f} s",
        f"kill and wait for one: {one:.4f} s",
        took / one,
        "< 0.3 s",
    )


def attesting() -> None:
    """Time a 1 GB log through `invoke attest` and take its peak memory, against `cat` of the same bytes."""
    flood = FLOOD.replace(str(LOG_BYTES), str(10 * LOG_BYTES))

    def pipe(*argv: str) -> float:
        with subprocess.Popen([sys.executable, "-c", flood], stdout=subprocess.PIPE) as source:
            start = time.perf_counter()
            subprocess.run(argv, cwd=ROOT, stdin=source.stdout, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                           check=False)  # fmt: skip
            return time.perf_counter() - start

    thrown = pipe("cat")
    program = (
        "import runpy, sys; sys.argv = ['invoke', 'attest', '--log', '-']\n"
        "try: runpy.run_module('invoke', run_name='__main__')\n"
        # not ru_maxrss: that of a new process begins with the peak of the one that started it
        "finally: open(PEAK, 'w').write(next(x for x in open('/proc/self/status') if x.startswith('VmHWM')))\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        peak = Path(folder) / "peak"
        took = pipe(sys.executable, "-c", program.replace("PEAK", repr(str(peak))))
        peak_mib = int(peak.read_text().split()[1]) / 1024
    show("a 1 GB log through attest", f"{took:.1f} s", f"cat: {thrown:.1f} s", took / thrown, "seconds")
    show("  peak memory of attest", f"{peak_mib:.0f} MiB", "the log: 954 MiB", peak_mib / 954, "flat")


def main() -> None:
    """Print every figure."""
    starting()
    reading()
    attesting()
    matching()
    stopping()


if __name__ == "__main__":
    main()
