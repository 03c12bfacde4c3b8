"""The repository's address, one setting of `_config.yml`, and what is made of it.

Under `repository`, `url` is the address and `branch` the one with the executed notebooks. While
`url` is empty there is no launch button, no badge, and nothing that would lead nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

_ADDRESS = re.compile(r"https://github\.com/[A-Za-z0-9-]+/[A-Za-z0-9._-]+")
_BADGE = re.compile(r"^\[!\[tests\]\(.*\n\n?", re.MULTILINE)


def address_in(config: Mapping[str, Any]) -> str:
    """Return the address that a configuration names, "" if it names none.

    Raises ValueError if it is no `https://github.com/OWNER/NAME`: the badge, Colab and the
    workflows know no other host.
    """
    url = str((config.get("repository") or {}).get("url") or "").rstrip("/").removesuffix(".git")
    if url and not _ADDRESS.fullmatch(url):
        raise ValueError(
            f"_config.yml: repository.url is {url!r}; expected https://github.com/OWNER/NAME, "
            "or nothing"
        )
    return url


def read_address(root: Path) -> str:
    """Return the address in `_config.yml` of the folder `root`; ValueError as `address_in`."""
    return address_in(yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8")))


def add_launch_buttons(config: dict[str, Any]) -> str:
    """Move `repository` and `launch_buttons` to where the theme reads them; return the address.

    Both are taken out of `config`, which is changed in place, and are put into the theme's options
    if there is an address. Raises ValueError as `address_in`.
    """
    address = address_in(config)
    repository, buttons = config.pop("repository"), config.pop("launch_buttons")
    if address:
        config["sphinx"]["config"]["html_theme_options"] |= {
            "repository_url": address,
            "repository_branch": repository["branch"],
            "launch_buttons": buttons,
        }
    return address


def with_badge(text: str, address: str) -> str:
    """Return the README with the badge of the tests under its title, or without one."""
    text = _BADGE.sub("", text)
    if not address:
        return text
    page = f"{address}/actions/workflows/tests.yml"
    title, rest = text.split("\n", 1)
    return f"{title}\n\n[![tests]({page}/badge.svg?branch=main)]({page})\n{rest}"
