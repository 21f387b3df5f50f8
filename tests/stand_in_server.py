"""A small HTTP server that stands in for `sglang serve`: one request at a time, first come first served, and faults.

It writes the request log and the counters of the real one. As a program it is the `sglang serve` of a replay engine:
it prints what a captured server printed, and then answers. It is asyncio on one thread, so that a thousand requests
may wait; ``service_s`` is slept, not computed.
"""

import asyncio
import base64
import contextlib
import io
import json
import os
import shutil
import sys
import threading
import uuid
from datetime import UTC, datetime
from pathlib import Path

import av
import numpy as np
from aiohttp import web
from PIL import Image


def picture(seed, width, height, change=0):
    pixels = np.random.default_rng(seed).integers(0, 240, (height, width, 3), dtype=np.uint8) + np.uint8(change)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def video(seed, width, height, frames):
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        # at a fixed quantiser equal frames are equal bytes: x264's macroblock tree reads memory that it never wrote
        stream = container.add_stream("libx264", rate=8, options={"qp": "23"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            pixels = np.random.default_rng((seed, number)).integers(0, 240, (height, width, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


class StandIn:
    """A context manager, with a thread of its own or, as ``async with``, in the loop that runs.

    ``fault`` is called with the request's number and body before its answer.
    It returns None, or a dict: status (HTTP), raw (bytes of the answer), size, seed (other pictures), steps (logged),
    stall_s (the server does nothing for that long), slow_s (it takes so much longer), silent (nothing is logged), die
    (the server ends here).

    With ``most`` above 1 it merges that many requests; their pictures are brighter by ``changes`` of 255. ``trace`` is
    left in ``traces`` for a request that asks for one; ``stages`` gets each request's steps, as the engine logs them.
    """

    def __init__(
        self, *, service_s=0.0, fault=lambda number, body: None, log=None, stage="DenoisingStage", foreign=0,
        most=1, changes=1, port=0, name="stand-in", trace=None, traces=None, stages=None,
    ):  # fmt: skip
        self.port, self.name = port, name
        self.most, self.changes, self.batches = most, changes, []
        self.trace, self.traces, self.stages = trace, traces, stages
        self.service_s, self.fault, self.log, self.stage = service_s, fault, log, stage
        self.posts = self.finished = self.steps = foreign
        self._pictures, self.jobs, self._running = {}, {}, set()

    def __enter__(self):
        started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(10)
        return self

    def __exit__(self, *_):
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    async def __aenter__(self):
        self._loop, started = asyncio.get_running_loop(), asyncio.Event()
        self._task = self._loop.create_task(self._serve(started))
        await started.wait()
        return self

    async def __aexit__(self, *_):
        self._over.set()
        await self._task

    def _run(self, started):
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve(started))
        self._loop.close()

    async def _serve(self, started):
        self._over, self._one = asyncio.Event(), asyncio.Lock()
        self._free_at = 0.0
        app = web.Application()
        app.router.add_post("/v1/images/generations", self._generate)
        app.router.add_post("/v1/videos", self._queue)
        app.router.add_get("/v1/videos/{id}", self._job)
        app.router.add_get("/v1/videos/{id}/content", self._content)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/server_info", self._info)
        app.router.add_get("/health", self._info)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        started.set()
        await self._over.wait()
        await runner.cleanup()

    async def _generate(self, request):
        arrived = self._loop.time()
        body = await request.json()
        number, self.posts = self.posts, self.posts + 1
        fault = self.fault(number, body) or {}
        server_id = str(uuid.uuid4())
        width, height = map(int, fault.get("size", body["size"]).split("x"))
        logged = {
            "seed": body["seed"], "num_inference_steps": fault.get("steps", body.get("num_inference_steps", 50)),
            "width": width, "height": height, "num_outputs_per_prompt": body["n"],
        }  # fmt: skip
        if not fault.get("silent"):
            self._write("request.received", server_id, logged)
        batch = await self._merged(arrived) if self.most > 1 else None
        service_s = batch["service_s"] if batch else self.service_s + fault.get("slow_s", 0)
        async with contextlib.nullcontext() if batch else self._one:
            if fault.get("die"):
                self._over.set()
                await asyncio.Event().wait()  # until the clean-up cancels it, and whoever waits behind it
            # against an absolute time: sleeps that end late do not add up to a slower server
            if batch is None:
                self._free_at = max(arrived, self._free_at) + service_s + fault.get("stall_s", 0)
            await asyncio.sleep((batch["ends_at"] if batch else self._free_at) - self._loop.time())
        if "status" in fault:
            return web.Response(status=fault["status"], text="Internal Server Error")
        if "raw" in fault:
            return web.Response(body=fault["raw"], content_type="application/json")
        self.finished += 1
        self.steps += logged["num_inference_steps"]
        if not fault.get("silent"):
            self._write("request.finished", server_id, logged)
        self._leave(body, server_id, logged["num_inference_steps"])
        change = self.changes if batch and batch["size"] > 1 else 0
        key = (fault.get("seed", body["seed"]), width, height, change)
        if key not in self._pictures:
            self._pictures[key] = base64.b64encode(picture(*key)).decode()
        data = [{"b64_json": self._pictures[key]}] * body["n"]
        return web.json_response({"id": server_id, "data": data, "inference_time_s": service_s or 1e-6})

    async def _queue(self, request):
        """Start a job, as for a video; its body's ``fault`` may be failed (the job) or frames."""
        body = await request.json()
        number, self.posts = self.posts, self.posts + 1
        fault = self.fault(number, body) or {}
        job = {"id": str(uuid.uuid4()), "status": "queued"}
        self.jobs[job["id"]] = job, (body, fault)
        width, height = map(int, body["size"].split("x"))
        logged = {
            "seed": body["seed"], "num_inference_steps": body.get("num_inference_steps", 50), "width": width,
            "height": height, "num_outputs_per_prompt": body["n"],
            "num_frames": fault.get("logged", body["num_frames"]),
        }  # fmt: skip
        self._write("request.received", job["id"], logged)
        self._running.add(self._loop.create_task(self._make(job, fault, logged)))
        return web.json_response(job)

    async def _make(self, job, fault, logged):
        async with self._one:
            job["status"] = "in_progress"
            await asyncio.sleep(self.service_s)
            if fault.get("failed"):
                job |= {"status": "failed", "error": {"message": "no memory"}}
                return
            self.finished += 1
            self.steps += logged["num_inference_steps"]
            self._write("request.finished", job["id"], logged)
            job |= {"status": "completed", "inference_time_s": self.service_s}

    async def _job(self, request):
        return web.json_response(self.jobs[request.match_info["id"]][0])

    async def _content(self, request):
        body, fault = self.jobs[request.match_info["id"]][1]
        width, height = map(int, body["size"].split("x"))
        return web.Response(
            body=video(fault.get("seed", body["seed"]), width, height, fault.get("frames", body["num_frames"]))
        )

    async def _merged(self, arrived):
        """Return the batch that a request ran in, once it is closed: one that waited for others and had room.

        A batch of two or more takes one and a half times as long as a request.
        """
        batch = self.batches[-1] if self.batches else None
        if batch is None or batch["size"] == self.most or arrived > batch["begins_at"]:
            batch = {"size": 0, "begins_at": max(arrived + 0.02, self._free_at)}
            self.batches.append(batch)
        batch["size"] += 1
        batch["service_s"] = self.service_s * (1.5 if batch["size"] > 1 else 1)
        batch["ends_at"] = self._free_at = batch["begins_at"] + batch["service_s"]
        await asyncio.sleep(batch["begins_at"] - self._loop.time())
        return batch

    def _write(self, event, server_id, sampling):
        if self.log is None:
            return
        now = datetime.now(UTC).astimezone().replace(tzinfo=None)  # as the engine: local, without a zone
        content = {
            "timestamp": now.isoformat(), "event": event, "rid": server_id,
            "obj": {"request_id": server_id, "sampling_params": sampling}, "out": {"meta_info": {"error": None}},
        }  # fmt: skip
        with (self.log / "host_0.log").open("a") as file:
            file.write(f"[{now:%Y-%m-%d %H:%M:%S}] {json.dumps(content)}\n")

    def _leave(self, body, server_id, steps):
        """Leave what the engine does of a request: its steps, and the trace that it asks for."""
        if self.stages is not None:
            step_ms = 900.0 if body.get("profile") else 50.0
            with (self.stages / "performance.log").open("a") as file:
                file.write(json.dumps({"request_id": server_id, "steps": [step_ms] * steps}) + "\n")
        if self.trace is not None and body.get("profile"):
            shutil.copy(self.trace, Path(self.traces, f"{server_id}-2_steps-global-rank0.trace.json.gz"))

    async def _info(self, request):
        return web.json_response({"model_path": "stand-in", "served_model_name": self.name, "version": "0.5.23"})

    async def _metrics(self, request):
        posted = "sglang:http_requests_total"
        lines = [
            f'sglang:diffusion_stage_host_latency_seconds_count{{stage="{self.stage}"}} {self.finished}.0',
            f'sglang:diffusion_stage_host_latency_seconds_count{{stage="DenoisingStep"}} {self.steps}.0',
            f'sglang:diffusion_requests_total{{is_warmup="false",status="success"}} {self.finished}.0',
            f'{posted}{{endpoint="/v1/images/generations",method="POST"}} {self.posts - len(self.jobs)}.0',
            f'{posted}{{endpoint="/v1/videos",method="POST"}} {len(self.jobs)}.0',
            "sglang:diffusion_num_queue_reqs 0.0",
            "sglang:diffusion_num_running_reqs 0.0",
        ]
        return web.Response(text="\n".join(lines) + "\n")


CAPTURED = Path(__file__).parent / "data/serving/loads/20261128T190000Z-load-flux-tiny-000023/engine.log"
SAID = 300
"""Lines of it that tell of the start and of the first requests."""


def main(scenario, words):
    """Answer until killed; in the starts that ``hang_in`` lists a request of ``hang_steps`` (3) or for a trace hangs.

    With ``dies`` it ends at the request that asks for a trace.
    """
    asked = dict(word.removeprefix("--").partition("=")[::2] for word in words)
    launches = Path(scenario["hung"]).with_name("launches")
    with launches.open("a") as file:
        file.write(".")
    hangs = launches.stat().st_size in scenario["hang_in"]

    def fault(number, body):
        if scenario.get("dies") and body.get("profile"):
            os._exit(1)
        if not hangs or not (body.get("profile") or body.get("num_inference_steps") == scenario.get("hang_steps", 3)):
            return None
        Path(scenario["hung"]).touch()
        return {"stall_s": 600}

    said = CAPTURED.read_text().splitlines()[:SAID]
    arguments = next(line for line in said if "server_args: " in line).partition("server_args: ")[2]
    model = json.loads(arguments)["model_path"]
    log = Path(asked["log-requests-target"])
    log.mkdir(parents=True, exist_ok=True)
    stages = Path(os.environ["SGLANG_PERF_LOG_DIR"])
    stages.mkdir(exist_ok=True)
    server = StandIn(
        service_s=scenario["service_s"], fault=fault, log=log, port=int(asked["port"]), name=asked["served-model-name"],
        trace=scenario.get("trace"), traces=os.environ.get("SGLANG_DIFFUSION_TORCH_PROFILER_DIR"), stages=stages,
    )  # fmt: skip
    asyncio.run(answer(server, "\n".join(said).replace(model, asked["model-path"])))


async def answer(server, said):
    async with server:
        print(said, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), sys.argv[2:])
