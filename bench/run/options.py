"""What a user may ask of any run of an engine, whatever it is for."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from bench import redact
from bench.catalog import presets
from bench.engine import find
from bench.errors import InvalidDocument, UsageError
from bench.options import ENGINE, FIDELITY, MEASURING, OUTPUT, WORKLOAD, Kind, option

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_TIMEOUT_S = 3600.0
DEFAULT_MAX_REPEATS = 100

QUALITIES = {
    "exact": "bit-identical to the reference, 0.5.22 and later",
    "lossless": "the engine's default: exact before 0.5.22, rounding may differ since",
    "extra-high": "rounding may differ, 0.5.20 and later",
    "high": "approximate: precision, sparsity, reuse",
}
"""The strictest first, which is the order of a matrix."""
REQUIRED = {"lossless": "the same pixels", "high": "upstream's SSIM and PSNR"}

COMMON = ("engine", "preset_file", "label", "timeout_s", "output_dir")
"""What every verb that launches engines offers besides the model."""

RUN = (*COMMON, "model_path", "steps", "seed", "width", "height", "torch_compile", "attention_backend")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What the user asked for; None is the preset's value or the default."""

    model: str = option("flux", help="preset to run (`invoke models` lists them)", completes="presets")
    engine: str | None = option(
        None,
        help="a built configuration, source:CHECKOUT[@CONFIGURATION], or path (the sglang on PATH); default:"
        " BENCH_ENGINE, else path, else what is built",
        completes="engines",
    )
    model_path: str | None = option(None, group=ENGINE, help="checkpoint folder or hub model instead of the preset's")
    preset_file: Path | None = option(None, kind=Kind.PATH, group=WORKLOAD, help="TOML file with presets of your own")
    label: str | None = option(
        None, kind=Kind.LABEL, group=OUTPUT, help="a word for the run directory's name and the record"
    )
    steps: int | None = option(None, kind=Kind.WHOLE, group=WORKLOAD, help="denoise steps")
    seed: int | None = option(None, kind=Kind.WHOLE, least=0, group=WORKLOAD, help="random seed")
    width: int | None = option(None, kind=Kind.WHOLE, least=8, group=WORKLOAD, help="width in pixels")
    height: int | None = option(None, kind=Kind.WHOLE, least=8, group=WORKLOAD, help="height in pixels")
    torch_compile: bool = option(False, negatable=True, group=ENGINE, help="compile the transformer")
    attention_backend: str | None = option(
        None, group=ENGINE, help="attention backend of the engine, e.g. fa or torch_sdpa"
    )
    timeout_s: float = option(
        DEFAULT_TIMEOUT_S,
        name="timeout",
        kind=Kind.NUMBER,
        least=0.1,
        group=MEASURING,
        help="seconds after which a launch is stopped (default 3600)",
    )
    output_dir: Path | None = option(
        None, kind=Kind.PATH, group=OUTPUT, help="where run directories are made (default runs/)"
    )


PLACES = ("preset_file", "output_dir", "image", "model_cache_root", "seed_model_cache_root")
"""Options that are paths."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(RunOptions):
    """What the user asked of a measurement; None is the preset's value or the default."""

    warmup: bool = option(True, group=MEASURING, help="time a cold request")
    quality: str | None = option(None, group=ENGINE, choices=QUALITIES, help="the engine's tier of approximations")
    cuda_graph: bool = option(
        False, group=ENGINE, help="run the transformer as CUDA graphs, captured in a warm-up at the start"
    )
    warmup_at_start: bool = False
    """Warm up while loading at the size of the request, which graphs need; a matrix warms all its cells so."""
    stage_sync: bool = False
    """Let each stage of every request wait for its device: for a comparison of a stage's time."""
    image: Path | None = option(None, kind=Kind.PATH, group=WORKLOAD, help="image to use instead of the preset's")
    precheck: bool = option(True, group=MEASURING, help="launch even if the arguments show that the run will fall back")
    preflight: bool = option(True, group=MEASURING, help="launch even if a check of the machine failed")
    model_cache_root: Path | None = option(
        None, kind=Kind.PATH, group=ENGINE, help="fetch models into a new folder in this one, not into the user's cache"
    )
    cleanup_model_cache: bool = option(
        False, group=ENGINE, help="remove that new folder after the run, even a failed one, and nothing else"
    )
    seed_model_cache_root: Path | None = option(
        None,
        kind=Kind.PATH,
        group=ENGINE,
        help="show the models of this cache (an HF_HOME) in the new folder, without changing it",
    )
    extra: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    """Variables for the engine, as (name, value)."""
    repeats: int = option(
        1,
        kind=Kind.WHOLE,
        group=MEASURING,
        help="requests to one loaded engine that count, after one that does not (default 1: one `sglang generate`)",
    )
    launches: int = option(
        1, kind=Kind.WHOLE, group=MEASURING, help="engine starts, each serving --repeats requests (default 1)"
    )
    precision: float | None = option(
        None,
        kind=Kind.PERCENTAGE,
        group=MEASURING,
        help="go on until the median end-to-end time is known this well: half its interval's width over it",
    )
    max_repeats: int = option(
        DEFAULT_MAX_REPEATS, kind=Kind.WHOLE, group=MEASURING, help="requests at most, with --precision (default 100)"
    )
    stages: bool = option(
        False,
        group=MEASURING,
        help="add a launch in which each stage waits for its device: the stage table, and what that costs",
    )
    prove_kernels: bool = option(
        False,
        group=MEASURING,
        help="add a launch with one untimed request under the profiler: receipts then rest on the kernels that ran",
    )
    check_accuracy: bool = option(
        False,
        group=FIDELITY,
        help="score the outputs: pixels, golden, similarity to the baseline's, delivered as asked",
    )
    require: str | None = option(
        None,
        group=FIDELITY,
        choices=REQUIRED,
        help="exit 7 unless the outputs are this similar to golden and baseline (checks accuracy)",
    )
    update_golden: str | None = option(
        None,
        group=FIDELITY,
        help="keep the outputs as the golden of this configuration; takes the reason, keeps the old one",
    )

    @property
    def scored(self) -> bool:
        """Whether the outputs are scored."""
        return self.check_accuracy or self.require is not None or self.update_golden is not None

    @property
    def in_session(self) -> bool:
        """Whether engines are kept to serve several requests; otherwise `sglang generate` serves one."""
        return self.repeats > 1 or self.launches > 1 or self.precision is not None

    @property
    def leaves_first_out(self) -> bool:
        """Whether the first request of each launch is left out: it compiles and warms up, unless that is asked for."""
        return self.in_session and self.warmup

    def document(self) -> dict[str, Any]:
        """Return the options as a record holds them, to resume from."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Options:
        """Return the options that a record holds.

        Raises:
            InvalidDocument: it lacks one, has another, or one is of another type.
        """
        try:
            places = {name: Path(document[name]) if document[name] else None for name in PLACES}
            pairs = tuple((str(name), str(value)) for name, value in document["environment"])
            extra = tuple(map(str, document["extra"]))
            options = cls(**{**document, **places, "extra": extra, "environment": pairs})
        except (TypeError, ValueError, KeyError) as error:
            raise InvalidDocument(f"$.asked: not the options of a run: {error}") from error
        check_types(options)
        return options


def check_types(options: Any) -> None:
    """Raise InvalidDocument unless each field of options that were read from a record is of its type."""
    for name, kind in get_type_hints(type(options)).items():
        if get_origin(kind) is not tuple and not isinstance(getattr(options, name), _accepted(kind)):
            raise InvalidDocument(f"$.asked.{name}: {getattr(options, name)!r} is not of its type")


def _accepted(kind: Any) -> Any:
    """Return what a value read from JSON may be for a field of this type: a whole number is a number."""
    return kind | int if float in (kind, *get_args(kind)) else kind


def restored(then: Options, now: Options) -> Options:
    """Return the options of an earlier run, read from its record, with the time limit and the secrets given ``now``.

    A variable's secret comes from the shell, an argument's from what is typed.

    Raises:
        UsageError: a secret is missing, or the record, which may be somebody else's, chooses the code that is run.
    """
    if then.engine is not None and then.engine.startswith(find.SOURCE_PREFIX) and now.engine != then.engine:
        raise UsageError(
            "this run used a checkout, and a record may not choose which code runs",
            todo=f"name it again: {then.engine}",
            field="engine",
        )
    variables = tuple((name, _restored_variable(name, value)) for name, value in then.environment)
    if any(redact.HIDDEN in word for word in then.extra):
        if redact.arguments(now.extra) != list(then.extra):
            raise UsageError(
                "an argument of this run is a secret, which a record does not hold",
                where=f"-- {' '.join(then.extra)}",
                todo="type the same arguments again, after --",
            )
        then = replace(then, extra=now.extra)
    typed = now.timeout_s != DEFAULT_TIMEOUT_S
    return replace(then, environment=variables, timeout_s=now.timeout_s if typed else then.timeout_s)


def _restored_variable(name: str, value: str) -> str:
    if presets.runs_code(name):
        raise UsageError(
            f"{name} decides which code runs: it is not taken from a record", todo="measure the whole again"
        )
    if redact.HIDDEN not in value:
        return value
    if redact.value(name, os.environ.get(name, "")) != value:
        raise UsageError(f"{name} is a secret, which a record does not hold", todo=f"set {name} in the shell")
    return os.environ[name]
