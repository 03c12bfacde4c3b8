"""The project's own files: the environment they describe, and what must not be in them."""

import itertools
import os
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from crane_lab.runs import Project
from crane_lab.runs.book import toc_entries
from crane_lab.store import ROOT


def requirements(name: str) -> list[Requirement]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_every_requirement_has_a_version_and_a_reason() -> None:
    for name in sorted(path.name for path in ROOT.glob("requirements*.txt")):
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        for previous, line in itertools.pairwise(lines):
            if line and not line.startswith("#"):
                assert Requirement(line).specifier, f"{name}: {line} has no version"
                assert previous.startswith("# "), f"{name}: {line} has no reason"


def test_constraints_fit_the_requirements_and_this_environment() -> None:
    pins = {str(r.name).lower().replace("_", "-"): r for r in requirements("constraints.txt")}
    wanted = ("requirements.txt", *(f"requirements-{x}.txt" for x in ("lab", "book", "dev")))
    for requirement in [r for name in wanted for r in requirements(name)]:
        name = requirement.name.lower().replace("_", "-")
        if name == "setuptools":
            continue
        (pin,) = pins[name].specifier
        assert pin.operator == "=="
        assert requirement.specifier.contains(pin.version), f"{requirement} against {pin}"
    for pin_requirement in pins.values():
        assert pin_requirement.url is None
        (pin,) = pin_requirement.specifier
        assert "+" not in pin.version
        try:
            installed = version(pin_requirement.name)
        except PackageNotFoundError:
            continue  # a dependency of other systems or Python versions only
        assert installed.split("+")[0] == pin.version, f"{pin_requirement}: run make setup"


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def test_no_path_of_this_machine_and_no_secret_is_tracked() -> None:
    patterns = [re.escape(f"{ROOT}/").encode(), rb"file:///", rb"-----BEGIN [A-Z ]*PRIVATE KEY"]
    patterns += [rb"(?:--|PIP_)(?:extra-)?index-url", rb"\bsk-[A-Za-z0-9]{20,}"]
    found = [
        f"{path.relative_to(ROOT)}: {match.group().decode()}"
        for path in tracked()
        for pattern in patterns
        if (match := re.search(pattern, path.read_bytes())) and path != Path(__file__)
    ]
    assert found == []


def test_notebooks_are_kept_as_scripts_without_outputs() -> None:
    assert [path for path in tracked() if path.suffix == ".ipynb"] == []


def test_table_of_contents_and_notebooks_agree() -> None:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    listed = {name for name in toc_entries(toc) if name.startswith("notebooks/")}
    written = {f"notebooks/{notebook.name}" for notebook in Project().notebooks}
    assert written <= listed
    if written:
        assert listed == written


def test_every_profile_names_declared_parameters() -> None:
    project = Project()
    for path in (ROOT / "notebooks" / "profiles").glob("*.yaml"):
        project.run(path.stem)


def test_versions_agree() -> None:
    here = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.M)
    assert here is not None
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == here[1]
    assert re.search(rf"^## {re.escape(here[1])}\b", (ROOT / "CHANGELOG.md").read_text(), re.M)


def test_make_offers_its_targets_and_ci_calls_make_test() -> None:
    shown = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for target in ("setup", "book", "test", "lint", "testbed", "clean", "help"):
        assert re.search(rf"^ +make {target}\b", shown, re.M), target
    ci = ROOT / ".ci" / "run"
    assert os.access(ci, os.X_OK)
    assert "make test" in ci.read_text()


def test_make_passes_profile_parameters_and_notebook_on() -> None:
    command = ["make", "-n", "-o", "setup", "book", "PROFILE=smoke", "NOTEBOOK=02"]
    shown = subprocess.run(
        [*command, "PARAMS=-p n_samples 200"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert 'crane book --profile "smoke" --notebook "02" -p n_samples 200' in shown
