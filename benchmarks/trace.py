"""How fast the trace analysis is, against `json.load` of the same file and HolisticTraceAnalysis, in one run.

    python benchmarks/trace.py [--trace TRACE] [--hta PYTHON] [--rounds 3] [--fold 20]

Every contender runs in a process of its own, in turns, so that a busy machine slows all of them. Times are the median
of the rounds, from the start of the interpreter to its end; memory is the largest of the rounds' peaks. Exits with 1
if an aim is missed.
"""

from __future__ import annotations

import argparse
import gzip
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

OURS = """
import sys; from pathlib import Path
from bench import schema
from bench.profiling.analysis import analyse
document = analyse([Path(sys.argv[1])])
schema.check(document, "profile-report", sys.argv[1])
"""

JSON_LOAD = """
import gzip, json, sys
path = sys.argv[1]
with (gzip.open(path) if path.endswith(".gz") else open(path, "rb")) as file:
    json.load(file)
"""

HTA = """
import sys, tempfile
from hta.trace_analysis import TraceAnalysis
analysis = TraceAnalysis(trace_files={0: sys.argv[1]}, trace_dir=tempfile.mkdtemp())
analysis.get_temporal_breakdown(visualize=False)
analysis.get_idle_time_breakdown(ranks=[0], visualize=False)
analysis.get_gpu_kernel_breakdown(visualize=False)
"""

AIM_SECONDS, AIM_MB = 2.0, 100.0
AIM_HTA_TIMES, AIM_HTA_MEMORY = 3.0, 0.25
AIM_FOLD_MB = 300.0

NUMBERS = re.compile(
    rb'((?:"(?:ts|correlation|External id)": )|(?:"ac2g"|"ph": "[sf]"), "id": |ProfilerStep#)([0-9.]+)'
)


PEAK = """
print(*(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
"""The peak of the process's own memory in KiB. Not rusage's: that begins with the size of the parent that forked it."""


FIXTURE = Path(__file__).resolve().parent.parent / "tests" / "data" / "traces" / "flux-h200.trace.json.gz"


def measured(python: str, program: str, path: Path) -> tuple[float, float]:
    """Run a program on a trace; return its seconds and its peak memory in MB."""
    environment = os.environ | {"HTA_DISABLE_NS_ROUNDING": "1", "PYTHONPATH": str(ROOT)}
    begin = time.perf_counter()
    done = subprocess.run(
        [python, "-c", program + PEAK, str(path)], capture_output=True, text=True, env=environment, check=False
    )
    seconds = time.perf_counter() - begin
    if done.returncode:
        raise SystemExit(f"a contender failed on {path}:\n{done.stderr[-2000:]}")
    return seconds, int(done.stdout.split()[-1]) * 1024 / 1e6


def folded(path: Path, target: Path, times: int) -> int:
    """Write a trace of ``times`` copies of a trace, each later and with ids of its own; return its size unpacked.

    A copy is a second stretch of the same run: more steps, not more events in a step.
    """
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    start = raw.index(b'"traceEvents": [\n') + len(b'"traceEvents": [\n')
    end = raw.index(b"\n  }\n  ]") + len(b"\n  }")
    parts = NUMBERS.split(raw[start:end])
    stamps = [float(value) for name, value in zip(parts[1::3], parts[2::3], strict=True) if name == b'"ts": ']
    length = max(stamps) - min(stamps) + 1e6
    size = 0
    with gzip.open(target, "wb", compresslevel=1) as file:
        size += file.write(raw[:start])
        for copy in range(times):
            for at in range(2, len(parts), 3):
                name, value = parts[at - 1], parts[at]
                if name == b'"ts": ':
                    parts[at] = b"%.3f" % (float(value) + (length if copy else 0))
                elif copy:
                    parts[at] = b"%d" % (int(value) + (100 if name == b"ProfilerStep#" else 10_000_000))
            size += file.write((b",\n" if copy else b"") + b"".join(parts))
        size += file.write(raw[end:])
    return size


def main() -> int:
    """Print the ratios; return 1 if an aim is missed."""
    parser = argparse.ArgumentParser(description="How fast the trace analysis is, against json.load and HTA.")
    parser.add_argument("--trace", type=Path, default=FIXTURE, help="a trace of a GPU run (default: the tests' own)")
    parser.add_argument(
        "--hta",
        default=os.environ.get("BENCH_HTA_PYTHON"),
        help="the Python of an environment with HolisticTraceAnalysis 0.5.0",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fold", type=int, default=20, help="copies in the large synthetic trace; 0 leaves it out")
    arguments, _ = parser.parse_known_args()  # `nox -s benchmark` hands every script the same arguments
    contenders = {"analysis": (sys.executable, OURS), "json.load": (sys.executable, JSON_LOAD)}
    if arguments.hta:
        contenders["HTA"] = (arguments.hta, HTA)
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(arguments.rounds):
        for name, (python, program) in contenders.items():
            results[name].append(measured(python, program, arguments.trace))
    seconds = {name: statistics.median(one for one, _ in runs) for name, runs in results.items()}
    memory = {name: max(one for _, one in runs) for name, runs in results.items()}
    print(f"{arguments.trace.name}, median of {arguments.rounds} rounds in turns")
    for name in contenders:
        ratio = f"{seconds[name] / seconds['analysis']:5.2f} x   {memory[name] / memory['analysis']:5.2f} x"
        print(f"  {name:10} {seconds[name]:7.2f} s {memory[name]:8.0f} MB   {ratio}")
    aims = {
        f"analysis under {AIM_SECONDS:g} s": seconds["analysis"] < AIM_SECONDS,
        f"analysis under {AIM_MB:g} MB": memory["analysis"] < AIM_MB,
    }
    if "HTA" in contenders:
        aims["at least 3 times as fast as HTA"] = seconds["HTA"] >= AIM_HTA_TIMES * seconds["analysis"]
        aims["at most a quarter of HTA's memory"] = memory["analysis"] <= AIM_HTA_MEMORY * memory["HTA"]
    if arguments.fold:
        with tempfile.TemporaryDirectory() as folder:
            large = Path(folder) / "large.trace.json.gz"
            size = folded(arguments.trace, large, arguments.fold)
            took, peak = measured(sys.executable, OURS, large)
        print(f"  {arguments.fold}-fold     {took:7.2f} s {peak:8.0f} MB   ({size / 1e9:.2f} GB unpacked)")
        aims[f"{arguments.fold}-fold under {AIM_FOLD_MB:g} MB"] = peak < AIM_FOLD_MB
    for aim, kept in aims.items():
        print(f"  {'kept  ' if kept else 'MISSED'} {aim}")
    return 0 if all(aims.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
