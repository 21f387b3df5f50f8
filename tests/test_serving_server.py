"""Served logs before the judge, and a server that is started, proven and stopped (a replay engine stands in)."""

import json

import pytest
from helpers import DATA

CAPTURED = DATA / "serving"


@pytest.mark.parametrize(
    ("name", "outcome", "code"),
    [("base23", "native", 0), ("b17", "native", 0), ("batch23", "native", 0), ("awq23", "invalid", 4),
     ("h100_batch", "degraded", 0)],
)  # fmt: skip
def test_a_captured_served_log_is_recognised_and_judged(invoke, name, outcome, code):
    ended = invoke("attest", "--log", CAPTURED / f"{name}.log.gz", "--json")
    assert ended.code == code, ended.out + ended.err
    document = json.loads(ended.out)
    assert document["outcome"] == outcome
    ids = {proof["id"] for proof in document["evidence"]}
    assert {"listening", "server-ready"} <= ids
    assert not {"saved", "dumped", "dumped-in-session"} & ids


def test_a_server_that_never_got_ready_is_not_proven(invoke, tmp_path):
    import gzip

    lines = gzip.decompress((CAPTURED / "base23.log.gz").read_bytes()).splitlines(keepends=True)
    path = tmp_path / "cut.log"
    path.write_bytes(b"".join(line for line in lines if b"fired up" not in line))
    ended = invoke("attest", "--log", path)
    assert ended.code == 5
    assert "evidence.server-ready" in ended.out
