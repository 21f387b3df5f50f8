"""Plots as Vega-Lite: one description becomes the still picture and the chart that a reader explores.

Every page draws with this style. Colours are those of `style.css`, which turns them for a dark page; no meaning rests
on a colour alone: series differ by shape or dash too.
"""

from __future__ import annotations

import functools
import html
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from bench import safe_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Spec = dict[str, Any]
    """A Vega-Lite view: https://vega.github.io/vega-lite/docs/spec.html."""

INK, DIM, LINE = "#1d2733", "#5b6876", "#dde3ea"
SERIES = ("#3b6fb6", "#c2571a", "#2a9d8f", "#8e5ea2", "#b0862a", "#c0392b", "#4f8a3a", "#7f8c8d")
BASELINE, CANDIDATE = SERIES[:2]
GOOD, BAD = "#2a9d8f", "#c0392b"
SHAPES = ("circle", "diamond", "square", "triangle-up", "cross", "triangle-down", "triangle-right", "triangle-left")

WIDTHS = {"wide": 860, "narrow": 318}
"""Of the two still pictures, in pixels; the page shows the one that fits the screen."""

ROOM = 14
"""Pixels between the outermost marks and the edge of the plot, which cuts what reaches over it."""

ZOOM: Spec = {
    "name": "zoom",
    "select": {"type": "interval", "encodings": ["x"], "zoom": "wheel![event.shiftKey]"},
    "bind": "scales",
}
"""Drag to move, Shift and the wheel to zoom, double click to go back; the bare wheel scrolls the page."""

CONFIG: Spec = {
    "background": None,
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    # the library measures text with a narrower font than most browsers draw it with
    "padding": {"left": 10, "right": 18, "top": 5, "bottom": 5},
    "axisX": {"tickCount": {"signal": "ceil(width / 80)"}},
    "axis": {
        "labelColor": INK,
        "titleColor": DIM,
        "titleFontWeight": "normal",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "gridColor": LINE,
        "domainColor": DIM,
        "tickColor": DIM,
        "labelLimit": 190,
        "labelSeparation": 14,
        "titlePadding": 10,
    },
    "legend": {
        "orient": "bottom",
        "direction": "horizontal",
        "columns": 2,
        "columnPadding": 24,
        "labelColor": INK,
        "titleColor": DIM,
        "labelFontSize": 12,
        "labelLimit": 260,
        "symbolStrokeWidth": 2,
        "symbolFillColor": DIM,
        "symbolStrokeColor": DIM,
    },
    "text": {"color": INK, "fontSize": 12},
    "rule": {"color": DIM},
    "point": {"size": 55, "filled": True},
    "boxplot": {"box": {"fillOpacity": 0.25}, "median": {"color": INK}, "rule": {"color": DIM}, "ticks": False},
    "range": {"category": list(SERIES), "symbol": list(SHAPES)},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One plot: its name in the page, what to call it, how to read it, what it shows in words, and the view."""

    name: str
    title: str
    caption: str
    alt: str
    view: Mapping[str, Any]

    def spec(self, width: int | str = "container") -> Spec:
        """Return the whole Vega-Lite document; ``container`` fits the page. Its texts hold no control character."""
        fit = {"type": "fit-x", "contains": "padding"}
        config = CONFIG
        if width == WIDTHS["narrow"]:  # page.js does the same for a live chart
            config = CONFIG | {
                "legend": CONFIG["legend"] | {"columns": 1},
                "axis": CONFIG["axis"] | {"labelLimit": 105},
            }
        whole = {"description": self.alt, "config": config, "width": width, "autosize": fit, **self.view}
        return cast("Spec", _printable(whole))


def _printable(value: object) -> object:
    """Return a document whose strings hold no control: XML allows none, and vl-convert ends the process at one."""
    if isinstance(value, str):
        return safe_text.terminal(value, keep="\n\t")
    if isinstance(value, dict):
        return {name: _printable(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_printable(item) for item in value]
    return value


def counted(field: str, title: str, count: int) -> Spec:
    """Return the channel of numbers from 1 to ``count``."""
    few = 13
    ticks = {"values": list(range(1, count + 1))} if count < few else {"tickMinStep": 1}
    scale = {"zero": False, "nice": False, "padding": ROOM}
    return {"field": field, "type": "quantitative", "title": title, "scale": scale, "axis": {"format": "d", **ticks}}


def rows(values: Sequence[Mapping[str, Any]]) -> Spec:
    """Return data for a view."""
    return {"values": list(values)}


def axis(field: str, title: str, *, zero: bool = False) -> Spec:
    """Return a quantitative channel with room for its outermost marks; its scale holds zero only if asked to."""
    scale = {"zero": zero, "nice": False, "padding": ROOM}
    return {"field": field, "type": "quantitative", "title": title, "scale": scale}


def from_zero(channel: Spec) -> Spec:
    """Return the channel of bars that begin at zero."""
    return {**channel, "scale": {"zero": True, "nice": True}}


def upto(largest: float, channel: Spec) -> Spec:
    """Return a channel from zero to the largest value, with room for the label behind its bar."""
    return {**channel, "scale": {"domain": [0, 1.5 * largest], "nice": False}}


def names(field: str, **more: Any) -> Spec:
    """Return a nominal channel in the order of the data, without a title."""
    return {"field": field, "type": "nominal", "sort": None, "title": None, **more}


def tips(**titles: str) -> list[Spec]:
    """Return what a hover shows: field -> title."""
    return [{"field": field, "title": title} for field, title in titles.items()]


def at(value: float, label: str, *, channel: str = "x", below: bool = False) -> Spec:
    """Return a dashed reference line with a label at its end; of a horizontal one it may stand below."""
    other = {"x": {"y": {"value": 0}, "align": "left"}, "y": {"x": {"value": 0}, "align": "left"}}[channel]
    offset = {"x": {"dx": 4, "dy": 8}, "y": {"dy": 9 if below else -6, "dx": 4}}[channel]
    align = other.pop("align")
    return {
        "data": rows([{"at": value, "label": label}]),
        "encoding": {channel: {"field": "at", "type": "quantitative"}},
        "layer": [
            {"mark": {"type": "rule", "strokeDash": [5, 4], "color": DIM}},
            {
                "mark": {"type": "text", "align": align, "color": DIM, **offset},
                "encoding": {**other, "text": {"field": "label"}},
            },
        ],
    }


@functools.cache
def library() -> str:
    """Return the JavaScript of Vega-Embed, Vega-Lite and Vega, about 0.9 MB."""
    import vl_convert  # noqa: PLC0415 - half a second that only a page with plots need pay

    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return bundle.replace("</script", "<\\/script")


def still(plot: Plot, size: str) -> str:
    """Return a plot as an SVG that says what it shows; ids are its own, however many plots are in a page."""
    import vl_convert  # noqa: PLC0415 - see library

    svg: str = vl_convert.vegalite_to_svg(json.dumps(plot.spec(WIDTHS[size])))
    mine = f"{plot.name}-{size}-"
    numbers: dict[str, str] = {}

    def own(match: re.Match[str]) -> str:
        return match[1] + mine + numbers.setdefault(match[2], str(len(numbers))) + match[3]

    svg = re.sub(r'(\bid=")([^"]+)(")', own, svg)  # numbered anew: the engine counts over all that it ever drew
    svg = re.sub(r"(url\(#)([^)]+)(\))", own, svg)
    # the words stand for the picture as a whole: a reader need not walk through hundreds of marks
    words = (
        f'<title id="{mine}title">{html.escape(plot.title)}</title><desc id="{mine}desc">{html.escape(plot.alt)}</desc>'
    )
    opening = f'<svg role="img" aria-labelledby="{mine}title {mine}desc"'
    return svg.replace("<svg", opening, 1).replace(">", f">{words}", 1)
