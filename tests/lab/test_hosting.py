"""What hosts read: workflows, forms for issues, environments. All of it calls what is here."""

import json
import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from crane_lab.store import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def made(text: str) -> set[str]:
    """The targets of make that a script or workflow calls, without comments."""
    lines = [line.split("#")[0] for line in text.splitlines()]
    return set(re.findall(r"(?:^|[\s\"])make ([a-z-]+)", "\n".join(lines)))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow(path: Path) -> None:
    flow, text = read(path), path.read_text(encoding="utf-8")
    assert flow["name"] == path.stem
    # YAML 1.1 takes `on` for a truth value.
    assert flow[True]["push"] == {"branches": ["main"]} and "workflow_dispatch" in flow[True]
    assert flow["permissions"] == {"contents": "read"}
    assert flow["concurrency"]["cancel-in-progress"] is True
    assert made(text) and made(text) <= TARGETS
    used = re.findall(r"uses: (\S+)", text)
    assert used and all(re.fullmatch(r"actions/[a-z-]+@v\d+", name) for name in used)
    for job in flow["jobs"].values():
        assert set(job.get("needs", "").split()) <= flow["jobs"].keys()
    assert "secrets." not in text


def test_the_workflow_of_the_tests_makes_what_ci_does() -> None:
    flow = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    assert made(flow) == made((ROOT / ".ci" / "run").read_text(encoding="utf-8"))


def test_the_workflow_of_the_book_publishes_and_writes_no_more_than_it_must() -> None:
    jobs = read(ROOT / ".github" / "workflows" / "book.yml")["jobs"]
    assert {name: job.get("permissions") for name, job in jobs.items()} == {
        "build": None,
        "pages": {"pages": "write", "id-token": "write"},
        "notebooks": {"contents": "write"},
    }
    for name in ("pages", "notebooks"):
        assert jobs[name]["if"] == "github.ref == 'refs/heads/main'"
    paths = [
        step["with"]["path"] for step in jobs["build"]["steps"] if "path" in step.get("with", {})
    ]
    assert paths == ["_build/html", "_build/html/_sources/notebooks/*.ipynb"]
    # The branch is the one that launch buttons name.
    branch = read(ROOT / "_config.yml")["repository"]["branch"]
    assert jobs["notebooks"]["steps"][-1]["run"].rstrip().endswith(f"HEAD:refs/heads/{branch}")


def test_the_notebooks_get_a_branch_of_their_own(tmp_path: Path) -> None:
    """The workflow's own script, against a repository on this machine."""
    steps = read(ROOT / ".github" / "workflows" / "book.yml")["jobs"]["notebooks"]["steps"]
    origin, clone = tmp_path / "origin", tmp_path / "clone"

    def git(*words: str, cwd: Path = clone) -> str:
        done = subprocess.run(["git", *words], cwd=cwd, check=True, capture_output=True, text=True)
        return done.stdout

    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(origin)], check=True)
    for turn in ("first", "second"):
        git("clone", "-q", str(origin), str(clone), cwd=tmp_path)
        git("config", "user.name", "a")
        git("config", "user.email", "a@b.invalid")
        (clone / "notebooks").mkdir(exist_ok=True)
        (clone / "notebooks" / "01.py").write_text(turn)
        git("add", ".")
        git("commit", "-qm", turn)
        git("push", "-q", "origin", "HEAD:main")
        (clone / "notebooks" / "01.ipynb").write_text(turn)
        subprocess.run(
            ["bash", "-e", "-c", steps[-1]["run"]],
            cwd=clone,
            env={**os.environ, "GITHUB_SHA": turn},
            check=True,
            capture_output=True,
        )
        assert git("show", "notebooks:notebooks/01.ipynb", cwd=origin) == turn
        assert git("rev-parse", "notebooks~1", cwd=origin) == git("rev-parse", "main", cwd=origin)
        assert "ipynb" not in git("ls-tree", "-r", "--name-only", "main", cwd=origin)
        clone.rename(tmp_path / turn)


@pytest.mark.parametrize(
    "path", [form for form in FORMS if form.stem != "config"], ids=lambda path: path.stem
)
def test_a_form(path: Path) -> None:
    form = read(path)
    assert form.keys() == {"name", "description", "labels", "body"}
    asked = [item for item in form["body"] if item["type"] != "markdown"]
    assert len({item["id"] for item in asked}) == len(asked) > 0
    assert any(item.get("validations", {}).get("required") for item in asked)
    for item in form["body"]:
        known = {"markdown", "input", "textarea", "dropdown", "checkboxes"}
        assert (
            item["type"] in known and item["attributes"]["value" if item not in asked else "label"]
        )
        assert ("options" in item["attributes"]) == (item["type"] in ("dropdown", "checkboxes"))
    assert made(path.read_text(encoding="utf-8")) <= TARGETS


def test_there_is_a_form_for_each_kind_of_issue() -> None:
    assert {form.stem for form in FORMS} == {"config", "fault", "figure", "model"}


def test_binder_makes_the_projects_own_environment() -> None:
    folder = ROOT / "binder"
    assert {path.name for path in folder.iterdir()} == {"apt.txt", "postBuild", "runtime.txt"}
    assert folder.joinpath("postBuild").stat().st_mode & stat.S_IXUSR
    script = folder.joinpath("postBuild").read_text(encoding="utf-8")
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert made(script) == {"setup"} <= TARGETS
    named = re.fullmatch(r"python-(\d+)\.(\d+)\n", folder.joinpath("runtime.txt").read_text())
    assert named and (int(named[1]), int(named[2])) >= (3, 11)


def test_the_devcontainer_makes_the_projects_own_environment() -> None:
    described = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text("utf-8"))
    assert described["postCreateCommand"] == "make setup"
    settings = described["customizations"]["vscode"]["settings"]
    assert settings["python.defaultInterpreterPath"].endswith("/.venv/bin/python")


def test_the_guide_names_what_is_here() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.M)) <= TARGETS
    made_there = {".venv", "_build", "runs"}
    for name in re.findall(r"`((?:\.?\w+/)+[\w.]*|\.ci/run|\w+\.(?:md|yml|txt|py))`", text):
        if name.split("/")[0] not in made_there:
            assert (ROOT / name).exists(), name
    for module in re.findall(r"python -m (crane_lab[\w.]+)", text):
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), module
    for entry, file in re.findall(r"`([A-Z]+)`\s+in\s+`([\w/.]+\.py)`", text):
        assert re.search(rf"^{entry}\b", (ROOT / file).read_text("utf-8"), re.M), entry
