"""What was asked against what the log says was resolved and delivered."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bench.catalog import signals
from bench.fallback import finding as f
from bench.fallback import receipts
from bench.fallback.expectation import DIFFUSERS
from bench.fallback.facts import CORE_COMPONENT, NATIVE_IMPLEMENTATION
from bench.fallback.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from bench.fallback.expectation import Expectation
    from bench.fallback.facts import Facts

TOLD_SINCE = ">=0.5.15"
"""Versions that tell the attention backend by component; before, the text encoders told theirs in the same words."""

SAMPLING = {
    "seed": "seed",
    "steps": "infer_steps",
    "width": "width",
    "height": "height",
    "frames": "num_frames",
    "guidance": "guidance_scale",
}
"""Field of the expectation -> name in the engine's list of sampling parameters."""


def check(facts: Facts, expectation: Expectation) -> list[Finding]:
    """Return a finding for each value that differs from what was asked for."""
    arguments = {
        "num_gpus": expectation.gpus,
        "attention_backend": expectation.attention_backend,
        "enable_torch_compile": expectation.compile,
    }
    return [
        *_compare("arguments", arguments, facts.server_args or {}),
        *_compare("request", {SAMPLING[name]: getattr(expectation, name) for name in SAMPLING}, facts.sampling),
        *_attention(facts, expectation),
        *_device(facts, expectation),
    ]


def components(facts: Facts, expectation: Expectation, known: Iterable[Finding]) -> Iterator[Finding]:
    """Yield a finding for each component that is not shown to be the engine's own class.

    ``known`` are the findings so far: a component that one of them names is not told twice.
    """
    if expectation.backend == DIFFUSERS:
        return
    told = {finding.component for finding in known if finding.category == "component"}
    for component in facts.components.values():
        if component.implementation != NATIVE_IMPLEMENTATION and component.name not in told:
            yield _of_component(
                "implementation",
                component.name,
                f"{component.name}: {component.cls}, {component.implementation}",
                "the component runs in transformers' or diffusers' own class",
                line=component.line,
            )
    for name in facts.unproven():
        if name not in told:
            yield _of_component(
                "unproven",
                name,
                f"{name} was announced, and no line says which class was loaded",
                "missing proof that the component is the engine's own class",
                exit_code=f.EVIDENCE_MISSING,
            )


def _of_component(
    identity: str, name: str, text: str, means: str, *, line: int | None = None, exit_code: int = f.FALLBACK
) -> Finding:
    return Finding(
        id=f"component.{identity}",
        category="component",
        severity=f.INVALID if CORE_COMPONENT.search(name) else f.DEGRADED,
        source="log",
        text=text,
        means=means,
        todo="read the loader's lines about it in the log; the checkpoint's key names are a common cause",
        line=line,
        component=name,
        exit_code=exit_code,
    )


def _compare(what: str, asked: Mapping[str, object], said: Mapping[str, object]) -> Iterator[Finding]:
    for name, wanted in asked.items():
        if wanted is not None and name in said and said[name] != wanted:
            yield _finding(
                f"{what}.{name}",
                f"{name} = {said[name]!r}, asked for {wanted!r}",
                "the engine resolved a different value from the one requested, so a different workload was timed",
                "an argument handed on after --, or the model's own fixed value, contradicts the preset",
            )


def _attention(facts: Facts, expectation: Expectation) -> Iterator[Finding]:
    wanted = expectation.attention_backend
    if wanted is None or expectation.backend == DIFFUSERS:
        return
    for component, backends in facts.attention.items():
        if wanted not in receipts.words(backends):
            yield _finding(
                "request.attention_backend",
                f"{component}: {backends}, asked for {wanted}",
                "an attention backend other than the requested one was dispatched",
                "the log says why: not installed, not for this device, or not for this head size",
            )
    if not facts.attention and expectation.version is not None and signals.applies(TOLD_SINCE, expectation.version):
        yield replace(
            _finding(
                "request.attention_untold",
                f"no log line names the attention backend that was dispatched, asked for {wanted}",
                "missing proof that the requested backend ran",
                "families with attention of their own (SD3, SANA) leave the engine's choice unused: ask for none there",
            ),
            severity=f.DEGRADED,
        )


def _device(facts: Facts, expectation: Expectation) -> Iterator[Finding]:
    # other vendors' devices have names of their own in the log, and are expected as "cuda"
    if {facts.device, expectation.device} == {"cpu", "cuda"}:
        yield _finding(
            "request.device",
            f"device={facts.device}, expected {expectation.device}",
            "the engine ran on a different type of device than the preflight found",
            "the engine's torch does not see the device: look at its build, its driver and CUDA_VISIBLE_DEVICES",
        )


def _finding(identity: str, text: str, means: str, todo: str) -> Finding:
    return Finding(id=identity, category="shape", severity=f.INVALID, source="log", text=text, means=means, todo=todo)
