"""The guard of one launch: sees arguments, environment and every log line, and stops it at the first invalid line."""

from __future__ import annotations

import functools
import re
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.catalog import signals as catalog
from bench.catalog.receipts import Sign
from bench.catalog.signals import Evidence, Signal
from bench.fallback import finding as f
from bench.fallback import own_code, receipts, settings
from bench.fallback.expectation import DIFFUSERS, NATIVE
from bench.fallback.facts import CORE_COMPONENT, PATTERNS, Facts
from bench.fallback.finding import Finding, Proof
from bench.fallback.matcher import Matcher, clean, lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bench.fallback.expectation import Expectation
    from bench.fallback.receipts import Asked, Receipt

SHOWN_CHARACTERS = 300
KEPT_FINDINGS = 200
"""Of those that are invalid, and of the others: lines of no weight cannot crowd out the one that decides."""
OVERLAP_CHARACTERS = 1024
"""Of a line that came in pieces: longer than anything that a signal listens for."""
KEPT_LINES = 1000
"""Of a piece of evidence: more than a session has requests, and bounded however long a log is."""
KEPT_TAIL = 16_384
ERROR_LINE = re.compile(r"^(?!\s).*?(?:Error|Exception|error)\b.*: ?\S")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rules:
    """The signals, the evidence and the receipts' signs of one version, compiled."""

    entries: tuple[Signal | Evidence | Sign | str, ...]
    """What each of the matcher's patterns is of; a word is a kind of `facts.PATTERNS`."""
    matcher: Matcher
    evidence: tuple[Evidence, ...]
    on_settings: Mapping[str, tuple[Signal, ...]]
    """Signals on arguments and variables, by where they look."""


@functools.cache
def _rules(version: str | None) -> _Rules:
    """Return the rules of a version; compiling some 200 patterns takes a while, so each version is compiled once."""
    signals = [signal for signal in catalog.signals() if catalog.applies(signal.versions, version)]
    evidence = tuple(entry for entry in catalog.evidence() if catalog.applies(entry.versions, version))
    by_source = {on: tuple(s for s in signals if s.on == on) for on in ("log", "argument", "environment")}
    listened: tuple[Signal | Evidence | Sign, ...] = (*by_source.pop("log"), *evidence, *receipts.signs_of(version))
    return _Rules(
        entries=(*listened, *PATTERNS),
        matcher=Matcher([*(entry.pattern for entry in listened), *PATTERNS.values()]),
        evidence=evidence,
        on_settings=by_source,
    )


class Guard:
    """Watches one launch for an `Expectation`; `observe` raises at the first line that makes the run invalid.

    It is the observer of `process.stream`. ``stop=False`` collects without stopping, for logs made elsewhere.
    """

    def __init__(self, expectation: Expectation, *, stop: bool = True) -> None:
        self.expectation = expectation
        self.findings: dict[tuple[str, str | None], Finding] = {}
        self.facts = Facts()
        self.stopped_by: Finding | None = None
        self.lines = 0
        self._stop = stop
        self._start = time.monotonic()
        self._tail = ""
        self._unfinished = ""
        self._conditions = expectation.conditions()
        self._rules = _rules(expectation.version)
        self._signs = receipts.Signs()
        self._asked: list[Asked] | None = None  # by arguments and variables; None: they are not known
        self._lines: dict[str, deque[str]] = {}
        self._seen: dict[str, tuple[int, int, str]] = {}  # evidence id -> (count, first line, its text)

    def start(self) -> None:
        """Set the clock to zero: the launch begins now."""
        self._start = time.monotonic()

    # --- before anything starts -------------------------------------------------------------------------------------

    def precheck(self, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        """Look at arguments, the checkpoint that they name, and the variables that were set for the engine.

        Raises:
            FallbackDetected: one of them will make the run invalid; nothing needs to be started to know it.
        """
        for on, said in (("argument", settings.of_arguments(argv)), ("environment", environment.items())):
            for name, value in said:
                for signal in self._rules.on_settings[on]:
                    if name in signal.names and settings.holds(signal, value):
                        self._signal(signal, f"{name}={value}" if value else name, None, {})
        if self.expectation.backend == NATIVE:
            for found in own_code.findings(argv):
                self._add(found)

    def note(self, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        """Keep what arguments and environment say beside the number; what makes a run invalid is `precheck`'s."""
        self._asked = receipts.wanted(argv, environment)
        scout = Guard(self.expectation, stop=False)
        scout.precheck(argv, environment)
        for found in scout.findings.values():
            if found.severity != f.INVALID:
                self._add(found)

    # --- while it runs ----------------------------------------------------------------------------------------------

    def observe(self, block: bytes, first_line: int) -> None:
        """Take a block of whole lines of the log.

        Raises:
            FallbackDetected: a line says that this is not the run that was asked for.
            EngineFailed: a line says that the engine has failed; some versions would still exit 0.
        """
        self.lines = first_line + block.count(b"\n") - 1
        text = clean(block.decode("utf-8", "replace"))
        self._tail = (self._tail + text)[-KEPT_TAIL:]
        carried, self._unfinished = self._unfinished, ""
        if text and text[-1] not in "\r\n":
            self._unfinished = (carried + text)[-OVERLAP_CHARACTERS:]
        text = carried + text
        # `(?m)` patterns meet "\n" as a line end; a carriage return must be one too
        if not self._rules.matcher.find(text.replace("\r", "\n") if "\r" in text else text):
            return
        known = frozenset(self._rules.matcher.find(carried)) if carried else frozenset()
        for number, line in lines(text, first_line):
            self._line(number, line, known)
            known = frozenset()

    def _line(self, number: int, line: str, known: frozenset[int]) -> None:
        """Take a line; what is ``known`` was heard in its beginning, which came with the block before."""
        if "server_args: {" in line:
            # set aside: it repeats every argument, and what it says of the backend stays true after a fallback
            self.facts.learn("server_args", {}, line, number)
            if self.facts.server_args is not None:  # else it was cut: what was asked for cannot be read in it
                self._count("server-args", number, line)
            return
        entries, matcher = self._rules.entries, self._rules.matcher
        heard = [index for index in matcher.find(line) if index not in known]
        # signs first: a signal may stop the launch at this line, and its receipt is to name the line all the same
        for index in sorted(heard, key=lambda index: not isinstance(entries[index], Sign)):
            entry, groups = entries[index], matcher.groups(index, line)
            if isinstance(entry, Signal):
                self._signal(entry, line, number, groups)
            elif isinstance(entry, Evidence):
                self._proof(entry, number, line, groups)
            elif isinstance(entry, Sign):
                self._signs.see(entry, number, line[:SHOWN_CHARACTERS], groups)
            else:
                self.facts.learn(entry, groups, line, number, at_s=self._elapsed())
                if entry == "loading" and self._stop and self.expectation.backend == NATIVE:
                    # a model of the hub is on this machine only now
                    for found in own_code.of_component(groups["component"], Path(groups["folder"]) / "config.json"):
                        self._add(replace(found, source="log", line=number, at_s=self._elapsed()))

    def _proof(self, entry: Evidence, number: int, line: str, groups: Mapping[str, str]) -> None:
        if entry.shows == NATIVE and any(groups.get(name, "").startswith("Diffusers") for name in ("cls", "stage")):
            return  # the same sentence about the other backend: a signal's business
        self._count(entry.id, number, line)
        if entry.shows == NATIVE and self.expectation.backend == DIFFUSERS:
            self._add(_native_instead(line, number, self._elapsed()))

    def _count(self, identity: str, number: int, line: str) -> None:
        count, first, text = self._seen.get(identity, (0, number, line[:SHOWN_CHARACTERS]))
        self._seen[identity] = (count + 1, first, text)
        self._lines.setdefault(identity, deque(maxlen=KEPT_LINES)).append(line[:SHOWN_CHARACTERS])

    # --- judging ----------------------------------------------------------------------------------------------------

    def _signal(self, signal: Signal, text: str, line: int | None, groups: Mapping[str, str]) -> None:
        if not self._conditions.issuperset(signal.only):
            return
        if "a" in groups and groups["a"] == groups.get("b"):
            return  # "Adjusting ... from A to B" is printed also when nothing is adjusted
        severity = signal.severity
        component = groups.get("component")
        if signal.by_component and severity == f.INVALID and component and not CORE_COMPONENT.search(component):
            severity = f.DEGRADED
        if signal.shows == self.expectation.backend:
            severity = f.INFO
        self._add(
            Finding(
                id=signal.id,
                category=signal.category,
                severity=severity,
                source=signal.on,
                text=text.strip()[:SHOWN_CHARACTERS],
                means=signal.means,
                todo=signal.todo,
                line=line,
                at_s=self._elapsed() if line is not None else None,
                component=component,
                exit_code=f.ENGINE_FAILED if signal.category == "process" else f.FALLBACK,
            )
        )

    def _elapsed(self) -> float | None:
        return round(time.monotonic() - self._start, 3) if self._stop else None

    def _add(self, found: Finding) -> None:
        """Keep a finding (repeats are counted, not kept) and stop the launch if it is invalid."""
        key = (found.id, found.component)
        if key in self.findings:
            first = self.findings[key]
            self.findings[key] = replace(first, count=first.count + 1)
        elif self._has_room(found.severity == f.INVALID):
            self.findings[key] = found
        if found.severity == f.INVALID and self._stop:
            self.stopped_by = found
            raise found.error()

    def _has_room(self, is_invalid: bool) -> bool:
        kept = sum((finding.severity == f.INVALID) is is_invalid for finding in self.findings.values())
        return kept < KEPT_FINDINGS

    def seen_lines(self, evidence: str) -> list[str]:
        """Return the last lines that a piece of evidence was found in, in order."""
        return list(self._lines.get(evidence, ()))

    def last_words(self) -> str | None:
        """Return the last line of the log that reads like an error, else the last that is not empty."""
        said = [line.strip() for line in self._tail.replace("\r", "\n").split("\n") if line.strip()]
        errors = [line for line in said if ERROR_LINE.match(line)]
        return next(iter((errors or said)[-1:]), None)

    # --- at the end -------------------------------------------------------------------------------------------------

    def proofs(self) -> list[Proof]:
        """Return each required piece of evidence with where it was seen; alternatives are joined into one."""
        joined: dict[str, Proof] = {}
        for entry in self._rules.evidence:
            if not self._conditions.issuperset(entry.required):
                continue
            count, line, text = self._seen.get(entry.id, (0, None, None))
            proof = Proof(id=entry.id, proves=entry.proves, seen=count, needed=entry.at_least, line=line, text=text)
            if entry.proves not in joined or (proof.holds and not joined[entry.proves].holds):
                joined[entry.proves] = proof
        return list(joined.values())

    def receipts(self, known: Iterable[Finding]) -> tuple[list[Receipt], list[Finding]]:
        """Return a receipt for each optional feature that was asked for, and what those say that did not engage.

        ``known`` are the findings so far. A launch that the guard stopped may not have come to a feature.
        """
        if self.expectation.backend != NATIVE:
            return [], []
        asked = self._asked
        if asked is None:
            asked = receipts.wanted_by_resolved(self.facts.server_args or {})
        is_whole = self.stopped_by is None
        given = receipts.judge(asked, self._signs, self.facts, self.expectation.version, is_whole=is_whole)
        return given, receipts.findings(asked, given, known) if is_whole else []


def _native_instead(line: str, number: int, at_s: float | None) -> Finding:
    return Finding(
        id="native.instead",
        category="pipeline",
        severity=f.INVALID,
        source="log",
        text=line.strip()[:SHOWN_CHARACTERS],
        means="this run was meant to use the diffusers backend, and the native one ran",
        todo="pass --backend=diffusers, or expect a native run",
        line=number,
        at_s=at_s,
    )
