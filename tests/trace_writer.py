"""Small traces for tests, event by event, in Kineto's layout or any other."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

DATA = Path(__file__).resolve().parent / "data" / "traces"
FLUX = DATA / "flux-h200.trace.json.gz"
FLUX_H100 = DATA / "flux-h100.trace.json.gz"
"""Of 0.5.23 on torch 2.14, which lays events out another way, with synchronised stages."""

CPU = DATA / "cpu.trace.json.gz"

H200 = {
    "id": 0,
    "name": "NVIDIA H200",
    "computeMajor": 9,
    "computeMinor": 0,
    "numSms": 132,
    "totalGlobalMem": 150 << 30,
}
HEAD = {"schemaVersion": 1, "deviceProperties": [H200], "with_stack": 1, "record_shapes": 1}

FLASH = "void cutlass::device_kernel<flash::FlashAttnFwdSm90<int> >(int)"
ADD = "void at::native::elementwise_kernel<128, 4, at::native::CUDAFunctor_add<c10::BFloat16> >(int)"
NCCL = "ncclDevKernel_AllGather_RING_LL(ncclDevKernelArgsStorage<4096ul>)"


def span(category, name, start, duration, *, thread=1, process=1, **arguments):
    event = {"ph": "X", "cat": category, "name": name, "pid": process, "tid": thread, "ts": start, "dur": duration}
    return event | ({"args": arguments} if arguments else {})


def step(number, start, duration):
    return span("user_annotation", f"ProfilerStep#{number}", start, duration)


def module(name, start, duration, thread=1):
    return span("python_function", f"nn.Module: {name}", start, duration, thread=thread)


def op(name, start, duration, external, dims=(), *, types=None, thread=1, **more):
    kinds = list(types) if types is not None else ["c10::BFloat16" if shape else "Scalar" for shape in dims]
    arguments = {"External id": external, "Input type": kinds, "Input Dims": [list(shape) for shape in dims]}
    return span("cpu_op", name, start, duration, thread=thread, **arguments, **more)


def launch(correlation, start, duration=2.0, *, name="cudaLaunchKernel", category="cuda_runtime", thread=1):
    return span(category, name, start, duration, thread=thread, cbid=211, correlation=correlation)


def kernel(name, start, duration, correlation, external=None, *, stream=7, category="kernel"):
    arguments = {"device": 0, "stream": stream, "correlation": correlation}
    if external is not None:
        arguments = {"External id": external} | arguments
    return span(category, name, start, duration, thread=stream, process=0, **arguments)


class Script:
    """Writes calls one after the other: each is an operator, its launch and its kernel, in a module."""

    def __init__(self):
        self.events = []
        self.number = 0
        self.cpu_us = 1000.0
        self.gpu_us = 1100.0

    def call(self, name, duration=10.0, operator=None, dims=(), *, stream=7, gap=1.0, modules=(), types=None, lag=None):
        """Add a kernel ``gap`` after the last one, or ``lag`` after its own launch."""
        self.number += 1
        start = self.cpu_us
        for depth, label in enumerate(modules):
            self.events.append(module(label, start + depth * 0.1, 8.0 - depth * 0.2))
        if operator:
            self.events.append(op(operator, start + 1, 6, self.number, dims, types=types))
        self.events.append(launch(self.number, start + 2))
        begin = start + 2 + lag if lag is not None else self.gpu_us + gap
        self.events.append(kernel(name, begin, duration, self.number, self.number if operator else None, stream=stream))
        self.gpu_us = max(self.gpu_us, begin + duration)
        self.cpu_us = start + 10
        return self

    def step(self, number, calls):
        """Add a step around what ``calls(script)`` adds."""
        start = self.cpu_us
        self.cpu_us += 1
        calls(self)
        self.events.append(step(number, start, self.cpu_us - start))
        self.cpu_us += 5
        return self

    def write(self, path, head=HEAD):
        return write(path, self.events, head)


def kineto(events, head=HEAD):
    """Return a trace as Kineto lays it out: one block for each event, members of the head first."""
    lines = "".join(f'\n  "{name}": {json.dumps(value)},' for name, value in head.items())
    blocks = []
    for event in events:
        outer = {name: value for name, value in event.items() if name != "args"}
        text = "    " + json.dumps(outer)[1:-1]
        if "args" in event:
            text += ',\n    "args": {\n      ' + json.dumps(event["args"])[1:-1] + "\n    }"
        blocks.append("{\n" + text + "\n  }")
    return "{" + lines + '\n  "traceEvents": [\n  ' + ",\n  ".join(blocks) + '\n  ],\n  "traceName": "x.json"\n}'


def write(path, events, head=HEAD):
    """Write a trace in Kineto's layout, gzipped if the name says so."""
    text = kineto(events, head).encode()
    path.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)
    return path


def loaded(path):
    """Return the JSON of a trace file."""
    return json.loads(gzip.decompress(path.read_bytes()))
