"""An accuracy report as one HTML file that needs no network: tables, the curve of divergence, the pair of pictures."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

from bench import paths
from bench.report import quality
from bench.report.figures import closeness, scientific

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

PAGE = "accuracy.html"
TEMPLATES = paths.PACKAGE / "report" / "templates"
LEAST_SHOWN = 1e-9
"""Where a distance of 0 is drawn: a logarithm has no zero."""

DIFFERENCE_TIMES = 32


def write(report: Mapping[str, Any], folder: Path, arrays: tuple[Path, Path]) -> Path:
    """Write the page of a report into its folder and return its path; ``arrays``: the engine's, the reference's."""
    import jinja2  # noqa: PLC0415 - a finished run needs it, `invoke --list` does not

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    trajectory = report["trajectory"]
    page = environment.get_template("accuracy.html.j2").render(
        report=report,
        number=scientific,
        closeness=closeness,
        likeness=quality.likeness,
        golden=None if report["golden"] is None else quality.golden_line(report["golden"]),
        curve=curve(trajectory) if trajectory is not None and trajectory["schedule"] is None else "",
        pictures=_pictures(*arrays) if report["components"] or trajectory is not None else [],
    )
    path = folder / PAGE
    with path.open("x", encoding="utf-8") as file:
        file.write(page)
    return path


def curve(trajectory: Mapping[str, Any]) -> str:
    """Return an SVG of relative L2 by step: the engine, each control, and the gate."""
    import matplotlib as mpl  # noqa: PLC0415 - a second

    mpl.use("svg")
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "accuracy", "font.size": 9})
    from matplotlib import pyplot as plt  # noqa: PLC0415 - see above

    figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
    plain = [step["distance"]["rel_l2"] for step in trajectory["steps"]]
    lines: tuple[tuple[list[float | None], str, dict[str, Any]], ...] = (
        *((values, f"wrong {name}", {"linestyle": "--", "marker": "x"}) for name, values in _controls(trajectory)),
        (plain, "native", {"linewidth": 2, "marker": "o", "color": "black"}),
    )
    for values, label, style in lines:
        steps = [index + 1 for index, value in enumerate(values) if value is not None]
        axes.plot(steps, [max(value, LEAST_SHOWN) for value in values if value is not None], label=label, **style)
    axes.axhline(trajectory["gate"]["rel_l2"], color="firebrick", linewidth=1, label="gate (last step)")
    axes.set(yscale="log", xlabel="denoise step", ylabel="relative L2 of the latents", xticks=range(1, len(plain) + 1))
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    plt.close(figure)
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def _controls(trajectory: Mapping[str, Any]) -> list[tuple[str, list[float | None]]]:
    return list(trajectory["controls_by_step"].items())


def _pictures(native_file: Path, reference_file: Path) -> list[dict[str, str]]:
    """Return the engine's picture, the reference's, and their difference, magnified; none if one of them is absent."""
    import numpy as np  # noqa: PLC0415 - see write

    try:
        with np.load(native_file, allow_pickle=False) as file:
            native = file["trajectory/plain/image"][0]
        with np.load(reference_file, allow_pickle=False) as file:
            reference = file["image"][0]
    except (OSError, KeyError, ValueError):
        return []
    pictures = {"native": native, "reference (diffusers)": reference}
    if native.shape == reference.shape:
        error = np.abs(native.astype(np.int16) - reference.astype(np.int16))
        shown = np.clip(error * DIFFERENCE_TIMES, 0, 255).astype(np.uint8)
        pictures[f"difference, {DIFFERENCE_TIMES} times"] = shown
    return [{"title": title, "base64": _png(picture)} for title, picture in pictures.items()]


def _png(picture: NDArray[np.uint8]) -> str:
    from PIL import Image  # noqa: PLC0415 - see write

    file = io.BytesIO()
    Image.fromarray(picture.squeeze()).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()
