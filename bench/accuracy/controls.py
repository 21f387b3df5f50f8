"""What each run does wrong on purpose: requests, weights and calls that every gate has to reject.

Not every weight shows: one that a normalisation follows can be scaled at will. Which tensors a family's rows take is in
its file.
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
"""What is added to seed and guidance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoil:
    """A change of one weight: what is done (scale, zero, noise), by how much, to which of the family's tensors."""

    do: str
    by: float
    at: str
    said: str

    def document(self) -> dict[str, Any]:
        """Return it as the program in the engine's interpreter reads it."""
        return {"do": self.do, "by": self.by, "at": self.at}


SPOILS: Mapping[str, Spoil] = {
    TENSOR: Spoil(do="scale", by=1.05, at="spoil", said="x 1.05"),
    "tensor slightly": Spoil(do="scale", by=1.001, at="spoil_slightly", said="x 1.001"),
    "attention": Spoil(do="zero", by=0.0, at="attention_out", said="zeroed"),
    "embedder": Spoil(do="noise", by=0.05, at="embedder", said="+ 5 % noise"),
}
"""Held against the final latents; the first also against every component's outputs."""

TAMPERS: Mapping[str, tuple[float, str]] = {
    "rope": (1, "rotary tables rolled by 1 token"),
    "timestep": (10, "time step + 10"),
}
"""Changes of the transformer's own call, by how much and in words; held against its output."""

ONLY_FP32 = "in bf16 rounding hides it: see fp32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """What a run does wrong. ``requests`` and ``wrong_calls`` have the request's changes by name.

    ``wrong_calls`` are held against the transformer's output, ``requests`` against the final latents. What this model
    or dtype cannot have is in ``not_applicable`` with its reason.
    """

    requests: Mapping[str, Mapping[str, Any]]
    spoils: Mapping[str, Spoil]
    tampers: Mapping[str, tuple[float, str]]
    wrong_calls: Mapping[str, Mapping[str, Any]]
    not_applicable: Mapping[str, str]

    def document(self) -> dict[str, Any]:
        """Return them as the program in the engine's interpreter reads them."""
        return {
            "controls": {name: dict(changes) for name, changes in self.requests.items()},
            "spoils": {name: spoil.document() for name, spoil in self.spoils.items()},
            "tampers": {name: by for name, (by, _) in self.tampers.items()},
            "wrong_calls": {name: dict(changes) for name, changes in self.wrong_calls.items()},
        }


NONE = Controls(requests={}, spoils={}, tampers={}, wrong_calls={}, not_applicable={})
"""Of a run that compares nothing with a reference."""


def of(family: Family, sampling: Mapping[str, Any], dtype: str) -> Controls:
    """Return the controls of a run."""
    requests: dict[str, dict[str, Any]] = {
        "seed": {"seed": sampling["seed"] + OTHER_SEED},
        "prompt": {"prompt": OTHER_PROMPT},
    }
    not_applicable = {}
    if family.guidance == families.NO_GUIDANCE:
        not_applicable["guidance"] = "the model is distilled: it has no guidance"
    else:
        requests["guidance"] = {"guidance": sampling["guidance"] + OTHER_GUIDANCE}
    sharp = dtype == "fp32"
    if not sharp:
        not_applicable |= dict.fromkeys((*SPOILS, *TAMPERS), ONLY_FP32)
    elif family.transformer.rotary is None:
        not_applicable["rope"] = "the transformer has no rotary embedding"
    # a guidance that goes into the transformer shows in its output; one that mixes two outputs does not
    embedded = sharp and family.guidance == families.EMBEDDED
    return Controls(
        requests=requests,
        spoils={name: spoil for name, spoil in SPOILS.items() if name not in not_applicable},
        tampers={name: tamper for name, tamper in TAMPERS.items() if name not in not_applicable},
        wrong_calls={"guidance": requests["guidance"]} if embedded else {},
        not_applicable=not_applicable,
    )
