"""How like two pictures have to be, and what such a demand is called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.quality.metrics import Likeness


@dataclass(frozen=True, slots=True, kw_only=True)
class Alike:
    """The smallest PSNR in dB and SSIM that pass."""

    psnr_db: float
    ssim: float

    def passes(self, found: Likeness) -> bool:
        """Tell whether two pictures are alike enough; identical ones are."""
        if found.fault is not None:
            return False
        enough = found.ssim is None or found.ssim >= self.ssim
        return found.identical or (found.psnr_db is not None and found.psnr_db >= self.psnr_db and enough)
