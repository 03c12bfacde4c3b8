"""An executed notebook is up to date only while every file that its parameters name is the same."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from crane_lab.runs import Project, execution
from crane_lab.settings import PARAMETERS

#: The parameters that name local files or folders.
NAMED = (
    *("model", "chat_model", "corpus", "perplexity_corpus", "tasks", "benchmark_data"),
    *("questions", "judge_prompt", "testbed", "published", "choices_data", "necessity_data"),
    *("taught_data", "languages_data", "criterion_data"),
)


def make_project(root: Path, name: str, value: str) -> Project:
    """A book of one notebook whose parameter `name` is `value`."""
    (root / "notebooks" / "profiles").mkdir(parents=True)
    (root / "data").mkdir(exist_ok=True)
    (root / "notebooks" / "profiles" / "testbed.yaml").write_text(f"{name}: '{value}'\n", "utf-8")
    default = PARAMETERS[name].default
    (root / "notebooks" / "01_one.py").write_text(
        f"# %% tags=['parameters']\n{name} = {default!r}  # what is read\n", "utf-8"
    )
    return Project(root)


def state(root: Path) -> str:
    run = Project(root).run()
    return run.digest(run.notebooks[0])


def rewritten(file: Path) -> None:
    """Other bytes of the same number, with the old time of change."""
    times = file.stat()
    file.write_bytes(bytes(255 - byte for byte in file.read_bytes()))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("name", NAMED)
def test_every_file_that_a_parameter_names_is_looked_at(tmp_path: Path, name: str) -> None:
    root = tmp_path / "book"
    folder = root / "mine"
    make_project(root, name, "mine")
    files = [folder / "a.txt", folder / "vi" / "a.txt", folder / "vi" / "deeper" / "b.parquet"]
    seen = [state(root)]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("one")
        seen.append(state(root))
    for file in files:
        rewritten(file)
        seen.append(state(root))
    files[-1].unlink()
    seen.append(state(root))
    assert len(set(seen)) == len(seen)
    assert state(root) == seen[-1]


def _one_file(root: Path, _: Path) -> tuple[str, Path]:
    return "mine.txt", root / "mine.txt"


def _elsewhere(_: Path, other: Path) -> tuple[str, Path]:
    return str(other / "a b [1] {x} %20 ü" / "vi"), other / "a b [1] {x} %20 ü" / "vi" / "1.txt"


def _by_language(_: Path, other: Path) -> tuple[str, Path]:
    return f"{other}/texts/{{language}}/train.txt", other / "texts" / "vi" / "train.txt"


def _twice(root: Path, _: Path) -> tuple[str, Path]:
    return "t/{language}/{language}.txt", root / "t" / "vi" / "vi.txt"


def _at_home(_: Path, other: Path) -> tuple[str, Path]:
    return "~/texts", other / "texts" / "vi.txt"


def _linked(root: Path, other: Path) -> tuple[str, Path]:
    (other / "far").mkdir()
    (root / "texts").mkdir(parents=True)
    (root / "texts" / "vi").symlink_to(other / "far")
    (other / "far" / "round").symlink_to(root / "texts")
    return "texts", other / "far" / "1.txt"


def _among_runs(root: Path, _: Path) -> tuple[str, Path]:
    return "runs/mine", root / "runs" / "mine" / "vi.txt"


def _linked_in_data(root: Path, other: Path) -> tuple[str, Path]:
    (other / "far").mkdir()
    (root / "data" / "texts").mkdir(parents=True)
    (root / "data" / "texts" / "vi").symlink_to(other / "far")
    return "data/texts", other / "far" / "1.txt"


@pytest.mark.parametrize(
    "lay_out",
    [
        *(_one_file, _elsewhere, _by_language, _twice, _at_home, _linked),
        *(_among_runs, _linked_in_data),
    ],
)
def test_paths_that_people_have(
    tmp_path: Path,
    lay_out: Callable[[Path, Path], tuple[str, Path]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root, other = tmp_path / "book", tmp_path / "other"
    other.mkdir()
    monkeypatch.setenv("HOME", str(other))
    value, file = lay_out(root, other)
    make_project(root, "corpus", value)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("một")
    before = state(root)
    assert state(root) == before
    rewritten(file)
    assert state(root) != before


def test_large_files_are_told_by_size_and_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "_READ_WHOLE", 4)
    make_project(tmp_path, "model", "mine")
    file = tmp_path / "mine" / "model.safetensors"
    file.parent.mkdir()
    file.write_text("weights")
    before = state(tmp_path)
    monkeypatch.setattr(execution, "file_sha256", None)  # it is not read
    assert state(tmp_path) == before
    rewritten(file)
    assert state(tmp_path) != before


def test_what_a_run_writes_does_not_count(tmp_path: Path) -> None:
    make_project(tmp_path, "corpus", ".")
    before = state(tmp_path)
    for name in ("runs/testbed/results/one.csv", ".cache/x"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("1")
    assert state(tmp_path) == before
