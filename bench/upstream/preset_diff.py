"""What differs between our presets and upstream's own: added, removed, and changed field by field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.catalog import assets, flags, presets
from bench.engine import spelling, workload
from bench.upstream import presets as upstream

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bench.catalog.presets import Preset
    from bench.upstream.presets import Entry

OURS_ALONE = frozenset({
    "--backend", "--log-level", "--model-path", "--prompt", "--seed", "--negative-prompt", "--image-path",
    "--enable-breakable-cuda-graph", "--disable-conditioning-cache",
})  # fmt: skip
"""Flags that every launch of the workbench has, and that the helper sets itself or not at all."""

SAME_AS_ABSENT = {"--num-gpus": "1", "--enable-torch-compile": "false", "--warmup-mode": "request"}
"""Values that the helper's launch has without naming them."""

FIELDS = (
    *("model", "prompt", "negative_prompt", "seed", "environment"),
    *("nightly", "gated", "force_eager", "graph_warmup_sizes"),
)
"""The fields that our presets and upstream's helper call by the same name."""

STEPS = ("num_inference_steps", "--num-inference-steps")
"""The one parameter that the helper writes into a request file or as a flag; a flag wins over the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One difference: kind is added (only upstream has it), removed (only we have it) or changed."""

    kind: str
    key: str
    field: str | None = None
    ours: Any = None
    upstream: Any = None


def compare(theirs: Mapping[str, Entry], ours: Mapping[str, Preset]) -> list[Difference]:
    """Return the differences between the helper's presets and ours of the same keys, in the helper's order."""
    found = [Difference(kind="added", key=key, upstream=theirs[key].model) for key in theirs if key not in ours]
    found += [Difference(kind="removed", key=key, ours=ours[key].model) for key in ours if key not in theirs]
    for key, entry in theirs.items():
        if key in ours:
            found += _fields(key, _of_preset(ours[key]), _of_entry(entry))
    return found


def compare_nightly(cases: Mapping[str, Entry], ours: Mapping[str, Preset]) -> list[Difference]:
    """Return the differences between the nightly comparison's cases and our presets that stand for one."""
    standing = {preset.nightly: preset for preset in ours.values() if preset.nightly is not None}
    found = [Difference(kind="added", key=case, upstream=cases[case].model) for case in cases if case not in standing]
    found += [Difference(kind="removed", key=case, ours=standing[case].key) for case in standing if case not in cases]
    for case, entry in cases.items():
        if case not in standing:
            continue
        ignored = {f"--{name}" for name in standing[case].nightly_ignores}
        mine, other = _of_preset(standing[case]), _of_entry(entry)
        for name in ("gated", "force_eager", "graph_warmup_sizes", "negative_prompt"):
            del mine[name], other[name]  # a case says nothing of them
        for side in (mine, other):
            side["image"] = side["image"] is not None  # the driver names the same picture by another path
            for name in ignored:
                side.pop(name, None)
        found += _fields(case, mine, other)
    return found


def _fields(key: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[Difference]:
    names = [*ours, *(name for name in theirs if name not in ours)]
    return [
        Difference(kind="changed", key=key, field=name, ours=ours.get(name), upstream=theirs.get(name))
        for name in names
        if ours.get(name) != theirs.get(name)
    ]


def _of_preset(preset: Preset) -> dict[str, Any]:
    """Return a preset in the comparison's form: fields, and its arguments by flag."""
    spelled = upstream.flags_of(spelling.spell(workload.of_preset(preset), flags.table().versions[-1]))
    asset = assets.listed().get(preset.image) if preset.image else None
    return {
        **{name: getattr(preset, name) for name in FIELDS},
        "image": None if asset is None else asset.upstream,
        "config": dict(preset.config),
        **{flag: value for flag, value in spelled.items() if flag not in OURS_ALONE},
    }


def _of_entry(entry: Entry) -> dict[str, Any]:
    config, spelled = dict(entry.config), {**SAME_AS_ABSENT, **entry.flags}
    if STEPS[0] in config:
        spelled.setdefault(STEPS[1], str(config.pop(STEPS[0])))
    return {**{name: getattr(entry, name) for name in FIELDS}, "image": entry.image, "config": config, **spelled}


def check(package: Path, checkout: Path | None = None) -> tuple[dict[str, Path], list[Difference]]:
    """Return what was read (``helper``, and ``nightly`` where a checkout has it), and all differences to our presets.

    Raises:
        UsageError: the package has no helper, or it cannot be read.
        InvalidDocument: a file holds what this workbench does not understand.
    """
    ours = {key: preset for key, preset in presets.built_in().items() if preset.is_upstreams}
    read = {"helper": upstream.script(package)}
    found = compare(upstream.read(read["helper"]), ours)
    if checkout is not None and (checkout / upstream.NIGHTLY).is_file():
        read["nightly"] = checkout / upstream.NIGHTLY
        found += compare_nightly(upstream.read_nightly(read["nightly"]), ours)
    return read, found
