"""What must never be written into a file or a page."""

from __future__ import annotations

import re


def refuse_secret(name: str, value: object) -> None:
    """Refuse a parameter that is a key by its name or its value: parameters are printed in pages.

    `max_new_tokens` is a parameter and `hf_token` is a secret.
    """
    words = re.split(r"[_\W]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())
    looks_like_key = isinstance(value, str) and re.match(
        r"(sk|pk|hf|ghp|gho|github_pat|glpat|xox[a-z])[-_]\w{16,}", value
    )
    if (
        looks_like_key
        or words[-1] in {"key", "apikey", "token", "password", "passwd", "secret"}
        or {"secret", "password", "credential", "credentials"} & set(words)
    ):
        raise ValueError(
            f"parameter {name} looks like a secret, and parameters are written into the run and "
            "the book; put it into an environment variable instead"
        )
