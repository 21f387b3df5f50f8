"""The gates, each with its source.

fp32, tiny checkpoints of four families on a CPU, sglang 0.5.23: equivalent components are at most 8e-7 from diffusers'
(T5; most are bit-equal) and final latents 8e-7; one tensor x 1.05 moves them by 1.6e-4 or more. bf16 can only tell
errors that are larger than its rounding (equivalent: 2.6e-2 for a transformer, 4.7e-3 for final latents), so its gates
are smoke tests; the cosines are those of SGLang's own component tests. PSNR and SSIM are reported but never gate the
comparison with the reference: on a tiny checkpoint a wrong guidance reaches 40 dB and 0.997.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.fidelity.similarity import Distance

COMPONENT, TRAJECTORY, GOLDEN = "component", "trajectory", "golden"
CHECKS = {COMPONENT: "each component", TRAJECTORY: "latents by step", GOLDEN: "the stored picture"}

SCHEDULE_TOLERANCE = 1e-3
"""Time steps of 0 to 1000 that are computed in float32 in another order differ by up to 6e-5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """The largest relative L2 and the smallest cosine (None: not checked) that pass."""

    rel_l2: float
    cosine: float | None = None

    def passes(self, distance: Distance) -> bool:
        """Return whether a distance is small enough; one with a fault never is."""
        if distance.fault is not None or distance.rel_l2 is None or distance.cosine is None:
            return False
        return distance.rel_l2 <= self.rel_l2 and (self.cosine is None or distance.cosine >= self.cosine)


def component(dtype: str, name: str) -> Gate:
    """Return the gate of a component's outputs."""
    if dtype == "fp32":
        return Gate(rel_l2=1e-5)
    cosine = 0.98 if name.startswith("text_encoder") else 0.999 if "vae" in name else 0.995
    return Gate(rel_l2=5e-2, cosine=cosine)


def final_latents(dtype: str) -> Gate:
    """Return the gate of the latents after the last step."""
    return Gate(rel_l2=1e-5 if dtype == "fp32" else 1e-2)
