"""Whole files and folders or none."""

from pathlib import Path

import pytest

from crane_core.files import replacing


def test_a_file_is_replaced_or_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as draft:
        draft.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    with replacing(path) as draft:
        draft.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "model"
    with pytest.raises(RuntimeError), replacing(path) as draft:
        draft.mkdir()
        (draft / "part").write_text("half")
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with replacing(path) as draft:
        draft.mkdir()
        (draft / "part").write_text("whole")
        assert not path.exists()
    assert (path / "part").read_text() == "whole" and list(tmp_path.iterdir()) == [path]
