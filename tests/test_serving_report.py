"""What a load test prints, from records of stand-in runs: no figure of one that does not count."""

import io

import pytest
from rich.console import Console
from stand_in_server import StandIn

from bench.record import documents, store
from bench.report import load, next_step
from bench.serving import run as campaigns
from bench.serving.campaign import Campaign
from bench.serving.options import LoadOptions
from bench.serving.request import ImageRequest
from bench.serving.run import Remote


@pytest.fixture(name="shown")
def _shown(tmp_path):
    def go(**behaviour):
        options = LoadOptions(duration_s=1.0, rate_hz=20.0, slo_s=0.5)
        workload = ImageRequest(prompt="x", seed=1, steps=2, width=32, height=32)
        campaign = Campaign(options=options, workload=workload, started=store.now(), directory=tmp_path)
        with StandIn(service_s=0.005, **behaviour) as server:
            campaigns.run(campaign, Remote(url=server.url))
            record, path, _ = campaigns.finish(campaign, Remote(url=server.url), None)
        assert documents.validate(tmp_path) == "load-record"
        for check in record["checks"]:
            if check["exit_code"] == 9:  # a generator that was late, for one: this machine may be busy
                check["exit_code"] = 0
        console = Console(file=io.StringIO(), width=200)
        load.show(record, path, console, next_step.after_load(record, options, path))
        return console.file.getvalue()

    return go


def test_somebody_elses_server_is_unattested_and_its_checks_are_listed(shown):
    text = shown()
    assert text.startswith("verdict  UNATTESTED\n")
    assert "somebody else's server: unattested" in text
    assert text.count(" held ") >= 5
    assert text.splitlines()[-2] == "next: invoke loadtest --model flux --slo 0.5 --find-max"


def test_of_a_fallback_no_figure_is_printed(shown):
    text = shown(stage="DiffusersExecutionStage")
    assert "NOT HELD" in text
    assert "capacity" not in text
    assert "goodput" not in text
