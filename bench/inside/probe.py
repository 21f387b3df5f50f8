"""Measure what this device does at best, with the engine's own torch: matrix products, a copy, and attention.

Run by an engine's interpreter, never imported: ENGINE_PYTHON probe.py SECONDS

Prints one JSON object as its last line. Operands are random: a GPU multiplies zeros faster, they cost less power.
Each case runs for a slice of SECONDS after two runs that do not count; on a GPU each run is timed by events of its own
stream. What does not fit into SECONDS, or what this device or torch cannot do, is listed as left out, with the reason;
one product, the copy and the attention are always measured.
"""

from __future__ import annotations

import functools
import json
import statistics
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

STARTED = time.monotonic()
WARM_UP = 2
MOST_RUNS = 200
SLICES = 16
"""How many slices the time is cut into: more than there are cases, because making the operands takes time too."""

SHARE_OF_PRODUCTS = 0.7
"""Of the time: the rest is left for the attention, for which the engine has to be imported."""

ON_GPU = {
    "gemm": ((4096, 4096, 4096), (8192, 8192, 8192), (4608, 12288, 3072)),
    "copy_bytes": 1 << 30,
    "attention": {"heads": 24, "sequence": 4608, "head_size": 128, "data_type": "bf16"},
}
"""The last product is the first one of FLUX.1's MLP at 1024x1024, the attention is its attention."""

ON_CPU = {
    "gemm": ((512, 512, 512), (1024, 1024, 1024), (2048, 2048, 2048)),
    "copy_bytes": 1 << 27,
    "attention": {"heads": 4, "sequence": 1024, "head_size": 64, "data_type": "fp32"},
}

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, "fp8": torch.float8_e4m3fn}
FP8_CAPABILITY = (8, 9)


@dataclass
class Probe:
    """What was measured so far, and the time that is left."""

    device: torch.device
    seconds: float
    gemm: list[dict[str, Any]] = field(default_factory=list)
    copy: list[dict[str, Any]] = field(default_factory=list)
    attention: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)

    def measure(
        self,
        into: list[dict[str, Any]],
        what: dict[str, Any],
        make: Callable[[], Callable[[], object]],
        share: float = 1.0,
    ) -> None:
        """Time what ``make`` returns and keep it with its description; a case that cannot run is left out.

        It is left out too if more than this ``share`` of the time is over, unless it is the first of its kind.
        """
        name = ", ".join(f"{key} {value}" for key, value in what.items())
        if into and time.monotonic() - STARTED > share * self.seconds:
            self.left_out.append({"what": name, "why": f"no time left of {share * self.seconds:g} s"})
            return
        try:
            times = self._times(make())
        except Exception as error:  # noqa: BLE001 - what a device or a build of torch lacks is a finding
            self.left_out.append({"what": name, "why": f"{type(error).__name__}: {error}".splitlines()[0][:200]})
            return
        into.append(
            what
            | {"runs": len(times), "median_ms": statistics.median(times), "least_ms": min(times), "most_ms": max(times)}
        )

    def _times(self, call: Callable[[], object]) -> list[float]:
        """Return the time of each run in milliseconds."""
        for _ in range(WARM_UP):
            call()
        until = time.monotonic() + self.seconds / SLICES / 2
        times: list[float] = []
        while len(times) < MOST_RUNS and (not times or time.monotonic() < until):
            times += self._on_gpu(call, 10) if self.device.type == "cuda" else [_on_cpu(call)]
        return times

    def _on_gpu(self, call: Callable[[], object], runs: int) -> list[float]:
        """Queue some runs, so that no launch is waited for, and return the time of each."""
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(runs + 1)]
        marks[0].record()
        for mark in marks[1:]:
            call()
            mark.record()
        torch.cuda.synchronize()
        return [earlier.elapsed_time(later) for earlier, later in zip(marks, marks[1:])]  # noqa: B905, RUF007 - any Python


def _on_cpu(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)


def products(probe: Probe, sizes: Any) -> None:
    """Measure C = A B^T in each data type that the device multiplies, small ones first."""
    kinds = ["bf16", "fp16", "fp32"] if probe.device.type == "cuda" else ["fp32", "bf16"]
    if probe.device.type == "cuda" and torch.cuda.get_device_capability(probe.device) >= FP8_CAPABILITY:
        kinds.insert(2, "fp8")
    for m, n, k in sizes:
        for kind in kinds:
            what = {"data_type": kind, "m": m, "n": n, "k": k}
            make = functools.partial(_product, probe.device, kind, m, n, k)
            probe.measure(probe.gemm, what, make, share=SHARE_OF_PRODUCTS)


def _product(device: torch.device, kind: str, m: int, n: int, k: int) -> Callable[[], object]:
    a = torch.randn(m, k, device=device).to(TYPES[kind])
    b = torch.randn(n, k, device=device).to(TYPES[kind]).t()
    if kind != "fp8":
        out = torch.empty(m, n, device=device, dtype=TYPES[kind])
        return lambda: torch.mm(a, b, out=out)
    one = torch.ones((), device=device)
    return lambda: torch._scaled_mm(a, b, scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True)  # noqa: SLF001 - torch has no other


def copies(probe: Probe, size_bytes: int) -> None:
    """Measure a copy from memory to memory; it reads and writes each byte once."""

    def make() -> Callable[[], object]:
        block = torch.randint(0, 255, (1 << 20,), dtype=torch.uint8, device=probe.device)
        source = block.repeat(size_bytes >> 20)
        target = torch.empty_like(source)
        return lambda: target.copy_(source)

    probe.measure(probe.copy, {"bytes": size_bytes}, make)


def attention(probe: Probe, asked: dict[str, Any]) -> None:
    """Measure self-attention through the backend that the engine chooses for this device, called as it calls it."""
    kind, heads, sequence, size = (asked[name] for name in ("data_type", "heads", "sequence", "head_size"))
    chosen: list[str] = []

    def make() -> Callable[[], object]:
        from pkgutil import resolve_name

        from sglang.multimodal_gen.runtime.managers.forward_context import set_forward_context
        from sglang.multimodal_gen.runtime.platforms import current_platform

        backend = resolve_name(current_platform.get_attn_backend_cls_str(None, size, TYPES[kind]))
        chosen.append(backend.get_enum().name.lower())
        engine = backend.get_impl_cls()(num_heads=heads, head_size=size, causal=False, softmax_scale=size**-0.5)
        shape = (1, sequence, heads, size)
        query, key, value = (torch.randn(shape, device=probe.device).to(TYPES[kind]) for _ in range(3))

        def call() -> object:
            with torch.no_grad(), set_forward_context(current_timestep=0, attn_metadata=None):
                return engine.forward(query, key, value, None)

        return call

    probe.measure(probe.attention, dict(asked), make)
    for one in probe.attention:
        one["backend"] = chosen[-1]


def main() -> None:
    """Measure the first GPU, or the CPU of a machine without one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    asked: dict[str, Any] = ON_GPU if device.type == "cuda" else ON_CPU
    probe = Probe(device=device, seconds=float(sys.argv[1]))
    products(probe, asked["gemm"])
    copies(probe, asked["copy_bytes"])
    attention(probe, asked["attention"])
    print()  # an engine that is imported may have left a line unfinished
    print(
        json.dumps(
            {
                "kind": device.type,
                "name": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
                "torch": torch.__version__,
                "threads": torch.get_num_threads() if device.type == "cpu" else None,
                "gemm": probe.gemm,
                "copy": probe.copy,
                "attention": probe.attention,
                "left_out": probe.left_out,
            }
        )
    )


if __name__ == "__main__":
    main()
