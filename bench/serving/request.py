"""One request to a server, and what is refused before it is sent because a server would change it without a word.

What each refusal rests on was seen on 0.5.23: HTTP 200 every time, for another workload than the one that was asked.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

IMAGES, VIDEOS = "/v1/images/generations", "/v1/videos"
SIDE_MULTIPLE_PIXELS = 16
"""100x100 comes back as 96x96."""
MOST_OUTPUTS = 10
"""n=50 makes 10 images, n=0 makes one."""

FIELDS = frozenset(
    {
        "prompt", "negative_prompt", "size", "width", "height", "num_inference_steps", "seed", "n", "guidance_scale",
        "true_cfg_scale", "response_format", "output_format", "quality",
    }
)  # fmt: skip
"""What the server reads. It ignores anything else: a misspelt step count means 50 steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRequest:
    """One request for images; sizes in pixels. ``steps`` and ``guidance`` None are the model's defaults."""

    prompt: str
    seed: int
    steps: int | None
    width: int
    height: int
    outputs: int = 1
    guidance: float | None = None
    negative_prompt: str | None = None

    @property
    def path(self) -> str:
        """Where it is posted."""
        return IMAGES

    def body(self) -> bytes:
        """Return the body: PNG in base64, so that the pixels come with the answer and lose nothing."""
        return self._body(response_format="b64_json", output_format="png")

    def _body(self, **more: object) -> bytes:
        """Return the body with further fields; what is None is left to the server."""
        asked = {
            "prompt": self.prompt,
            "size": f"{self.width}x{self.height}",
            "seed": self.seed,
            "n": self.outputs,
            **more,
            "num_inference_steps": self.steps,
            "guidance_scale": self.guidance,
            "negative_prompt": self.negative_prompt,
        }
        return json.dumps({name: value for name, value in asked.items() if value is not None}).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoRequest(ImageRequest):
    """One request for a video: a job, whose end is asked for. ``frames`` None is the model's default."""

    frames: int | None = None

    @property
    def path(self) -> str:
        """Where it is posted; the job is below."""
        return VIDEOS

    def body(self) -> bytes:
        """Return the body; the video is fetched when the job is done."""
        return self._body(num_frames=self.frames)


def refuse(request: ImageRequest, where: str) -> None:
    """Refuse a request that the server would answer with another workload.

    Raises:
        UsageError: a side is not a multiple of 16, or the number of outputs, steps or the seed is out of range.
    """
    for side in (request.width, request.height):
        if side <= 0 or side % SIDE_MULTIPLE_PIXELS:
            smaller = max(side // SIDE_MULTIPLE_PIXELS, 1) * SIDE_MULTIPLE_PIXELS
            raise UsageError(
                f"a side of {side} pixels is not a multiple of {SIDE_MULTIPLE_PIXELS}: the server would make another"
                " size and answer 200",
                where=where,
                todo=f"ask for {smaller} or {smaller + SIDE_MULTIPLE_PIXELS}",
            )
    if not 1 <= request.outputs <= MOST_OUTPUTS:
        raise UsageError(
            f"{request.outputs} outputs in a request: the server would make another number and answer 200",
            where=where,
            todo=f"ask for 1 to {MOST_OUTPUTS}",
        )
    if request.steps is not None and request.steps < 1:
        raise UsageError(f"the server refuses {request.steps} denoise steps", where=where, todo="ask for 1 or more")
    if request.seed < 0:
        raise UsageError(f"the server refuses seed {request.seed}", where=where, todo="use 0 or more")


def refuse_unknown_fields(fields: Mapping[str, object], where: str) -> None:
    """Refuse a field that the server would ignore.

    Raises:
        UsageError: with the field that may have been meant.
    """
    for name in fields:
        if name not in FIELDS:
            close = difflib.get_close_matches(name, FIELDS, n=1, cutoff=0.5)
            consequence = "50 steps" if "step" in name else "its default"
            raise UsageError(
                f"the server ignores {name!r} and uses {consequence} without a word",
                where=where,
                todo=f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted(FIELDS))}",
            )
