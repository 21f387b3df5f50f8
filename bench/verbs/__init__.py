"""The verbs: parse, delegate, print. What a verb does is imported inside it, to keep `invoke --list` instant."""

from __future__ import annotations

from bench.task import one_of

ENGINE_HELP = "a built configuration, source:CHECKOUT[@CONFIGURATION], or path; default: the sglang on PATH"


def threshold(text: str | None) -> str | None:
    """Return the name of a threshold as `--require` takes it, None for None.

    Raises:
        UnknownName: there is none of that name.
    """
    from bench.quality import thresholds

    return None if text is None else one_of(text, "--require", tuple(thresholds.THRESHOLDS))
