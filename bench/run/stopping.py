"""When a run has enough requests and launches: a fixed number, or until the median is known well enough."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from bench.run.timings import PRIMARY
from bench.stats import summary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.run.options import Options


class Enough:
    """Decides for one run; ``options`` say how many requests a launch serves and how many launches there are."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def of_requests(self, requests: Sequence[Mapping[str, Any]], launch: int) -> str | None:
        """Return why this launch needs no further request, None if it does."""
        options = self._options
        if options.precision is None:
            # a resumed run has requests of launches that were cut off: what counts is the whole
            if options.launches == 1:
                return f"{options.repeats} requests were asked for" if len(requests) >= options.repeats else None
            here = sum(request["launch"] == launch for request in requests)
            return f"{options.repeats} requests a launch were asked for" if here >= options.repeats else None
        # an interval from the requests of one launch holds for that launch: those of one that was cut off do not count
        samples = [request["metrics"][PRIMARY] for request in requests if request["launch"] == launch]
        if len(samples) >= options.max_repeats:
            return f"stopped at {options.max_repeats} requests, before the precision was reached"
        reason = summary.known_well_enough(samples, options.precision)
        return f"launch {launch}: {reason}" if reason and len(samples) < len(requests) else reason

    def already(self, requests: Sequence[Mapping[str, Any]], launches: int) -> str | None:
        """Return why a run that is taken up, with what ``launches`` launches have left it, needs no further one."""
        if self._options.launches == 1:
            return self.of_requests(requests, launches)
        return f"{self._options.launches} launches were asked for" if self.of_launches(requests) else None

    def of_launches(self, requests: Sequence[Mapping[str, Any]]) -> bool:
        """Tell whether no further launch is needed."""
        return self._options.launches == 1 or self._full(requests) >= self._options.launches

    def left(self, requests: Sequence[Mapping[str, Any]]) -> tuple[int, int | None]:
        """Return how many launches a run with these requests still takes, and how many requests of each will count.

        None: a precision decides that.
        """
        options = self._options
        if options.precision is not None:
            return 1, None
        if options.launches == 1:
            missing = max(0, options.repeats - len(requests))
            return min(1, missing), missing
        return max(0, options.launches - self._full(requests)), options.repeats

    def _full(self, requests: Sequence[Mapping[str, Any]]) -> int:
        """Return how many launches have served all the requests they should."""
        served = Counter(request["launch"] for request in requests)
        return sum(count >= self._options.repeats for count in served.values())
