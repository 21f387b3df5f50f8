"""Checks of the accelerators: visibility, number, load, clocks, memory errors, MIG."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.machine.gpus import VISIBLE
from bench.preflight.model import runs_on_cpu, weights_bytes
from bench.preflight.state import FAIL, OK, UNKNOWN, WARN, CheckResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.machine.gpus import Gpu
    from bench.preflight.state import MachineState

BUSY_PERCENT = 5
"""An idle GPU reports 0; a monitoring query may cost a few percent."""
MEMORY_IN_USE = 0.05
"""Share of a GPU's memory; the driver alone takes less."""

SMALL_BYTES = 1_000_000_000
"""Weights below this size may run on a CPU."""


def visible(state: MachineState) -> Iterator[CheckResult]:
    """Check that CUDA_VISIBLE_DEVICES names existing GPUs."""
    value = state.environment.get(VISIBLE)
    if value is None or not state.samples:
        return
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if not parts:
        yield CheckResult(
            id="gpu.visible",
            state=WARN,
            saw=f"{VISIBLE} is set but empty",
            means="a launch sees no GPU and uses the CPU",
            todo=f"unset {VISIBLE}, or name GPUs in it",
        )
        return
    everything = state.samples[0]
    unknown = [
        part
        for part in parts
        if not part.startswith("MIG-")
        and not any(part == str(gpu.index) or gpu.uuid.startswith(part) for gpu in everything)
    ]
    if unknown:
        yield CheckResult(
            id="gpu.visible",
            state=FAIL,
            saw=f"{VISIBLE}={value}: unknown GPU {', '.join(unknown)}",
            means="CUDA ignores an unknown GPU and every GPU listed after it",
            todo=f"choose from {', '.join(str(gpu.index) for gpu in everything)}",
        )
    elif len(set(parts)) < len(parts):
        yield CheckResult(
            id="gpu.visible",
            state=FAIL,
            saw=f"{VISIBLE}={value} names a GPU twice",
            means="CUDA then sees no GPU",
            todo="list each GPU once",
        )
    else:
        yield CheckResult(id="gpu.visible", state=OK, saw=f"{VISIBLE}={value}")


def enough(state: MachineState) -> Iterator[CheckResult]:
    """Check that there are as many accelerators as the workload needs."""
    required, workload = state.gpus_required, state.workload
    available = len(state.machine.devices)
    seen = f"{available or 'no'} GPU{'' if available == 1 else 's'} visible"
    for vendor in state.vendors:
        if vendor.count is None:
            yield CheckResult(
                id="gpu.vendor",
                state=UNKNOWN,
                saw=f"{vendor.tool} output not understood: {vendor.fault}",
                means=f"the state of the {vendor.maker} devices is unknown",
                todo=f"run {vendor.tool} by hand",
            )
        elif available == 0:
            available, seen = vendor.count, f"{vendor.count} {vendor.maker} devices listed by {vendor.tool}"
    if available >= required:
        yield CheckResult(id="gpu.count", state=OK, saw=f"{seen}, {required} required")
    elif workload is None:
        yield CheckResult(
            id="gpu.count",
            state=WARN,
            saw="no GPU",
            means="only tiny models run on this machine, on the CPU",
            todo="name a preset to check it alone: `invoke doctor --model flux-tiny`",
        )
    elif (
        available == 0
        and required == 1
        and (runs_on_cpu(workload.preset.tags) or (weights_bytes(state) or SMALL_BYTES) < SMALL_BYTES)
    ):
        yield CheckResult(id="gpu.count", state=OK, saw="no GPU; this model is small enough for the CPU")
    else:
        yield CheckResult(
            id="gpu.count",
            state=FAIL,
            saw=f"{seen}, {required} required",
            means="the model does not fit, or the engine refuses to start",
            todo="use a larger machine or another preset; `invoke doctor` lists the presets that run here",
        )


def _each(
    state: MachineState, identity: str, fine: str, look: Callable[[Gpu], tuple[str, str, str, str] | None]
) -> Iterator[CheckResult]:
    """Yield a result for each GPU in which ``look`` sees a problem (state, saw, means, remedy), else ``fine``."""
    used = used_now(state)
    if not used:
        return
    problems = [(gpu, problem) for gpu in used if (problem := look(gpu)) is not None]
    for gpu, (level, saw, means, todo) in problems:
        yield CheckResult(id=identity, state=level, saw=f"GPU {gpu.index}: {saw}", means=means, todo=todo)
    if not problems:
        yield CheckResult(id=identity, state=OK, saw=fine)


def used_now(state: MachineState) -> tuple[Gpu, ...]:
    """Return the newest sample of the GPUs that a launch uses: the first visible ones, as many as it needs."""
    order = [device.uuid for device in state.machine.devices][: state.gpus_required]
    return tuple(gpu for uuid in order for gpu in state.now if gpu.uuid == uuid)


def idle(state: MachineState) -> Iterator[CheckResult]:
    """Check that nothing else ran on the GPUs during the sampled interval."""

    def look(gpu: Gpu) -> tuple[str, str, str, str] | None:
        loads = [
            other.load_percent
            for sample in state.samples
            for other in sample
            if other.uuid == gpu.uuid and other.load_percent is not None
        ]
        todo = "wait, or choose other GPUs; " + _idle_ones(state)
        if gpu.processes:
            pids = ", ".join(str(process.pid) for process in gpu.processes)
            return FAIL, f"in use by process {pids}", "two jobs share the GPU, so neither can be timed", todo
        if loads and max(loads) > BUSY_PERCENT:
            return FAIL, f"up to {max(loads)} % busy", "a job that is not visible from here runs on it", todo
        if gpu.memory_used_bytes > MEMORY_IN_USE * gpu.memory_bytes:
            used = f"{gpu.memory_used_bytes / 2**30:.1f} GiB in use by no visible process"
            return WARN, used, "another container may be using the GPU", todo
        if not loads:
            return (
                UNKNOWN,
                "the driver does not report utilisation",
                "another job would go unnoticed",
                "check nvidia-smi",
            )
        return None

    return _each(state, "gpu.idle", f"idle in {len(state.samples)} samples", look)


def _idle_ones(state: MachineState) -> str:
    free = [str(gpu.index) for gpu in state.now if not gpu.processes and (gpu.load_percent or 0) <= BUSY_PERCENT]
    if len(free) < state.gpus_required:
        return f"{len(free)} of {state.gpus_required} required are idle now"
    return f"idle now: {VISIBLE}={','.join(free[: state.gpus_required])}"


def clocks(state: MachineState) -> Iterator[CheckResult]:
    """Check that nothing holds the clocks down."""

    def look(gpu: Gpu) -> tuple[str, str, str, str] | None:
        if gpu.reasons is None:
            return (
                UNKNOWN,
                "the driver does not report clock-throttle reasons",
                "slow clocks would go unexplained",
                "check nvidia-smi -q",
            )
        if slow := gpu.slowdowns():
            return (
                FAIL,
                f"throttled: {', '.join(slow)} ({gpu.temperature_c} degrees)",
                "the GPU runs slower than its settings allow, by an amount that varies",
                "let it cool; check fans and power supply; nvidia-smi -q -d PERFORMANCE",
            )
        if limits := gpu.limits():
            return (
                WARN,
                f"{', '.join(limits)} ({gpu.sm_mhz} of {gpu.sm_max_mhz} MHz)",
                "timings are comparable only under the same setting",
                "fine if intended; nvidia-smi -rgc and -rac undo it",
            )
        return None

    return _each(state, "gpu.clocks", "nothing holds the clocks down", look)


def memory_errors(state: MachineState) -> Iterator[CheckResult]:
    """Check ECC: whether it is on, and whether there were uncorrected errors."""

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
                "memory is slightly faster than usual: timings are comparable only under the same setting",
                "nvidia-smi -e 1 turns it on (requires a reset)",
            )
        return None

    return _each(state, "gpu.ecc", "no uncorrected memory errors", look)


def slices(state: MachineState) -> Iterator[CheckResult]:
    """Check for GPUs that are partitioned into MIG slices."""
    chosen = state.environment.get(VISIBLE, "").startswith("MIG-")

    def look(gpu: Gpu) -> tuple[str, str, str, str] | None:
        if not gpu.mig:
            return None
        if chosen:
            return (
                WARN,
                "a MIG slice",
                "only part of a GPU is measured: timings are comparable only on the same slice",
                "record the slice in the run's label",
            )
        return (
            FAIL,
            "partitioned into MIG slices",
            "a launch gets one slice, while the record would name the whole GPU",
            f"select one slice with {VISIBLE}=MIG-..., or turn MIG off",
        )

    if chosen and state.now and not used_now(state):
        yield CheckResult(
            id="gpu.mig",
            state=WARN,
            saw=f"{VISIBLE} names a MIG slice",
            means="its load and clocks cannot be read",
            todo="compare it only with runs on the same slice",
        )
        return
    yield from _each(state, "gpu.mig", "whole GPUs", look)
