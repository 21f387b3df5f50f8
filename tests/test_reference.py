"""`invoke reference`: the diffusers arm of a speed-up, guarded the other way round."""

import json
import re

import pytest
from helpers import NATIVE, record_of, record_path

DIFFUSERS = {"log": "cpu/diffusers.log", "dump": "cpu/diffusers.json"}
"""The scenario of a replay engine that runs diffusers, as it was asked to; its log is of a run without a warm-up."""
ONE = ("--no-warmup", "--steps", "4")


@pytest.fixture
def reference(invoke, replay, model):
    """Run `invoke reference` on a replay engine with this scenario."""

    def run(*arguments, scenario=DIFFUSERS, engine="slow"):
        command = ["reference", "--model", "flux-tiny", "--engine", replay(name=engine, **scenario)]
        return invoke(*command, "--model-path", model(), *ONE, *arguments)

    return run


@pytest.fixture
def both(reference, bench):
    """The places of a reference and of a native run of the same request."""
    slow = record_path(reference())
    return slow, record_path(bench(*ONE, engine="fast"))


def test_a_native_run_is_no_reference(reference):
    ended = reference(scenario=NATIVE)
    assert ended.code == 4
    record = record_of(ended)
    assert record["timings"] is None
    assert record["verdict"]["findings"][0]["id"] == "native.instead"


def test_a_reference_that_ran_out_of_time_is_proposed_as_one(reference):
    ended = reference("--timeout", "2", scenario=DIFFUSERS | {"linger_s": 600})
    assert ended.code == 8
    assert re.search(r"^next: invoke reference --model flux-tiny .*--timeout 4\b", ended.out, re.MULTILINE)


def test_a_diffusers_dump_alone_does_not_prove_it(reference):
    ended = reference(scenario=DIFFUSERS | {"dump": NATIVE["dump"]})
    assert ended.code == 4
    assert "dump.not_diffusers" in json.dumps(record_of(ended)["verdict"]["findings"])


def test_a_reference_is_labelled_wherever_it_is_shown(reference):
    ended = reference()
    record = record_of(ended)
    assert (ended.code, record["kind"], record["verdict"]["outcome"]) == (0, "reference", "diffusers")
    assert "--backend=diffusers" in record["launches"][0]["command"]["argv"]
    assert "DIFFUSERS" in ended.out
    assert "NATIVE" not in ended.out
    assert re.search(
        r"next: (?:when nothing else runs here: )?invoke bench --model flux-tiny .*&& invoke compare", ended.out
    )


def test_compare_calls_it_a_reference(invoke, both):
    ended = invoke("compare", both[0].parent, both[1].parent, "--markdown")
    assert "| | reference | candidate | change |" in ended.out
    assert "sglang 0.5.23 (diffusers backend), " in ended.out.splitlines()[0]
    assert "| verdict | diffusers | native | |" in ended.out


def test_what_is_left_open_is_measured_again_with_the_verb_of_each_side(invoke, both):
    ended = invoke("compare", both[0].parent, both[1].parent)
    assert ended.code == 9
    assert "how much starts differ: three launches of each side do" in " ".join(ended.out.split())
    (told,) = [line for line in ended.out.splitlines() if line.startswith("next: ")]
    again = "--repeats 3 --launches 3"
    assert re.fullmatch(
        rf"next: (when .*: )?invoke reference --model flux-tiny .*{again}.* && invoke bench --model .*{again}.*",
        told,
    )


def test_it_is_never_a_baseline_and_never_in_the_history(invoke, both):
    refused = invoke("baseline.set", both[0].parent)
    assert (refused.code, "cannot be a baseline" in refused.err) == (1, True)
    points = json.loads(invoke("history", "--model", "flux-tiny", "--json").out)
    assert [point["path"] for point in points] == [str(both[1])]


@pytest.mark.parametrize(("place", "kind"), [(0, "bench"), (1, "reference")])
def test_no_other_kind_can_be_written_into_the_record(invoke, both, place, kind):
    record = json.loads(both[place].read_text())
    both[place].write_text(json.dumps(record | {"kind": kind}))
    ended = invoke("compare", *(path.parent for path in both))
    assert "held against the other backend" in ended.err


def test_a_dry_run_shows_the_backend(invoke, replay, model):
    ended = invoke("reference", "--engine", replay(**DIFFUSERS), "--model-path", model(), "--dry-run")
    assert (ended.code, "--backend=diffusers" in ended.out) == (0, True)
