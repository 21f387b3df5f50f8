"""The presets' input images: fetch them, and say for each where it is and which presets need it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from bench.catalog import assets, presets
from bench.errors import BenchError, PreflightFailed, UnknownName, UsageError
from bench.models import images

if TYPE_CHECKING:
    from bench.catalog.assets import Asset


def fetch_all(*, only: str | None, own: str | None, mirror: str | None, again: bool) -> None:
    """Fetch the images (or take the user's own file as one), and print how it went for each.

    Raises:
        UnknownName: no image is called that.
        UsageError: the user's file is none, or not the right one.
        PreflightFailed: not all could be had; the message names the presets that cannot run without them.
    """
    known = assets.listed()
    console = Console()
    if own is not None:
        name, _, file = own.partition("=")
        if not file:
            raise UsageError("--own takes NAME=FILE", todo=f"names: {', '.join(known)}")
        stored = images.own(_one(name), Path(file).expanduser().absolute())
        console.print(f"{name}: {stored}", soft_wrap=True, highlight=False, markup=False)
        return
    wanted = [_one(only)] if only is not None else list(known.values())
    failed = []
    for asset in wanted:
        try:
            place, is_new = images.fetch(asset, mirror=mirror, again=again)
        except BenchError as error:
            failed.append(asset)
            text = (
                f"{asset.name}: {error.what}\n    where: {error.where}\n    needed by: {', '.join(users(asset.name))}"
            )
            text += f"\n    to do: {error.todo}" if error.todo else ""
        else:
            text = f"{asset.name}: {'fetched' if is_new else 'here'}, {place}"
        console.print(text, soft_wrap=True, highlight=False, markup=False)
    if failed:
        keys = sorted({key for asset in failed for key in users(asset.name)})
        raise PreflightFailed(
            f"could not fetch {len(failed)} of {len(wanted)} images; {len(keys)} presets need them: {', '.join(keys)}",
            todo="with a file of your own: invoke assets --own NAME=FILE, or bench --image FILE; "
            "from a server that has them by name: --mirror ADDRESS",
        )


def _one(name: str) -> Asset:
    known = assets.listed()
    if name not in known:
        raise UnknownName("image", name, known)
    return known[name]


def users(name: str) -> list[str]:
    """Return the presets that need an image."""
    return [key for key, preset in presets.built_in().items() if preset.image == name]


def show_list(*, as_json: bool) -> None:
    """Print each image: whether it is here, its address, and the presets that need it; nothing is fetched."""
    rows = []
    for asset in assets.listed().values():
        path = assets.path(asset.name)
        try:
            state = images.check(path)
        except UsageError as error:
            state = error.what
        there = path.is_file()
        row = {"name": asset.name, "here": there, "state": state, "path": str(path), "url": asset.url}
        rows.append({**row, "needed_by": users(asset.name)})
    if as_json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))  # noqa: T201 - it is for a program
        return
    console = Console()
    for row in rows:
        text = f"{row['name']}: {row['state']}\n    path: {row['path']}\n    from: {row['url']}"
        text += f"\n    needed by: {', '.join(users(str(row['name'])))}"
        console.print(text, soft_wrap=True, highlight=False, markup=False)
