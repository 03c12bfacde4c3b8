"""Task files: loaded offline, checked, digested."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from made_up_tasks import MODEL, N_ITEMS, TOKENIZER, folder, make_item, write_items

from crane_lab.engines.multiple_choice import prepare
from crane_lab.engines.tasks import TASKS, load_tasks, tasks_digests

__all__ = ["folder"]  # fixtures


PROMPTS = {
    "knowledge_en": ("Question: Q?\nAnswer:", " A"),
    "knowledge_zh": ("问题：Q?\n回答：", "A"),
    "knowledge_vi": ("Câu hỏi: Q?\nTrả lời:", " A"),
    "reading_en": ("P.\nQuestion: Q?\nAnswer:", " A"),
    "reading_zh": ("P.\n问题：Q?\n回答：", "A"),
    "reading_vi": ("P.\nCâu hỏi: Q?\nTrả lời:", " A"),
}


def test_prompts_as_shipped(folder: Path) -> None:
    for task in TASKS:
        changes = {"passage": "P.", "question": "Q?", "options": list("ABCD")}
        write_items(folder, task, [make_item(task, 0, **changes)])
    tasks = load_tasks(folder=folder)
    assert tuple(tasks) == TASKS
    prepared = prepare(MODEL, TOKENIZER, tasks)
    first = {request.task_name: request.args for request in reversed(prepared.requests)}
    assert first == PROMPTS
    assert list(prepared.items["language"]) == ["en", "zh", "vi"] * 2


def test_tasks_load_offline_from_anywhere_and_leave_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.chdir(elsewhere)
    before = sorted(folder.iterdir())
    task = load_tasks(["reading_vi"], folder)["reading_vi"]
    assert [doc["id"] for doc in task.eval_docs][-1] == f"reading_vi-{N_ITEMS - 1:04d}"
    assert sorted(folder.iterdir()) == before
    assert not list(elsewhere.iterdir()) and not list((tmp_path / "tmp").iterdir())


def test_changed_items_are_noticed(folder: Path) -> None:
    path = folder / "knowledge_en.jsonl"
    times = path.stat()
    load_tasks(["knowledge_en"], folder)
    # The same length and the same time of change: only the content tells.
    path.write_text(path.read_text().replace("-0000", "-9999"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    task = load_tasks(["knowledge_en"], folder)["knowledge_en"]
    assert task.eval_docs[0]["id"] == "knowledge_en-9999"


def test_limit_spreads_over_the_file(folder: Path) -> None:
    task = load_tasks(["knowledge_zh"], folder, limit=3)["knowledge_zh"]
    assert [doc["id"][-4:] for doc in task.eval_docs] == ["0000", "0003", "0006"]
    task = load_tasks(["knowledge_zh"], folder, limit=50)["knowledge_zh"]
    assert len(task.eval_docs) == N_ITEMS
    with pytest.raises(ValueError, match="limit must be at least 1"):
        load_tasks(["knowledge_zh"], folder, limit=0)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("{not json", "line 2: not JSON"),
        (["a list"], "line 2: expected a JSON object, got list"),
        ({"options": ["a", "b", "c"]}, r"line 2: expected 4 options, got \['a', 'b', 'c'\]"),
        ({"options": "abcd"}, "line 2: expected 4 options"),
        ({"options": ["a", "b", "c", " "]}, "line 2: every option must be a text"),
        ({"options": ["a", "b", "c", "a"]}, "line 2: options must differ"),
        ({"answer": 4}, "line 2: answer must be an index from 0 to 3, got 4"),
        ({"answer": True}, "line 2: answer must be an index from 0 to 3, got True"),
        ({"answer": "1"}, "line 2: answer must be an index"),
        ({"question": ""}, "line 2: 'question' must be a text"),
        ({"question": " "}, "line 2: 'question' must be a question, got ' '"),
        ({"question": "nan"}, "line 2: 'question' must be a question, got 'nan'"),
        ({"question": float("nan")}, "line 2: 'question' must be a text, got nan"),
        ({"answer": float("nan")}, "line 2: answer must be an index"),
        ({"options": ["a", "b", "c", None]}, "line 2: every option must be a text"),
        ({"relation": None}, "line 2: 'relation' must be a text, got None"),
        ({"id": "knowledge_en-0000"}, "line 2: id 'knowledge_en-0000' stands twice"),
    ],
)
def test_malformed_item(folder: Path, item: Any, message: str) -> None:
    second = make_item("knowledge_en", 1, **item) if isinstance(item, dict) else item
    lines = [make_item("knowledge_en", 0), second if isinstance(second, str | dict) else '["a"]']
    write_items(folder, "knowledge_en", lines)
    with pytest.raises(ValueError, match=rf"knowledge_en\.jsonl, {message}"):
        load_tasks(["knowledge_en"], folder)


def test_missing_or_empty_files(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown task 'knowledge_fr'.*available: knowledge_en"):
        load_tasks(["knowledge_fr"], folder)
    with pytest.raises(FileNotFoundError, match=r"task folder .*nowhere does not exist"):
        load_tasks(folder=tmp_path / "nowhere")
    (folder / "reading_en.jsonl").write_text("\n")
    with pytest.raises(ValueError, match=r"reading_en\.jsonl is empty"):
        load_tasks(["reading_en"], folder)
    (folder / "reading_en.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"reading_en\.jsonl is not valid UTF-8"):
        load_tasks(["reading_en"], folder)
    (folder / "reading_en.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"'reading_en' has no items: .*reading_en\.jsonl"):
        load_tasks(["reading_en"], folder)
    (folder / "reading_zh.yaml").write_text("task: reading_zh\n")
    with pytest.raises(ValueError, match="'reading_zh' names no items"):
        load_tasks(["reading_zh"], folder)


def test_fingerprint_follows_items_and_prompt(folder: Path) -> None:
    before = tasks_digests(folder=folder)
    write_items(folder, "reading_en", [make_item("reading_en", 5)])
    prompt = (folder / "reading_vi.yaml").read_text().replace("Trả lời", "Đáp")
    (folder / "reading_vi.yaml").write_text(prompt)
    after = tasks_digests(folder=folder)
    changed = {task for task in TASKS if before[task] != after[task]}
    assert changed == {"reading_en", "reading_vi"}


# ------------------------------------------------------------- definitions that are something else


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", r"en\.yaml is a pointer of Git LFS"),
        (b"<!DOCTYPE html><html>", r"en\.yaml is a web page or XML"),
        (b"task: [knowledge_en\n", r"unknown task.*en\.yaml is no valid YAML: while parsing"),
        (b"- knowledge_en\n", r"unknown task.*en\.yaml holds list; expected `task: knowledge_en`"),
        (b"", r"unknown task.*en\.yaml holds NoneType"),
        (b"task: knowledge\ndataset_path: json\n", r"unknown task.*en\.yaml defines 'knowledge'"),
        (b"task: !!python/object/apply:os.getcwd []\n", r"en\.yaml is no valid YAML: could not"),
    ],
)
def test_a_definition_that_is_something_else(folder: Path, content: bytes, message: str) -> None:
    (folder / "knowledge_en.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_tasks(["knowledge_en"], folder)


def test_a_definition_as_editors_of_other_systems_write_it(folder: Path) -> None:
    path = folder / "knowledge_en.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    items = folder / "knowledge_en.jsonl"
    items.write_bytes(b"\xef\xbb\xbf" + items.read_bytes().replace(b"\n", b"\r\n"))
    assert len(load_tasks(["knowledge_en"], folder)["knowledge_en"].eval_docs) == N_ITEMS
    path.rename(folder / "knowledge_en.yml")
    with pytest.raises(ValueError, match=r"knowledge_en\.yml is not read, expected .*en\.yaml"):
        load_tasks(["knowledge_en"], folder)


def test_one_task_has_one_definition(folder: Path) -> None:
    text = (folder / "knowledge_en.yaml").read_text("utf-8")
    (folder / "copy.yaml").write_text(text, "utf-8")
    with pytest.raises(ValueError, match=r"more than once, by .*copy\.yaml and .*en\.yaml; keep"):
        load_tasks(["knowledge_en"], folder)
    assert list(load_tasks(["knowledge_vi"], folder)) == ["knowledge_vi"]


def test_code_of_a_definition_is_not_run(folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w')\ndef f(docs): return docs\n")
    with (folder / "knowledge_en.yaml").open("a") as file:
        file.write("\nprocess_docs: !function evil.f\n")
    with pytest.raises(ValueError, match=r"names code \(!function\), which is not run"):
        load_tasks(["knowledge_en"], folder)
    assert not mark.exists()


def test_items_in_one_array(folder: Path) -> None:
    (folder / "knowledge_en.jsonl").write_text("[{}]")
    with pytest.raises(ValueError, match="line 1: expected a JSON object, got list; write one obj"):
        load_tasks(["knowledge_en"], folder)
    (folder / "knowledge_en.jsonl").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match=r"knowledge_en\.jsonl is a pointer of Git LFS"):
        load_tasks(["knowledge_en"], folder)
