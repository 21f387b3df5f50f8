"""What a log states as plain facts: components, devices, the request's parameters, the attention backend dispatched."""

from __future__ import annotations

import json
import re
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.fallback.finding import Component

if TYPE_CHECKING:
    from collections.abc import Mapping

PATTERNS = {
    "server_args": r"server_args: \{",
    "component": r"Loaded (?P<component>\w+): (?P<cls>\w+) \((?P<whose>[^()]+) version\)",
    "loading": r"Loading (?P<component>\w+) from (?P<folder>/\S+)\. avail",
    "load_order": r"Memory-aware component load order: \[(?P<names>[^\]]*)\]",
    "loaded_as": r"does not contain a (?P<name>\w+) module, but found \{\w+: (?P<loaded>\w+)\}",
    "device": r"Initializing distributed environment with world_size=(?P<gpus>\d+), device=(?P<device>[a-z]+)",
    "stage_start": r"\[(?P<stage>\w+)\] started\.\.\.",
    "stage_end": r"\[(?P<stage>\w+)\] finished in (?P<seconds>\d+(?:\.\d+)?) seconds",
    "dumped": r"Metrics dumped to: ",
    "sampling": r"^ +(?P<name>width|height|num_frames|fps|seed|infer_steps|guidance_scale): (?P<value>\d+(?:\.\d+)?)$",
    "attention": r"Attention backends for (?P<component>(?:transformer|video_dit|audio_dit)\w*): (?P<backends>\S.*)",
}
"""By kind; they held in every captured log of 0.5.17 and 0.5.23."""

SERVER_ARGS = re.compile(r"server_args: (\{.*\})\s*$")
CORE_COMPONENT = re.compile(r"transformer|unet|dit|vae", re.IGNORECASE)
NATIVE_LABELS = frozenset({"sgl-diffusion", "official", "official native"})
NATIVE_IMPLEMENTATION = "sgl-diffusion"
KEPT_REQUESTS = 1000
KEPT_STAGES = 200
"""Of one request: more than any pipeline has, and bounded however long a log is."""
UNPROVEN = re.compile(r"tokenizer|scheduler|processor|feature_extractor", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTime:
    """What the log says a stage took, and how long its two lines were apart on arrival (None: nobody watched)."""

    name: str
    seconds: float
    watched_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """What ran in the denoise steps of one request under the profiler, which is never timed."""

    kernels: Mapping[str, int]
    """How often each kernel and operator ran."""
    blocks: tuple[int, ...]
    """How many transformer blocks each step ran; empty where the trace does not tell."""
    forwards: tuple[int, ...]
    """How many forward passes of the transformer each of these steps ran: one more with classifier-free guidance."""


@dataclass(slots=True)
class Facts:
    """Collects the facts of one log. What was never said is None or absent."""

    server_args: Mapping[str, Any] | None = None
    components: dict[str, Component] = field(default_factory=dict)
    announced: tuple[str, ...] = ()
    """The components that the engine said it was going to load."""
    loaded_as: dict[str, str] = field(default_factory=dict)
    """The name that the loader uses for an announced component, where it has another."""
    device: str | None = None
    sampling: dict[str, float] = field(default_factory=dict)
    attention: dict[str, str] = field(default_factory=dict)
    requests: deque[list[StageTime]] = field(default_factory=lambda: deque(maxlen=KEPT_REQUESTS))
    """The stages of each request, the last one's last; a line about a dump ends a request."""
    steps_ms: deque[tuple[float, ...]] = field(default_factory=lambda: deque(maxlen=KEPT_REQUESTS))
    """The denoise steps of each request whose perf dump was read."""
    traced: Traced | None = None
    """None: no request was traced."""
    _starts: dict[str, float] = field(default_factory=dict)
    _is_over: bool = True

    def learn(self, kind: str, groups: Mapping[str, str], line: str, number: int, *, at_s: float | None = None) -> None:
        """Take a line that one of `PATTERNS` was found in; ``at_s`` is when it arrived, if anybody watched."""
        if kind in ("stage_start", "stage_end", "dumped"):
            self._stage(kind, groups, at_s)
        elif kind == "server_args" and self.server_args is None and (found := SERVER_ARGS.search(line)):
            try:
                self.server_args = json.loads(found[1])
            except ValueError:
                self.server_args = None
        elif kind == "component":
            self._component(groups, number)
        elif kind == "load_order":
            names = [name.strip(" '\"") for name in groups["names"].split(",")]
            self.announced = tuple(dict.fromkeys((*self.announced, *filter(None, names))))
        elif kind == "loaded_as":
            self.loaded_as[groups["name"]] = groups["loaded"]
        elif kind == "device":
            self.device = groups["device"]
        elif kind == "sampling":
            value = groups["value"]  # a seed may have more digits than a float holds
            self.sampling[groups["name"]] = float(value) if "." in value else int(value)
        elif kind == "attention":
            self.attention[groups["component"]] = groups["backends"].strip()

    def learn_steps(self, dump: Mapping[str, Any]) -> None:
        """Take the denoise steps of a request's perf dump, if it has any."""
        if steps := tuple(step["duration_ms"] for step in dump["denoise_steps_ms"]):
            self.steps_ms.append(steps)

    def _stage(self, kind: str, groups: Mapping[str, str], at_s: float | None) -> None:
        if kind == "dumped":
            self._is_over = True
            return
        name = groups["stage"]
        if kind == "stage_start":
            if at_s is not None:
                self._starts[name] = at_s
            return
        if self._is_over:
            self.requests.append([])
            self._is_over = False
        start = self._starts.pop(name, None)
        watched_s = None if start is None or at_s is None else at_s - start
        if len(self.requests[-1]) < KEPT_STAGES:
            self.requests[-1].append(StageTime(name=name, seconds=float(groups["seconds"]), watched_s=watched_s))

    def unproven(self) -> list[str]:
        """Return the announced components that no line says were loaded; tokenizers and the like are not asked."""
        return [
            name
            for name in self.announced
            if not UNPROVEN.search(name) and not {name, self.loaded_as.get(name)} & self.components.keys()
        ]

    def _component(self, groups: Mapping[str, str], number: int) -> None:
        name, whose = groups["component"], groups["whose"]
        if UNPROVEN.search(name):
            return  # the label is printed for a tokenizer or scheduler too, where it proves nothing
        # "native version" is the engine's word for the class of transformers or diffusers, the opposite of native here
        library = "diffusers" if CORE_COMPONENT.search(name) else "transformers"
        implementation = NATIVE_IMPLEMENTATION if whose in NATIVE_LABELS else library
        self.components[name] = Component(name=name, cls=groups["cls"], implementation=implementation, line=number)
