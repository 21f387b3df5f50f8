"""The command that makes a bisection's decisive comparison again."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.compare import metric as metrics
from bench.engine import find

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from bench.bisect.course import Design

SHARED = ("model", "preset_file", "repeats", "output_dir")
OF_AN_ARM = ("steps", "width", "height")
"""What `invoke bisect` takes as options and `invoke ab` as words of an arm."""


def worktrees(checkout: str, commits: Sequence[str]) -> Iterator[str]:
    """Yield the commands that check commits out into the folder that they are typed in."""
    repository = shlex.quote(str(Path(checkout).expanduser()))
    for commit in commits:
        yield f'git -C {repository} worktree add --detach "$PWD/{commit[:12]}" {commit}'


def of_command(checkout: str, command: str, commits: Sequence[str]) -> str:
    """Return what runs a command in both commits once."""
    shell = shlex.join(["bash", "-c", command])
    runs = [f'(cd "$PWD/{commit[:12]}" && BISECT_COMMIT={commit} {shell})' for commit in commits]
    return " && ".join([*worktrees(checkout, commits), *runs])


def of_engines(
    checkout: str, options: Mapping[str, Any], metric: str, design: Design, over: Mapping[str, str | None]
) -> str:
    """Return what compares both commits as a bisection with these options, as a record has them, did it.

    ``over`` names the configuration of each commit.
    """
    words = [f"{name.replace('_', '-')}={options[name]}" for name in OF_AN_ARM if options[name] is not None]
    # "./" keeps it a place however it begins
    arms = [
        shlex.join([find.source_spec(f"./{commit[:12]}", configuration), *words, *_joined(options["extra"])])
        for commit, configuration in over.items()
    ]
    asked = {name.replace("_", "-"): options[name] for name in SHARED}
    asked |= {"timeout": f"{options['timeout_s']:g}", "baseline": arms[0], "candidate": arms[1]}
    asked |= {"metric": metric, "margin": f"{design.effect_percent:g}%", "pairs": design.pairs}
    if metric == metrics.DEFAULT:
        del asked["metric"]
    typed = [word for name, value in asked.items() if value is not None for word in (f"--{name}", str(value))]
    return " && ".join([*worktrees(checkout, list(over)), shlex.join(["invoke", "ab", *typed])])


def _joined(extra: Iterable[str]) -> list[str]:
    """Return an engine's arguments as an arm takes them: a value in one word with its flag."""
    words: list[str] = []
    for word in extra:
        if words and not word.startswith("--") and "=" not in words[-1]:
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words
