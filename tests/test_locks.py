"""The lock of a GPU: shared by the engines of one comparison, refused to another run."""

import subprocess
import sys
import threading

import pytest
from helpers import ROOT

from bench.errors import PreflightFailed
from bench.machine import locks

HOLDING = """
import sys; sys.path.insert(0, sys.argv[1])
from bench.machine import locks
with locks.hold(["GPU-1"]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_gpu_of_another_run_is_refused(home):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(ROOT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(PreflightFailed, match="GPU-1 is in use by another run"), locks.hold(["GPU-1"]):
            pass
        other.communicate("")
    with locks.hold(["GPU-1"]):
        pass


def test_two_engines_that_start_in_the_same_moment_share_it(home):
    """On an H200 the second engine of a pair was refused the GPU of the first, by chance, one comparison in three."""
    failed = []

    def start(together):
        together.wait()
        try:
            with locks.hold(["GPU-1", "GPU-2"]):
                held.wait()
        except PreflightFailed as error:
            failed.append(error)
            held.abort()

    for _ in range(200):
        together, held = threading.Barrier(2), threading.Barrier(2)
        threads = [threading.Thread(target=start, args=(together,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
