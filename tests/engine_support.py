"""What the tests on the real engine share."""

import os
import re
import subprocess

from helpers import ROOT, Ended, invoke_command, processes_like

CONFIGURATIONS = re.findall(r'^    "(sglang-[\d.]+)": Configuration', (ROOT / "noxfile.py").read_text(), re.MULTILINE)
MINUTES = 60.0


def invoke(*arguments, runs, timeout=8 * MINUTES, **variables):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SGLANG_", "CUDA_"))}
    ended = subprocess.run(
        invoke_command(*arguments), cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        timeout=timeout, check=False,
        env=environment | {"BENCH_RUNS": str(runs), "COLUMNS": "100"} | variables,
    )  # fmt: skip
    return Ended(code=ended.returncode, out=ended.stdout, err=ended.stderr)


def engine_processes(runs):
    return [line for line in processes_like("sglang", runs) if "generate" in line or "multiprocessing" in line]
