"""Secrets: which names and values are, and a text, a log or a document without them. The one place that decides.

A secret is known by its name (a variable, an option, a member), by its look (a token, the user of an address), or by
its value: that of a variable of the shell, or of what `learn` was told. What is written or printed goes through here.
"""

from __future__ import annotations

import functools
import os
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

HIDDEN = "<set, not shown>"

ENDINGS = (
    "TOKEN", "TOKENS", "SECRET", "SECRETS", "PASSWORD", "PASSWORDS", "PASSWD", "PASSPHRASE", "CREDENTIAL",
    "CREDENTIALS", "APIKEY",
)  # fmt: skip
"""How a word of a secret's name ends. TOKENIZERS_PARALLELISM has none that does."""
WORDS = frozenset({"AUTH", "AUTHORIZATION", "OAUTH", "COOKIE"})
LAST_WORDS = frozenset({"KEY", "KEYS", "PWD", "PAT"})
"""Of a name of several words: SGLANG_API_KEY, DB_PWD; PWD by itself is the shell's folder."""

SHORTEST_VALUE = 6
"""A shorter value would be found in innocent text."""

URL = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]*://)([^\s/?#'\"<>]*)@")
QUERY = re.compile(r"([?&]([A-Za-z0-9_.-]+)=)([^\s&#'\"<>]+)")
TOKEN = re.compile(
    r"\b(?:hf_(?:oauth_)?[A-Za-z0-9]{12,}|gh[opusr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}"
    r"|sk-[\w-]{16,}|xox[abprs]-[\w-]{10,}|(?:AKIA|ASIA)[A-Z0-9]{16}|nvapi-[\w-]{16,}"
    r"|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
)
"""Tokens that show what they are: of Hugging Face, GitHub, GitLab, OpenAI, Slack, AWS, NVIDIA, and JSON web tokens."""
BEARER = re.compile(r"(?i)\b(bearer|basic)(\s+)[\w.~+/-]{8,}=*")
ASSIGNMENT = re.compile(r"""((?:--)?\b[A-Za-z_][\w-]*)(=|\s*:\s*["']|["']\s*:\s*["'])("[^"]*"|'[^']*'|[^\s"']+)""")
MARKS = (
    b"hf_", b"gho_", b"ghp_", b"ghu_", b"ghs_", b"ghr_", b"github_pat_", b"glpat-", b"sk-", b"xox", b"AKIA", b"ASIA",
    b"nvapi-", b"eyJ", b"earer ", b"asic ", b"EARER ", b"ASIC ",
)  # fmt: skip
"""One of them is in each token, and looking for all of them is faster than for the pattern."""
MAYBE = re.compile(r"[:=?]|--|_|-|AKIA|ASIA|eyJ|(?i:bearer|basic)")
"""What a text must have for any pattern to match; most texts of a document have none of it."""
FLAG = re.compile(r"""(--[A-Za-z][\w-]*)([ \t]+)("[^"]*"|'[^']*'|[^\s"'-][^\s"']*)""")


_learned: set[str] = set()


@functools.lru_cache(4096)
def is_secret(name: str) -> bool:
    """Tell whether a variable, option or member of this name holds a secret."""
    words = [word for word in re.split(r"[^A-Z0-9]+", name.upper()) if word]
    return any(word.endswith(ENDINGS) or word in WORDS for word in words) or (
        len(words) > 1 and words[-1] in LAST_WORDS
    )


def values(*environments: Mapping[str, str]) -> frozenset[str]:
    """Return the secret values of environments, for `text` to look for wherever they went; a path is not one."""
    named: set[str] = set()
    for environment in environments:
        for name, content in environment.items():
            if is_secret(name):
                named.add(content)
            elif "://" in content:
                named.update(part for user in URL.findall(content) for part in user[1].split(":")[-1:])
    return frozenset(
        content
        for content in named
        if len(content) >= SHORTEST_VALUE and content != HIDDEN and not content.startswith("/")
    )


def learn(environment: Mapping[str, str], words: Sequence[str] = ()) -> None:
    """Remember the secrets of a launch: of its variables and arguments, wherever they came from."""
    pairs = [word.partition("=")[::2] for word in words]
    pairs += [pair for pair in pairwise(words) if pair[0].startswith("--") and not pair[1].startswith("--")]
    _learned.update(values(environment, *({name: content} for name, content in pairs)))


def known() -> frozenset[str]:
    """Return the secret values of the shell and those that were learned."""
    return values(os.environ) | _learned


def text(content: str, secrets: Collection[str] | None = None) -> str:
    """Return a text without the secrets that are known (``secrets``; None: all) and those that show what they are."""
    for secret in sorted(known() if secrets is None else secrets, key=len, reverse=True):
        content = content.replace(secret, HIDDEN)
    if not MAYBE.search(content):
        return content
    content = URL.sub(rf"\1{HIDDEN}@", content)
    content = TOKEN.sub(HIDDEN, content)
    content = BEARER.sub(rf"\1\2{HIDDEN}", content)
    content = QUERY.sub(lambda m: m[1] + HIDDEN if is_secret(m[2]) or m[2].lower() in {"sig", "key"} else m[0], content)
    for pattern in (ASSIGNMENT, FLAG):
        content = pattern.sub(_named, content)
    return content


def _named(match: re.Match[str]) -> str:
    """Return a name and its value, hidden if the name is a secret's and it is not hidden already."""
    name, between, content = match.groups()
    hides = is_secret(name) and not content.lstrip("\"'").startswith(HIDDEN.partition(" ")[0])
    return name + between + HIDDEN if hides else match[0]


def log(block: bytes) -> bytes:
    """Return a block of a log without the secrets that are known and those that show what they are.

    Nothing else of a block without any is looked at twice: logs are long. Lines stay as they are counted.
    """
    for secret in sorted(known(), key=len, reverse=True):
        block = block.replace(secret.encode(errors="surrogateescape"), HIDDEN.encode())
    if not any(mark in block for mark in MARKS) and not (b"://" in block and b"@" in block):
        return block
    content = block.decode(errors="surrogateescape")
    content = URL.sub(rf"\1{HIDDEN}@", content)
    content = BEARER.sub(rf"\1\2{HIDDEN}", TOKEN.sub(HIDDEN, content))
    return content.encode(errors="surrogateescape")


def value(name: str, content: str) -> str:
    """Return a variable's value for others to read: all of it hidden, parts of it, or nothing."""
    return HIDDEN if content and is_secret(name) else text(content)


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return variables for others to read."""
    return {name: value(name, content) for name, content in environment.items()}


def arguments(words: Sequence[str], secrets: Collection[str] | None = None) -> list[str]:
    """Return arguments for others to read: ``--api-key=VALUE`` and ``--api-key VALUE`` alike."""
    secrets = known() if secrets is None else secrets
    shown: list[str] = []
    hides_next = False
    for word in words:
        shown.append(HIDDEN if hides_next and not word.startswith("--") else text(word, secrets))
        hides_next = word.startswith("--") and "=" not in word and is_secret(word)
    return shown


def document(content: Any, secrets: Collection[str] | None = None) -> Any:
    """Return a JSON value for others to read; only texts are touched."""
    secrets = known() if secrets is None else secrets
    if isinstance(content, str):
        return text(content, secrets)
    if isinstance(content, dict):
        return {
            name: HIDDEN if isinstance(inner, str) and inner and is_secret(name) else document(inner, secrets)
            for name, inner in content.items()
        }
    if isinstance(content, list | tuple):
        return (
            arguments(content, secrets)
            if all(isinstance(inner, str) for inner in content)
            else [document(inner, secrets) for inner in content]
        )
    return content
