"""The verdict on a run: native, degraded or invalid, with every piece of evidence."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from bench.errors import EngineFailed, TimedOut
from bench.fallback import delivered
from bench.fallback import finding as f
from bench.fallback.expectation import NATIVE
from bench.fallback.finding import Component, Finding, Proof
from bench.fallback.receipts import Receipt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bench.errors import BenchError
    from bench.fallback.guard import Guard
    from bench.process import Ended

NATIVE_VERDICT = "native"
DIFFUSERS_VERDICT = "diffusers"
DEGRADED = "degraded"
INVALID = "invalid"

SHOWN_CHARACTERS = 300
DEVICE = "device"
"""The source of findings that were seen beside a launch, which hold however it ended."""

AFTER_THE_LOG = 1 << 60
"""Where a finding that is in no log line is ordered: behind those that are, which tend to name the cause."""

OUTCOMES = (NATIVE_VERDICT, DIFFUSERS_VERDICT, DEGRADED, INVALID)
"""From best to worst: a run is what its worst launch was."""

CUT_OFF = frozenset({f.ENGINE_FAILED, f.TIMED_OUT})
"""Ends that take nothing away from the requests finished before; any other makes them doubtful."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The outcome (native, diffusers where that was asked for, degraded, invalid) and all that it rests on."""

    outcome: str
    expected: str
    exit_code: int
    findings: tuple[Finding, ...]
    proofs: tuple[Proof, ...]
    components: tuple[Component, ...]
    receipts: tuple[Receipt, ...] | None = None
    """Of the optional features that were asked for; None: nobody looked."""

    @property
    def counts(self) -> bool:
        """Whether a number of this run may be shown."""
        return self.outcome != INVALID

    def reasons(self) -> list[Finding]:
        """Return the findings that made the outcome, the decisive one first."""
        wanted = {INVALID: (f.INVALID,), DEGRADED: (f.DEGRADED,)}.get(self.outcome, ())
        return [finding for finding in self.findings if finding.severity in wanted]

    def missing(self) -> list[Proof]:
        """Return the required evidence that was not seen."""
        return [proof for proof in self.proofs if not proof.holds]

    def standing(self) -> Verdict:
        """Return the verdict on the requests that the launch had finished: that it was cut off later is only told.

        That holds for a launch that had shown all its evidence; of another, nothing counts.
        """
        if self.missing():
            return self
        findings = tuple(
            replace(finding, severity=f.INFO)
            if finding.severity == f.INVALID and finding.exit_code in CUT_OFF and finding.category == "process"
            else finding
            for finding in self.findings
        )
        outcome = outcome_of(findings, self.expected)
        return self if outcome == INVALID else replace(self, findings=findings, outcome=outcome, exit_code=0)

    def document(self) -> dict[str, Any]:
        """Return the verdict as a record holds it."""
        return {
            "outcome": self.outcome,
            "expected": self.expected,
            "exit_code": self.exit_code,
            "findings": [asdict(finding) for finding in self.findings],
            "evidence": [asdict(proof) | {"holds": proof.holds} for proof in self.proofs],
            "components": [asdict(component) for component in self.components],
            "receipts": None if self.receipts is None else [asdict(receipt) for receipt in self.receipts],
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Return the verdict that a record holds."""
        proofs = ({name: value for name, value in proof.items() if name != "holds"} for proof in document["evidence"])
        return cls(
            outcome=document["outcome"],
            expected=document["expected"],
            exit_code=document["exit_code"],
            findings=tuple(Finding(**finding) for finding in document["findings"]),
            proofs=tuple(Proof(**proof) for proof in proofs),
            components=tuple(Component(**component) for component in document["components"]),
            receipts=None
            if document["receipts"] is None
            else tuple(Receipt(**receipt) for receipt in document["receipts"]),
        )

    def error(self, where: str | Path) -> BenchError | None:
        """Return the error that an invalid verdict ends a task with, None for a run that counts."""
        return None if self.counts else self.reasons()[0].error(where)


def overall(by_launch: Sequence[tuple[Verdict, bool]]) -> Verdict:
    """Return the verdict on several launches, each given with whether it has requests that count.

    It is that of the worst launch with such requests, and tells what disturbed the others; without any, of the last.
    """
    standing = [verdict.standing() for verdict, has_requests in by_launch if has_requests]
    if not standing:
        return by_launch[-1][0]
    worst = max(standing, key=lambda verdict: OUTCOMES.index(verdict.outcome))
    known = {finding.id for finding in worst.findings}
    found = {each.id: each for verdict in standing for each in verdict.findings if each.source == DEVICE}
    return replace(worst, findings=(*worst.findings, *(each for name, each in found.items() if name not in known)))


def conclude(guard: Guard, ended: Ended | None, findings: Sequence[Finding] = ()) -> Verdict:
    """Join everything that is known of a launch into its verdict.

    ``ended`` is how it ended (None: it is still going on, or was made elsewhere); ``findings`` are those about its
    dump, its outputs and its device. Of a launch that the guard stopped only the device's are kept: it was not
    allowed to finish anything.
    """
    expectation, stopped_by = guard.expectation, guard.stopped_by
    proofs = guard.proofs()
    against = [
        *guard.findings.values(),
        *(finding for finding in findings if not stopped_by or finding.source == DEVICE),
    ]
    if stopped_by is None:
        against += _process(ended, guard.last_words())
        against += [_missing(proof) for proof in proofs if not proof.holds]
        if expectation.component_loader:
            against += delivered.components(guard.facts, expectation, tuple(against))
    if stopped_by is None or stopped_by.exit_code == f.ENGINE_FAILED:
        # requests that a session finished before it failed count only if they were of the workload that was asked for
        against += delivered.check(guard.facts, expectation)
    receipts, not_engaged = guard.receipts(against)
    against += not_engaged
    against.sort(key=lambda finding: _rank(finding, stopped_by))
    outcome = outcome_of(against, expectation.backend)
    return Verdict(
        outcome=outcome,
        expected=expectation.backend,
        exit_code=against[0].exit_code if outcome == INVALID else 0,
        findings=tuple(against),
        proofs=tuple(proofs),
        components=tuple(sorted(guard.facts.components.values(), key=lambda component: component.line)),
        receipts=tuple(receipts),
    )


def outcome_of(findings: Sequence[Finding], expected: str) -> str:
    """Return the outcome that findings come to."""
    severities = {finding.severity for finding in findings}
    if f.INVALID in severities:
        return INVALID
    if f.DEGRADED in severities:
        return DEGRADED
    return NATIVE_VERDICT if expected == NATIVE else DIFFUSERS_VERDICT


def _rank(finding: Finding, stopped_by: Finding | None) -> tuple[int, int, int, int]:
    """Order findings: invalid first, and among these what stopped the run, then a fallback before its consequences."""
    severity = (f.INVALID, f.DEGRADED, f.INFO).index(finding.severity)
    stopped = stopped_by is not None and finding.id == stopped_by.id
    causes = (f.TIMED_OUT, f.FALLBACK, f.ENGINE_FAILED, f.INVALID_DUMP, f.EVIDENCE_MISSING)
    cause = causes.index(finding.exit_code) if severity == 0 else 0
    return severity, not stopped, cause, finding.line or AFTER_THE_LOG


def _process(ended: Ended | None, last_words: str | None) -> list[Finding]:
    """Return what the end of a launch says against it, where the guard did not bring it about."""
    if ended is None:
        return []
    if isinstance(ended.stopped_by, TimedOut):
        return [
            _of_process(
                "timeout",
                "stopped at the time limit",
                "the launch did not finish within its time limit",
                "give it a longer time limit",
                f.TIMED_OUT,
            )
        ]
    if isinstance(ended.stopped_by, EngineFailed):
        return [
            _of_process(
                "request",
                ended.stopped_by.what,
                "the engine could not serve the session to its end",
                "read the log's last lines; a resumed run adds what is missing",
                f.ENGINE_FAILED,
            )
        ]
    if ended.exit_code in (None, 0):
        return []
    return [
        _of_process(
            "exit",
            f"exit code {ended.exit_code}; {last_words or 'it printed nothing'}",
            "the engine ended with an error",
            "read the log's last lines",
            f.ENGINE_FAILED,
        )
    ]


def _of_process(name: str, text: str, means: str, todo: str, exit_code: int) -> Finding:
    return Finding(
        id=f"process.{name}",
        category="process",
        severity=f.INVALID,
        source="process",
        text=text[:SHOWN_CHARACTERS],
        means=means,
        todo=todo,
        exit_code=exit_code,
    )


def _missing(proof: Proof) -> Finding:
    seen = "was not seen" if not proof.seen else f"was seen {proof.seen} of {proof.needed} times"
    return Finding(
        id=f"evidence.{proof.id}",
        category="process",
        severity=f.INVALID,
        source="log",
        text=f"its log line {seen}",
        means=f"missing proof that {proof.proves}",
        todo="run at log level info, which prints it; if a newer engine words it differently,"
        " update bench/catalog/evidence.toml",
        exit_code=f.EVIDENCE_MISSING,
    )
