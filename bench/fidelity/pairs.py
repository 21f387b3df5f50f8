"""The outputs of two sides of a comparison against each other: what their records say, and how like the files are."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bench import paths
from bench.fallback import media
from bench.fidelity import frames, similarity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bench.fidelity.similarity import Likeness
    from bench.fidelity.thresholds import Threshold

    Output = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One side: its name, its run directory, and the requests of its record."""

    name: str
    directory: Path
    requests: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Between:
    """What is known of two sides' outputs.

    ``pairs`` were looked at. ``identical``: every pixel of every pair is equal (None: not known). ``likeness`` is that
    of the least alike pair; without one, ``unknown`` says why. ``pixels_sha256`` has each side's first output.
    """

    pairs: int = 0
    video: bool = False
    identical: bool | None = None
    pixels_sha256: tuple[str | None, str | None] = (None, None)
    likeness: Likeness | None = None
    unknown: str | None = None

    def missed(self, threshold: Threshold) -> str | None:
        """Return in words what the outputs miss of a threshold, None if they meet it; not known is missed."""
        if self.identical:
            return None
        if self.likeness is not None:
            return threshold.missed(self.likeness, video=self.video)
        if self.identical is False and threshold.image is None:
            return f"the pixels differ; how far is not known: {self.unknown}"
        return f"nothing can be compared: {self.unknown}"

    def document(self, threshold: Threshold) -> dict[str, Any]:
        """Return it as a comparison holds it, judged by a threshold; its form is in ``schemas/quality.json``."""
        missed = self.missed(threshold)
        # that pixels differ says enough where every pixel is to be the same
        known = self.identical or self.likeness is not None or (self.identical is False and threshold.image is None)
        return {
            "pairs": self.pairs,
            "identical": self.identical,
            "pixels_sha256": list(self.pixels_sha256),
            "likeness": None if self.likeness is None else asdict(self.likeness),
            "unknown": self.unknown,
            "threshold": threshold.name,
            "alike": missed is None if known else None,
            "missed": missed,
        }


def not_compared(why: str) -> Between:
    """Return what is known where nothing can be compared, and why."""
    return Between(unknown=why)


def compare(baseline: Side, candidate: Side) -> Between:
    """Return how the candidate's outputs are to the baseline's: request by request, the shorter side repeated.

    Equal hashes of pixels in both records are equality; only pairs that differ, or of which no hash is known, are read
    from their files, and only from files that are still those of the record.
    """
    sizes = len(baseline.requests), len(candidate.requests)
    if 0 in sizes:
        return not_compared("a side has no request")
    pairs: dict[tuple[str, str], tuple[Output, Output]] = {}
    for place in range(max(sizes)):
        one, other = baseline.requests[place % sizes[0]]["outputs"], candidate.requests[place % sizes[1]]["outputs"]
        if len(one) != len(other):
            return not_compared(f"a request of the baseline made {len(one)} output(s), of the candidate {len(other)}")
        for then, now in zip(one, other, strict=True):
            pairs.setdefault((_hash(then), _hash(now)), (then, now))
    if not pairs:
        return not_compared("no output was kept")
    return _worst([_pair(baseline, candidate, *pair) for pair in pairs.values()])


def _hash(output: Output) -> str:
    """Return what an output is told apart by: its pixels, or the file where they were not read."""
    return str(output["pixels_sha256"] or output["sha256"])


def _pair(baseline: Side, candidate: Side, then: Output, now: Output) -> Between:
    hashes = (then["pixels_sha256"], now["pixels_sha256"])
    files = (baseline.directory / then["file"], candidate.directory / now["file"])
    equal = hashes[0] == hashes[1] if None not in hashes else None
    if equal or then["sha256"] == now["sha256"]:
        return Between(pairs=1, identical=True, pixels_sha256=hashes)
    if not all(map(media.has_pixels, files)):
        kind = next(file for file in files if not media.has_pixels(file)).suffix
        unknown = f"the files differ, and a {kind} is compared by its bytes only"
        return Between(pairs=1, pixels_sha256=hashes, unknown=unknown)
    gone = _gone(baseline.name, files[0], then) or _gone(candidate.name, files[1], now)
    if gone is not None:
        return Between(pairs=1, identical=equal, pixels_sha256=hashes, unknown=gone)
    found = frames.compare(files[1], files[0], ("candidate", "baseline"))
    video = media.is_video(files[0])
    if found.fault is not None:
        return Between(pairs=1, video=video, identical=equal, pixels_sha256=hashes, unknown=found.fault)
    return Between(pairs=1, video=video, identical=found.identical, pixels_sha256=hashes, likeness=found)


def _gone(name: str, path: Path, output: Output) -> str | None:
    """Return why a file cannot stand for what the record says, None if it can."""
    try:
        same = paths.sha256(path) == output["sha256"]
    except OSError as error:
        return f"an output of {name} is no longer there: {path} ({error.strerror})"
    return None if same else f"an output of {name} was changed since: {path}"


def _worst(found: list[Between]) -> Between:
    """Return what holds of all pairs: the least alike one, or why one of them could not be compared."""
    unknown = next((pair for pair in found if pair.unknown is not None), None)
    known = {pair.identical for pair in found}
    # one pair that differs decides, whatever the others are
    identical = False if False in known else None if None in known else True
    least = min(
        (pair for pair in found if pair.likeness is not None), key=lambda pair: _alikeness(pair.likeness), default=None
    )
    return Between(
        pairs=len(found),
        video=any(pair.video for pair in found),
        identical=identical,
        pixels_sha256=found[0].pixels_sha256,
        likeness=None if unknown is not None or least is None else least.likeness,
        unknown=None if unknown is None else unknown.unknown,
    )


def _alikeness(likeness: Likeness | None) -> tuple[float, float]:
    """Return what orders likenesses: SSIM of the worst frame, then its PSNR."""
    assert likeness is not None
    ssim = 1.0 if likeness.worst_ssim is None else likeness.worst_ssim
    return ssim, similarity.IDENTICAL_DB if likeness.worst_psnr_db is None else likeness.worst_psnr_db
