"""A small HTTP server that stands in for `sglang serve`: one request at a time, first come first served, and faults.

It writes the request log and the counters of the real one. It is asyncio on one thread, so that a thousand requests
may wait; ``service_s`` is slept, not computed.
"""

import asyncio
import base64
import contextlib
import io
import json
import threading
import uuid
from datetime import UTC, datetime

import numpy as np
from aiohttp import web
from PIL import Image


def picture(seed, width, height, change=0):
    pixels = np.random.default_rng(seed).integers(0, 240, (height, width, 3), dtype=np.uint8) + np.uint8(change)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


class StandIn:
    """A context manager, with a thread of its own or, as ``async with``, in the loop that runs.

    ``fault`` is called with the request's number and body before its answer.
    It returns None, or a dict: status (HTTP), raw (bytes of the answer), size, seed (other pictures), steps (logged),
    stall_s (the server does nothing for that long), silent (nothing is logged), die (the server ends here).

    With ``most`` above 1 it merges that many requests; their pictures are brighter by ``changes`` of 255.
    """

    def __init__(
        self, *, service_s=0.0, fault=lambda number, body: None, log=None, stage="DenoisingStage", foreign=0,
        most=1, changes=1,
    ):  # fmt: skip
        self.most, self.changes, self.batches = most, changes, []
        self.service_s, self.fault, self.log, self.stage = service_s, fault, log, stage
        self.posts = self.finished = self.steps = foreign
        self._pictures = {}

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
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/server_info", self._info)
        app.router.add_get("/health", self._info)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
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
            "seed": body["seed"], "num_inference_steps": fault.get("steps", body["num_inference_steps"]),
            "width": width, "height": height, "num_outputs_per_prompt": body["n"],
        }  # fmt: skip
        if not fault.get("silent"):
            self._write("request.received", server_id, logged)
        batch = await self._merged(arrived) if self.most > 1 else None
        async with contextlib.nullcontext() if batch else self._one:
            if fault.get("die"):
                self._over.set()
                await asyncio.Event().wait()  # until the clean-up cancels it, and whoever waits behind it
            # against an absolute time: sleeps that end late do not add up to a slower server
            if batch is None:
                self._free_at = max(arrived, self._free_at) + self.service_s + fault.get("stall_s", 0)
            await asyncio.sleep((batch["ends_at"] if batch else self._free_at) - self._loop.time())
        if "status" in fault:
            return web.Response(status=fault["status"], text="Internal Server Error")
        if "raw" in fault:
            return web.Response(body=fault["raw"], content_type="application/json")
        self.finished += 1
        self.steps += logged["num_inference_steps"]
        if not fault.get("silent"):
            self._write("request.finished", server_id, logged)
        change = self.changes if batch and batch["size"] > 1 else 0
        key = (fault.get("seed", body["seed"]), width, height, change)
        if key not in self._pictures:
            self._pictures[key] = base64.b64encode(picture(*key)).decode()
        data = [{"b64_json": self._pictures[key]}] * body["n"]
        service_s = batch["service_s"] if batch else self.service_s
        return web.json_response({"id": server_id, "data": data, "inference_time_s": service_s or 1e-6})

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

    async def _info(self, request):
        return web.json_response({"model_path": "stand-in", "served_model_name": "stand-in", "version": "0.5.23"})

    async def _metrics(self, request):
        lines = [
            f'sglang:diffusion_stage_host_latency_seconds_count{{stage="{self.stage}"}} {self.finished}.0',
            f'sglang:diffusion_stage_host_latency_seconds_count{{stage="DenoisingStep"}} {self.steps}.0',
            f'sglang:diffusion_requests_total{{is_warmup="false",status="success"}} {self.finished}.0',
            f'sglang:http_requests_total{{endpoint="/v1/images/generations",method="POST"}} {self.posts}.0',
            "sglang:diffusion_num_queue_reqs 0.0",
            "sglang:diffusion_num_running_reqs 0.0",
        ]
        return web.Response(text="\n".join(lines) + "\n")
