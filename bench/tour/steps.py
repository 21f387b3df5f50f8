"""The steps of the tour, as data: one entry a step. A word in braces is filled in from what earlier steps made."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bench.errors import FallbackDetected, ThresholdMissed, UnknownName

HERE = "tour"
"""The placeholder of the tour's own folder; any other names the step whose record or checkpoint is meant."""

PLACEHOLDER = re.compile(r"\{(\w+)\}")
TINY = "FLUX.1-dev-tiny"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step: its name, what is typed behind `invoke`, why, how to read it, and the exit code that it has to have.

    ``link`` is a symbolic link that is made first, (target, link). ``seconds`` is what it took on a laptop's two cores.
    """

    name: str
    title: str
    command: tuple[str, ...]
    why: str
    read: str
    seconds: int
    exit_code: int = 0
    takes_engine: bool = True
    takes_output_dir: bool = False
    link: tuple[str, str] | None = None

    def needs(self) -> list[str]:
        """Return the names of the steps whose products this one uses, in order."""
        return [name for name in self._placeholders() if name != HERE]

    def fills_folder(self) -> bool:
        """Tell whether it puts something into the tour's folder, which has to be new then."""
        return HERE in self._placeholders()

    def _placeholders(self) -> list[str]:
        words = (*self.command, *(self.link or ()))
        return list(dict.fromkeys(name for word in words for name in PLACEHOLDER.findall(word)))


STEPS = (
    Step(
        name="doctor",
        title="Can this machine do it?",
        command=("doctor", "--model", "flux-tiny"),
        why="Before an hour is spent: is there an engine, a device, memory, disk, a quiet CPU? `bench` asks the same "
        "questions by itself and ends with exit code 10 if one is answered with no.",
        read="Each line is ok, warn, fail or unknown. A warning never stops a run, but it is repeated beside its "
        "numbers: the usual one on a laptop is other work on the CPU.",
        seconds=2,
    ),
    Step(
        name="checkpoint",
        title="A model without a download",
        command=("checkpoint", "--model", "flux", "--size", "tiny", "--out", f"{{tour}}/{TINY}"),
        why="A dense model is as fast with random weights as with real ones, so nobody needs 34 GB to learn the tool. "
        "This makes FLUX.1's layout at a size for a CPU.",
        read="The engine finds its native pipeline by the family in the folder's name: keep it there. Every record "
        "says `weights: synthetic`. (`bench --model flux-tiny` makes one by itself when none is given.)",
        seconds=15,
    ),
    Step(
        name="bench",
        title="One request, with its proof",
        command=("bench", "--model", "flux-tiny", "--model-path", "{checkpoint}"),
        takes_output_dir=True,
        why="The main job: one `sglang generate` on the native backend, watched line by line while it runs.",
        read="Read the verdict first: NATIVE means that every required piece of evidence was seen. Then `denoise`, the "
        "figure to compare. `whole launch` is what you waited, and hardly changes with a faster engine. n/a is unknown "
        "and never 0. The last line names the record: the same in JSON, with command, versions and hashes.",
        seconds=40,
    ),
    Step(
        name="reference",
        title="How slow would diffusers be?",
        command=("reference", "--model", "flux-tiny", "--model-path", "{checkpoint}"),
        takes_output_dir=True,
        why="A speed-up has a slow arm. This times the same request on the engine's diffusers backend, and the guard "
        "proves the opposite of before: that it really was diffusers.",
        read="The verdict is DIFFUSERS, and the record is labelled as a reference: `compare` sets a native run beside "
        "it, but `ab`, `history` and baselines never take it for the engine. So a speed-up has two proven sides. Two "
        "tiny blocks on a CPU say nothing about the speed-up on a GPU.",
        seconds=40,
    ),
    Step(
        name="refused",
        title="A fallback that is known beforehand",
        command=("bench", "--model", "flux-tiny", "--model-path", "{checkpoint}-awq"),
        link=("{checkpoint}", "{checkpoint}-awq"),
        takes_output_dir=True,
        why="The same weights, in a folder whose name ends in -awq. That alone sends the engine to the diffusers "
        "backend, in spite of --backend=sglang, and `sglang generate` would end with exit code 0.",
        read="Nothing was started: the arguments alone show that this would not be native. Exit code 4 is fallback, "
        "here and everywhere. The message says what, where, and what to do.",
        seconds=3,
        exit_code=FallbackDetected.exit_code,
    ),
    Step(
        name="fallback",
        title="A fallback caught in the act",
        command=("bench", "--model", "flux-tiny", "--model-path", "{checkpoint}-awq", "--no-precheck"),
        link=("{checkpoint}", "{checkpoint}-awq"),
        takes_output_dir=True,
        why="Most fallbacks cannot be seen beforehand. So the same again without the check: now the real engine is "
        "started and falls back, and the guard hears it.",
        read="INVALID, with the engine's own line. The engine was stopped at that line, no number is shown, and the "
        "perf dump, if there was one, is set aside. The run is kept as evidence.",
        seconds=25,
        exit_code=FallbackDetected.exit_code,
    ),
    Step(
        name="attest",
        title="The log of a colleague",
        command=("attest", "--log", "{fallback}/engine.log"),
        takes_engine=False,
        why="You will get numbers that somebody else measured. Their log is enough for a verdict: here that of the "
        "run before, as if it had come by mail. With --dump the perf dump is judged too.",
        read="Every required piece of evidence is listed as seen or missing. The exit code is the one that our own "
        "run would have had, so a script can ask.",
        seconds=1,
        exit_code=FallbackDetected.exit_code,
    ),
    Step(
        name="repeats",
        title="Ten requests and an interval",
        command=("bench", "--model", "flux-tiny", "--model-path", "{checkpoint}", "--repeats", "10"),
        takes_output_dir=True,
        why="One number has no error bar. A session loads the engine once and serves ten requests, each with a perf "
        "dump of its own, for the price of one start.",
        read="Beside each median is the interval in which it lies with 95 % confidence. Outliers are kept and named. "
        "`outputs: all identical` says that ten times the same picture came out, bit for bit. The spread between "
        "launches is unknown: one launch cannot show it; --launches 3 does. `invoke compare last~1 last` names "
        "runs by their place in time; a label or the six digits of a run do as well.",
        seconds=50,
    ),
    Step(
        name="ab",
        title="Is B slower than A?",
        command=(
            *("ab", "--model", "flux-tiny", "--pairs", "6"),
            *("--baseline", "steps=4 OMP_NUM_THREADS=1", "--candidate", "steps=24 OMP_NUM_THREADS=1"),
        ),
        takes_output_dir=True,
        why="Pairs of engine starts whose requests alternate, so that a slower machine slows both; it stops as soon as "
        "the answer is decided. The candidate does 24 denoise steps instead of 4: the answer is known, so you "
        "see whether the tool finds it, also on a busy laptop. On a quiet machine three pairs decide it, the fewest "
        "that decide anything; a real question gets the default of eight. One thread for each engine, because two "
        "that wait beside each other on two cores disturb each other more than any real effect.",
        read="First the words of both arms and what differs, then SLOWER, with an interval that leaves out 0. Exit "
        "code 7 is a regression, so CI can stop at it. If other work disturbed the machine, the verdict says so. The "
        "other answers are faster and same (0), and inconclusive (9): then `next:` is the command with the pairs that "
        "it takes. Each report ends with such a line.",
        seconds=150,
        exit_code=ThresholdMissed.exit_code,
    ),
    Step(
        name="profile",
        title="Where does the time go?",
        command=("profile", "--model", "flux-tiny", "--steps-profiled", "2"),
        takes_output_dir=True,
        why="A slower number is a question. A trace of some denoise steps answers it; the run is guarded like any "
        "other, and its profiled time is never used as a time.",
        read="On a CPU the trace has operators and modules and no GPU events, and the report says so. On a GPU it "
        "says what bounds a step, which fast paths are off and what they would save. `report/report.html` in the "
        "run's folder opens in a browser, without a network.",
        seconds=60,
    ),
    Step(
        name="accuracy",
        title="Is it still right?",
        command=("accuracy", "--model", "flux-tiny", "--check", "component,trajectory"),
        takes_output_dir=True,
        why="A faster engine that draws something else is not a gain. Every component and the latents after every step "
        "are compared with diffusers, from the same folder and the same noise.",
        read="`rel L2` is the distance, `gate` what is allowed. The last table is wrong on purpose: changed weights, "
        "another seed, prompt and guidance have to be rejected, or the gate proves nothing and the run is void.",
        seconds=45,
    ),
    Step(
        name="validate",
        title="The records hold",
        command=("validate", "{bench}", "{fallback}", "{repeats}", "{ab}/comparison.json"),
        takes_engine=False,
        why="Every document is checked against a schema when it is written. You can ask again, at any time and on any "
        "machine, also of those that you were sent.",
        read="One line a document. A broken one is named with what is wrong, which rule, and where. The run that fell "
        "back has a valid record too: a valid document, of an invalid run.",
        seconds=1,
    ),
    Step(
        name="history",
        title="The report over time",
        command=("history", "--model", "flux-tiny"),
        takes_engine=False,
        takes_output_dir=True,
        why="All that was measured of a preset here, in order of time, with the versions of the engine.",
        read="Change points are marked where the level of the times changed. `invoke compare A B` compares any two of "
        "the records, with --markdown for a pull request.",
        seconds=2,
    ),
)

ON_A_GPU = (
    ("see what the machine can run", "invoke doctor"),
    ("make the real shapes without a download (34 GB)", "invoke checkpoint --model flux --size full --out FLUX.1-dev"),
    ("benchmark them", "invoke bench --model flux-full-synthetic --model-path FLUX.1-dev --repeats 10"),
    ("or the real weights, as upstream does every night", "invoke bench --model flux"),
    ("learn how noisy this machine is", "invoke calibrate --model flux"),
    ("prove a change: your checkout against the release", 'invoke ab --model flux --candidate "source:../sglang"'),
    ("find what to do first", "invoke profile --model flux"),
    ("check that it is still right", "invoke accuracy --model flux-tiny --dtype bf16"),
    ("run every preset of upstream's nightly comparison", "invoke bench --tag nightly"),
    ("test the guard itself on this engine", "invoke attest --self-test"),
)
"""What to do on a machine with a GPU: what, and the command. docs/performance.md says which knob to try first."""


def chosen(step: str | None, first: str | None) -> tuple[Step, ...]:
    """Return the one step that is named (or numbered from 1), else all from ``first`` on.

    Raises:
        UnknownName: no step has this name.
    """
    if step is not None:
        return (STEPS[_place(step)],)
    return STEPS[0 if first is None else _place(first) :]


def _place(word: str) -> int:
    names = [step.name for step in STEPS]
    if word.isdecimal() and 1 <= int(word) <= len(STEPS):
        return int(word) - 1
    if word not in names:
        raise UnknownName("step of the tour", word, names, todo=f"1 to {len(STEPS)}, or: {', '.join(names)}")
    return names.index(word)
