"""Tasks whose score is lm-eval's `acc_mutual_info`: what the prompt adds to an option."""

from itertools import pairwise
from pathlib import Path

import lm_eval
import pandas as pd
import pytest
import torch
import yaml
from lm_eval.models.huggingface import HFLM
from made_up_tasks import MODEL, N_ITEMS, TOKENIZER, WITH_BOS, folder, make_model

from crane_lab.engines import shared_context
from crane_lab.engines.answers import answer_instead
from crane_lab.engines.multiple_choice import Prepared, evaluate, metric_of, prepare
from crane_lab.engines.shared_context import SharedContextLM
from crane_lab.engines.tasks import OPTIONS, Tasks, load_tasks

__all__ = ["folder"]  # fixtures

NAMES = ("knowledge_en", "reading_zh", "reading_vi")
SCORES = [f"logprob_{option}" for option in range(OPTIONS)]


def with_metrics(folder: Path, name: str, *metrics: str) -> None:
    path = folder / f"{name}.yaml"
    listed = [{"metric": m, "aggregation": "mean", "higher_is_better": True} for m in metrics]
    path.write_text(path.read_text() + yaml.safe_dump({"metric_list": listed}), encoding="utf-8")


@pytest.fixture
def tasks(folder: Path) -> Tasks:
    """A task scored as ever between two that are scored by mutual information."""
    with_metrics(folder, "knowledge_en", "acc_mutual_info")
    with_metrics(folder, "reading_vi", "acc", "acc_mutual_info")
    return load_tasks(NAMES, folder)


@pytest.fixture
def prepared(tasks: Tasks) -> Prepared:
    return prepare(MODEL, WITH_BOS, tasks)


def test_requests(tasks: Tasks, prepared: Prepared) -> None:
    assert [metric_of(task) for task in tasks.values()] == [
        "acc_mutual_info",
        "acc",
        "acc_mutual_info",
    ]
    sizes = [end - start for start, end in pairwise(prepared.starts)]
    assert sizes == [8] * N_ITEMS + [4] * N_ITEMS + [8] * N_ITEMS
    assert prepared.starts[-1] == len(prepared.requests)
    first = [request.args for request in prepared.requests[:8]]
    assert first[4:] == [("", option) for _, option in first[:4]]
    # BOS opens what has a prompt and what has none, once.
    sequences, _ = SharedContextLM(MODEL, WITH_BOS)._sequences(first)
    begin = [(inputs[0], (inputs + targets).count(0)) for inputs, targets in sequences]
    assert begin == [(WITH_BOS.bos_token_id, 1)] * 8


def test_score_is_what_the_prompt_adds(prepared: Prepared) -> None:
    theirs = HFLM(pretrained=MODEL, tokenizer=WITH_BOS, batch_size=4, logits_cache=False)
    logprobs = [
        logprob for logprob, _ in theirs.loglikelihood(list(prepared.requests), disable_tqdm=True)
    ]
    items = evaluate(MODEL, prepared)
    for row, start in enumerate(prepared.starts[:-1]):
        item, expected = items.iloc[row], torch.tensor(logprobs[start : start + OPTIONS])
        if item["task"] != "reading_zh":
            expected -= torch.tensor(logprobs[start + OPTIONS : start + 2 * OPTIONS])
        torch.testing.assert_close(
            torch.tensor(item[SCORES].tolist()), expected, rtol=1e-5, atol=1e-5
        )
        others = [score for option, score in enumerate(expected) if option != item["answer"]]
        assert item["choice"] == expected.argmax()
        assert item["correct"] == (item["choice"] == item["answer"])
        assert item["margin"] == pytest.approx(float(expected[item["answer"]] - max(others)), 1e-3)


def test_accuracy_is_lm_evals(folder: Path, tasks: Tasks, prepared: Prepared) -> None:
    theirs = HFLM(pretrained=MODEL, tokenizer=WITH_BOS, batch_size=4, logits_cache=False)
    found = lm_eval.simple_evaluate(
        theirs, tasks=list(load_tasks(NAMES, folder).values()), bootstrap_iters=0
    )
    ours = evaluate(MODEL, prepared).groupby("task")["correct"].mean()
    for name, task in tasks.items():
        assert ours[name] == found["results"][name][f"{metric_of(task)},none"]


def test_others_are_as_they_were(folder: Path, prepared: Prepared) -> None:
    alone = evaluate(MODEL, prepare(MODEL, WITH_BOS, load_tasks(["reading_zh"], folder)))
    among = evaluate(MODEL, prepared)
    rows = among[among["task"] == "reading_zh"].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows, alone, rtol=1e-5, atol=1e-5)


def test_answers_follow_the_prompt(prepared: Prepared) -> None:
    said = answer_instead(MODEL, WITH_BOS, prepared, n_items=2, max_new_tokens=2)
    assert list(said["task"]) == [name for name in NAMES for _ in range(2)]
    mixed = evaluate(MODEL, prepared)
    assert set(said["id"]) <= set(mixed["id"])


def test_logits_in_parts_are_the_same(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluate(MODEL, prepared)
    monkeypatch.setattr(shared_context, "_LOGITS", 7 * len(TOKENIZER))
    pd.testing.assert_frame_equal(evaluate(MODEL, prepared), whole, rtol=1e-5, atol=1e-5)


def test_not_finite(prepared: Prepared) -> None:
    broken = make_model()
    torch.nn.init.constant_(broken.model.layers[1].mlp.up_proj.weight, torch.nan)
    with pytest.raises(ValueError, match=r"27 of 27 items .*'knowledge_en-0000': .nan"):
        evaluate(broken, prepared)
