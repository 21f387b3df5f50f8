"""The explicit namespace of `invoke --list`. The verbs are in `bench/verbs/`, one file per family of verbs."""

from __future__ import annotations

from bench.task import Collection
from bench.verbs import accuracy, comparing, judging, learning, machine, making, measuring, profiling

ns = Collection(
    accuracy.accuracy,
    comparing.ab,
    comparing.compare,
    judging.attest,
    judging.signals,
    judging.validate,
    learning.completion,
    learning.tour,
    machine.assets,
    machine.doctor,
    making.checkpoint,
    making.models,
    measuring.bench,
    measuring.calibrate,
    measuring.history,
    profiling.profile,
    profiling.profile_diff,
)
ns.add_collection(Collection("baseline", set=comparing.baseline_set, show=comparing.baseline_show))
