"""Small data sets in the exact layout and schema of those on the hub, made up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

#: Split -> rows.
Splits = Mapping[str, Sequence[Mapping[str, Any]]]


def write_dataset(
    folder: Path, configs: Mapping[str, Splits], schema: pa.Schema, licence: str = ""
) -> None:
    """Write `<folder>/<config>/<split>-00000-of-00001.parquet` and a card that names them."""
    card = ["---"]
    if licence:
        card += ["license:", f"- {licence}"]
    card.append("configs:")
    for config, splits in configs.items():
        card += [f"- config_name: {config}", "  data_files:"]
        for split, rows in splits.items():
            name = f"{config}/{split}-00000-of-00001.parquet"
            card += [f"  - split: {split}", f"    path: {config}/{split}-*"]
            (folder / config).mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), folder / name)
    (folder / "README.md").write_text("\n".join([*card, "---", "Made up."]), encoding="utf-8")


WIKIPEDIA = pa.schema([(name, pa.string()) for name in ("id", "url", "title", "text")])
MMLU = pa.schema(
    [
        ("question", pa.string()),
        ("subject", pa.string()),
        ("choices", pa.list_(pa.string())),
        ("answer", pa.int64()),
    ]
)
CEVAL = pa.schema(
    [("id", pa.int32())]
    + [(name, pa.string()) for name in ("question", *"ABCD", "answer", "explanation")]
)
BELEBELE = pa.schema(
    [("link", pa.string()), ("question_number", pa.int64()), ("flores_passage", pa.string())]
    + [(name, pa.string()) for name in ("question", *(f"mc_answer{i}" for i in range(1, 5)))]
    + [(name, pa.string()) for name in ("correct_answer_num", "dialect", "ds")]
)


def mmlu(subject: str, n: int) -> Splits:
    """One subject of cais/mmlu with `n` test questions."""

    def row(index: int) -> dict[str, Any]:
        choices = [f"{subject} {index + step}" for step in range(4)]
        question = f"Which of these is number {index} of {subject}?"
        return {
            "question": question,
            "subject": subject,
            "choices": choices,
            "answer": (index * 3 + len(subject)) % 4,
        }

    return {
        "test": [row(index) for index in range(n)],
        "validation": [row(index + 100) for index in range(2)],
        "dev": [row(index + 200) for index in range(5)],
    }


def ceval(subject: str, n: int) -> Splits:
    """One subject of ceval/ceval-exam with `n` validation questions."""

    def row(index: int) -> dict[str, Any]:
        return {
            "id": index,
            "question": f"第{index}题：下列哪一项正确？",
            **{letter: f"第{index + step}项" for step, letter in enumerate("ABCD")},
            "answer": "ABCD"[(index + len(subject)) % 4],
            "explanation": "",
        }

    return {
        "test": [{**row(index), "answer": ""} for index in range(2)],
        "val": [row(index) for index in range(n)],
        "dev": [row(index + 200) for index in range(5)],
    }


def belebele(dialect: str, n: int) -> Splits:
    """One language of facebook/belebele with `n` questions, two on each passage."""

    def row(index: int) -> dict[str, Any]:
        return {
            "link": f"https://en.wikibooks.org/{index // 2}",
            "question_number": index % 2 + 1,
            "flores_passage": f"{dialect}: there are {index // 2 + 3} boats on the river.",
            "question": f"{dialect}: how many boats are there in {index}?",
            **{f"mc_answer{i}": str(index + i) for i in range(1, 5)},
            "correct_answer_num": str(index % 4 + 1),
            "dialect": dialect,
            "ds": "2023-05-03",
        }

    return {"test": [row(index) for index in range(n)]}
