"""A profile report as one HTML file that needs nothing else: no script, no font, no network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.report.profile_plots import plots

if TYPE_CHECKING:
    from bench.report.profile_view import View

TEMPLATES = Path(__file__).resolve().parent / "templates"


def render(shown: View) -> str:
    """Return a profile report as HTML."""
    import jinja2  # noqa: PLC0415 - only a report need pay for it
    import markupsafe  # noqa: PLC0415 - see above

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    gpu = shown.trace["gpu"]
    pictures = [
        {"name": plot.name, "title": plot.title, "caption": plot.caption, "svg": markupsafe.Markup(plot.svg)}  # noqa: S704 - our own plot, whose text matplotlib escapes
        for plot in (plots(gpu) if gpu else ())
    ]
    return environment.get_template("profile.html.j2").render(view=shown, plots=pictures)
