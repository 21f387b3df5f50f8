"""From measures to cells: every combination once, with a name that is a hash of what it resolves to."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from bench import options as declarations
from bench import redact
from bench.catalog import presets
from bench.compare import arms, forecast, metric
from bench.engine import find
from bench.engine.workload import Workload
from bench.errors import BenchError, UnknownName, UsageError
from bench.options import OUTPUT, Kind
from bench.record import names, store
from bench.run import plan
from bench.run.options import Options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from bench.catalog.presets import Preset
    from bench.compare.forecast import Past
    from bench.options import Option
    from bench.sweep.measures import Measure

MODEL, ENGINE, TAG = "model", "engine", "tag:"
ARMS = ("baseline", "candidate")
NOT_OF_A_CELL = {
    *("tag", "all", "resume", "dry-run", "url", "trace", "list", "forget", "output-dir"),
    *("suite", "update-golden", "engine-version", "step-ms"),
}
"""Options that choose several runs, another run, or nothing to run, which the sweep does itself; that leave no record;
that change what other cells are held against."""
SAID_BY_WORKLOAD = {
    *("engine", "steps", "seed", "width", "height", "torch_compile", "attention_backend", "warmup", "quality"),
    *("cuda_graph", "image", "model_path"),
}
"""Fields of a run's options that are in the resolved workload or engine."""
CHANGES_NOTHING = {"model", "models", "preset_file", "timeout_s"}
"""Fields that choose the preset, whose hash is in the workload, and a time limit, which changes no number."""
PLACED: Mapping[str, Callable[[str], str]] = {
    "engine": find.placed,
    "model-path": plan.placed,
    "golden": names.placed,
    **dict.fromkeys(ARMS, arms.placed),
}
"""Options whose value is a name or a path, or has one in it."""
DIGITS = 16
OF_ARMS = tuple(name for name in metric.TITLES if name not in metric.SERVED)
STAGE = "Stage"
"""How the engine's names of stages end, any of which may be a metric."""
HIDDEN = "a secret stands in its words, and the sweep's folder keeps none: give it as a variable of the shell"
"""It would be run with what stands in a secret's place."""
UNSAID: Mapping[str, Mapping[str, object]] = {"bench": {"repeats": 1, "launches": 1}}
"""What leaving an option out comes to, where its declaration does not say it."""
PAIRS, PAIR_REQUESTS = 8, 4
LEAST_LIMIT_S, UNKNOWN_LIMIT_S, LIMIT_FACTOR = 600.0, 7200.0, 3.0
"""A cell is given three times as long as history says, ten minutes at least; two hours where history says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One measurement: what follows `invoke`, and what it needs; ``estimate_s`` is None where history is silent."""

    id: str
    kind: str
    label: str
    words: tuple[str, ...]
    extra: tuple[str, ...]
    priority: int
    gpus: int
    limit_s: float
    estimate_s: float | None
    replica: int = 1
    host: str | None = None
    """The one that it has to run on, None: any."""

    def document(self) -> dict[str, Any]:
        """Return the cell as a sweep's document holds it."""
        known = asdict(self)
        del known["estimate_s"]
        return {**known, "words": list(self.words), "extra": list(self.extra)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A combination that cannot be run, and why."""

    model: str
    label: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How cells are made: each kind's options, the user's presets, the runs that tell how long one takes.

    ``limit_s`` is a cell's time limit, None: by history. ``setup`` is a command that provides engines elsewhere.
    """

    kinds: Mapping[str, type]
    preset_file: Path | None
    runs: Path
    limit_s: float | None = None
    setup: str | None = None
    replicas: int = 1
    hosts: Mapping[str, str] = field(default_factory=dict)
    """Of presets whose first replica has to run on a host, that host."""


class Planner:
    """Makes cells; what several of them share (a preset, an engine, a converted value) is resolved once."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._declared = {
            kind: {option.name: option for option in declarations.declared(its)} for kind, its in wanted.kinds.items()
        }
        self._presets = presets.listed(wanted.preset_file)
        self._engines: dict[str | None, dict[str, Any]] = {}
        self._values: dict[tuple[str, str, str], Any] = {}
        self._hashes: dict[str, str] = {}
        self._past: dict[str, Past | None] = {}
        self._secrets = redact.known()
        self._shown: dict[str, bool] = {}

    def cells(self, measures: Sequence[Measure]) -> Iterator[Cell | Refused]:
        """Yield the cells, measures of a higher priority first; a combination that two measures have comes once.

        Raises:
            UsageError: an axis or option is unknown, a value is not of its kind, an engine does not exist, or nothing
                is left to measure.
        """
        known: set[str] = set()
        for measure in sorted(measures, key=lambda one: -one.priority):
            for texts in self._combinations(measure):
                made = self._cell(measure, texts)
                if isinstance(made, Refused):
                    yield made
                elif made.id not in known:
                    known.add(made.id)
                    for replica in range(1, self._wanted.replicas + 1):
                        yield made if replica == 1 else _replica(made, replica)
        if not known:
            raise UsageError("nothing is left to measure", todo="exclude less, or mend what is refused above")

    def _combinations(self, measure: Measure) -> Iterator[dict[str, str]]:
        for name in (*measure.axes, *measure.options):
            self._option(measure.kind, name)
        axes = {
            name: tuple(itertools.chain.from_iterable(map(self._models, values))) if name == MODEL else values
            for name, values in measure.axes.items()
        }
        for values in itertools.product(*axes.values()):
            texts = dict(zip(axes, values, strict=True))
            if not any(one.items() <= texts.items() for one in measure.exclude):
                yield {**measure.options, **texts}

    def _option(self, kind: str, name: str) -> Option:
        declared = self._declared[kind]
        allowed = {
            known: option
            for known, option in declared.items()
            if option.group != OUTPUT and known not in NOT_OF_A_CELL and not option.many
        }
        if name not in allowed:
            raise UnknownName(f"axis of {kind}", name, allowed)
        return allowed[name]

    def _field(self, kind: str, name: str) -> str:
        return self._declared[kind][name].path[-1]

    def _models(self, value: str) -> list[str]:
        if not value.startswith(TAG):
            return [presets.get(value, self._wanted.preset_file).key]
        return presets.chosen((), value.removeprefix(TAG), everything=False, preset_file=self._wanted.preset_file)

    def _cell(self, measure: Measure, texts: dict[str, str]) -> Cell | Refused:
        shown = [f"{name}={text}" for name, text in texts.items() if name in measure.axes and name != MODEL]
        label = " ".join([measure.kind, texts.get(MODEL, "flux"), *shown])
        preset = self._presets[texts.get(MODEL, "flux")]
        typed = self._words(measure.kind, texts)
        texts = {name: placed(self._option(measure.kind, name), text) for name, text in texts.items()}
        values = {name: self._value(measure.kind, name, text) for name, text in texts.items()}
        of_run = {self._field(measure.kind, name): value for name, value in values.items()}
        chosen = {name: value for name, value in of_run.items() if name in SAID_BY_WORKLOAD}
        options = Options(model=preset.key, **chosen, extra=measure.extra)
        words = (measure.kind, *self._words(measure.kind, texts))
        if not all(map(self._may_be_shown, (*typed, *words))) or redact.arguments(measure.extra, self._secrets) != [
            *measure.extra
        ]:
            return Refused(model=preset.key, label=label, reason=HIDDEN)
        try:
            resolved = self._resolved(measure, values, options, preset)
        except BenchError as error:
            if options.engine is not None and options.engine not in self._engines:
                raise
            return Refused(
                model=preset.key, label=label, reason=f"{error.what}{f'; {error.todo}' if error.todo else ''}"
            )
        digest = hashlib.sha256(orjson.dumps(resolved, option=orjson.OPT_SORT_KEYS, default=str)).hexdigest()[:DIGITS]
        estimate_s = self._estimate_s(measure.kind, values, preset)
        limit_s = UNKNOWN_LIMIT_S if estimate_s is None else max(LEAST_LIMIT_S, LIMIT_FACTOR * estimate_s)
        return Cell(
            id=digest,
            kind=measure.kind,
            label=label,
            words=words,
            extra=measure.extra,
            priority=measure.priority,
            gpus=_gpus(measure.extra) or preset.gpus,
            limit_s=self._wanted.limit_s or limit_s,
            estimate_s=estimate_s,
            host=self._wanted.hosts.get(preset.key),
        )

    def _may_be_shown(self, word: str) -> bool:
        """Tell whether no secret stands in a word."""
        if word not in self._shown:
            self._shown[word] = redact.arguments([word], self._secrets) == [word]
        return self._shown[word]

    def _words(self, kind: str, texts: Mapping[str, str]) -> Iterator[str]:
        for name, text in texts.items():
            if self._declared[kind][name].takes_value:
                yield f"--{name}={text}"
            elif text == "true":
                yield f"--{name}"
        if self._wanted.preset_file is not None:
            yield f"--preset-file={self._wanted.preset_file.absolute()}"

    def _value(self, kind: str, name: str, text: str) -> Any:
        """Return the value of an option for its text.

        Raises:
            UsageError: it is not what the option takes.
        """
        key = (kind, name, text)
        if key not in self._values:
            option = self._option(kind, name)
            if option.kind is Kind.FLAG:
                if text not in ("true", "false"):
                    raise UsageError(f"--{name} is a flag: its values are true and false, not {text!r}")
                self._values[key] = option.sets if text == "true" else option.default
            else:
                if name == "metric" and not text.endswith(STAGE) and text not in OF_ARMS:
                    raise UnknownName("metric", text, OF_ARMS, todo=f"known: {', '.join(OF_ARMS)}, or a stage's name")
                value = declarations.converted(option, [text] if option.repeated else text)
                self._values[key] = value
        return self._values[key]

    def _resolved(
        self, measure: Measure, values: Mapping[str, Any], options: Options, preset: Preset
    ) -> dict[str, Any]:
        """Return all that a cell's number depends on and that can be known before it is run."""
        unsaid = UNSAID.get(measure.kind, {})
        left_out = SAID_BY_WORKLOAD | CHANGES_NOTHING
        others = {name: value for name, value in values.items() if self._field(measure.kind, name) not in left_out}
        sides = [options]
        if measure.kind == "ab" or not values.keys().isdisjoint(ARMS):
            sides = [arms.options_of(values.get(arm, ""), options) for arm in ARMS]
        return {
            "kind": measure.kind,
            "options": {**unsaid, **others},
            "sides": [[self._engine(side.engine), self._workload(side, preset)] for side in sides],
            "methodology": store.METHODOLOGY,
        }

    def _workload(self, options: Options, preset: Preset) -> dict[str, Any]:
        # the model's name: not where the weights lie on this machine
        asked = plan.workload_of(options, preset, options.model_path or preset.model)
        if preset.key not in self._hashes:
            self._hashes[preset.key] = preset.sha256
        return {name: getattr(asked, name) for name in _FIELDS} | {"preset": self._hashes[preset.key]}

    def _engine(self, spec: str | None) -> dict[str, Any]:
        """Return what identifies an engine: its versions and code; where a command provides it, that command."""
        if spec not in self._engines:
            try:
                known = find.find(spec).for_record()
                del known["name"]
            except UsageError:
                if self._wanted.setup is None:
                    raise
                known = {"spec": spec, "setup": self._wanted.setup}
            self._engines[spec] = known
        return self._engines[spec]

    def _estimate_s(self, kind: str, values: Mapping[str, Any], preset: Preset) -> float | None:
        if preset.key not in self._past:
            self._past[preset.key] = forecast.past(self._wanted.runs, preset.sha256)
        past = self._past[preset.key]
        if past is None or kind not in ("bench", "ab"):
            return None
        if kind == "ab":
            pairs, repeats = values.get("pairs") or PAIRS, values.get("repeats") or PAIR_REQUESTS
            return past.seconds_of_pairs(pairs, repeats)[1]
        repeats, launches = values.get("repeats") or 1, values.get("launches") or 1
        return float(launches * (past.start_s + repeats * past.request_s))


def placed(known: Option, text: str) -> str:
    """Return an option's text as it means the same where cells run, which is not where it was typed.

    Raises:
        UsageError: it is the name of a run, and no run is called so.
    """
    if known.name in PLACED:
        return PLACED[known.name](text)
    return str(Path(text).expanduser().absolute()) if known.kind is Kind.PATH else text


_FIELDS = tuple(field.name for field in fields(Workload) if field.name != "preset")


def _gpus(extra: Sequence[str]) -> int | None:
    """Return the GPUs that the engine's own arguments ask for: the last word counts; None if they do not say."""
    joined = [*extra, ""]
    texts = [
        value if equals else following
        for word, following in itertools.pairwise(joined)
        for name, equals, value in [word.partition("=")]
        if name in ("--num-gpus", "--num_gpus")
    ]
    return int(texts[-1]) if texts and texts[-1].isdecimal() else None


def _replica(cell: Cell, number: int) -> Cell:
    label = f"{cell.label} (host {number})"
    return replace(cell, id=f"{cell.id}-{number}", replica=number, label=label, host=None)
