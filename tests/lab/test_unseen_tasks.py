"""`nli_<language>` and `qa_<language>` as lm-eval reads them."""

from __future__ import annotations

from pathlib import Path

import pytest
from lm_eval.tasks import TaskManager

from crane_lab.cli import unseen
from crane_lab.store import ROOT
from crane_lab.study.tuned import TASKS
from crane_lab.testbed.unseen import PARTS, unseen_items
from crane_lab.testbed.world import LANGUAGES


def test_what_is_shipped_is_what_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert unseen.main([]) == 0
    made = {file.name: file.read_bytes() for file in (tmp_path / "data" / "unseen").iterdir()}
    shipped = {
        file.name: file.read_bytes()
        for file in (ROOT / "data" / "unseen").iterdir()
        if file.suffix != ".md"
    }
    assert made == shipped and len(made) == 2 * len(TASKS) * len(LANGUAGES)


def test_lm_eval_asks_what_is_asked_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    manager = TaskManager(include_path="data/unseen", include_defaults=False)
    found = manager.load_task_or_group([f"{task}_{x}" for task in TASKS for x in LANGUAGES])
    for x in LANGUAGES:
        nli, item = found[f"nli_{x}"], unseen_items("nli", "test")[x][0]
        first = nli.dataset["test"][0]
        choices = nli.doc_to_choice(first)
        assert len(nli.dataset["test"]) == PARTS["test"] and len(set(choices)) == 3
        assert all(item["premise"] in one and item["hypothesis"] in one for one in choices)
        assert nli.doc_to_target(first) == item["label"]
        qa, asked = found[f"qa_{x}"], unseen_items("qa", "test")[x][0]
        prompt = qa.doc_to_text(qa.dataset["test"][0])
        assert prompt.startswith(asked["passage"]) and asked["question"] in prompt
        assert qa.doc_to_target(qa.dataset["test"][0]) == asked["answer"]


def test_other_parts_are_written_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    unseen.write_unseen("out", ["validation", "test"])
    lines = (tmp_path / "out" / "qa_vi_validation.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == PARTS["validation"]
    assert "validation: out/qa_vi_validation.jsonl" in (tmp_path / "out" / "qa_vi.yaml").read_text()
