"""Items of `nli` and `qa` as token ids, and how spans are scored in each language.

XQuAD is scored by exact match and by F1 over words, after articles and punctuation are left out. A
Chinese text has no spaces between words, so that there characters are counted, as is usual.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from crane_lab.engines.prompting import opened, spelled
from crane_lab.testbed.unseen import LABELS

Item = Mapping[str, Any]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
#: Writing without spaces between words, where characters are counted instead.
UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
#: What items must have.
_FIELDS = {"nli": ("premise", "hypothesis", "label"), "qa": ("passage", "question", "answer")}
#: What ends an answer.
STOP = "\n"


def validate_items(task: str, items: Sequence[Item]) -> None:
    """See that items of `nli` have a label, and that answers of `qa` stand in their passage.

    Raises ValueError for the first that does not, by its id or place, and for an unknown task.
    """
    if task not in _FIELDS:
        raise ValueError(f"unknown task {task!r}: expected one of {', '.join(_FIELDS)}")
    for number, item in enumerate(items):
        name = f"item {item.get('id', number)!r}"
        if missing := [field for field in _FIELDS[task] if _blank(item.get(field))]:
            raise ValueError(f"{name} of {task} has no {missing[0]}")
        label = item.get("label")
        if task == "nli" and (isinstance(label, bool) or label not in range(len(LABELS))):
            raise ValueError(
                f"{name} has the label {item['label']!r}: expected a place in {LABELS}"
            )
        if task == "qa" and str(item["answer"]) not in str(item["passage"]):
            raise ValueError(f"{name}: its answer {item['answer']!r} does not stand in its passage")


def _blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def nli_ids(tokenizer: PreTrainedTokenizerBase, items: Sequence[Item]) -> list[list[int]]:
    """Token ids of premise and hypothesis, a line each, behind what opens a text."""
    return opened(tokenizer, [f"{item['premise']}\n{item['hypothesis']}" for item in items])


def qa_prompts(
    tokenizer: PreTrainedTokenizerBase, items: Sequence[Item], frame: str
) -> list[list[int]]:
    """Token ids of passage and question, open for the answer.

    `frame` has the fields {passage} and {question}, and ends where the answer begins.
    """
    return opened(tokenizer, [frame.format(**item) for item in items])


def qa_answers(
    tokenizer: PreTrainedTokenizerBase, items: Sequence[Item], before: str = " "
) -> list[list[int]]:
    """Token ids of what a model is taught to go on with: the answer and the line's end."""
    return spelled(tokenizer, [f"{before}{item['answer']}{STOP}" for item in items])


def words(text: str, language: str) -> list[str]:
    """An answer as it is compared: its words, in Chinese and Japanese its characters."""
    text = unicodedata.normalize("NFKC", text).lower()
    text = "".join(" " if unicodedata.category(c)[0] in "PSZC" else c for c in text)
    if language == "en":
        text = _ARTICLES.sub(" ", text)
    return UNSPACED.sub(lambda match: f" {match[0]} ", text).split()


def span_scores(said: str, answer: str, language: str) -> tuple[float, float]:
    """Exact match and F1 of an answer, each 0 to 1; two empty ones match."""
    a, b = words(said, language), words(answer, language)
    same = sum((Counter(a) & Counter(b)).values())
    f1 = 2 * same / (len(a) + len(b)) if a or b else 1.0
    return float(a == b), f1
