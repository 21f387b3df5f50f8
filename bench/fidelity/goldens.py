"""Goldens: accepted native outputs, each for exactly one configuration.

``<goldens>/<model>/<digest of the key>/<number>/`` has ``golden.json`` and ``picture.npz``; the highest number counts.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
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

    from bench.fidelity.similarity import Similarity

DOCUMENT = "golden.json"
PICTURE = "picture.npz"
DIGEST_CHARACTERS = 16

NONE, EQUAL, WITHIN, DIFFERENT = "none", "equal", "within", "different"
STATUSES = (NONE, EQUAL, WITHIN, DIFFERENT)
"""From the least to the most evidence against an output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """The comparison of an output with its golden.

    ``status``: none (for this configuration; ``differs`` lists how the closest golden's differs), equal, within
    (another machine's, inside the tolerance) or different. ``stored`` is the number of the golden that this run made.
    """

    status: str
    key: Mapping[str, Any]
    differs: tuple[str, ...] = ()
    number: int | None = None
    same_machine: bool | None = None
    picture: Similarity | None = None
    repeatable: bool = True
    stored: int | None = None

    @property
    def passed(self) -> bool:
        """Whether nothing contradicts the output; without a golden, nothing confirms it either."""
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
        InvalidDocument: it was modified, or cannot be read.
    """
    document = schema.read(folder / DOCUMENT)
    schema.check(document, "golden", folder / DOCUMENT)
    try:
        with np.load(folder / PICTURE, allow_pickle=False) as file:
            picture = file["picture"]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InvalidDocument(f"the golden's picture cannot be read: {error}", where=folder / PICTURE) from error
    if _sha256(picture) != document["picture_sha256"]:
        raise InvalidDocument(
            "the golden's picture does not match its document", where=folder, todo="restore or remove it"
        )
    return dict(document), picture


def compare(model: str, key: Mapping[str, Any], machine: str, picture: NDArray[np.uint8]) -> Golden:
    """Compare ``picture`` with the newest golden of exactly this configuration.

    Raises:
        InvalidDocument: the stored golden is broken.
    """
    folder = paths.goldens() / model / _digest(key)
    numbers = _numbers(folder)
    if not numbers:
        return Golden(status=NONE, key=key, differs=_nearest(model, key))
    document, stored = _read(folder / f"{numbers[-1]:04d}")
    similar = similarity.compare(picture, stored)
    same = document["machine"] == machine
    status = EQUAL if similar.identical else DIFFERENT
    if status == DIFFERENT and not same and thresholds.SAME_KIND_OF_MACHINE.passes(similar):
        status = WITHIN
    return Golden(status=status, key=key, number=numbers[-1], same_machine=same, picture=similar)


def are_kept(model: str) -> bool:
    """Tell whether there is a golden of this model in any configuration."""
    return any((paths.goldens() / model).glob(f"*/*/{DOCUMENT}"))


def _nearest(model: str, key: Mapping[str, Any]) -> tuple[str, ...]:
    """Return how the configuration of this model's closest golden differs; empty if the model has no golden."""
    best: tuple[str, ...] = ()
    for path in sorted((paths.goldens() / model).glob(f"*/*/{DOCUMENT}")):
        document = schema.read(path)
        schema.check(document, "golden", path)
        stored, present = _flat(document["key"]), _flat(key)
        differs = tuple(
            _difference(name, stored.get(name), present.get(name))
            for name in sorted({*stored, *present})
            if stored.get(name) != present.get(name)
        )
        if not best or len(differs) < len(best):
            best = differs
    return best


def _difference(name: str, then: Any, now: Any) -> str:
    """Return one difference between two configurations in words; for lists, the words that only one side has."""
    if isinstance(then, list) and isinstance(now, list):
        sides = {"there": set(then) - set(now), "here": set(now) - set(then)}
        only = [f"only {where}: {' '.join(sorted(words))}" for where, words in sides.items() if words]
        return f"{name} {'; '.join(only) or 'differs in order or count'}"
    if name == "launch":
        return f"made by invoke {'bench' if now is None else 'accuracy'}"  # only bench's goldens have launch arguments
    return f"{name} {then!r}, here {now!r}"


def _flat(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name != "sampling"} | dict(content["sampling"])


def keep(model: str, key: Mapping[str, Any], machine: str, picture: NDArray[np.uint8], reason: str, run: str) -> int:
    """Store ``picture`` as the newest golden of this configuration and return its number; older ones stay.

    Raises:
        UsageError: it cannot be written.
    """
    folder = paths.goldens() / model / _digest(key)
    number = max(_numbers(folder), default=0) + 1
    document = {
        "schema": "golden",
        "schema_version": 1,
        "key": dict(key),
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
        work.rename(folder / f"{number:04d}")  # fails if another run took the number, so nothing is replaced
    except OSError as error:
        raise UsageError(f"the golden cannot be written: {error.strerror}", where=folder) from error
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)
    return number


def as_document(golden: Golden) -> dict[str, Any]:
    """Return the result as a report holds it."""
    return asdict(golden) | {"passed": golden.passed}
