"""Served logs before the judge, and a server that is started, proven and stopped (a replay engine stands in)."""

import contextlib
import json
import os
import sys

import pytest
from helpers import DATA

from bench.engine.command import Command, free_ports
from bench.fallback.expectation import SERVER as SERVED
from bench.fallback.expectation import Expectation
from bench.fallback.guard import Guard
from bench.serving.command import ServerCommand
from bench.serving.server import Server

CAPTURED = DATA / "serving"


@pytest.mark.parametrize(
    ("name", "outcome", "code"),
    [("base23", "native", 0), ("b17", "native", 0), ("batch23", "native", 0), ("awq23", "invalid", 4),
     ("h100_batch", "degraded", 0), ("h100_plain", "native", 0)],
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


SERVER = """
import http.server, sys
port = int(sys.argv[-1].partition("=")[2])
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")
    def log_message(self, *_):
        pass
listener = http.server.HTTPServer(("127.0.0.1", port), Answers)
print(f"INFO:     Uvicorn running on http://127.0.0.1:{port} (Press CTRL+C to quit)", flush=True)
print("The server is fired up and ready to roll!", flush=True)
listener.serve_forever()
"""


def test_a_server_is_found_below_its_supervisor_and_nothing_of_it_is_left(tmp_path):
    (port,) = free_ports(1)
    command = Command(
        argv=(sys.executable, "-c", SERVER, f"--port={port}"), environment=os.environ, added={}, directory=tmp_path
    )
    served = ServerCommand(
        command=command, port=port, run_id="run-1", model_path="m", names_itself=True, has_metrics=False
    )
    server = Server(served, Guard(Expectation(launch=SERVED)), ready_s=120)
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop)
        server.start()
        server.wait_until_ready()
        assert server.identity().listener_is_ours
        assert server.cpu_s() > 0
        (listener,) = server._roots()
        assert listener.net_connections()[0].laddr.port == port
    assert not server.alive()
    assert not listener.is_running()


def test_a_server_that_falls_back_is_stopped_at_the_line(invoke, replay, model, home):
    engine = replay(log="cpu/awq_sglang.log", linger_s=600)
    ended = invoke("loadtest", "--model", "flux-tiny", "--engine", engine, "--model-path", model())
    assert ended.code == 4, ended.out + ended.err
    assert "diffusers.quant_name" in ended.err
    assert list((home / "runs").glob("*/load.json")) == []


@pytest.mark.parametrize("cleanup", [True, False])
def test_a_server_fetches_models_into_the_runs_own_cache(invoke, replay, model, tmp_path, cleanup):
    """Also one that is stopped: it had fetched its model by then."""
    engine = replay(log="cpu/awq_sglang.log", linger_s=600, download=100)
    root = tmp_path / "caches"
    root.mkdir()
    words = ["--model", "flux-tiny", "--engine", engine, "--model-path", model(), "--model-cache-root", root]
    ended = invoke("loadtest", *words, *(["--cleanup-model-cache"] if cleanup else []))
    assert ended.code == 4, ended.out + ended.err
    fetched = [path.stat().st_size for path in root.rglob("weights.safetensors")]
    assert fetched == ([] if cleanup else [100])
