"""Checks of the accelerators: enough, visible, idle, alone, at their clocks, without errors, whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.preflight.line import FAIL, OK, UNKNOWN, WARN, Line
from bench.preflight.size import weights_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.machine.nvml import Gpu
    from bench.preflight.line import Situation

BUSY_PERCENT = 5
"""A GPU that is idle shows 0; a monitor's query may show a few percent."""
MEMORY_IN_USE = 0.05
"""Share of a GPU's memory that the driver alone does not take."""

SMALL_BYTES = 1_000_000_000
"""Weights below this are worth a try on a CPU."""

VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible(situation: Situation) -> Iterator[Line]:
    """Check that CUDA_VISIBLE_DEVICES names GPUs that are there."""
    asked = situation.environment.get(VISIBLE)
    if asked is None or not situation.samples:
        return
    parts = [part.strip() for part in asked.split(",") if part.strip()]
    if not parts:
        yield Line(
            id="gpu.visible",
            state=WARN,
            saw=f"{VISIBLE} is set and empty",
            means="a launch sees no GPU and uses the CPU",
            todo=f"unset {VISIBLE}, or name GPUs in it",
        )
        return
    everything = situation.samples[0]
    unknown = [
        part
        for part in parts
        if not part.startswith("MIG-")
        and not any(part == str(gpu.index) or gpu.uuid.startswith(part) for gpu in everything)
    ]
    if unknown:
        yield Line(
            id="gpu.visible",
            state=FAIL,
            saw=f"{VISIBLE}={asked}: there is no {', '.join(unknown)}",
            means="CUDA ignores an unknown GPU and all that are named behind it",
            todo=f"there are {', '.join(str(gpu.index) for gpu in everything)}",
        )
    elif len(set(parts)) < len(parts):
        yield Line(
            id="gpu.visible",
            state=FAIL,
            saw=f"{VISIBLE}={asked} names a GPU twice",
            means="CUDA then sees no GPU at all",
            todo="name each once",
        )
    else:
        yield Line(id="gpu.visible", state=OK, saw=f"{VISIBLE}={asked}")


def enough(situation: Situation) -> Iterator[Line]:
    """Check the number of accelerators against what the workload asks for."""
    wanted, workload = situation.gpus_wanted, situation.workload
    there, kind = len(situation.machine.devices), "GPUs that a launch sees"
    for other in situation.others:
        if other.count is None:
            yield Line(
                id="gpu.vendor",
                state=UNKNOWN,
                saw=f"{other.tool} was not understood: {other.fault}",
                means=f"nothing is known of the {other.maker} devices",
                todo=f"run {other.tool} by hand",
            )
        elif there == 0:
            there, kind = other.count, f"{other.maker} devices by {other.tool}"
    if there >= wanted:
        yield Line(id="gpu.count", state=OK, saw=f"{there} {kind}, {wanted} wanted")
    elif workload is None:
        yield Line(
            id="gpu.count",
            state=WARN,
            saw="no GPU",
            means="only tiny models run here, on the CPU",
            todo="invoke doctor --model KEY tells for one preset",
        )
    elif (
        there == 0
        and wanted == 1
        and (runs_on_cpu(workload.preset.tags) or (weights_bytes(situation) or SMALL_BYTES) < SMALL_BYTES)
    ):
        yield Line(id="gpu.count", state=OK, saw="no GPU; this model is small enough for a CPU")
    else:
        yield Line(
            id="gpu.count",
            state=FAIL,
            saw=f"{there or 'no'} {kind if there else 'GPU'}, {wanted} wanted",
            means="the model does not fit, or the engine refuses",
            todo="run it on a machine that has them, or choose another preset: `invoke doctor` lists what runs here",
        )


def runs_on_cpu(tags: tuple[str, ...]) -> bool:
    """Tell whether a preset with these tags is small enough for a CPU."""
    return "tiny" in tags


def _each(
    situation: Situation, identity: str, fine: str, look: Callable[[Gpu], tuple[str, str, str, str] | None]
) -> Iterator[Line]:
    """Yield a line for each used GPU that ``look`` has something against (state, saw, means, to do), else one ok."""
    used = used_now(situation)
    if not used:
        return
    found = [(gpu, told) for gpu in used if (told := look(gpu)) is not None]
    for gpu, (state, saw, means, todo) in found:
        yield Line(id=identity, state=state, saw=f"GPU {gpu.index}: {saw}", means=means, todo=todo)
    if not found:
        yield Line(id=identity, state=OK, saw=fine)


def used_now(situation: Situation) -> tuple[Gpu, ...]:
    """Return the newest sample of the GPUs that a launch uses: the first visible ones, as many as it wants."""
    order = [device.uuid for device in situation.machine.devices][: situation.gpus_wanted]
    return tuple(gpu for uuid in order for gpu in situation.now if gpu.uuid == uuid)


def idle(situation: Situation) -> Iterator[Line]:
    """Check that nobody else's work ran on the GPUs over the sampled interval."""

    def look(gpu: Gpu) -> tuple[str, str, str, str] | None:
        loads = [
            other.load_percent
            for sample in situation.samples
            for other in sample
            if other.uuid == gpu.uuid and other.load_percent is not None
        ]
        todo = "wait, or choose others: " + _idle_ones(situation)
        if gpu.processes:
            pids = ", ".join(str(found.pid) for found in gpu.processes)
            return FAIL, f"in use by process {pids}", "two jobs share the GPU: neither's time is its own", todo
        if loads and max(loads) > BUSY_PERCENT:
            return FAIL, f"up to {max(loads)} % busy", "another job runs on it that is not visible from here", todo
        if gpu.memory_used_bytes > MEMORY_IN_USE * gpu.memory_total_bytes:
            used = f"{gpu.memory_used_bytes / 2**30:.1f} GiB in use by no process that is visible"
            return WARN, used, "perhaps another container's; its work would share the GPU", todo
        if not loads:
            return UNKNOWN, "the driver tells no load", "another job would not be seen", "look at nvidia-smi"
        return None

    return _each(situation, "gpu.idle", f"idle in {len(situation.samples)} samples", look)


def _idle_ones(situation: Situation) -> str:
    free = [str(gpu.index) for gpu in situation.now if not gpu.processes and (gpu.load_percent or 0) <= BUSY_PERCENT]
    if len(free) < situation.gpus_wanted:
        return f"{len(free)} of {situation.gpus_wanted} wanted are idle now"
    return f"{VISIBLE}={','.join(free[: situation.gpus_wanted])} are idle now"


def clocks(situation: Situation) -> Iterator[Line]:
    """Check that nothing holds the clocks down."""

    def look(gpu: Gpu) -> tuple[str, str, str, str] | None:
        if gpu.reasons is None:
            return UNKNOWN, "the driver tells no reasons", "slow clocks would not be explained", "look at nvidia-smi -q"
        if slow := gpu.slowdowns():
            return (
                FAIL,
                f"throttled: {', '.join(slow)} ({gpu.temperature_c} degrees)",
                "the GPU is slower than its settings say, and how much changes with time",
                "let it cool, look at fans and power supply; nvidia-smi -q -d PERFORMANCE",
            )
        if limits := gpu.limits():
            return (
                WARN,
                f"{', '.join(limits)} ({gpu.sm_mhz} of {gpu.sm_max_mhz} MHz)",
                "numbers are comparable only with runs under the same setting",
                "fine if on purpose; nvidia-smi -rgc and -rac undo it",
            )
        return None

    return _each(situation, "gpu.clocks", "nothing holds the clocks down", look)


def memory_errors(situation: Situation) -> Iterator[Line]:
    """Check ECC."""

    def look(gpu: Gpu) -> tuple[str, str, str, str] | None:
        if gpu.ecc_uncorrected:
            return (
                FAIL,
                f"{gpu.ecc_uncorrected} uncorrected memory errors since the driver was loaded",
                "outputs can be wrong and launches can crash",
                "reset the GPU or have it replaced; nvidia-smi -q -d ECC",
            )
        if gpu.ecc is False:
            return (
                WARN,
                "ECC is off",
                "memory is a little faster than on most machines: comparable only with the same setting",
                "nvidia-smi -e 1 turns it on (needs a reset)",
            )
        return None

    return _each(situation, "gpu.ecc", "no uncorrected memory errors", look)


def slices(situation: Situation) -> Iterator[Line]:
    """Check for GPUs that are cut into MIG slices."""
    chosen = situation.environment.get(VISIBLE, "").startswith("MIG-")

    def look(gpu: Gpu) -> tuple[str, str, str, str] | None:
        if not gpu.mig:
            return None
        if chosen:
            return (
                WARN,
                "a MIG slice",
                "a part of a GPU is measured: comparable only with the same slice",
                "name the slice in --label",
            )
        return (
            FAIL,
            "cut into MIG slices",
            "CUDA gives a launch one slice, and the record would name the whole GPU",
            f"name one slice in {VISIBLE}=MIG-..., or turn MIG off",
        )

    if chosen and situation.now and not used_now(situation):
        yield Line(
            id="gpu.mig",
            state=WARN,
            saw=f"{VISIBLE} names a MIG slice",
            means="its load and clocks cannot be seen as those of a whole GPU",
            todo="compare only with runs on the same slice",
        )
        return
    yield from _each(situation, "gpu.mig", "whole GPUs", look)
