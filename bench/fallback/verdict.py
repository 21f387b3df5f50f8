"""The verdict on a run: native, degraded or invalid, with every piece of evidence."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError, EngineFailed, EvidenceMissing, FallbackDetected, InvalidPerfDump, TimedOut
from bench.fallback import delivered
from bench.fallback import dump as dumps
from bench.fallback import finding as f
from bench.fallback import outputs as files
from bench.fallback.expectation import NATIVE
from bench.fallback.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from bench.fallback.finding import Component, Proof
    from bench.fallback.guard import Guard

NATIVE_VERDICT = "native"
DIFFUSERS_VERDICT = "diffusers"
DEGRADED = "degraded"
INVALID = "invalid"

SHOWN_CHARACTERS = 300
AFTER_THE_LOG = 1 << 60
"""Where a finding that is in no log line is ordered: behind those that are, which tend to name the cause."""

ERRORS: dict[int, type[BenchError]] = {
    f.ENGINE_FAILED: EngineFailed,
    f.FALLBACK: FallbackDetected,
    f.EVIDENCE_MISSING: EvidenceMissing,
    f.INVALID_DUMP: InvalidPerfDump,
    f.TIMED_OUT: TimedOut,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The outcome (native, diffusers where that was asked for, degraded, invalid) and all that it rests on."""

    outcome: str
    expected: str
    exit_code: int
    findings: tuple[Finding, ...]
    proofs: tuple[Proof, ...]
    components: tuple[Component, ...]

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

    def document(self) -> dict[str, Any]:
        """Return the verdict as a record holds it."""
        return {
            "outcome": self.outcome,
            "expected": self.expected,
            "exit_code": self.exit_code,
            "findings": [asdict(finding) for finding in self.findings],
            "evidence": [asdict(proof) | {"holds": proof.holds} for proof in self.proofs],
            "components": [asdict(component) for component in self.components],
        }

    def error(self, where: str | Path) -> BenchError | None:
        """Return the error that an invalid verdict ends a task with, None for a run that counts."""
        if self.counts:
            return None
        first = self.reasons()[0]
        place = f"log line {first.line}: {first.text}" if first.line is not None else first.text
        kind = ERRORS.get(self.exit_code, FallbackDetected)
        return kind(f"{first.id}: {first.means}", where=f"{place}\n         {where}", todo=first.todo)


def conclude(
    guard: Guard,
    *,
    exit_code: int | None,
    timed_out: bool = False,
    dump: Mapping[str, Any] | InvalidPerfDump | None = None,
    outputs: Sequence[files.Output] | None = None,
    requests: Sequence[Finding] = (),
    failed: BenchError | None = None,
    started: datetime | None = None,
    ended: datetime | None = None,
    observed: Sequence[Finding] = (),
) -> Verdict:
    """Join everything that is known of a run into its verdict.

    ``exit_code`` is the engine's (None: not known); ``dump`` is the perf dump, or the error that loading it raised,
    None where it is not asked about; ``outputs`` likewise. ``requests`` are findings about requests read elsewhere,
    ``failed`` is what ended a session otherwise than by a line of its log, ``observed`` is what was seen beside the
    launch.
    """
    expectation = guard.expectation
    findings = [*guard.findings.values(), *observed]
    if guard.stopped_by is None:
        findings += _process(exit_code, guard.last_words(), timed_out=timed_out)
        findings += requests
        if isinstance(failed, EngineFailed):
            findings.append(_failed(failed))
        if isinstance(dump, InvalidPerfDump):
            findings.append(_bad_dump(dump))
        elif dump is not None:
            findings += dumps.check(dump, expectation, started, ended)
        if outputs is not None:
            findings += files.check(outputs, expectation)
    if guard.stopped_by is None or guard.stopped_by.exit_code == f.ENGINE_FAILED:
        # requests that a session finished before it failed were of the workload that was asked for, or they are none
        findings += delivered.check(guard.facts, expectation)
    proofs = guard.proofs()
    if guard.stopped_by is None:
        findings += [_missing(proof) for proof in proofs if not proof.holds]

    severities = {finding.severity for finding in findings}
    if f.INVALID in severities:
        outcome = INVALID
    elif f.DEGRADED in severities:
        outcome = DEGRADED
    else:
        outcome = NATIVE_VERDICT if expectation.backend == NATIVE else DIFFUSERS_VERDICT
    findings.sort(key=lambda finding: _rank(finding, guard.stopped_by))
    invalid = [finding for finding in findings if finding.severity == f.INVALID]
    return Verdict(
        outcome=outcome,
        expected=expectation.backend,
        exit_code=invalid[0].exit_code if invalid else 0,
        findings=tuple(findings),
        proofs=tuple(proofs),
        components=tuple(sorted(guard.facts.components.values(), key=lambda component: component.line)),
    )


def _rank(finding: Finding, stopped_by: Finding | None) -> tuple[int, int, int, int]:
    """Order findings: invalid first, and among these what stopped the run, then a fallback before its consequences."""
    severity = (f.INVALID, f.DEGRADED, f.INFO).index(finding.severity)
    stopped = stopped_by is not None and finding.id == stopped_by.id
    causes = (f.TIMED_OUT, f.FALLBACK, f.ENGINE_FAILED, f.INVALID_DUMP, f.EVIDENCE_MISSING)
    cause = causes.index(finding.exit_code) if severity == 0 else 0
    return severity, not stopped, cause, finding.line or AFTER_THE_LOG


def _process(exit_code: int | None, last_words: str | None, *, timed_out: bool) -> list[Finding]:
    if timed_out:
        return [
            Finding(
                id="process.timeout",
                category="process",
                severity=f.INVALID,
                source="process",
                text="stopped at the time limit",
                means="the launch did not finish in the time that it was given",
                todo="give it more with --timeout SECONDS",
                exit_code=f.TIMED_OUT,
            )
        ]
    if exit_code in (None, 0):
        return []
    return [
        Finding(
            id="process.exit",
            category="process",
            severity=f.INVALID,
            source="process",
            text=f"exit code {exit_code}; {last_words or 'it printed nothing'}"[:SHOWN_CHARACTERS],
            means="the engine ended with an error",
            todo="read the log's last lines",
            exit_code=f.ENGINE_FAILED,
        )
    ]


def _failed(error: EngineFailed) -> Finding:
    return Finding(
        id="process.request",
        category="process",
        severity=f.INVALID,
        source="process",
        text=error.what[:SHOWN_CHARACTERS],
        means="the engine could not serve the session to its end",
        todo="read the log's last lines; `invoke bench --resume RUN` goes on with what is missing",
        exit_code=f.ENGINE_FAILED,
    )


def _bad_dump(error: InvalidPerfDump) -> Finding:
    return Finding(
        id="dump.unreadable",
        category="process",
        severity=f.INVALID,
        source="dump",
        text=error.what,
        means="there is no perf dump that a number could come from",
        todo=error.todo or "read the log's last lines",
        exit_code=f.INVALID_DUMP,
    )


def _missing(proof: Proof) -> Finding:
    seen = "was not seen" if not proof.seen else f"was seen {proof.seen} of {proof.needed} times"
    return Finding(
        id=f"evidence.{proof.id}",
        category="process",
        severity=f.INVALID,
        source="log",
        text=f"the line for {proof.proves!r} {seen}",
        means=f"it is not shown that {proof.proves}",
        todo="run at --log-level=info, which prints it; if a new version words it otherwise, mend evidence.toml",
        exit_code=f.EVIDENCE_MISSING,
    )
