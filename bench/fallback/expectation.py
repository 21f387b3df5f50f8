"""What a run is expected to be: the question that a verdict answers."""

from __future__ import annotations

from dataclasses import dataclass

NATIVE = "native"
DIFFUSERS = "diffusers"
COMMAND_LINE = "command-line"
SESSION = "session"
SERVER = "server"
PROGRAM = "program"
"""One of ``bench/inside/`` with the engine in it, which writes no perf dump."""

DUMP_TAGS = {COMMAND_LINE: "cli_generate", SESSION: "server_perf_dump", SERVER: "server_perf_dump"}
"""The dump's tag by kind of launch; source: perf logger of 0.5.10 to 0.5.23."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What was asked for. None: not known (a run made elsewhere) or left to the engine, so not checked."""

    backend: str = NATIVE
    launch: str = COMMAND_LINE
    version: str | None = None
    device: str | None = None
    model: str | None = None
    prompt: str | None = None
    modality: str | None = None
    seed: int | None = None
    steps: int | None = None
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    guidance: float | None = None
    gpus: int | None = None
    warmup: bool = False
    compile: bool = False
    cuda_graph: bool = False
    attention_backend: str | None = None
    cache: bool = False
    profile: bool = False
    component_loader: bool = True
    """False for the families that load without the engine's component loader and so print no such line."""

    def conditions(self) -> frozenset[str]:
        """Return the conditions that hold, in the words of the signal and evidence schemas."""
        named = {
            self.backend: True,
            self.launch: True,
            "files": self.launch != SERVER,  # a server's outputs are in its answers; it may be told to save none
            "cuda": self.device == "cuda",
            "warmup": self.warmup,
            "compile": self.compile,
            "cuda-graph": self.cuda_graph,
            "attention-backend": self.attention_backend is not None,
            "single-gpu": self.gpus == 1,
            "multi-gpu": self.gpus is not None and self.gpus > 1,
            "no-cache": not self.cache,
            "no-compile": not self.compile,
            "no-cuda-graph": not self.cuda_graph,
            "no-profile": not self.profile,
            "component-loader": self.component_loader,
            "image": self.modality in ("image", "edit"),
            "video": self.modality in ("video", "audio-video"),
        }
        return frozenset(name for name, holds in named.items() if holds)
