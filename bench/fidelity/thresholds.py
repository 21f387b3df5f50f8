"""How like two outputs have to be, and what such a demand is called.

The two names and their figures are SGLang's rule for contributions (measurement notes of 0.5.23): a change that claims
to be lossless gives the same bytes, any other stays above these figures; of a video the whole and the worst frame do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.fidelity.similarity import Likeness


@dataclass(frozen=True, slots=True, kw_only=True)
class Alike:
    """The smallest PSNR in dB and SSIM that pass, for the whole and for the worst frame."""

    psnr_db: float
    ssim: float

    def passes(self, found: Likeness) -> bool:
        """Tell whether two outputs are alike enough; identical ones are, and what could not be compared is not."""
        return self.missed(found) is None

    def missed(self, found: Likeness) -> str | None:
        """Return in words what is not reached, None if all of it is."""
        if found.fault is not None:
            return found.fault
        if found.identical:
            return None
        which = "" if found.frames == 1 else " over all frames"
        for where, psnr_db, ssim in (
            (which, found.psnr_db, found.ssim),
            (" in the worst frame", found.worst_psnr_db, found.worst_ssim),
        ):
            if ssim is None:
                return "the frames are too small for an SSIM"
            if ssim < self.ssim:
                return f"SSIM {ssim:.4f}{where}, at least {self.ssim:g} is wanted"
            # None: no error at all
            if psnr_db is not None and psnr_db < self.psnr_db:
                return f"PSNR {psnr_db:.1f} dB{where}, at least {self.psnr_db:g} dB is wanted"
        return None

    def __str__(self) -> str:
        return f"SSIM >= {self.ssim:g} and PSNR >= {self.psnr_db:g} dB"


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A named demand on an image and on a video; None: every pixel is the same."""

    name: str
    image: Alike | None
    video: Alike | None

    def missed(self, found: Likeness, *, video: bool) -> str | None:
        """Return in words what two outputs miss of it, None if they meet it; what could not be compared misses it."""
        wanted = self.video if video else self.image
        if wanted is not None:
            return wanted.missed(found)
        if found.fault is not None:
            return found.fault
        return None if found.identical else f"the pixels differ, by up to {found.max_levels} of 255 levels"


LOSSLESS = Threshold(name="lossless", image=None, video=None)
HIGH = Threshold(name="high", image=Alike(psnr_db=28.0, ssim=0.95), video=Alike(psnr_db=24.0, ssim=0.92))
THRESHOLDS = {threshold.name: threshold for threshold in (LOSSLESS, HIGH)}
"""By name, as `--require` takes them."""

DEFAULT = HIGH
"""What is looked at where nobody names one."""

SAME_KIND_OF_MACHINE = Alike(psnr_db=40.0, ssim=0.99)
"""For a golden that another machine of the same kind made; on the machine that made it every bit has to be the same."""
