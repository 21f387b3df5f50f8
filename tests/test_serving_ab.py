"""Two servers under the same load, against stand-ins: a winner only where there is one, and nothing that is hidden."""

import base64
import itertools
import json
import os
import re
import shutil
import signal
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
from stand_in_server import StandIn, picture

from bench import schema
from bench.errors import EngineFailed, FallbackDetected, Interrupted, RecordEdited, UsageError
from bench.record import campaign, documents, store
from bench.report import load_comparison, next_step
from bench.serving import ab, servers_review, versus
from bench.serving import run as campaigns
from bench.serving.campaign import Campaign
from bench.serving.client import Exchange
from bench.serving.options import LoadOptions
from bench.serving.outputs import Answer
from bench.serving.request import ImageRequest
from bench.serving.run import Remote
from bench.serving.versus import Design

STEP_S = 0.004


class Killed(BaseException):
    """Ends a comparison as kill -9 does: nobody writes anything any more."""


class Arm:
    """What `local.Hosted` is, around a stand-in: it answers, and says whether anything came while it was frozen."""

    def __init__(self, options, directory, *, steps, service_s, behaviour):
        workload = ImageRequest(prompt="a cat", seed=7, steps=steps, width=32, height=32)
        self.campaign = Campaign(options=options, workload=workload, started=store.now(), directory=directory)
        self.is_frozen, self.disturbed, self.stopped = False, 0, 0
        self.never_ready = behaviour.pop("never_ready", False)
        self.killed = behaviour.pop("killed", False)
        log = directory / "requests"
        log.mkdir()
        fault = behaviour.pop("fault", lambda *_: None)
        self._stand_in = StandIn(
            service_s=service_s, log=log, fault=lambda *given: self._seen() or fault(*given), **behaviour
        )

    def _seen(self):
        self.disturbed += self.is_frozen

    def start(self):
        pass

    def stop(self):
        self.stopped += 1

    @contextmanager
    def frozen(self, waiting):
        self.is_frozen = True
        waiting.wall_s += 1.0
        yield
        self.is_frozen = False

    def __enter__(self):
        if self.never_ready:
            raise EngineFailed("the server ended before it was ready")
        if self.killed:
            raise Killed
        self._stand_in.__enter__()
        self.server = Remote(url=self._stand_in.url, request_log=self._stand_in.log)
        return self

    def __exit__(self, *given):
        self._stand_in.__exit__(*given)

    def finish(self):
        return campaigns.finish(self.campaign, self.server, None)


class Shown:
    def __init__(self):
        self.told = []

    def begin(self, number, order):
        self.told.append(f"{number} {order}")

    def tell(self, told):
        self.told.append(told)


@pytest.fixture(name="compared")
def _compared(tmp_path):
    """Compare two stand-ins whose starts differ by chance, the same in each run of the test; return result and arms."""

    def go(steps=(4, 4), pairs=3, options=None, behaviour=None, *, resume=False):
        chance, arms = np.random.default_rng(1), []
        steps_of = dict(zip(("baseline", "candidate"), steps, strict=True))
        given = LoadOptions(**{"duration_s": 0.25, "rate_hz": 20.0} | (options or {}))

        def host(name, directory):
            service_s = STEP_S * steps_of[name] * (1 + 0.02 * chance.standard_normal())
            mine = (behaviour or (lambda name, number: {}))(name, len(arms) // 2 + 1)
            arms.append(Arm(given, directory, steps=steps_of[name], service_s=service_s, behaviour=dict(mine)))
            return arms[-1]

        specs = {name: f"steps={count}" for name, count in steps_of.items()}
        design = Design(pairs=pairs, seed=1)
        asked = {"started": store.now().isoformat()}
        with (
            campaign.begin(ab.CAMPAIGN, tmp_path, asked)
            if not resume
            else campaign.resume(tmp_path, ab.CAMPAIGN) as state
        ):
            result = ab.compared(given, specs, design, Shown(), host=host, state=state)
        assert schema.violations(result.document, "load-comparison") == []
        assert documents.validate(tmp_path) == "load-comparison"
        return result, arms

    return go


def test_a_server_against_itself_has_no_winner(compared):
    result, _ = compared(pairs=4)
    assert result.error is None
    assert result.document["comparison"]["verdict"] in ("same", "inconclusive")
    assert len(result.document["pairs"]) == 4
    assert result.document["pictures"]["equal"] == result.document["pictures"]["compared"] > 0


def test_one_step_more_of_four_is_found(compared):
    result, _ = compared(steps=(4, 5))
    compared_to = result.document["comparison"]
    assert compared_to["verdict"] == "slower"
    assert compared_to["effect"]["percent"] == pytest.approx(25, abs=5)
    text = "\n".join(load_comparison.lines(result.document))
    assert "SLOWER: unloaded service time: slower by at least" in text
    assert "highest rate within the SLO of" in text


def test_under_disturbance_no_size_is_claimed(compared, monkeypatch, invoke, tmp_path):
    monkeypatch.setattr("bench.record.disturbance.of", lambda record: ("GPU 0: process 4321",))
    result, _ = compared(steps=(4, 5))
    for name in ("comparison", "capacity"):
        assert not result.document[name]["shows_margin"]
        assert result.document[name]["reason"].endswith(
            "No size is claimed under disturbance: measure again when nothing else runs here"
        )
    told = " ".join(invoke("compare", tmp_path).out.split())
    assert "SLOWER (measured under disturbance: baseline, candidate): unloaded service time: observed +" in told
    assert "disturbed, candidate: GPU 0: process 4321" in told
    assert "at least" not in told
    monkeypatch.undo()
    with pytest.raises(RecordEdited, match="another disturbance"):
        servers_review.read(tmp_path)


def test_both_get_the_same_load_in_turns_and_the_other_one_is_frozen(compared, tmp_path):
    result, arms = compared()
    orders = [pair["order"] for pair in result.document["pairs"]]
    assert set(orders) == {"AB", "BA"}
    assert [arm.disturbed for arm in arms] == [0] * 6
    assert all(arm.stopped for arm in arms)
    for number in (1, 2, 3):
        records = [
            json.loads((tmp_path / f"pair-{number}" / name / "load.json").read_text())
            for name in ("baseline", "candidate")
        ]
        phases = [[(phase["name"], phase["trace_sha256"]) for phase in record["phases"]] for record in records]
        assert phases[0] == phases[1]
        assert [name for name, _ in phases[0]] == ["warm", "closed-1", "closed-4", "20/s"]
        starts = sorted(
            (phase["started_unix_s"], arm) for arm, record in zip("AB", records, strict=True)
            for phase in record["phases"]
        )  # fmt: skip
        turns = "".join(arm for _, arm in starts)
        first, second = orders[number - 1]
        assert turns == first + second + second + first + first + second + second + first
        assert records[0]["slo_s"] == records[1]["slo_s"]
    traces = {
        json.loads(path.read_text())["phases"][-1]["trace_sha256"]
        for path in tmp_path.glob("pair-*/baseline/load.json")
    }
    assert len(traces) == 3


def test_service_times_are_compared_by_their_place_in_the_trace():
    pair = versus.Pair(
        order="AB", service_s={"baseline": (1.0, 9.0, 2.0), "candidate": (1.1, 9.9, 2.2)}, measured={}, finished={},
        waiting_cpu_percent={},
    )  # fmt: skip
    assert pair.service == pytest.approx(np.log(1.1))


def test_rates_are_the_same_and_a_rate_that_one_server_cannot_hold_is_said(compared):
    slow = {"fault": lambda number, body: {"stall_s": 0.2} if body["num_inference_steps"] == 5 else None}
    result, _ = compared(steps=(4, 5), options={"slo_s": 0.15}, behaviour=lambda name, number: dict(slow))
    (rate,) = result.document["rates"]
    assert rate["rate_hz"] == 20.0
    assert rate["held"]["candidate"] == 0
    assert result.document["highest_rate_hz"]["candidate"] is None
    # "unknown" where the machine was so busy that the generator was late in every pair
    assert re.search("candidate (none|unknown)", load_comparison.highest_rate(result.document))


def test_rates_are_shares_of_the_baselines_capacity_in_the_first_pair(compared):
    result, _ = compared(options={"rate_hz": None})
    capacity_hz = result.document["pairs"][0]["baseline"]["capacity_hz"]
    rates = [rate["rate_hz"] for rate in result.document["rates"]]
    assert rates == pytest.approx([0.3 * capacity_hz, 0.6 * capacity_hz, 0.9 * capacity_hz])


def test_of_a_server_that_falls_back_nothing_is_compared(compared, tmp_path):
    def behaviour(name, number):
        return {"stage": "DiffusersExecutionStage"} if name == "candidate" else {}

    with pytest.raises(FallbackDetected):
        compared(behaviour=behaviour)
    assert not (tmp_path / "load-comparison.json").exists()


def test_what_was_measured_before_a_server_failed_is_kept_and_marked(compared):
    def behaviour(name, number):
        return {"fault": lambda *_: {"status": 500}} if (name, number) == ("baseline", 2) else {}

    result, _ = compared(behaviour=behaviour)
    assert result.document["complete"] is False
    assert len(result.document["pairs"]) == 1
    assert result.error is not None
    assert result.document["comparison"]["verdict"] == "inconclusive"
    assert "CUT OFF" in "\n".join(load_comparison.lines(result.document))


@pytest.mark.parametrize("which", ["baseline", "candidate"])
def test_a_server_that_is_never_ready_ends_the_comparison_and_both_are_stopped(compared, which):
    result, arms = compared(behaviour=lambda name, number: {"never_ready": (name, number) == (which, 2)})
    assert isinstance(result.error, EngineFailed)
    assert "before it was ready" in result.error.what
    assert len(result.document["pairs"]) == 1
    assert len(arms) == 4
    assert all(arm.stopped for arm in arms)


def test_an_interrupt_keeps_the_pairs_before_it_and_stops_both(compared):
    sent = []

    def end(*_):
        if not sent:
            sent.append(os.getpid())
            os.kill(os.getpid(), signal.SIGINT)

    result, arms = compared(behaviour=lambda name, number: {"fault": end} if number == 2 else {})
    assert isinstance(result.error, Interrupted)
    assert len(result.document["pairs"]) == 1
    assert all(arm.stopped for arm in arms)


@pytest.mark.parametrize("how", ["interrupted", "killed"])
def test_a_comparison_goes_on_with_the_pairs_that_are_missing(compared, tmp_path, how):
    sent = []

    def end(*_):
        if not sent:
            sent.append(os.getpid())
            os.kill(os.getpid(), signal.SIGINT)

    if how == "killed":
        with pytest.raises(Killed):
            compared(behaviour=lambda name, number: {"killed": number == 2})
        assert not (tmp_path / "load-comparison.json").exists()
    else:
        result, _ = compared(behaviour=lambda name, number: {"fault": end} if number == 2 else {})
        assert (result.error.what, "--resume" in result.error.todo) == ("interrupted after 1 of 3 pairs", True)
        step = next_step.after_servers(result.document, LoadOptions(), tmp_path)
        assert step.startswith("invoke loadtest --resume ")
    (kept,) = json.loads((tmp_path / "campaign.json").read_text())["finished"]
    before = {path: path.read_bytes() for path in tmp_path.glob("pair-1/**/*") if path.is_file()}
    resumed, arms = compared(resume=True)
    assert resumed.error is None
    assert resumed.document["complete"]
    pairs = resumed.document["pairs"]
    assert (len(pairs), len(arms)) == (3, 4)
    assert pairs[0]["order"] == kept["result"]["order"]
    if how == "interrupted":
        assert pairs[0] == result.document["pairs"][0]
        assert resumed.document["slo_s"] == result.document["slo_s"]
    assert all(path.read_bytes() == content for path, content in before.items())
    assert (tmp_path / "pair-2-cut-off-1").is_dir()
    assert resumed.document["pictures"]["equal"] == resumed.document["pictures"]["compared"] > 0
    assert not (tmp_path / "campaign.json").exists()
    servers_review.read(tmp_path)


@pytest.mark.parametrize(("left", "far"), [((7, 8), True), ((8,), False), ((), False)])
def test_how_far_pictures_differ_is_said_only_where_all_that_differ_are_there(left, far):
    def answered(change, seed):
        body = json.dumps({"data": [{"b64_json": base64.b64encode(picture(seed, 32, 32, change)).decode()}]}).encode()
        request = ImageRequest(prompt="a cat", seed=seed, steps=4, width=32, height=32)
        exchange = Exchange(index=0, request=request, intended_s=0.0, body=body if seed in left else None)
        return exchange, Answer(pixels_sha256=(f"{seed} {change}",))

    measured = {
        name: {"closed-1": SimpleNamespace(answered=[answered(change, seed) for seed in (7, 8)])}
        for change, name in enumerate(("baseline", "candidate"))
    }
    found = versus.pictures(SimpleNamespace(pairs=[SimpleNamespace(measured=measured)]))
    assert (found.compared, found.equal) == (2, 0)
    assert (found.max_levels == 1, found.worst_psnr_db is not None) == (far, far)


def test_a_comparison_whose_evidence_is_gone_does_not_go_on(compared, tmp_path):
    with pytest.raises(Killed):
        compared(behaviour=lambda name, number: {"killed": number == 2})
    (log,) = (tmp_path / "pair-1" / "candidate").rglob("*.log")
    shutil.rmtree(log.parent)
    with pytest.raises(UsageError, match=f"evidence of this run is gone: .*{log.name}"):
        compared(resume=True)
    assert not (tmp_path / "pair-2").exists() or not list((tmp_path / "pair-2").rglob("load.json"))


@pytest.mark.parametrize(
    "given",
    [{"url": "http://h"}, {"concurrency": 2}, {"find_max": True}, {"batching": 2}],
    ids=lambda given: next(iter(given)),
)
def test_what_two_servers_are_not_compared_by_is_refused(given):
    with pytest.raises(UsageError, match="cannot be combined with"):
        ab.refuse(LoadOptions(**given))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--baseline", "steps=4", "--candidate", "steps=4"), "both arms are the same"),
        (("--candidate", "stesp=4"), "did you mean steps=4"),
        (("--candidate", "steps=5", "--pairs", "2"), "2 pairs cannot decide"),
        (("--candidate", "steps=5", "--url", "http://h"), "--url cannot be combined"),
        (("--pairs", "3"), "name a --candidate"),
        (("--resume", "cut-off", "--same"), "keeps its load and its design"),
    ],
)
def test_what_cannot_be_compared_is_said_before_anything_starts(invoke, replay, words, says, home):
    ended = invoke("loadtest", "--model", "flux-tiny", "--engine", replay(), *words)
    assert ended.code == 1, ended.out + ended.err
    assert says in ended.err
    assert list((home / "runs").glob("*")) == []


def test_a_dry_run_shows_both_servers(invoke, replay):
    ended = invoke(
        "loadtest", "--model", "flux-tiny", "--engine", replay(), "--candidate", "attention-backend=fa", "--dry-run"
    )
    assert ended.code == 0, ended.err
    assert ended.out.count("--served-model-name=run-") == 2
    assert ended.out.count("--attention-backend=fa") == 1
    assert "at most 8 pairs, 16 server starts" in ended.err


def test_a_highest_rate_takes_all_lower_ones():
    def rate(rate_hz, held, known=3):
        both = dict.fromkeys(("baseline", "candidate"))
        return versus.Rate(
            rate_hz=rate_hz, held={"baseline": held}, known={"baseline": known}, p50_s=both, p95_s=both, goodput=both
        )

    highest = [
        versus.highest_rate([rate(hz, held) for hz, held in zip((1, 2, 3), counts, strict=True)], "baseline")
        for counts in itertools.product((2, 3), repeat=3)
    ]
    assert highest == [None, None, None, None, 1, 1, 2, 3]


@pytest.mark.parametrize(
    ("known", "highest", "said"),
    [
        ((8, 8), 2.0, "baseline 2/s, candidate 1/s (of 1/s, 2/s, in every pair)"),
        ((8, 1), 2.0, "baseline 2/s in 1 of 8 pairs, candidate 1/s in 8 of 8 pairs (of 1/s, 2/s; in the others"),
        ((3, 8), None, "baseline none in 3 of 8 pairs, candidate 1/s in 8 of 8 pairs"),
        ((0, 8), None, "baseline unknown in 0 of 8 pairs, candidate 1/s in 8 of 8 pairs"),
    ],
)
def test_a_highest_rate_says_in_how_many_pairs(known, highest, said):
    rates = [
        {"rate_hz": rate_hz, "known": {"baseline": count, "candidate": 8}}
        for rate_hz, count in zip((1.0, 2.0), known, strict=True)
    ]
    document = {
        "pairs": [{}] * 8,
        "rates": rates,
        "highest_rate_hz": {"baseline": highest, "candidate": 1.0},
    }
    assert load_comparison.highest_rate(document).startswith(said)


# --- judged again and shown -------------------------------------------------------------------------------------------


def test_a_comparison_is_judged_again_and_shown_again(compared, invoke, tmp_path):
    compared(steps=(4, 5))
    ended = invoke("validate", tmp_path)
    assert ended.code == 0, ended.err
    assert ended.out == f"{tmp_path}: valid load-comparison\n"
    ended = invoke("compare", tmp_path)
    assert ended.code == 7, ended.err
    assert "SLOWER: unloaded service time: slower by at least" in ended.out
    assert invoke("report", tmp_path).code == 0
    ended = invoke("attest", tmp_path / "report.html")
    assert ended.code == 0, ended.err
    assert "two servers: slower, 3 pairs" in ended.out


def forged(document, name):
    if name == "effect":
        document["comparison"]["effect"]["percent"] = 1.0
    elif name == "sentence":
        document["comparison"]["reason"] = "service time: slower by at least 90.00 %"
    elif name == "least":
        document["comparison"]["at_least_percent"] += 1.0
    elif name == "margin":
        document["comparison"]["shows_margin"] = False
    elif name == "ratio":
        document["pairs"][0]["service_log_ratio"] = 0.0
    elif name == "service":
        document["pairs"][0]["candidate"]["service_s"][0] *= 0.5
    elif name == "fewer":
        del document["pairs"][0]["candidate"]["service_s"][-1]
    else:
        document["pairs"][0]["baseline"]["capacity_hz"] *= 2


def test_a_forged_comparison_is_named(compared, tmp_path):
    compared(steps=(4, 5))
    path = tmp_path / "load-comparison.json"
    text = path.read_text()
    for name, says in {
        "effect": "its pairs give",
        "sentence": r"its sentence says 90\.00 %",
        "least": "its interval does not give at least",
        "margin": "it says not that it shows its margin",
        "ratio": "service_log_ratio does not follow",
        "service": "are not its record's",
        "fewer": "are not its record's",
        "capacity": "is another one in its record",
    }.items():
        document = json.loads(text)
        forged(document, name)
        path.write_text(json.dumps(document))
        with pytest.raises(RecordEdited, match=says):
            servers_review.read(tmp_path)
