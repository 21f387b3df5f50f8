"""The explicit namespace of `invoke --list`. The verbs themselves are in `bench/verbs/`, one file a family."""

from __future__ import annotations

import os
import signal
import sys

if not sys.flags.dont_write_bytecode:
    sys.dont_write_bytecode = False  # Invoke sets it, and each start would then compile the 200 modules of a verb anew

if os.path.basename(sys.argv[0]) in {"invoke", "inv", "__main__.py"}:  # noqa: PTH119 - pathlib takes its time
    # Ctrl-C while modules are imported: nothing was started yet that must be stopped; a task takes the signal over
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

if "--" not in sys.argv and {"--help", "-h", "--list", "-l"}.intersection(sys.argv):
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Invoke prints these itself; a reader that has gone ends it silently

from bench.task import namespace
from bench.verbs import (
    accuracy,
    attest,
    bench,
    bisect,
    compare,
    doctor,
    evidence,
    loadtest,
    models,
    nightly,
    profile,
    reach,
    report,
    sweep,
    tour,
)

ns = namespace(
    tour.start,
    accuracy.accuracy,
    attest.attest,
    attest.signals,
    attest.validate,
    bench.bench,
    bench.reference,
    bisect.bisect,
    compare.ab,
    compare.calibrate,
    compare.compare,
    compare.history,
    doctor.doctor,
    evidence.evidence,
    evidence.evidence_check,
    loadtest.loadtest,
    models.assets,
    models.checkpoint,
    models.models,
    profile.probe,
    profile.profile,
    profile.profile_diff,
    reach.reach,
    report.report,
    nightly.nightly,
    sweep.sweep,
    sweep.sweep_cancel,
    sweep.sweep_status,
    tour.completion,
    tour.tour,
    baseline={"set": compare.baseline_set, "show": compare.baseline_show, "unset": compare.baseline_unset},
)
