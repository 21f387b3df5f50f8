"""What a user may ask of a load test."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import InvalidDocument
from bench.options import MEASURING, WORKLOAD, Kind, nested, option
from bench.run.options import RUN, Options, check_types

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_DURATION_S = 60.0
SHARES = (0.3, 0.6, 0.9)
"""Of the capacity that the run itself measures."""
PLACES = ("trace", "golden")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """What the user asked of a load test; None is left to the run."""

    run: Options = nested(
        Options, "model", *RUN, "precheck", "model_cache_root", "cleanup_model_cache", "seed_model_cache_root"
    )
    rate_hz: float | None = option(
        None,
        name="rate",
        kind=Kind.NUMBER,
        least=1e-6,
        group=WORKLOAD,
        help="requests a second instead of 30, 60 and 90 % of the measured capacity",
    )
    concurrency: int | None = option(
        None, kind=Kind.WHOLE, least=1, group=WORKLOAD, help="a closed loop of this many clients instead of rates"
    )
    trace: Path | None = option(
        None, kind=Kind.PATH, group=WORKLOAD, help="replay the send times of a JSON-lines file instead of rates"
    )
    find_max: bool = option(False, group=MEASURING, help="search for the highest rate that holds the SLO")
    duration_s: float = option(
        DEFAULT_DURATION_S,
        name="duration",
        kind=Kind.NUMBER,
        least=0.1,
        group=MEASURING,
        help="seconds that each phase sends for (default 60)",
    )
    slo_s: float | None = option(
        None,
        name="slo",
        kind=Kind.NUMBER,
        least=1e-3,
        group=MEASURING,
        help="seconds within which an answer is good (default 3 times the unloaded median)",
    )
    batching: int = option(
        1, kind=Kind.WHOLE, least=1, group=WORKLOAD, help="requests that the server may merge (default 1: none)"
    )
    golden: Path | None = option(
        None,
        kind=Kind.PATH,
        group=MEASURING,
        help="an `invoke bench` run of the same engine and workload: pictures of its seed must equal it",
    )
    arrival_seed: int = option(
        1, kind=Kind.WHOLE, least=0, group=MEASURING, help="seed that the arrivals are drawn from (default 1)"
    )
    url: str | None = option(None, group=WORKLOAD, help="a server that somebody else started: unattested")

    def document(self) -> dict[str, Any]:
        """Return the options as a campaign holds them, to go on from."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        places = {name: None if own[name] is None else str(own[name]) for name in PLACES}
        return own | places | {"run": self.run.document()}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> LoadOptions:
        """Return the options that a campaign holds.

        Raises:
            InvalidDocument: it lacks one, has another, or one is of another type.
        """
        try:
            places = {name: Path(document[name]) if document[name] else None for name in PLACES}
            options = cls(**{**document, **places, "run": Options.from_document(document["run"])})
        except (TypeError, KeyError) as error:
            raise InvalidDocument(f"$.asked: not the options of a load test: {error}") from error
        check_types(options)
        return options
