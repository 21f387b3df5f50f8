"""Secrets: which names and values are, and a text or a document without them. The one place that decides."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

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

URL = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]*://)[^\s/?#'\"<>]*@")
QUERY = re.compile(r"([?&]([A-Za-z0-9_.-]+)=)([^\s&#'\"<>]+)")
TOKEN = re.compile(
    r"\b(?:hf_(?:oauth_)?[A-Za-z0-9]{12,}|gh[opusr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}"
    r"|sk-[\w-]{16,}|xox[abprs]-[\w-]{10,}|(?:AKIA|ASIA)[A-Z0-9]{16}|nvapi-[\w-]{16,}"
    r"|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
)
"""Tokens that show what they are: of Hugging Face, GitHub, GitLab, OpenAI, Slack, AWS, NVIDIA, and JSON web tokens."""
BEARER = re.compile(r"(?i)\b(bearer|basic)(\s+)[\w.~+/-]{8,}=*")
ASSIGNMENT = re.compile(r"""((?:--)?\b[A-Za-z_][\w-]*)(=|\s*:\s*["']|["']\s*:\s*["'])("[^"]*"|'[^']*'|[^\s"']+)""")
FLAG = re.compile(r"""(--[A-Za-z][\w-]*)(\s+)("[^"]*"|'[^']*'|[^\s"'-][^\s"']*)""")


def is_secret(name: str) -> bool:
    """Tell whether a variable, option or member of this name holds a secret."""
    words = [word for word in re.split(r"[^A-Z0-9]+", name.upper()) if word]
    return (
        any(word.endswith(ENDINGS) or word in WORDS for word in words)
        or (len(words) > 1 and words[-1] in LAST_WORDS)
        or (bool(words) and words[-1].endswith("_PWD"))
    )


def values(*environments: Mapping[str, str]) -> frozenset[str]:
    """Return the secret values of environments, for `text` to look for wherever they went."""
    return frozenset(
        value
        for environment in environments
        for name, value in environment.items()
        if len(value) >= SHORTEST_VALUE and value != HIDDEN and is_secret(name) and not value.startswith("/")
    )


def text(content: str, secrets: Iterable[str] = ()) -> str:
    """Return a text without the secrets that are known and those that show what they are."""
    for secret in sorted(secrets, key=len, reverse=True):
        content = content.replace(secret, HIDDEN)
    content = URL.sub(rf"\1{HIDDEN}@", content)
    content = TOKEN.sub(HIDDEN, content)
    content = BEARER.sub(rf"\1\2{HIDDEN}", content)
    content = QUERY.sub(lambda m: m[1] + HIDDEN if is_secret(m[2]) or m[2].lower() in {"sig", "key"} else m[0], content)
    for pattern in (ASSIGNMENT, FLAG):
        content = pattern.sub(lambda m: m[1] + m[2] + HIDDEN if is_secret(m[1]) else m[0], content)
    return content


def value(name: str, content: str) -> str:
    """Return a variable's value for others to read: all of it hidden, parts of it, or nothing."""
    return HIDDEN if content and is_secret(name) else text(content)


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return variables for others to read."""
    return {name: value(name, content) for name, content in environment.items()}


def arguments(words: Sequence[str], secrets: Iterable[str] = ()) -> list[str]:
    """Return arguments for others to read: ``--api-key=VALUE`` and ``--api-key VALUE`` alike."""
    shown: list[str] = []
    hides_next = False
    for word in words:
        shown.append(HIDDEN if hides_next and not word.startswith("--") else text(word, secrets))
        hides_next = word.startswith("--") and "=" not in word and is_secret(word)
    return shown


def document(content: Any, secrets: Iterable[str] = ()) -> Any:
    """Return a JSON value for others to read; only texts are touched."""
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
