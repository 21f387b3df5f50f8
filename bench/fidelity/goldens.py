"""Goldens: native outputs that were accepted, each for one configuration and for no other.

``<goldens>/<model>/<digest of the key>/<number>/`` has ``golden.json`` and ``picture.npz``; the highest number counts.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import paths, schema
from bench.errors import InvalidDocument, UsageError
from bench.fidelity import similarity, thresholds
from bench.record import store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from bench.fidelity.similarity import Likeness

DOCUMENT = "golden.json"
PICTURE = "picture.npz"
DIGEST_CHARACTERS = 16

NONE, EQUAL, WITHIN, DIFFERENT = "none", "equal", "within", "different"
STATUSES = (NONE, EQUAL, WITHIN, DIFFERENT)
"""From the least that speaks against an output to the most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """How the output is to its golden.

    ``status``: none (for this configuration; ``differs`` says what the nearest stored one has otherwise), equal,
    within (another machine's, inside the tolerance) or different. ``stored`` is the golden that this run made.
    """

    status: str
    key: Mapping[str, Any]
    differs: tuple[str, ...] = ()
    number: int | None = None
    same_machine: bool | None = None
    picture: Likeness | None = None
    repeatable: bool = True
    stored: int | None = None

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against the output; without a golden nothing speaks for it either."""
        return self.repeatable and self.status != DIFFERENT


def _digest(content: Mapping[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:DIGEST_CHARACTERS]


def _sha256(picture: NDArray[np.uint8]) -> str:
    return hashlib.sha256(np.ascontiguousarray(picture).tobytes()).hexdigest()


def _numbers(folder: Path) -> list[int]:
    return sorted(int(path.parent.name) for path in folder.glob(f"*/{DOCUMENT}") if path.parent.name.isdigit())


def _read(folder: Path) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    """Return a golden's document and picture.

    Raises:
        InvalidDocument: it was changed since, or cannot be read.
    """
    document = schema.read(folder / DOCUMENT)
    schema.check(document, "golden", folder / DOCUMENT)
    try:
        with np.load(folder / PICTURE, allow_pickle=False) as file:
            picture = file["picture"]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InvalidDocument(f"a golden's picture cannot be read: {error}", where=folder / PICTURE) from error
    if _sha256(picture) != document["picture_sha256"]:
        raise InvalidDocument(
            "a golden's picture is not the one that its document names", where=folder, todo="restore or remove it"
        )
    return dict(document), picture


def compare(model: str, wanted: Mapping[str, Any], machine: str, picture: NDArray[np.uint8]) -> Golden:
    """Return how ``picture`` is to the newest golden of exactly this configuration.

    Raises:
        InvalidDocument: the stored golden is broken.
    """
    folder = paths.goldens() / model / _digest(wanted)
    numbers = _numbers(folder)
    if not numbers:
        return Golden(status=NONE, key=wanted, differs=_nearest(model, wanted))
    document, stored = _read(folder / f"{numbers[-1]:04d}")
    found = similarity.likeness(picture, stored)
    same = document["machine"] == machine
    status = EQUAL if found.identical else DIFFERENT
    if status == DIFFERENT and not same and thresholds.SAME_KIND_OF_MACHINE.passes(found):
        status = WITHIN
    return Golden(status=status, key=wanted, number=numbers[-1], same_machine=same, picture=found)


def _nearest(model: str, wanted: Mapping[str, Any]) -> tuple[str, ...]:
    """Return in what the most similar golden of this model was made otherwise; empty if there is none at all."""
    best: tuple[str, ...] = ()
    for path in sorted((paths.goldens() / model).glob(f"*/*/{DOCUMENT}")):
        document = schema.read(path)
        schema.check(document, "golden", path)
        theirs, mine = _flat(document["key"]), _flat(wanted)
        names = sorted({*theirs, *mine})
        differs = tuple(
            _difference(name, theirs.get(name), mine.get(name)) for name in names if theirs.get(name) != mine.get(name)
        )
        if not best or len(differs) < len(best):
            best = differs
    return best


def _difference(name: str, then: Any, now: Any) -> str:
    """Return one thing that two configurations have otherwise; of two lists what only one of them has."""
    if isinstance(then, list) and isinstance(now, list):
        sides = {"there": set(then) - set(now), "here": set(now) - set(then)}
        said = [f"only {where}: {' '.join(sorted(words))}" for where, words in sides.items() if words]
        return f"{name} {'; '.join(said) or 'in another order or number'}"
    if name == "launch":
        return (
            f"made by invoke {'bench' if now is None else 'accuracy'}"  # which of the two has no arguments of its own
        )
    return f"{name} {then!r}, here {now!r}"


def _flat(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name != "sampling"} | dict(content["sampling"])


def keep(model: str, wanted: Mapping[str, Any], machine: str, picture: NDArray[np.uint8], reason: str, run: str) -> int:
    """Keep ``picture`` as the newest golden of this configuration and return its number; older ones stay.

    Raises:
        UsageError: it cannot be written.
    """
    folder = paths.goldens() / model / _digest(wanted)
    number = max(_numbers(folder), default=0) + 1
    document = {
        "schema": "golden",
        "schema_version": 1,
        "key": dict(wanted),
        "machine": machine,
        "picture_sha256": _sha256(picture),
        "shape": list(picture.shape),
        "reason": reason,
        "made": store.now().isoformat(),
        "run": run,
    }
    work = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".new.", dir=folder))
        np.savez_compressed(work / PICTURE, picture=picture)
        schema.write(document, "golden", work / DOCUMENT)
        work.chmod(0o755)
        work.rename(folder / f"{number:04d}")  # fails if another run took the number: nothing is replaced
    except OSError as error:
        raise UsageError(f"the golden cannot be written: {error.strerror}", where=folder) from error
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)
    return number


def document(golden: Golden) -> dict[str, Any]:
    """Return the result as a report holds it."""
    return asdict(golden) | {"key": dict(golden.key), "differs": list(golden.differs), "passed": golden.passed}


def with_store(golden: Golden, *, repeatable: bool, stored: int | None) -> Golden:
    """Return the result with what this run found of its own repetition, and the number of the golden that it made."""
    return replace(golden, repeatable=repeatable, stored=stored)
