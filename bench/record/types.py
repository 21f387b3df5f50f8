"""The run record as types, for a type checker and a reader; ``schemas/run-record.json`` is what is enforced.

Null is unknown or not to be had, never 0. Units are in the names.
"""

from __future__ import annotations

from typing import Any, TypedDict

Metrics = dict[str, float | None]
"""By key of `bench.run.metrics`."""


class File(TypedDict):
    """A file below the run directory."""

    file: str
    sha256: str
    size_bytes: int


class Failure(TypedDict):
    """What cut a run off."""

    exit_code: int
    what: str


class Instrument(TypedDict):
    """What timings were taken under that a user's run would not have."""

    stage_sync: bool
    profiler: bool


class Receipt(TypedDict):
    """An optional feature that was asked for: engaged, asked and not engaged, or without evidence, and why."""

    id: str
    feature: str
    asked: str
    result: str
    text: str
    line: int | None


class Verdict(TypedDict):
    """The outcome of a launch or a run, with everything that it rests on."""

    outcome: str
    expected: str
    exit_code: int
    findings: list[dict[str, Any]]
    evidence: list[dict[str, Any]]
    components: list[dict[str, Any]]
    receipts: list[Receipt] | None


class Stage(TypedDict):
    """One entry of the stage table: ``kind`` is denoise, transport or other."""

    name: str
    ms: float
    kind: str


class Output(TypedDict):
    """A file that a request made; ``pixels_sha256`` is of what it decodes to.

    Hash and size are None for one that could not be read, whose request does not count.
    """

    file: str
    sha256: str | None
    size_bytes: int | None
    format: str | None
    width: int | None
    height: int | None
    frames: int | None
    pixels_sha256: str | None
    one_colour: bool | None
    fault: str | None


class Request(TypedDict):
    """A request that counts; ``wall_s`` is the client's, null on the command line."""

    index: int
    launch: int
    wall_s: float | None
    metrics: Metrics
    steps_ms: list[float]
    stages_ms: list[Stage]
    memory: dict[str, Any]
    outputs: list[Output]
    perf_dump: File


class Command(TypedDict):
    """The command of a launch, and the variables that can change what it does."""

    argv: list[str]
    environment: dict[str, str]


class Stopped(TypedDict):
    """When this tool stopped a launch, and how soon nothing of it was left."""

    after_s: float
    within_s: float


class Rejected(TypedDict):
    """What the request that does not count left behind."""

    perf_dump: File | None
    outputs: list[Output]


class Launch(TypedDict):
    """One start of the engine; ``wall_s`` is null where it was stopped or is going on."""

    index: int
    mode: str
    started: str
    finished: str
    wall_s: float | None
    exit_code: int | None
    stopped: Stopped | None
    command: Command
    resolved: dict[str, Any]
    delivered: dict[str, Any]
    gpus_during: list[dict[str, Any]]
    log: File | None
    rejected: Rejected | None
    verdict: Verdict
    instrument: Instrument
    left_out: list[int]
    load_s: float | None
    first_answer_s: float | None


class Workload(TypedDict):
    """What was asked of the engine; null is the engine's default for the model."""

    prompt: str
    seed: int
    width: int | None
    height: int | None
    frames: int | None
    steps: int | None
    image: dict[str, Any] | None
    gpus: int
    torch_compile: bool
    warmup: str
    quality: str | None
    quality_meaning: str | None
    cuda_graph: bool
    attention_backend: str | None
    sync_stages: bool
    extra: list[str]


class Host(TypedDict):
    """The host; ``identity`` is a hash of what names it, null in records of version 1."""

    system: str
    machine: str
    cpu: str
    cores: int | None
    memory_bytes: int
    identity: str | None


class Timings(TypedDict):
    """The numbers of a run, over the requests that count; medians unless they say otherwise."""

    requests: int
    metrics: Metrics
    summary: dict[str, dict[str, Any] | None] | None
    spread: dict[str, Any] | None
    steps_ms: list[dict[str, Any]]
    stages_ms: list[Stage]
    launch_s: float | None
    wall_s: float | None
    load_s: float | None
    first_answer_s: float | None
    outputs_identical: bool | None


class StageTable(TypedDict):
    """The stage table, from a launch of its own with synchronised stages."""

    instrument: Instrument
    launch: int
    requests: int
    metrics: Metrics
    stages_ms: list[Stage]


class InstrumentCost(TypedDict):
    """What synchronised stages add to the medians of the headline launches."""

    total_ms: float | None
    denoise_ms: float | None


class Record(TypedDict):
    """One run."""

    schema: str
    schema_version: int
    methodology: int
    id: str
    kind: str
    label: str | None
    complete: bool
    failure: Failure | None
    started: str
    finished: str
    asked: dict[str, Any]
    preset: dict[str, Any]
    workload: Workload
    weights: dict[str, str | None]
    engine: dict[str, Any]
    code: dict[str, Any] | None
    devices: dict[str, Any]
    host: Host
    preflight: list[dict[str, Any]]
    verdict: Verdict
    instrument: Instrument
    timings: Timings | None
    stages: StageTable | None
    instrument_cost_percent: InstrumentCost | None
    stopped_because: str | None
    launches: list[Launch]
    requests: list[Request]
    fidelity: dict[str, Any] | None
    profiled: dict[str, Any] | None
    evidence: list[File] | None
