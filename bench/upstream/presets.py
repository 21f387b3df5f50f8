"""Upstream's own presets, read from its benchmark helper as text: the script is parsed, never imported or run.

Source: ``bench_diffusion_denoise.py`` in ``sglang/multimodal_gen/.agents/skills/`` (0.5.23) or ``.claude/skills/``
(0.5.17) of an engine or a checkout; in a checkout also ``scripts/ci/utils/diffusion/comparison_configs.json``,
the cases of the nightly comparison.
"""

from __future__ import annotations

import ast
import json
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench import schema
from bench.errors import InvalidDocument, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

SCRIPT = "skills/sglang-diffusion-benchmark-profile/scripts/bench_diffusion_denoise.py"
FOLDERS = (".agents", ".claude")
NIGHTLY = "scripts/ci/utils/diffusion/comparison_configs.json"
DEFAULT_SEED = 42
"""What the helper passes for a preset that names no seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One preset of the helper, or one nightly case; ``flags`` are its arguments by flag, without a flag's default."""

    model: str
    prompt: str
    seed: int
    flags: Mapping[str, str]
    negative_prompt: str | None = None
    image: str | None = None
    """Address, or file name in the helper's assets folder."""
    environment: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    nightly: str | None = None
    nightly_ignores: frozenset[str] = frozenset()
    gated: bool = False
    force_eager: bool = False
    graph_warmup_sizes: tuple[str, ...] = ()


def script(package: Path) -> Path:
    """Return the helper inside a ``sglang`` package folder.

    Raises:
        UsageError: this version ships none.
    """
    candidates = [package / "multimodal_gen" / folder / SCRIPT for folder in FOLDERS]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise UsageError(
        "no benchmark helper is shipped with this engine",
        where=package / "multimodal_gen",
        todo="0.5.17 and 0.5.23 have one; choose another engine, or name a checkout",
        field="source",
    )


def flags_of(arguments: Iterable[str]) -> dict[str, str]:
    """Return an argument list by flag; a flag without a value has ``true``, as the engine's boolean flags take it."""
    found: dict[str, str] = {}
    words = list(arguments)
    while words:
        flag, has_value, value = words.pop(0).partition("=")
        if not has_value:
            value = words.pop(0) if words and not words[0].startswith("--") else "true"
        found[flag] = value
    return found


def read(path: Path) -> dict[str, Entry]:
    """Return the helper's presets by key, in its order.

    Raises:
        UsageError: the file cannot be read.
        InvalidDocument: it holds something that this reader does not understand; the message names the line.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=path) from error
    except (SyntaxError, UnicodeDecodeError) as error:
        raise InvalidDocument(f"not Python: {error}", where=path) from error
    reader = _Reader(tree, path)
    models, gated = reader.constant("MODELS"), reader.constant("GATED_MODELS")
    return {key: _entry(content, gated=key in gated) for key, content in models.items()}


def _entry(content: Mapping[str, Any], *, gated: bool) -> Entry:
    return Entry(
        model=content["path"],
        prompt=content["prompt"],
        seed=content.get("seed", DEFAULT_SEED),
        negative_prompt=content.get("negative_prompt"),
        image=content.get("image_path"),
        flags=flags_of(content["extra_args"]),
        environment=content.get("env", {}),
        config=content.get("config_overrides", {}),
        nightly=content.get("nightly_case_id"),
        nightly_ignores=frozenset(content.get("nightly_cli_ignored", ())),
        gated=gated,
        force_eager=content.get("force_eager", False),
        graph_warmup_sizes=tuple(content.get("bcg_warmup_resolutions", ())),
    )


class _Reader:
    """Evaluates module-level constants that are literals, or made of them in the few ways that the helper uses."""

    def __init__(self, tree: ast.Module, path: Path) -> None:
        self._path = path
        self._assigned = {
            target.id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }

    def constant(self, name: str) -> Any:
        """Return the value of a module-level name."""
        if name not in self._assigned:
            raise InvalidDocument(
                f"the helper has no {name}", where=self._path, todo="update bench/upstream/presets.py"
            )
        return self._value(self._assigned[name])

    def _value(self, node: ast.expr) -> Any:  # noqa: C901, PLR0911 - one case for each way that the helper writes
        match node:
            case ast.Name(id=name) if name in self._assigned:
                return self.constant(name)
            case ast.Dict():
                return self._dict(node)
            case ast.List() | ast.Tuple():
                return [self._value(item) for item in node.elts]
            case ast.Set():
                return {self._value(item) for item in node.elts}
            case ast.BinOp(op=ast.Add(), left=left, right=right):
                return self._value(left) + self._value(right)
            case ast.Call(func=ast.Name(id="str"), args=[ast.BinOp(op=ast.Div(), right=ast.Constant(value=str(name)))]):
                return name  # str(ASSET_DIR / "cat.png"): the file's name in the helper's assets folder
            case ast.Call(func=ast.Attribute(value=ast.Name(id="json"), attr="dumps"), args=[inner]):
                options = {option.arg: self._value(option.value) for option in node.keywords if option.arg}
                if "separators" in options:
                    options["separators"] = tuple(options["separators"])
                return json.dumps(self._value(inner), **options)
            case ast.ListComp(
                elt=item,
                generators=[ast.comprehension(iter=ast.Call(func=ast.Name(id="range"), args=[ast.Constant(value=n)]))],
            ):
                return [self._value(item) for _ in range(int(str(n)))]
        try:
            return ast.literal_eval(node)
        except ValueError as error:
            raise InvalidDocument(
                f"line {node.lineno} is not understood: {ast.unparse(node)[:60]}",
                where=self._path,
                todo="the helper has a new way to write a preset: bench/upstream/presets.py must learn it",
            ) from error

    def _dict(self, node: ast.Dict) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:  # **OTHER
                found |= self._value(value)
            else:
                found[self._value(key)] = self._value(value)
        return found


def read_nightly(path: Path) -> dict[str, Entry]:
    """Return the cases of the nightly comparison by id.

    Raises:
        UsageError: the file cannot be read.
        InvalidDocument: it is not what the comparison reads.
    """
    content = schema.read(path)
    try:
        return {case["id"]: _case(case) for case in content["cases"]}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InvalidDocument(f"not the nightly comparison's configuration: {error!r}", where=path) from error


def _case(case: Mapping[str, Any]) -> Entry:
    ours = case["frameworks"]["sglang"]
    names = {
        "width": "--width",
        "height": "--height",
        "num_frames": "--num-frames",
        "fps": "--fps",
        "num_inference_steps": "--num-inference-steps",
        "guidance_scale": "--guidance-scale",
    }
    flags = {flag: str(case[name]) for name, flag in names.items() if name in case}
    if case.get("num_gpus", 1) > 1:
        flags["--num-gpus"] = str(case["num_gpus"])
    served = flags_of(shlex.split(ours.get("serve_args", "")))
    # the driver has its own warm-up switch, which `sglang generate` does not have
    flags |= {flag: value for flag, value in served.items() if flag not in {"--warmup", "--warmup-mode"}}
    config = {name: value for name, value in case.get("sglang_request_extra", {}).items() if value is not None}
    return Entry(
        model=case["model"],
        prompt=case["prompt"],
        seed=case["seed"],
        flags=flags,
        image=case.get("reference_image"),
        environment=ours.get("extra_env", {}),
        config=config,
        nightly=case["id"],
    )
