"""From arrays and manifests to results: agreement with the reference, and whether each gate rejects its controls."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from bench.accuracy import gates
from bench.accuracy.controls import PERTURBATIONS, TENSOR
from bench.fidelity import similarity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from bench.accuracy.gates import Gate
    from bench.accuracy.plan import Plan
    from bench.fidelity.goldens import Golden
    from bench.fidelity.similarity import Distance, Similarity

    Arrays = Mapping[str, NDArray[Any]]

NATIVE_MODULES = "sglang."


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """A negative control and its distance: it must be ``rejected``, else the gate is blind.

    ``times`` is its relative L2 in units of the gate; None where it has a fault.
    """

    name: str
    done: str
    on: str
    distance: Distance
    times: float | None
    rejected: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One output of a component against the reference's."""

    name: str
    distance: Distance
    gate: Gate
    passed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One component: whose classes were compared, whether the engine's is its own, and each output.

    ``native`` is None if the launch stopped before the component was loaded; ``reason`` is in the engine's words.
    """

    name: str
    native_class: str | None
    reference_class: str
    native: bool | None
    reason: str | None
    outputs: tuple[Output, ...]

    @property
    def passed(self) -> bool:
        """Whether it is the engine's own and every output agrees."""
        return self.native is True and bool(self.outputs) and all(output.passed for output in self.outputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One denoise step (1-based): the two time steps and the distance of the latents after it."""

    step: int
    timestep: float
    reference_timestep: float
    distance: Distance


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """Latents after each step against diffusers', the pictures, and the distance of each control by step.

    With ``schedule`` the time steps differ (in words), and no latents were compared.
    """

    schedule: str | None
    steps: tuple[Step, ...]
    gate: Gate
    passed: bool
    picture: Similarity
    repeatable: bool
    controls_by_step: Mapping[str, tuple[float | None, ...]]


@dataclass(slots=True, kw_only=True)
class Findings:
    """What a run has found so far; None or empty: not asked, or not reached."""

    reference: dict[str, Any] | None = None
    components: list[Component] = field(default_factory=list)
    trajectory: Trajectory | None = None
    controls: list[Control] = field(default_factory=list)
    golden: Golden | None = None


def components(planned: Plan, arrays: Arrays, reference: Arrays, manifests: tuple[dict[str, Any], dict[str, Any]],
               reasons: Mapping[str, str]) -> tuple[list[Component], list[Control]]:  # fmt: skip
    """Return each component's result and its negative controls: one tensor scaled, the transformer's call perturbed.

    ``manifests`` are the native program's and the reference's; ``reasons`` the engine's, by component.
    """
    native, theirs = manifests
    found, controls = [], []
    for name, reference_class in theirs["classes"].items():
        native_class = native["classes"].get(name)
        is_native = native_class is not None and native_class.startswith(NATIVE_MODULES)
        reason = None
        if native_class is None:
            reason = reasons.get(name, "the engine's pipeline lacks this component")
        elif not is_native:
            reason = reasons.get(name, "the engine's log does not say why")
        outputs = []
        fault = native["components"]["plain"]["faults"].get(name)
        for output, theirs_name in _outputs(planned, name).items() if is_native else ():
            gate = gates.component(planned.options.dtype, name)
            key = f"component/{name}/out/{theirs_name}"
            distance = _distance(arrays.get(f"component/plain/{name}/{output}"), reference.get(key))
            own = fault or native["components"]["plain"]["faults"].get(f"{name}.{output}")
            if own is not None:
                distance = similarity.Distance(fault=own)
            outputs.append(Output(name=output, distance=distance, gate=gate, passed=gate.passes(distance)))
            if own is None:
                controls += _component_controls(planned, arrays, reference.get(key), native, (name, output, gate))
        found.append(
            Component(
                name=name,
                native_class=native_class,
                reference_class=reference_class,
                native=is_native,
                reason=reason,
                outputs=tuple(outputs),
            )
        )
    return found, controls


def _component_controls(
    planned: Plan,
    arrays: Arrays,
    reference: NDArray[Any] | None,
    native: Mapping[str, Any],
    where: tuple[str, str, Gate],
) -> list[Control]:
    """Return the negative controls of one output of a component (``where``: component, output, gate)."""
    name, output, gate = where
    asked = planned.controls
    cases = {TENSOR: ""} if TENSOR in asked.perturbations else {}
    if name.startswith("transformer"):
        cases |= {case: words for case, (_, words) in asked.call_perturbations.items()}
        cases |= {case: _changes(changes) for case, changes in asked.wrong_calls.items()}
    found = []
    for case, words in cases.items():
        what = native["components"][case]["perturbed"].get(name, [])
        wrong = _distance(arrays.get(f"component/{case}/{name}/{output}"), reference)
        lacking = "" if what else ": the call has no such argument"
        done = _perturbed(TENSOR, what) if case == TENSOR else f"{words}{lacking}"
        found.append(_control(case, done, f"{name}.{output}", wrong, gate, was_done=bool(what)))
    return found


def _perturbed(case: str, tensors: Sequence[str]) -> str:
    return f"{' and '.join(tensors) or 'no matching tensor'} {PERTURBATIONS[case].words}"


def _changes(changes: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in changes.items())


def _outputs(planned: Plan, name: str) -> Mapping[str, str]:
    if name.startswith("text_encoder"):
        return planned.family.text_encoders.get(name, {})
    return {"decode": "decode", "encode": "encode"} if name == "vae" else {"sample": "sample"}


def _distance(subject: NDArray[Any] | None, reference: NDArray[Any] | None) -> Distance:
    if subject is None:
        return similarity.Distance(fault="the engine's component was not called, or lacks this output")
    if reference is None:
        return similarity.Distance(fault="the reference's component was not called, or lacks this output")
    return similarity.distance(subject, reference)


def _control(name: str, done: str, on: str, distance: Distance, gate: Gate, *, was_done: bool = True) -> Control:
    return Control(
        name=name,
        done=done,
        on=on,
        distance=distance,
        times=None if distance.rel_l2 is None else distance.rel_l2 / gate.rel_l2,
        # a fault is not a rejection: the gate never saw the perturbed output
        rejected=was_done and distance.fault is None and not gate.passes(distance),
    )


def trajectory(
    planned: Plan, arrays: Arrays, reference: Arrays, manifest: Mapping[str, Any]
) -> tuple[Trajectory, list[Control]]:
    """Return the latents' result, and its negative controls: another seed, prompt and guidance, perturbed weights."""
    gate = gates.final_latents(planned.options.dtype)
    picture = similarity.compare(arrays["trajectory/plain/image"], reference["image"])
    repeatable = bool((arrays["trajectory/plain/image"] == arrays["trajectory/again/image"]).all())
    schedule = _schedule(arrays.get("trajectory/plain/timesteps"), reference["timesteps"])
    result = Trajectory(
        schedule=schedule, steps=(), gate=gate, passed=False, picture=picture, repeatable=repeatable,
        controls_by_step={},
    )  # fmt: skip
    if schedule is not None:
        return result, []
    theirs = reference["latents"]
    plain = _by_step(arrays["trajectory/plain/latents"], theirs)
    steps = tuple(
        Step(step=index + 1, timestep=float(t), reference_timestep=float(r), distance=distance)
        for index, (t, r, distance) in enumerate(
            zip(arrays["trajectory/plain/timesteps"], reference["timesteps"], plain, strict=True)
        )
    )
    controls, by_step = [], {}
    for name, case in manifest["cases"].items():
        if name in ("plain", "again"):
            continue
        distances = _by_step(arrays[f"trajectory/{name}/latents"], theirs)
        by_step[name] = tuple(distance.rel_l2 for distance in distances)
        perturbed = [tensor for names in case.get("perturbed", {}).values() for tensor in names]
        changes = planned.controls.requests.get(name, {})
        done = _changes(changes) or _perturbed(name, perturbed)
        was_done = bool(changes or perturbed)
        controls.append(_control(name, done, "final latents", distances[-1], gate, was_done=was_done))
    return replace(result, steps=steps, passed=gate.passes(plain[-1]), controls_by_step=by_step), controls


def _by_step(latents: NDArray[Any], reference: NDArray[Any]) -> list[Distance]:
    """Return the distance after each step; both are [batch, steps, ...]."""
    if latents.shape[1] != reference.shape[1]:
        fault = f"steps differ: native {latents.shape[1]}, reference {reference.shape[1]}"
        return [similarity.Distance(fault=fault)] * reference.shape[1]
    return [similarity.distance(latents[:, step], reference[:, step]) for step in range(reference.shape[1])]


def _schedule(native: NDArray[np.float64] | None, reference: NDArray[np.float64]) -> str | None:
    """Return how two lists of time steps differ, None if they agree; a difference means another scheduler."""
    if native is None:
        return "scheduler mismatch: the engine returned no time steps"
    same = native.shape == reference.shape and bool((abs(native - reference) <= gates.SCHEDULE_TOLERANCE).all())
    if same:
        return None
    shown = [", ".join(f"{time:.3f}" for time in times[:8]) for times in (native, reference)]
    return f"scheduler mismatch: native time steps [{shown[0]}], reference [{shown[1]}]; no latents were compared"
