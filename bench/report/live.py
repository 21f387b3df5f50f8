"""What a launch is doing while it runs: one moving line on a terminal, a line now and then elsewhere; to stderr."""

from __future__ import annotations

import re
import statistics
import threading
import time
from typing import TYPE_CHECKING, Self

from rich.progress import BarColumn, Progress, ProgressColumn
from rich.table import Column
from rich.text import Text

from bench.fallback.matcher import clean
from bench.report import text
from bench.report.figures import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from rich.console import Console
    from rich.progress import Task

REQUEST = "request"
FIRST = "checking the machine"
BEGINNING = "starting the engine"
"""From the start of its process to its first line: it imports its modules, which takes half a minute."""
WARMING = "warming up"
STARTING = "starting workers"
DOWNLOADING = "downloading the model"
STOPPING = "stopping the engine"
PHASES = (
    (re.compile(r"server_args: \{"), STARTING),
    (re.compile(r"Fetching \d+ files"), DOWNLOADING),
    (re.compile(r"Loading pipeline modules|Loading diffusers pipeline"), "loading the model"),
    (re.compile(r"Compiling \w+ with mode"), "compiling"),
    (re.compile(r"Processing \d+ grouped request"), WARMING),
    (re.compile(r"Running pipeline stages|\[DiffusersExecutionStage\] started"), REQUEST),
    (re.compile(r"\[(?P<stage>\w+)\] started"), None),
    (re.compile(r"Output saved to"), "saving"),
    (re.compile(r"Worker \d+: Shutdown complete|did not terminate gracefully"), STOPPING),
)
STEP = re.compile(r"(\d+)/(\d+) \[\d+:\d+")
ENDED = re.compile(r"Pixel data generated successfully in ([\d.]+) seconds")
"""The engine's own time of one request, which is what the running median is of."""
CASE = re.compile(r"accuracy case: .")
OF_PAIR = re.compile(r"pair \d+: ")
LOOKED_AT_BYTES = 1 << 14

JUDGING = "judging the run"
JUDGING_PAIRS = "judging the pairs"

BEAT_S = 30.0
"""Elsewhere than on a terminal a line comes this often, whatever happens."""


class Heartbeat:
    """A context that says every half a minute what ``tell`` returns, with the seconds so far; silent on a terminal."""

    def __init__(self, console: Console, tell: Callable[[], str], clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._tell = tell
        self._clock = clock
        self._start = clock()
        self._next = BEAT_S
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def elapsed_s(self) -> float:
        """Seconds since it was made."""
        return self._clock() - self._start

    def __enter__(self) -> Self:
        if not self._console.is_terminal:
            self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(1.0):
            self.beat()

    def beat(self) -> None:
        """Say what is going on if it is time to."""
        if self.elapsed_s >= self._next:
            self.say(self._tell())

    def say(self, told: str) -> None:
        """Print a line with the time; the next one of its own comes an interval later."""
        elapsed = self.elapsed_s
        self._next = elapsed + BEAT_S
        text.line(self._console, f"[{elapsed:6.1f} s] {told}")


class Series:
    """The place of a run among several that come one after the other, such as the launches of a matrix's cells.

    ``of`` is how many there are; whoever runs them says with each where it stands and how many are left.
    """

    def __init__(self, word: str, of: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._word = word
        self._place: str | None = None
        self.of = of
        self.done = 0
        self._clock = clock
        self._began = self._now_began = clock()

    def begin(self, place: str | None = None, left: int | None = None) -> None:
        """Begin the next one: at ``place``, with ``left`` to go including this one (a cell that failed has none)."""
        self._now_began = self._clock()
        self._place = place
        self.of = self.of if left is None else self.done + left

    def end(self) -> None:
        """Count the present one as done."""
        self.done += 1

    def place(self) -> str:
        """Return which one of how many this is."""
        return self._place or f"{self._word} {min(self.done, self.of - 1) + 1}/{self.of}"

    def left_s(self, own_s: float | None) -> float | None:
        """Return about how many seconds all that is left takes, None if nothing has been learnt of that yet.

        ``own_s`` is what is left of the present one, None where that is unknown.
        """
        now = self._clock()
        rest = self.of - self.done - 1
        if self.done:
            each_s = (self._now_began - self._began) / self.done
            return rest * each_s + (max(0.0, each_s - (now - self._now_began)) if own_s is None else own_s)
        return None if own_s is None else own_s + rest * (now - self._now_began + own_s)


class _Clock(ProgressColumn):
    """The time since the start: that of rich's own column stands still once a bar was full."""

    def render(self, task: Task) -> Text:
        """Return minutes and seconds."""
        minutes, seconds = divmod(int(task.elapsed or 0), 60)
        return Text(f"{minutes}:{seconds:02d}")


class _Told(ProgressColumn):
    """What is going on, asked anew whenever the bar is drawn: it can never be out of date."""

    def __init__(self, tell: Callable[[], str]) -> None:
        super().__init__(table_column=Column())
        self._tell = tell

    def render(self, task: Task) -> Text:  # noqa: ARG002 - rich's interface
        """Return the line."""
        return Text(self._tell())


ROOMY_COLUMNS = 110
"""A narrower terminal gets no bar: the words and the clock need the room."""


def _progress(console: Console, tell: Callable[[], str]) -> Progress:
    """Return a bar with its text and clock, which leaves nothing behind and is shown on a terminal only."""
    return Progress(
        _Told(tell),
        *([BarColumn(bar_width=24)] if console.width >= ROOMY_COLUMNS else []),
        _Clock(),
        console=console,
        refresh_per_second=4,
        transient=True,
        disable=not console.is_terminal,
    )


class Live:
    """A context that observes the log and shows phase, request, running median, and the time to go.

    ``requests`` is how many count of each of ``launches`` engine starts; None if that is decided on the way. Each
    serves ``left_out`` more before them, which are not in the median. ``further`` are the launches after those: what
    each is for, and how many requests it serves. ``series`` is what this run is one of. ``fetched_bytes`` tells how
    much of a model that is being downloaded is here.
    """

    def __init__(
        self,
        console: Console,
        *,
        requests: int | None = None,
        launches: int = 1,
        left_out: int = 0,
        further: Sequence[tuple[str, int]] = (),
        series: Series | None = None,
        fetched_bytes: Callable[[], int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._of = (requests, launches)
        self._left_out = left_out
        self._further = tuple(further)
        self._series = series
        self._fetched_bytes = fetched_bytes
        self._phase = ""
        self._steps = ""
        self._launch = 0
        self._begun = self._ended = 0
        """Requests of this launch."""
        self._counted = 0
        """Requests of the launches before this one that count."""
        self._seconds: list[float] = []
        self._load_s: float | None = None
        self._clock = clock
        self._loading_since = clock()
        self.heartbeat = Heartbeat(console, self.line, clock)
        self._progress = _progress(console, self.line)
        self._task = self._progress.add_task("", total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        self._show(FIRST)
        self.heartbeat.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.heartbeat.__exit__(kind, error, trace)
        self._progress.stop()

    def observe(self, block: bytes, first_line: int) -> None:  # noqa: ARG002 - the observer's interface
        """Take a block of the log; of a flood only the end is looked at. An empty one says that the engine starts."""
        if not block:
            self._show(BEGINNING)
        for line in clean(block[-LOOKED_AT_BYTES:].decode("utf-8", "replace")).replace("\r", "\n").split("\n"):
            for pattern, phase in PHASES:
                if found := pattern.search(line):
                    self._show(phase or found["stage"])
            if ended := ENDED.search(line):
                self._end(float(ended[1]))
            if (self._phase.endswith("Stage") or self._phase == DOWNLOADING) and (step := STEP.search(line)):
                self._steps = f"{'file' if self._phase == DOWNLOADING else 'step'} {step[1]}/{step[2]}"
                self._progress.update(self._task, completed=int(step[1]), total=int(step[2]))

    def line(self) -> str:
        """Return what is going on, in one line."""
        parts = [] if self._series is None else [self._series.place()]
        if self._has_ended() and self._then() in (STOPPING, JUDGING):
            return ", ".join([*parts, self._then(), *self._to_go()])
        parts += [f"launch {self._launch}/{self._of[1]}"] if 0 < self._launch <= self._of[1] != 1 else []
        if self._begun:
            parts.append(self._request())
        if self._has_ended():
            parts.append(self._then())
        elif self._phase not in (REQUEST, "saving") or not self._begun:
            parts += filter(None, (self._phase, self._steps))
        if self._phase == DOWNLOADING and self._fetched_bytes is not None:
            parts.append(f"{self._fetched_bytes() / 1e9:.1f} GB so far")
        if len(self._seconds) > 1:
            parts.append(f"median {statistics.median(self._seconds):.3g} s")
        return ", ".join([*parts, *self._to_go()])

    def _to_go(self) -> list[str]:
        """Return how long it still takes, as a part of a line; nothing where that is unknown or used up."""
        left_s = self._left_s()
        return [] if left_s is None or left_s < 1 else [f"about {duration(left_s)} to go"]

    def _serves(self, launch: int) -> int | None:
        """Return how many requests a launch serves, those that do not count too; None: decided on the way."""
        requests, launches = self._of
        if launch <= launches:
            return None if requests is None else requests + self._left_out
        place = launch - launches - 1
        return self._further[place][1] if place < len(self._further) else None

    def _has_ended(self) -> bool:
        """Tell whether every request of this launch has ended; where a precision decides, the engine's end shows it."""
        serves = self._serves(self._launch)
        return self._launch > 0 and (self._phase == STOPPING if serves is None else self._ended >= serves)

    def _then(self) -> str:
        """Return what follows the last request of this launch."""
        place = self._launch - self._of[1]
        if place < 0:
            return "next launch"
        if place < len(self._further):
            return f"next: a launch for {self._further[place][0]}"
        return JUDGING if self._phase == STOPPING else STOPPING

    def _request(self) -> str:
        requests, launches = self._of
        if self._launch > launches:
            serves = self._serves(self._launch)
            purpose = "" if serves is None else f"launch for {self._further[self._launch - launches - 1][0]}, "
            return f"{purpose}request {self._begun}{'' if serves is None else f'/{serves}'}"
        if self._begun <= self._left_out:
            return "first request, not counted"
        number = self._counted + self._begun - self._left_out
        known = requests is not None and number <= requests * launches
        return f"request {number}/{(requests or 0) * launches}" if known else f"request {number}"

    def _left_s(self) -> float | None:
        """Return about how many seconds are left, of a whole series where this is one of several; None: unknown."""
        own_s = self._own_left_s()
        return own_s if self._series is None else self._series.left_s(own_s)

    def _own_left_s(self) -> float | None:
        """Return about how many seconds the engine starts and the requests take that are still to come."""
        if not self._seconds or self._load_s is None:
            return None
        to_come = range(self._launch + 1, self._of[1] + len(self._further) + 1)
        serves = [self._serves(launch) for launch in (self._launch, *to_come)]
        if None in serves:
            return None
        is_loading = not self._begun or (self._has_ended() and len(to_come) > 0)
        whole_starts = len(to_come) - (is_loading and self._begun > 0)
        loads_s = whole_starts * self._load_s
        if is_loading:
            loads_s += max(0.0, self._load_s - (self._clock() - self._loading_since))
        requests = max(0, sum(filter(None, serves)) - self._ended)
        left_s = loads_s + requests * statistics.median(self._seconds)
        return left_s if left_s >= 1 else None

    def _end(self, seconds: float) -> None:
        """Take the end of a request."""
        self._ended += 1
        if self._left_out < self._ended and self._launch <= self._of[1]:
            self._seconds = [*self._seconds, seconds]
        if self._has_ended():
            self._loading_since = self._clock()

    def _show(self, phase: str) -> None:
        if phase == self._phase or (phase == WARMING and self._begun):
            return  # the engine groups every request; only before the first one it is a warm-up
        self._phase, self._steps = phase, ""
        if phase == STARTING:
            self._launch += 1
            self._counted += max(0, self._begun - self._left_out)
            self._begun = self._ended = 0
        if phase == REQUEST:
            self._launch = self._launch or 1  # the line that says that workers start may be lost in a flood
            self._begun += 1
            if self._begun == 1:
                self._load_s = self._clock() - self._loading_since
        self._progress.update(self._task, completed=0, total=None)
        # a line for every phase until the first request that counts comes; from then on one now and then is enough
        is_new = self._series is None or self._series.done == 0
        is_first = self._launch <= 1 and (not self._begun or (phase == REQUEST and self._begun <= self._left_out + 1))
        if not self._console.is_terminal and is_new and is_first:
            self.heartbeat.say(self.line())


class Pairs:
    """A context that shows how far a comparison of two arms is: the pair, its requests, and the time to go.

    ``requests`` is how many count of each start, after one that does not. Those of the two engines alternate, unless
    they ``alternate`` themselves: then one engine serves all of its own before the other starts.
    """

    def __init__(
        self,
        console: Console,
        *,
        pairs: int,
        requests: int,
        alternate: bool = False,
        starting: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._pairs = pairs
        self._requests = requests
        self._alternate = alternate
        self._starting = starting or ("starting an engine" if alternate else "starting both engines")
        self._in_pair = 2 * (requests + 1)
        self._number = self._done = 0
        self._before = 0
        """Pairs that were finished before this began."""
        self._told = self._then = ""
        self._is_measured = False
        """Whether this pair is over: the next one begins at once, if there is one."""
        self._clock = clock
        self._began = self._moved = clock()
        """When this began, and when a request or a pair last ended."""
        self.heartbeat = Heartbeat(console, self.line, clock)
        self._progress = _progress(console, self.line)
        self._task = self._progress.add_task("", total=pairs * self._in_pair)

    def __enter__(self) -> Self:
        self._progress.start()
        self.heartbeat.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.heartbeat.__exit__(kind, error, trace)
        self._progress.stop()

    def expect(self, pairs: int) -> None:
        """Show that another comparison begins, of so many pairs at most."""
        self._pairs = pairs
        self._number = self._done = self._before = 0
        self._began = self._moved = self._clock()
        self._progress.update(self._task, total=pairs * self._in_pair, completed=0)

    def begin(self, number: int, order: str) -> None:
        """Show that a pair of starts begins."""
        if not self._number:
            self._before = number - 1
        self._number, self._done, self._is_measured = number, 0, False
        self._moved = self._clock()
        self._show()
        self.heartbeat.say(f"pair {number}/{self._pairs}: {order}")

    def tell(self, told: str) -> None:
        """Show what a pair has told."""
        self._told = told.partition(";")[0]
        self._then = "" if self._is_measured else JUDGING_PAIRS
        self._is_measured = True
        self.heartbeat.say(told)

    def observe(self, block: bytes, first_line: int) -> None:  # noqa: ARG002 - the observer's interface
        """Take a block of either engine's log."""
        ended = len(ENDED.findall(clean(block[-LOOKED_AT_BYTES:].decode("utf-8", "replace"))))
        if ended:
            self._done = min(self._in_pair, self._done + ended)
            self._moved = self._clock()
            self._show()

    def line(self) -> str:
        """Return how far it is, in one line; before the first pair, what is done before it."""
        if not self._number:
            return self._told or self._starting
        if self._is_measured:
            return ", ".join(filter(None, (self._told, self._then)))
        told = OF_PAIR.sub("", self._told)
        parts = [f"pair {self._number}/{self._pairs}", self._doing(), *([told] if told else [])]
        if (measured := self._number - 1 - self._before) > 0:
            # as of the last event: while nothing ends the time to go only becomes shorter
            each = (self._moved - self._began) / (measured + self._done / self._in_pair)
            left = each * (self._pairs - self._number + 1 - self._done / self._in_pair)
            left -= self._clock() - self._moved
            parts += [f"at most {duration(left)} to go"] if left >= 1 else []
        return ", ".join(parts)

    def _doing(self) -> str:
        """Return which of a start's requests is going on, of those that count."""
        ended = self._done % (self._requests + 1) if self._alternate else self._done // 2
        if ended:
            return f"request {min(ended, self._requests)}/{self._requests}"
        return WARMING if self._done and not self._alternate else self._starting

    def _show(self) -> None:
        self._progress.update(self._task, completed=(self._number - 1) * self._in_pair + self._done)


class Cases:
    """A context that observes the log of an accuracy check and shows which of ``of`` cases have ended.

    ``first`` is what is done before the engine starts.
    """

    def __init__(self, console: Console, *, of: int, first: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._series = Series("case", of, clock=clock)
        self._preparing: str | None = first
        self._steps = ""
        self.heartbeat = Heartbeat(console, self.line, clock)
        self._progress = _progress(console, self.line)
        self._task = self._progress.add_task("", total=of)

    def __enter__(self) -> Self:
        self._progress.start()
        self.heartbeat.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.heartbeat.__exit__(kind, error, trace)
        self._progress.stop()

    def observe(self, block: bytes, first_line: int) -> None:  # noqa: ARG002 - the observer's interface
        """Take a block of whole lines; an empty one says that the engine starts."""
        self._preparing = None if block else BEGINNING
        for line in clean(block.decode("utf-8", "replace")).replace("\r", "\n").split("\n"):
            if step := STEP.search(line):
                self._steps = f"step {step[1]}/{step[2]}"
            if CASE.match(line):
                self._series.end()
                self._series.begin()
                self._steps = ""
        self._progress.update(self._task, completed=self._series.done)

    def line(self) -> str:
        """Return how far it is, in one line."""
        if self._preparing is not None:
            return self._preparing
        if self._series.done >= self._series.of:
            return "all cases done, saving"
        left_s = self._series.left_s(None)
        to_go = "" if left_s is None or left_s < 1 else f"about {duration(left_s)} to go"
        return ", ".join(filter(None, (self._series.place(), self._steps, to_go)))
