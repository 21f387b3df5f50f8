"""What is shown while an engine runs, from its log and a clock."""

import io
import re
from itertools import pairwise

import pytest
from helpers import LOGS
from rich.console import Console

from bench.report.live import FIRST, Cases, Live, Pairs, Series

LOG = (LOGS / "cpu" / "warmup_request.log").read_bytes()
STOPPED = LOG[LOG.rindex(b"\n", 0, LOG.index(b"Shutdown complete")) + 1 :]
"""What the engine says at its end."""
SERVED = LOG[LOG.index(b"Running pipeline stages") - 40 : -len(STOPPED)]
"""What the engine says while it serves a request."""
STARTED = LOG[: LOG.index(SERVED)]
FURTHER = [("the stage table", 2)]


class Clock:
    """A clock that a test moves."""

    now_s = 0.0

    def __call__(self):
        return self.now_s


def watched(requests, *, seconds_each, launches=1, terminal=False):
    """Show launches of many requests, with a look at the clock each second; return what was printed and the display."""
    clock = Clock()
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    display = Live(console, requests=requests, launches=launches, clock=clock)
    display._show("first")
    for _ in range(launches):
        display.observe(STARTED, 1)
        clock.now_s += 40
        for _ in range(requests or 50):
            display.observe(SERVED, 1)
            for _ in range(seconds_each):
                clock.now_s += 1
                display.heartbeat.beat()
    return console.file.getvalue().splitlines(), display


def stamps(lines):
    """Return the seconds at which lines were printed."""
    return [float(line.removeprefix("[").partition(" s]")[0]) for line in lines]


@pytest.mark.parametrize("seconds_each", [0, 1, 5, 60])
def test_a_pipe_is_silent_for_no_longer_than_half_a_minute_and_has_no_line_for_each_request(seconds_each):
    lines, _ = watched(100, seconds_each=seconds_each)
    at = stamps(lines)
    assert max(after - before for before, after in pairwise(at)) <= 40, "the test's clock jumps by 40 s"
    assert len(lines) <= 6 + at[-1] / 30


def test_a_pipe_shows_that_the_first_request_that_counts_runs():
    console = Console(file=io.StringIO(), width=100)
    display = Live(console, requests=2, left_out=1)
    display.observe(STARTED, 1)
    for _ in range(3):
        display.observe(SERVED, 1)
    told = [line.partition("] ")[2] for line in console.file.getvalue().splitlines()]
    assert told[-2:] == ["first request, not counted", "request 1/2"]


def test_a_pipe_says_what_is_done_now_from_the_checks_to_the_last_line():
    clock = Clock()
    console = Console(file=io.StringIO(), width=100)
    display = Live(console, requests=1, clock=clock)

    def pass_minute():
        for _ in range(60):
            clock.now_s += 1
            display.heartbeat.beat()

    display._show(FIRST)
    pass_minute()
    display.observe(b"", 1)
    pass_minute()
    display.observe(STARTED, 1)
    pass_minute()
    display.observe(SERVED, 1)
    pass_minute()
    display.observe(STOPPED, 1)
    pass_minute()
    told = [line.partition("] ")[2] for line in console.file.getvalue().splitlines()]
    assert told[:6] == [*["checking the machine"] * 3, *["starting the engine"] * 3]
    assert told[-4:] == [*["stopping the engine"] * 2, *["judging the run"] * 2], "one thing at a time"
    assert stamps(console.file.getvalue().splitlines())[-1] == 300


def test_the_line_names_request_median_and_time_to_go():
    lines, display = watched(10, seconds_each=6)
    assert any("request 5/10, median 4.9 s, about 24 s to go" in line for line in lines), lines
    assert display.line() == "stopping the engine"


def test_a_terminal_shows_what_follows_the_last_request_until_the_report():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with Live(console, requests=1) as display:
        display.observe(STARTED, 1)
        display.observe(SERVED, 1)
        display._progress.refresh()  # as rich's own thread does four times a second
        assert "stopping the engine" in console.file.getvalue()
        display.observe(STOPPED, 1)
        display._progress.refresh()
        assert "judging the run" in console.file.getvalue()
    with Pairs(console, pairs=8, requests=4) as pairs:
        pairs.begin(1, "baseline first, then candidate")
        pairs.tell("pair 1: total time +20.1 % so far; decided")
        pairs._progress.refresh()
        assert "pair 1: total time +20.1 % so far, judging the pairs" in console.file.getvalue()
        pairs.tell("another candidate: can it be measured?")
        assert pairs.line() == "another candidate: can it be measured?"


def test_launches_after_the_timed_ones_are_named_and_their_time_is_not_in_the_median():
    clock = Clock()
    further = [("the stage table", 2), ("the kernels", 1)]
    display = Live(Console(file=io.StringIO()), requests=2, left_out=1, further=further, clock=clock)
    clock.now_s += 30
    display.observe(STARTED, 1)
    for _ in range(3):
        display.observe(SERVED, 1)
    assert display.line() == ("request 2/2, next: a launch for the stage table, median 4.9 s, about 75 s to go"), (
        "two starts of 30 s, three requests of 4.9 s"
    )
    display.observe(STARTED, 1)
    display.observe(SERVED.replace(b"4.90", b"99.0"), 1)
    assert display.line().startswith("launch for the stage table, request 1/2, median 4.9 s")
    display.observe(SERVED, 1)
    assert display.line().startswith("launch for the stage table, request 2/2, next: a launch for the kernels, median")
    display.observe(STARTED, 1)
    display.observe(SERVED, 1)
    assert display.line() == "stopping the engine"


def test_the_median_leaves_the_first_request_of_each_launch_out_as_the_report_does():
    display = Live(Console(file=io.StringIO()), requests=2, launches=2, left_out=1)
    for launch in (1, 2):
        display.observe(STARTED, 1)
        display.observe(SERVED.replace(b"4.90", b"60.0"), 1)
        assert f"launch {launch}/2, first request, not counted" in display.line()
        assert "60" not in display.line()
        display.observe(SERVED, 1)
        assert f"request {2 * launch - 1}/4" in display.line()
        display.observe(SERVED, 1)
        then = "launch 1/2, request 2/4, next launch, median 4.9 s" if launch == 1 else "stopping the engine"
        assert display.line().startswith(then)


def test_an_engine_start_that_is_to_come_or_going_on_is_part_of_what_is_left():
    clock = Clock()
    display = Live(Console(file=io.StringIO()), requests=2, launches=3, clock=clock)
    display.observe(STARTED, 1)
    clock.now_s += 40
    display.observe(SERVED, 1)
    assert display.line() == "launch 1/3, request 1/6, about 2 min to go", "two starts, five requests: 104.5 s"
    display.observe(SERVED, 1)
    assert display.line() == "launch 1/3, request 2/6, next launch, median 4.9 s, about 100 s to go"
    clock.now_s += 10  # the first engine stops, the second starts
    display.observe(STARTED, 1)
    assert display.line().endswith("median 4.9 s, about 90 s to go")
    clock.now_s += 60
    assert display.line().endswith("median 4.9 s, about 60 s to go"), (
        "later than foretold, never less than what follows"
    )


def test_nothing_is_foretold_where_a_precision_decides():
    _, display = watched(None, seconds_each=1)
    assert display.line() == "request 50, median 4.9 s"


@pytest.mark.parametrize(
    ("further", "then"),
    [((), "judging the run"), (FURTHER, "request 2, next: a launch for the stage table, median 4.9 s")],
)
def test_where_a_precision_decides_the_end_of_the_engine_tells_what_follows(further, then):
    display = Live(Console(file=io.StringIO()), further=further)
    display.observe(STARTED + SERVED + SERVED, 1)
    assert display.line() == "request 2, median 4.9 s"
    display.observe(STOPPED, 1)
    assert display.line() == then


def test_the_clock_goes_on_after_a_full_bar():
    _, display = watched(2, seconds_each=1, terminal=True)
    task = display._progress.tasks[0]
    display._progress.update(task.id, completed=4, total=4)
    display._show("DecodingStage")
    task.start_time -= 600
    assert str(display._progress.columns[-1].render(task)) >= "10:00"


@pytest.mark.parametrize("start_s", [1, 40, 300])
def test_eight_pairs_in_a_pipe_name_pair_effect_and_time_to_go(start_s):
    clock = Clock()
    console = Console(file=io.StringIO(), width=100)
    display = Pairs(console, pairs=8, requests=4, clock=clock)
    display.tell("one untimed launch first")
    assert display.line() == "one untimed launch first"
    for number in range(1, 9):
        display.begin(number, "baseline first, then candidate")
        for _ in range(start_s):
            clock.now_s += 1
            display.heartbeat.beat()
        for _ in range(10):
            display.observe(SERVED, 1)
            clock.now_s += 1
            display.heartbeat.beat()
        display.tell(f"pair {number}: total time +20.1 % so far; {number} of at most 8 pairs")
        if number == 4:
            display.begin(5, "candidate first, then baseline")
            assert display.line().startswith("pair 5/8, starting both engines, total time +20.1 % so far, at most")
            assert display.line().endswith("to go")
    assert len(console.file.getvalue().splitlines()) <= 40 + clock.now_s / 30


@pytest.mark.parametrize(
    ("alternate", "wanted"),
    [
        (False, ["starting both engines", "warming up", *("1/3", "1/3", "2/3", "2/3", "3/3", "3/3"), "3/3"]),
        (True, ["starting an engine", "1/3", "2/3", "3/3", "starting an engine", "1/3", "2/3", "3/3"]),
    ],
    ids=["together", "in turn"],
)
def test_a_pair_counts_the_requests_that_were_asked_for(alternate, wanted):
    display = Pairs(Console(file=io.StringIO()), pairs=8, requests=3, alternate=alternate)
    display.begin(1, "baseline first, then candidate")
    told = []
    for _ in wanted:
        told.append(display.line().removeprefix("pair 1/8, ").removeprefix("request "))
        display.observe(SERVED, 1)
    assert told == wanted


def test_on_a_narrow_terminal_the_line_of_a_pair_is_not_cut():
    console = Console(file=io.StringIO(), force_terminal=True, width=60)
    clock = Clock()
    with Pairs(console, pairs=8, requests=3, clock=clock) as display:
        display.begin(1, "baseline first, then candidate")
        clock.now_s += 60
        display.tell("pair 1: time of TextEncodingStage +0.70 % so far; 1 of at most 8 pairs (first decision after 3)")
        display.begin(2, "candidate first, then baseline")
        display._progress.refresh()
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())
    assert "…" not in shown
    assert "to go" in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 60
    assert {"(first", "decision"} <= set(shown.split()), "nor is a word of what is said once"


def test_the_time_to_go_of_pairs_becomes_shorter_while_nothing_ends():
    clock = Clock()
    display = Pairs(Console(file=io.StringIO()), pairs=4, requests=3, clock=clock)
    display.begin(1, "baseline first, then candidate")
    clock.now_s += 100
    display.tell("pair 1: total time +20.1 % so far; 1 of at most 4 pairs")
    display.begin(2, "candidate first, then baseline")
    told = []
    for _ in range(8):
        told.append(display.line().rpartition(", ")[2])
        clock.now_s += 50
    assert told == [
        *("at most 5 min to go", "at most 4 min to go", "at most 3 min to go", "at most 2 min to go"),
        *("at most 2 min to go", "at most 50 s to go", "total time +20.1 % so far", "total time +20.1 % so far"),
    ]


def test_a_time_to_go_that_is_used_up_is_left_out():
    clock = Clock()
    series, pass_runs = series_of(clock, "preset", of=2)
    pass_runs(1, "preset 2/2", left=1)
    display = Live(Console(file=io.StringIO()), requests=1, series=series, clock=clock)
    clock.now_s += 99.5
    assert display.line() == "preset 2/2"
    clock.now_s -= 50
    assert display.line() == "preset 2/2, about 50 s to go"


def series_of(clock, word="cell", **sizes):
    """Return a series and a function that lets so many of its runs take 100 s each."""
    series = Series(word, clock=clock, **sizes)

    def pass_runs(count, place=None, left=None):
        for _ in range(count):
            series.begin()
            clock.now_s += 100
            series.end()
        series.begin(place, left)

    return series, pass_runs


def test_the_cells_of_a_matrix_are_counted_with_the_time_of_all_that_are_left():
    clock = Clock()
    series, pass_runs = series_of(clock, of=12)
    console = Console(file=io.StringIO(), width=100)
    assert series.left_s(None) is None, "nothing is known yet"
    pass_runs(8, "round 2/2, cell 5/6", left=3)  # one cell failed in the first round and has no second launch
    display = Live(console, requests=2, series=series, clock=clock)
    display._show("first")
    display.observe(LOG, 1)
    assert display.line().startswith("round 2/2, cell 5/6, request ")
    assert display.line().endswith("about 3 min to go")
    assert console.file.getvalue() == "", "only the first cell tells its phases: the others look alike"


def test_the_first_of_a_series_foretells_the_others():
    clock = Clock()
    series, _ = series_of(clock, of=3)
    series.begin()
    clock.now_s += 30
    assert series.left_s(10.0) == 10 + 2 * 40


@pytest.mark.parametrize("seconds_each", [1, 50])
def test_an_accuracy_check_counts_cases_and_steps(seconds_each):
    clock = Clock()
    console = Console(file=io.StringIO(), width=100)
    display = Cases(console, of=20, first="running diffusers", clock=clock)
    assert display.line() == "running diffusers"
    display.observe(b"", 1)
    assert display.line() == "starting the engine"
    for number in range(20):
        display.observe(b" 33%|###   | 4/12 [00:01<00:02,  3.9it/s]\n", 1)
        for _ in range(seconds_each):
            clock.now_s += 1
            display.heartbeat.beat()
        if number == 10:
            assert display.line().startswith("case 11/20, step 4/12, about")
        display.observe(b"accuracy case: plain\n", 1)
    assert display.line() == "all cases done, saving"
    assert len(console.file.getvalue().splitlines()) <= 1 + clock.now_s / 30


def test_a_download_shows_files_and_bytes():
    display = Live(Console(file=io.StringIO(), width=100), fetched_bytes=lambda: 12_300_000_000)
    display.observe(b"Fetching 23 files:  43%|####| 10/23 [00:01<00:01,  6.95it/s]\n", 1)
    assert display.line() == "downloading the model, file 10/23, 12.3 GB so far"
