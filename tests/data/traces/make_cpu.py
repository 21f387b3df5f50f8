"""Capture a trace without GPU events: how cpu.trace.json.gz was made, with the schedule of the engine's profiler.

    ENGINE_PYTHON tests/data/traces/make_cpu.py tests/data/traces/cpu.trace.json.gz

It needs torch; the classes are named like those of a denoiser, so that steps and modules are found as in a real trace.
"""

from __future__ import annotations

import sys

import torch
from torch import nn


class TinyTransformerBlock(nn.Module):
    """Norm, two projections and a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.act, self.down = nn.LayerNorm(64), nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [batch, sequence, 64] for the same."""
        return x + self.down(self.act(self.up(self.norm(x))))


class TinyTransformer2DModel(nn.Module):
    """Two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(TinyTransformerBlock() for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [batch, sequence, 64] for the same."""
        for block in self.blocks:
            x = block(x)
        return x


def main() -> None:
    """Record three steps after one of warm-up, with shapes and stacks."""
    torch.manual_seed(0)
    model, x = TinyTransformer2DModel().eval(), torch.randn(1, 32, 64)
    schedule = torch.profiler.schedule(wait=0, warmup=1, active=3, repeat=1)
    activities = [torch.profiler.ProfilerActivity.CPU]
    with (
        torch.inference_mode(),
        torch.profiler.profile(
            activities=activities, schedule=schedule, record_shapes=True, with_stack=True
        ) as profiler,
    ):
        for _ in range(4):
            x = x - 0.1 * model(x)
            profiler.step()
    profiler.export_chrome_trace(sys.argv[1])


if __name__ == "__main__":
    main()
