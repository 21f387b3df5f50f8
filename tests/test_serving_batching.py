"""What a load test says of dynamic batching: merged or not, and against one request at a time."""

import gzip
import io
import json
import re
import signal
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
from helpers import DATA, ROOT, cut_off
from rich.console import Console
from stand_in_server import StandIn

from bench import schema
from bench.errors import FallbackDetected
from bench.record import store
from bench.report import load, load_page
from bench.serving import batching, joins
from bench.serving import run as campaigns
from bench.serving.campaign import Campaign
from bench.serving.options import LoadOptions
from bench.serving.queueing import Row
from bench.serving.request import ImageRequest
from bench.serving.run import Remote


class Logged:
    """A target whose batches can be seen, as in the log of a server that was started here."""

    def __init__(self, server):
        self._server, self._remote = server, Remote(url=server.url)

    def __getattr__(self, name):
        return getattr(self._remote, name)

    def merged(self):
        return Counter(batch["size"] for batch in self._server.batches if batch["size"] > 1)


@pytest.fixture(name="loadtest")
def _loadtest(tmp_path):
    """Send bursts of four to a stand-in that merges nothing and to one that may; return the record and the error."""

    def campaign(options, directory):
        directory.mkdir(parents=True)
        workload = ImageRequest(prompt="x", seed=1, steps=2, width=32, height=32)
        return Campaign(options=options, workload=workload, started=store.now(), directory=directory)

    def go(target=Logged, *, beside=True, **behaviour):
        options = LoadOptions(duration_s=1.0, concurrency=4, batching=4)
        loaded = campaign(options, tmp_path / "run")
        if beside:
            loaded.unbatched = campaign(replace(options, batching=1), tmp_path / "run" / "unbatched")
            with StandIn(service_s=0.1) as server:
                campaigns.run(loaded.unbatched, Remote(url=server.url), beside=4)
        with StandIn(service_s=0.1, **behaviour) as server:
            seen = target(server)
            campaigns.run(loaded, seen)
            record, _, error = campaigns.finish(loaded, seen, None)
        assert schema.violations(record, "load-record") == []
        return record, error

    return go


def held(record, check):
    return next(row["held"] for row in record["checks"] if row["id"] == check)


def test_merged_requests_are_held_against_lone_ones(loadtest):
    record, error = loadtest(most=4)
    said = record["batching"]
    assert said["merged_share"] > 0
    assert record["phases"][2]["name"] == "bursts"
    assert max(map(int, said["sizes"])) in (2, 3, 4)
    assert min(*said["batched"].values(), *said["unbatched"].values()) > 0
    text = printed(said | {"receipt": "engaged"})
    assert "against a server of this run that merges nothing" in text
    assert re.search(r"a lone request, nothing to merge it with: latency (?:[+-]\d+|0) % \(\d+ ms to \d+ ms\)", text)
    assert said["differing"] > 0
    assert said["max_levels"] == 1
    assert not isinstance(error, FallbackDetected)
    assert held(record, "outputs") is True


def test_of_a_merged_request_another_picture_is_no_number(loadtest):
    _, error = loadtest(most=4, fault=lambda number, _: {"seed": 99} if number % 5 == 0 else None)
    assert isinstance(error, FallbackDetected)


def test_a_difference_beyond_the_tolerance_is_said_and_fails_nothing(loadtest):
    record, error = loadtest(most=4, changes=9)
    assert held(record, "outputs") is False
    assert not isinstance(error, FallbackDetected)
    assert record["batching"]["max_levels"] == 9


def printed(batching):
    console = Console(file=io.StringIO(), width=200)
    load.show_batching(batching, console)
    return console.file.getvalue()


def test_a_server_that_merges_nothing_is_said_to(loadtest):
    record = loadtest()[0]
    text = printed(record["batching"] | {"receipt": "asked, not engaged"})
    assert "up to 4: asked, not engaged" in text
    assert record["batching"]["sizes"] == {}
    assert record["batching"]["merged_share"] == 0
    assert record["batching"]["differing"] == 0
    assert "0 % of the bursts' requests" in text


def test_the_page_shows_what_merging_changed(loadtest):
    record = loadtest(most=4)[0] | {"checks": (), "failure": None}
    tables = {block.title: block for block in load_page.page(record, ()).blocks}
    (first, *_, pictures) = tables["Batching"].rows
    assert first[0] == "up to 4"
    assert pictures[0] == "pictures"


def test_of_somebody_elses_server_merging_is_unknown(loadtest):
    record = loadtest(target=lambda server: Remote(url=server.url), most=4)[0]
    assert record["batching"]["sizes"] is record["batching"]["merged_share"] is record["batching"]["receipt"] is None
    assert "the log cannot be seen" in printed(record["batching"])


def test_admission_that_is_enabled_is_not_merging(invoke, tmp_path):
    """The captured server prints that admission is enabled; without its merged batches nothing was."""
    lines = gzip.decompress((DATA / "serving" / "batch23.log.gz").read_bytes()).splitlines(keepends=True)
    path = tmp_path / "engine.log"
    path.write_bytes(b"".join(line for line in lines if b"Processed dynamic batch" not in line))
    assert b"Batch admission enabled" in path.read_bytes()
    ended = invoke("attest", "--log", path, "--engine-version", "0.5.23", "--json")
    (receipt,) = json.loads(ended.out)["receipts"]
    assert (receipt["id"], receipt["result"]) == (batching.RECEIPT, "asked, not engaged")
    assert joins.merged(path) == {}


def test_merged_batches_are_counted_by_size(tmp_path):
    path = tmp_path / "engine.log"
    path.write_bytes(gzip.decompress((DATA / "serving" / "h100_batch.log.gz").read_bytes()))
    assert set(joins.merged(path)) == {4}


def test_without_a_server_that_merges_nothing_the_change_is_unknown(loadtest):
    said = loadtest(beside=False, most=4)[0]["batching"]
    assert said["unbatched"] is None
    assert "what merging changed: unknown" in printed(said)


def test_a_burst_lasts_until_its_last_answer():
    rows = [
        Row(intended_s=start, sent_s=start, done_s=start + latency, service_s=1.0)
        for start, latencies in ((0.0, (1.0, 2.0, 3.0, 4.0)), (9.0, (2.0, 3.0, 4.0, 6.0)), (20.0, (1.0, 1.0, 1.0)))
        for latency in latencies
    ]

    def phase(name, rows):
        return SimpleNamespace(phase=SimpleNamespace(name=name), rows=rows)

    bursts = phase(batching.BURSTS, rows)  # the third burst lost a request
    assert batching.burst([bursts], 4) == batching.Burst(throughput_hz=4 / 5, mean_latency_s=25 / 8)
    alone = phase(batching.ALONE, rows[:3])
    assert batching.burst([alone, bursts], 4).lone_latency_s == 2.0
    assert batching.burst([phase(batching.BURSTS, rows[8:])], 4) is None


@pytest.mark.parametrize("start", [1, 2], ids=["the server that merges nothing", "the server that may merge"])
def test_ctrl_c_leaves_neither_server_and_no_record_that_looks_finished(replay, home, model, start):
    hung = home / "served" / "hung"
    hung.parent.mkdir()
    program = str(ROOT / "tests" / "stand_in_server.py")
    replay(name="served", serves=program, service_s=0.02, hang_in=(start,), hung=str(hung), hang_steps=4)
    words = ("--model", "flux-tiny", "--engine", "served", "--model-path", model(), "--duration", "1")
    code, err = cut_off(signal.SIGINT, hung, home, "loadtest", "--batching", "4", "--concurrency", "4", *words)
    assert (code, "interrupted" in err) == (130, True), err
    assert "the same command again measures anew" in err
    (folder,) = (home / "runs").iterdir()
    records = {path.parent.name: json.loads(path.read_text()) for path in folder.rglob("load.json")}
    assert [schema.violations(record, "load-record") for record in records.values()] == [[]] * start
    cut = records.pop("unbatched" if start == 1 else folder.name)
    assert (cut["complete"], cut["failure"]["exit_code"]) == (False, 130)
    assert [record["complete"] for record in records.values()] == [True] * (start - 1)  # the first server's own
    assert "No figure of this load test counts: interrupted" in load_page.page(cut, ()).answer
    assert not (folder / "campaign.json").exists()
