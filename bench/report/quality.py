"""Quality in words, for the terminal and for Markdown: how like outputs are, and what a threshold makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.fidelity import thresholds

if TYPE_CHECKING:
    from collections.abc import Mapping

    Document = Mapping[str, Any]

SHOWN_CHARACTERS = 12
"""Of a hash."""


def likeness(found: Document) -> str:
    """Return how like two outputs are in words; of several frames the whole, then the worst."""
    if found["fault"] is not None:
        return str(found["fault"])
    if found["identical"]:
        return "every bit equal"
    said = f"{_pair(found['psnr_db'], found['ssim'])}, largest difference {found['max_levels']} of 255 levels"
    if (frames := found.get("frames", 1)) and frames > 1:  # reports of before frames were told apart have none
        said += f"; {frames} frames, the worst {_pair(found['worst_psnr_db'], found['worst_ssim'])}"
    return said


def _pair(psnr_db: float | None, ssim: float | None) -> str:
    shown = "n/a" if ssim is None else f"{ssim:.5f}"
    return f"PSNR {'n/a' if psnr_db is None else f'{psnr_db:.1f} dB'}, SSIM {shown}"


def golden(found: Document) -> str:
    """Return a golden's result in words."""
    if found["status"] == "none":
        nearest = f"; the nearest has {'; '.join(found['differs'])}" if found["differs"] else ""
        said = f"no golden for this configuration{nearest}"
    else:
        said = f"number {found['number']}, {found['status']}: {likeness(found['picture'])}"
    if not found["repeatable"]:
        said += "; two equal requests of this launch gave different pictures"
    if found["stored"] is not None:
        said += f"; stored as number {found['stored']}"
    return said


def golden_line(found: Document) -> str:
    """Return a golden's result as the line of a report."""
    return f"golden: {golden(found)}"


def short(pixels_sha256: str | None) -> str:
    """Return the start of a hash of pixels, n/a where none were read."""
    return "n/a" if pixels_sha256 is None else pixels_sha256[:SHOWN_CHARACTERS]


def between(found: Document) -> str:
    """Return in words how two sides' outputs are to each other, and whether that meets the threshold."""
    name = found["threshold"]
    demand = thresholds.THRESHOLDS[name]
    if found["identical"]:
        return "every pixel equal"
    if found["likeness"] is None:
        known = "" if found["identical"] is None else "the pixels differ, by an unknown amount: "
        return f"{known or 'not compared: '}{found['unknown']}"
    figures = "" if demand.image is None else f" ({demand.image}; video {demand.video})"
    which = "" if found["pairs"] == 1 else f" in the least alike of {found['pairs']} pairs"
    met, missed = ("alike", "") if found["alike"] else ("NOT alike", f": {found['missed']}")
    return f"{likeness(found['likeness'])}{which}; {met} by the threshold {name}{figures}{missed}"


def lines(quality: Document) -> list[str]:
    """Return a run's quality, one line for each thing that was looked at."""
    first = f"quality: pixels {short(quality['pixels_sha256'])}"
    if quality["identical"] is not None:
        same = "identical in all" if quality["identical"] else "NOT identical in the"
        first += f", {same} {quality['requests']} requests"
    against = quality["baseline"]
    if against["between"] is None:
        baseline = against["unknown"]
    else:
        baseline = f"{against['record']}: {between(against['between'])}"
    found = [
        first,
        f"golden: {quality['golden_unknown'] if quality['golden'] is None else golden(quality['golden'])}",
        f"baseline: {baseline}",
        _delivered(quality["delivered"]),
    ]
    if quality["required"] is not None:
        found.append(f"required {quality['required']}: {'met' if quality['met'] else 'MISSED, ' + quality['missed']}")
    return found


def _delivered(rows: list[Document]) -> str:
    """Return what was delivered of what was asked for; what was left to the engine is named only if it is unknown."""
    asked = [row for row in rows if row["asked"] is not None]
    said = []
    for row in asked:
        if row["agrees"]:
            said.append(f"{row['name']} {row['asked']}")
        elif row["agrees"] is None:
            said.append(f"{row['name']} asked {row['asked']}, delivered unknown")
        else:
            said.append(f"{row['name']} asked {row['asked']}, DELIVERED {row['delivered']}")
    as_asked = all(row["agrees"] for row in asked)
    return f"delivered{' as asked' if as_asked else ''}: {', '.join(said) or 'nothing was asked for'}"


def notes(compared: Document) -> list[str]:
    """Return what a comparison says of quality beside its table."""
    found = compared["between"]
    said = [f"outputs: {between(found)}"]
    if compared["required"]:
        met = "met" if found["missed"] is None else f"MISSED, {found['missed']}"
        said.append(f"required {found['threshold']}: {met}")
    return said


def warning(compared: Document) -> str | None:
    """Return the sentence that stands beside the verdict of a candidate that is faster and not alike, None for none."""
    if not compared["different"]:
        return None
    found = compared["between"]
    return f"FASTER BUT DIFFERENT: the outputs are not alike by the threshold {found['threshold']}: {found['missed']}."
