"""Copies of the benchmarks' data as people have them: loaded, or one error that says what is
expected."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hub_data
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crane_lab.engines import benchmarks, harness_data

CEVAL, MMLU, BELEBELE = "ceval-valid_accountant", "mmlu_marketing", "belebele_vie_Latn"
#: Of each task: where its copy lies, what it is about, and made-up items.
COPIES: dict[str, tuple[str, str, hub_data.Splits]] = {
    CEVAL: ("ceval/ceval-exam", "accountant", hub_data.ceval("accountant", 3)),
    MMLU: ("cais/mmlu", "marketing", hub_data.mmlu("marketing", 3)),
    BELEBELE: ("facebook/belebele", "vie_Latn", hub_data.belebele("vie_Latn", 4)),
}


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], header: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        if header:
            writer.writeheader()
        writer.writerows(rows)


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path)


WRITE = {"csv": write_csv, "jsonl": write_jsonl, "parquet": write_parquet}


def items(name: str, root: Path) -> list[dict[str, Any]]:
    """The items that are loaded of a task, with what lm-eval makes of them."""
    found = benchmarks.load([name], 2 if name != BELEBELE else 1, data=root)
    task = found.tasks[name]
    docs = list(task.dataset[benchmarks._split(task)])
    return [
        {
            "text": task.doc_to_text(doc),
            "answer": task.doc_to_target(doc),
            "options": harness_data.options_of(name, doc),
        }
        for doc in docs
    ]


def expected(name: str) -> list[dict[str, Any]]:
    _, _, splits = COPIES[name]
    rows = splits["val" if name == CEVAL else "test"]
    kind = harness_data.kind_of(name)
    return [
        {
            "answer": kind.answers.index(row[kind.answer]),
            "options": harness_data.options_of(name, row),
        }
        for row in rows
    ]


def check(name: str, root: Path) -> None:
    found = items(name, root)
    assert [{k: x[k] for k in ("answer", "options")} for x in found] == expected(name)
    rows = COPIES[name][2]["val" if name == CEVAL else "test"]
    for item, row in zip(found, rows, strict=True):
        assert row["question"] in item["text"]
        assert all(str(option) in item["text"] for option in item["options"])


@pytest.mark.parametrize(
    ("name", "ending"),
    [(n, e) for n in COPIES for e in WRITE if (n, e) != (MMLU, "csv")],  # it has no lists
)
@pytest.mark.parametrize("layout", ["{}/{}", "{}/{}-00000-of-00001", "{}/{}/0000"])
def test_files_by_subject_and_split(tmp_path: Path, name: str, ending: str, layout: str) -> None:
    repository, subject, splits = COPIES[name]
    for split, rows in splits.items():
        WRITE[ending](tmp_path / repository / f"{layout.format(subject, split)}.{ending}", rows)
    check(name, tmp_path)


def test_the_archive_of_c_eval(tmp_path: Path) -> None:
    _, subject, splits = COPIES[CEVAL]
    common = ("id", "question", "A", "B", "C", "D")
    columns = {
        "dev": (*common, "answer", "explanation"),
        "val": (*common, "answer"),
        "test": common,
    }
    for split, rows in splits.items():
        own = [{column: row[column] for column in columns[split]} for row in rows]
        write_csv(tmp_path / "ceval/ceval-exam" / split / f"{subject}_{split}.csv", own)
    check(CEVAL, tmp_path)


def test_the_archive_of_mmlu(tmp_path: Path) -> None:
    _, subject, splits = COPIES[MMLU]
    for split, rows in splits.items():
        own = [
            {
                "question": row["question"],
                **dict(zip("ABCD", row["choices"], strict=True)),
                "answer": "ABCD"[row["answer"]],
            }
            for row in rows
        ]
        name = {"validation": "val"}.get(split, split)
        write_csv(tmp_path / "cais/mmlu/data" / name / f"{subject}_{name}.csv", own, header=False)
    check(MMLU, tmp_path)


@pytest.mark.parametrize("folder", ["", "data"])
def test_the_archive_of_belebele(tmp_path: Path, folder: str) -> None:
    repository, subject, splits = COPIES[BELEBELE]
    write_jsonl(tmp_path / repository / folder / f"{subject}.jsonl", splits["test"])
    check(BELEBELE, tmp_path)


@pytest.mark.parametrize("root", ["a b", "[1] *", "{x}", "50 %", "văn bản"])
def test_a_clone_by_its_card_wherever_it_lies(tmp_path: Path, root: str) -> None:
    for name, schema in ((CEVAL, hub_data.CEVAL), (BELEBELE, hub_data.BELEBELE)):
        repository, subject, splits = COPIES[name]
        hub_data.write_dataset(tmp_path / root / repository, {subject: splits}, schema)
        check(name, tmp_path / root)


def test_what_reads_like_nothing_in_a_table_stays_text(tmp_path: Path) -> None:
    _, subject, splits = COPIES[CEVAL]
    rows = [dict(row) for row in splits["val"]]
    rows[0] |= {"A": "None", "B": "NA", "C": "null", "D": "nan"}
    for split, own in {**splits, "val": rows}.items():
        write_csv(tmp_path / "ceval/ceval-exam" / subject / f"{split}.csv", own)
    assert items(CEVAL, tmp_path)[0]["options"] == ["None", "NA", "null", "nan"]


# ---------------------------------------------------------------------------------- what is refused


def copy_of(root: Path, name: str = CEVAL) -> Path:
    """A copy that can be loaded; the folder of its subject."""
    repository, subject, splits = COPIES[name]
    for split, rows in splits.items():
        write_jsonl(root / repository / subject / f"{split}.jsonl", rows)
    return root / repository / subject


def test_a_clone_with_a_loading_script(tmp_path: Path) -> None:
    clone = tmp_path / "ceval" / "ceval-exam"
    clone.mkdir(parents=True)
    (clone / "README.md").write_text("---\nlicense: cc-by-nc-sa-4.0\n---\nC-Eval\n")
    (clone / "ceval-exam.py").write_text("raise SystemExit('this must not run')\n")
    (clone / "ceval-exam.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    with pytest.raises(
        FileNotFoundError,
        match=r"no 'val' of 'accountant' in .*holds README\.md, ceval-exam\.py, ceval-exam\.zip "
        r"\(loading scripts are code and are not run\); expected a copy of .*'ceval/ceval-exam'"
        r".*folder 'accountant' of files by split, as val\.parquet, \.jsonl or \.csv.*hf download",
    ):
        benchmarks.load([CEVAL], data=tmp_path)


def test_another_copy_than_the_one_asked_for(tmp_path: Path) -> None:
    copy_of(tmp_path, MMLU)
    shutil.move(tmp_path / "cais/mmlu", tmp_path / "hails/mmlu_no_train")
    with pytest.raises(FileNotFoundError, match=r"in .*cais/mmlu, which does not exist.*cais/mmlu"):
        benchmarks.load([MMLU], data=tmp_path)


def test_a_subject_or_a_split_is_missing(tmp_path: Path) -> None:
    folder = copy_of(tmp_path)
    (folder / "dev.jsonl").rename(folder / "train.jsonl")
    with pytest.raises(FileNotFoundError, match=r"no 'dev' of 'accountant'.*holds accountant/;"):
        benchmarks.load([CEVAL], data=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no 'val' of 'law'.*folder 'law' of files"):
        benchmarks.load(["ceval-valid_law"], data=tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        (b"<!DOCTYPE html><html>", "is a web page or XML"),
        (b"[]", r"val\.jsonl: expected one JSON object per line"),
        (b'{"a": ', r"val\.jsonl cannot be read"),
        (b"\n", r"no items in .*val\.jsonl"),
        (b'{"id": 1, "question": "?"}', r"no column 'A', 'B', 'C', 'D', 'answer'; there are: id"),
    ],
)
def test_files_that_are_something_else(tmp_path: Path, content: bytes, message: str) -> None:
    (copy_of(tmp_path) / "val.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        benchmarks.load([CEVAL], data=tmp_path)


@pytest.mark.parametrize("with_card", [True, False])
@pytest.mark.parametrize("answer", ["a", "E", "", "0", "A ", "None"])
def test_answers_that_are_no_letter(tmp_path: Path, answer: str, with_card: bool) -> None:
    repository, subject, splits = COPIES[CEVAL]
    rows = [dict(row) for row in splits["val"]]
    rows[1]["answer"] = answer
    changed = {**splits, "val": rows}
    if with_card:
        hub_data.write_dataset(tmp_path / repository, {subject: changed}, hub_data.CEVAL)
    else:
        copy_of(tmp_path)
        write_jsonl(tmp_path / repository / subject / "val.jsonl", rows)
    with pytest.raises(
        ValueError, match=rf"row 1 of split 'val': the answer is '{answer}'; expected one of 'A'"
    ):
        benchmarks.load([CEVAL], data=tmp_path)


def test_examples_are_checked_like_items(tmp_path: Path) -> None:
    repository, subject, splits = COPIES[CEVAL]
    rows = [{**row, "question": None} for row in splits["dev"]]
    copy_of(tmp_path)
    write_jsonl(tmp_path / repository / subject / "dev.jsonl", rows)
    with pytest.raises(ValueError, match="row 0 of split 'dev': expected a text as question"):
        benchmarks.load([CEVAL], data=tmp_path)


def test_numbers_as_answers_of_belebele(tmp_path: Path) -> None:
    repository, subject, splits = COPIES[BELEBELE]
    rows = [{**row, "correct_answer_num": int(row["correct_answer_num"])} for row in splits["test"]]
    write_jsonl(tmp_path / repository / f"{subject}.jsonl", rows)
    with pytest.raises(ValueError, match="the answer is 1; expected one of '1', '2', '3', '4'"):
        benchmarks.load([BELEBELE], data=tmp_path)


def test_a_csv_file_that_is_torn(tmp_path: Path) -> None:
    folder = copy_of(tmp_path)
    (folder / "val.jsonl").unlink()
    for content in ("question,A,B,C,D,answer\n?,1,2,3,4\n", 'question,A\n"?"x,1\n'):
        (folder / "val.csv").write_text(content)
        with pytest.raises(ValueError, match=r"as many columns|val\.csv cannot be read"):
            benchmarks.load([CEVAL], data=tmp_path)


def test_a_card_whose_files_are_missing(tmp_path: Path) -> None:
    repository, subject, splits = COPIES[CEVAL]
    hub_data.write_dataset(tmp_path / repository, {subject: splits}, hub_data.CEVAL)
    for file in (tmp_path / repository).rglob("val*"):
        file.unlink()
    with pytest.raises(FileNotFoundError, match=r"no 'val' of 'accountant'.*holds README\.md, acc"):
        benchmarks.load([CEVAL], data=tmp_path)


def test_a_card_without_one_of_the_splits(tmp_path: Path) -> None:
    repository, subject, splits = COPIES[CEVAL]
    only = {"val": splits["val"]}
    hub_data.write_dataset(tmp_path / repository, {subject: only}, hub_data.CEVAL)
    with pytest.raises(FileNotFoundError, match=r"no 'dev' of 'accountant'"):
        benchmarks.load([CEVAL], data=tmp_path)


def test_a_split_that_the_hub_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"train": [], "val": COPIES[CEVAL][2]["val"]}
    monkeypatch.setattr("datasets.load_dataset", lambda **_: found)
    with pytest.raises(ValueError, match=r"no split 'dev' of 'accountant'; there are: train, val"):
        benchmarks.load([CEVAL])


def test_what_the_hub_has_is_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise RuntimeError("Dataset scripts are no longer supported, but found ceval-exam.py")

    monkeypatch.setattr("datasets.load_dataset", refuse)
    with pytest.raises(ValueError, match=r"ceval/ceval-exam: it comes with a loading script, whi"):
        benchmarks.load([CEVAL])
