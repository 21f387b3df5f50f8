"""Negative controls: requests, weights and calls that are perturbed so that every gate must reject them.

Not every weight matters: one that a normalisation follows can be scaled at will. Each family's file names its tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.catalog import families

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.catalog.families import Family

TENSOR = "tensor"
OTHER_PROMPT = "A bowl of ripe fruit on a wooden table by a window in the morning"
OTHER_SEED = 1
OTHER_GUIDANCE = 1.0
"""Added to seed and guidance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Perturbation:
    """A change of one weight: the operation (scale, zero, noise), its size, and which of the family's tensors."""

    do: str
    by: float
    at: str
    words: str

    def as_document(self) -> dict[str, Any]:
        """Return it as the program in the engine's interpreter reads it."""
        return {"do": self.do, "by": self.by, "at": self.at}


PERTURBATIONS: Mapping[str, Perturbation] = {
    TENSOR: Perturbation(do="scale", by=1.05, at="perturb", words="x 1.05"),
    "tensor slightly": Perturbation(do="scale", by=1.001, at="perturb_slightly", words="x 1.001"),
    "attention": Perturbation(do="zero", by=0.0, at="attention_out", words="zeroed"),
    "embedder": Perturbation(do="noise", by=0.05, at="embedder", words="+ 5 % noise"),
}
"""Compared at the final latents; the first also at every component's outputs."""

CALL_PERTURBATIONS: Mapping[str, tuple[float, str]] = {
    "rope": (1, "rotary tables rolled by 1 token"),
    "timestep": (10, "time step + 10"),
}
"""Changes of the transformer's call, with size and words; compared at its output."""

ONLY_FP32 = "hidden by bf16 rounding; run it in fp32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """The negative controls of a run. ``requests`` and ``wrong_calls`` hold the request's changes by name.

    ``wrong_calls`` are compared at the transformer's output, ``requests`` at the final latents. ``not_applicable``
    gives the reason for each control that this model or dtype cannot have.
    """

    requests: Mapping[str, Mapping[str, Any]]
    perturbations: Mapping[str, Perturbation]
    call_perturbations: Mapping[str, tuple[float, str]]
    wrong_calls: Mapping[str, Mapping[str, Any]]
    not_applicable: Mapping[str, str]

    def as_document(self) -> dict[str, Any]:
        """Return them as the program in the engine's interpreter reads them."""
        return {
            "controls": {name: dict(changes) for name, changes in self.requests.items()},
            "perturbations": {name: perturbation.as_document() for name, perturbation in self.perturbations.items()},
            "call_perturbations": {name: by for name, (by, _) in self.call_perturbations.items()},
            "wrong_calls": {name: dict(changes) for name, changes in self.wrong_calls.items()},
        }


NONE = Controls(requests={}, perturbations={}, call_perturbations={}, wrong_calls={}, not_applicable={})
"""For a run without a reference."""


def for_family(family: Family, sampling: Mapping[str, Any], dtype: str) -> Controls:
    """Return the negative controls of a run."""
    requests: dict[str, dict[str, Any]] = {
        "seed": {"seed": sampling["seed"] + OTHER_SEED},
        "prompt": {"prompt": OTHER_PROMPT},
    }
    not_applicable = {}
    if family.guidance == families.NO_GUIDANCE:
        not_applicable["guidance"] = "the model is distilled and has no guidance"
    else:
        requests["guidance"] = {"guidance": sampling["guidance"] + OTHER_GUIDANCE}
    sharp = dtype == "fp32"
    if not sharp:
        not_applicable |= dict.fromkeys((*PERTURBATIONS, *CALL_PERTURBATIONS), ONLY_FP32)
    elif family.transformer.rotary is None:
        not_applicable["rope"] = "the transformer has no rotary embedding"
    # a guidance that goes into the transformer shows in its output; one that mixes two outputs does not
    embedded = sharp and family.guidance == families.EMBEDDED
    return Controls(
        requests=requests,
        perturbations={name: change for name, change in PERTURBATIONS.items() if name not in not_applicable},
        call_perturbations={name: change for name, change in CALL_PERTURBATIONS.items() if name not in not_applicable},
        wrong_calls={"guidance": requests["guidance"]} if embedded else {},
        not_applicable=not_applicable,
    )
