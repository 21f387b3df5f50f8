"""Named similarity thresholds for two outputs.

The two names and their figures are SGLang's rule for contributions (measurement notes of 0.5.23): a change that claims
to be lossless must give the same bytes; any other must stay above these figures, in the worst frame of a video too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.fidelity.similarity import Similarity


@dataclass(frozen=True, slots=True, kw_only=True)
class MinimumSimilarity:
    """The smallest PSNR in dB and SSIM that pass, for the whole and for the worst frame."""

    psnr_db: float
    ssim: float

    def passes(self, similarity: Similarity) -> bool:
        """Return whether two outputs are similar enough; outputs that cannot be compared are not."""
        return self.missed(similarity) is None

    def missed(self, similarity: Similarity) -> str | None:
        """Return in words which minimum is missed, None if none is."""
        if similarity.fault is not None:
            return similarity.fault
        if similarity.identical:
            return None
        which = "" if similarity.frames == 1 else " over all frames"
        for where, psnr_db, ssim in (
            (which, similarity.psnr_db, similarity.ssim),
            (" in the worst frame", similarity.worst_psnr_db, similarity.worst_ssim),
        ):
            if ssim is None:
                return "the frames are too small for an SSIM"
            if ssim < self.ssim:
                return f"SSIM {ssim:.4f}{where}, at least {self.ssim:g} required"
            # None: no error at all
            if psnr_db is not None and psnr_db < self.psnr_db:
                return f"PSNR {psnr_db:.1f} dB{where}, at least {self.psnr_db:g} dB required"
        return None

    def __str__(self) -> str:
        return f"SSIM >= {self.ssim:g} and PSNR >= {self.psnr_db:g} dB"


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A named minimum for an image and for a video; None: every pixel must be equal."""

    name: str
    image: MinimumSimilarity | None
    video: MinimumSimilarity | None

    def missed(self, similarity: Similarity, *, video: bool) -> str | None:
        """Return in words how two outputs miss it, None if they meet it; outputs that cannot be compared miss it."""
        wanted = self.video if video else self.image
        if wanted is not None:
            return wanted.missed(similarity)
        if similarity.fault is not None:
            return similarity.fault
        return None if similarity.identical else f"the pixels differ, by up to {similarity.max_levels} of 255 levels"


LOSSLESS = Threshold(name="lossless", image=None, video=None)
HIGH = Threshold(
    name="high", image=MinimumSimilarity(psnr_db=28.0, ssim=0.95), video=MinimumSimilarity(psnr_db=24.0, ssim=0.92)
)
THRESHOLDS = {threshold.name: threshold for threshold in (LOSSLESS, HIGH)}
"""By name."""

DEFAULT = HIGH
"""The threshold that is reported if none is required."""

SAME_KIND_OF_MACHINE = MinimumSimilarity(psnr_db=40.0, ssim=0.99)
"""For a golden made by another machine of the same kind; on the machine that made it every bit must be equal."""
