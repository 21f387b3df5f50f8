"""The outputs of two sides against each other: what their records say, and how similar the files are."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bench import paths
from bench.fallback import media
from bench.fidelity import frames, similarity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bench.fidelity.similarity import Similarity
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
    """The comparison of two sides' outputs.

    ``pairs`` were compared. ``identical``: every pixel of every pair is equal (None: unknown). ``similarity`` is that
    of the least similar pair; without one, ``unknown`` says why. ``pixels_sha256`` has each side's first output.
    """

    pairs: int = 0
    video: bool = False
    identical: bool | None = None
    pixels_sha256: tuple[str | None, str | None] = (None, None)
    similarity: Similarity | None = None
    unknown: str | None = None

    def missed(self, threshold: Threshold) -> str | None:
        """Return in words how the outputs miss a threshold, None if they meet it; unknown similarity misses it."""
        if self.identical:
            return None
        if self.similarity is not None:
            return threshold.missed(self.similarity, video=self.video)
        if self.identical is False and threshold.image is None:
            return f"the pixels differ by an unknown amount: {self.unknown}"
        return f"the outputs cannot be compared: {self.unknown}"

    def as_document(self, threshold: Threshold) -> dict[str, Any]:
        """Return it as ``schemas/quality.json`` describes, judged by a threshold."""
        missed = self.missed(threshold)
        # where every pixel must be equal, it is enough to know that some differ
        known = self.identical or self.similarity is not None or (self.identical is False and threshold.image is None)
        return {
            "pairs": self.pairs,
            "identical": self.identical,
            "pixels_sha256": list(self.pixels_sha256),
            "likeness": None if self.similarity is None else asdict(self.similarity),
            "unknown": self.unknown,
            "threshold": threshold.name,
            "alike": missed is None if known else None,
            "missed": missed,
        }


def compare(baseline: Side, candidate: Side) -> Between:
    """Compare the candidate's outputs with the baseline's, request by request, repeating the shorter side.

    An output that is missing or no longer matches its record shows nothing. Of the others, equal pixel hashes mean
    equality; only the files of unequal pairs are decoded.
    """
    sizes = len(baseline.requests), len(candidate.requests)
    if 0 in sizes:
        return Between(unknown="one side has no requests")
    pairs: dict[tuple[str, str], tuple[Output, Output]] = {}
    for place in range(max(sizes)):
        before, after = baseline.requests[place % sizes[0]]["outputs"], candidate.requests[place % sizes[1]]["outputs"]
        if len(before) != len(after):
            return Between(unknown=f"output count differs: baseline {len(before)}, candidate {len(after)}")
        for then, now in zip(before, after, strict=True):
            pairs.setdefault((_hash(then), _hash(now)), (then, now))
    if not pairs:
        return Between(unknown="no outputs were kept")
    return _worst([_pair(baseline, candidate, *pair) for pair in pairs.values()])


def _hash(output: Output) -> str:
    """Return the hash of an output's pixels, or of the file if the pixels were not read."""
    return str(output["pixels_sha256"] or output["sha256"])


def _pair(baseline: Side, candidate: Side, then: Output, now: Output) -> Between:
    hashes = (then["pixels_sha256"], now["pixels_sha256"])
    files = (baseline.directory / then["file"], candidate.directory / now["file"])
    equal = hashes[0] == hashes[1] if None not in hashes else None
    gone = _gone(baseline.name, files[0], then) or _gone(candidate.name, files[1], now)
    if gone is not None:  # equal hashes in two records show nothing that can still be checked
        return Between(pairs=1, identical=None if equal else equal, pixels_sha256=hashes, unknown=gone)
    if equal or then["sha256"] == now["sha256"]:
        return Between(pairs=1, identical=True, pixels_sha256=hashes)
    if not all(map(media.has_pixels, files)):
        kind = next(file for file in files if not media.has_pixels(file)).suffix
        unknown = f"the files differ, and {kind} files are only compared byte by byte"
        return Between(pairs=1, pixels_sha256=hashes, unknown=unknown)
    found = frames.compare(files[1], files[0], ("candidate", "baseline"))
    video = media.is_video(files[0])
    if found.fault is not None:
        return Between(pairs=1, video=video, identical=equal, pixels_sha256=hashes, unknown=found.fault)
    return Between(pairs=1, video=video, identical=found.identical, pixels_sha256=hashes, similarity=found)


def _gone(name: str, path: Path, output: Output) -> str | None:
    """Return why a file does not match its record, None if it does."""
    try:
        same = paths.sha256(path) == output["sha256"]
    except OSError as error:
        return f"an output of {name} is missing: {path} ({error.strerror})"
    return None if same else f"an output of {name} was modified: {path}"


def _worst(found: list[Between]) -> Between:
    """Return the result over all pairs: the least similar one, or why one of them could not be compared."""
    unknown = next((pair for pair in found if pair.unknown is not None), None)
    known = {pair.identical for pair in found}
    # one pair that differs decides
    identical = False if False in known else None if None in known else True
    least = min(
        (pair for pair in found if pair.similarity is not None), key=lambda pair: _order(pair.similarity), default=None
    )
    return Between(
        pairs=len(found),
        video=any(pair.video for pair in found),
        identical=identical,
        pixels_sha256=found[0].pixels_sha256,
        similarity=None if unknown is not None or least is None else least.similarity,
        unknown=None if unknown is None else unknown.unknown,
    )


def _order(similar: Similarity | None) -> tuple[float, float]:
    """Return the sort key of similarities: SSIM of the worst frame, then its PSNR."""
    assert similar is not None
    ssim = 1.0 if similar.worst_ssim is None else similar.worst_ssim
    return ssim, similarity.IDENTICAL_DB if similar.worst_psnr_db is None else similar.worst_psnr_db
