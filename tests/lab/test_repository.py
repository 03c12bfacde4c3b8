"""The repository's address: one setting, and what follows from it."""

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from crane_lab.cli import badge
from crane_lab.runs.repository import add_launch_buttons, address_in, read_address, with_badge
from crane_lab.store import ROOT

CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
ADDRESS = "https://github.com/someone/a.book"


def named(url: str | None) -> dict[str, Any]:
    config = deepcopy(CONFIG)
    config["repository"]["url"] = url
    return config


@pytest.mark.parametrize("url", [ADDRESS, f"{ADDRESS}/", f"{ADDRESS}.git"])
def test_an_address(url: str) -> None:
    assert address_in(named(url)) == ADDRESS


@pytest.mark.parametrize("config", [{}, {"repository": None}, named(""), named(None)])
def test_no_address(config: dict[str, Any]) -> None:
    assert address_in(config) == ""


@pytest.mark.parametrize(
    "url",
    [
        "http://github.com/someone/book",
        "https://github.com/someone",
        "https://example.org/someone/book",
        "git@github.com:someone/book",
        "https://github.com/someone/book/tree/main",
        'https://github.com/someone/book"; rm -r .; "',
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"repository\.url is .*expected https://github\.com/"):
        address_in(named(url))


def test_launch_buttons_come_with_the_address() -> None:
    without, config = named(""), named(ADDRESS)
    assert add_launch_buttons(without) == "" and add_launch_buttons(config) == ADDRESS
    theme = config["sphinx"]["config"]["html_theme_options"]
    added = {"repository_url", "repository_branch", "launch_buttons"}
    assert {n: v for n, v in theme.items() if n not in added} == (
        without["sphinx"]["config"]["html_theme_options"]
    )
    assert theme["repository_url"] == ADDRESS and theme["repository_branch"] == "notebooks"
    assert set(theme["launch_buttons"]) == {"notebook_interface", "binderhub_url", "colab_url"}
    for staged in (without, config):
        assert not staged.keys() & {"repository", "launch_buttons"}


def test_the_badge_goes_under_the_title_and_can_be_taken_out() -> None:
    text = "# Title\n\nFirst words.\n\nMore.\n"
    once = with_badge(text, ADDRESS)
    assert once == (
        f"# Title\n\n[![tests]({ADDRESS}/actions/workflows/tests.yml/badge.svg?branch=main)]"
        f"({ADDRESS}/actions/workflows/tests.yml)\n\nFirst words.\n\nMore.\n"
    )
    assert with_badge(once, ADDRESS) == once
    assert ADDRESS not in with_badge(once, "https://github.com/another/one")
    assert with_badge(once, "") == text


def test_the_readme_has_the_badge_of_the_address() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert with_badge(text, read_address(ROOT)) == text, "run: make badge"


def test_the_command_writes_the_badge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(badge, "ROOT", tmp_path)
    (tmp_path / "README.md").write_text("# Title\n\nWords.\n")
    for url, status in ((ADDRESS, 0), ("nonsense", 1), ("", 0)):
        (tmp_path / "_config.yml").write_text(yaml.safe_dump(named(url)))
        assert badge.main() == status
        assert (ADDRESS in (tmp_path / "README.md").read_text()) == bool(url)
    assert "expected https://github.com/OWNER/NAME" in capsys.readouterr().err


def test_the_address_stands_in_no_other_place() -> None:
    """Of the files a reader would have to change by hand; the README's badge is written."""
    address = read_address(ROOT)
    names = ["CITATION.cff", "CONTRIBUTING.md", "pyproject.toml", "Makefile"]
    for path in [
        *(ROOT / name for name in names),
        *(ROOT / ".github").rglob("*.y*ml"),
        *(ROOT / "book").glob("*.md"),
        *(ROOT / "notebooks").glob("*.py"),
    ]:
        text = path.read_text(encoding="utf-8")
        assert not address or address not in text, path.name
        assert not re.search(r"mybinder\.org|colab\.research", text), path.name
