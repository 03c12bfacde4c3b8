"""Multiple choice: items, outcomes, accuracies."""

import math

import pandas as pd
import pytest
import torch
from made_up_tasks import MODEL, N_ITEMS, TOKENIZER, make_model, prepared, tasks

from crane_lab.engines.multiple_choice import Prepared, accuracies, evaluate, prepare
from crane_lab.engines.tasks import Tasks

__all__ = ["prepared", "tasks"]  # fixtures


def test_items_table(prepared: Prepared) -> None:
    items = evaluate(MODEL, prepared)
    assert list(items.columns) == [
        *("task", "subtask", "language", "id", "relation", "choice", "answer", "cluster"),
        *("correct", "margin"),
        *(f"logprob_{option}" for option in range(4)),
    ]
    assert len(items) == 6 * N_ITEMS and items["correct"].dtype == bool
    assert 0 < items["correct"].mean() < 1
    logprobs = items[[f"logprob_{option}" for option in range(4)]].to_numpy()
    choice, answer, correct = (items[name].tolist() for name in ("choice", "answer", "correct"))
    for row, margin in enumerate(items["margin"].tolist()):
        others = [logprobs[row, option] for option in range(4) if option != answer[row]]
        assert choice[row] == logprobs[row].argmax()
        assert correct[row] == (choice[row] == answer[row]) == (margin > 0)
        assert margin == pytest.approx(logprobs[row, answer[row]] - max(others), abs=1e-5)


def test_a_preparation_serves_other_masks_and_models(tasks: Tasks, prepared: Prepared) -> None:
    before = evaluate(MODEL, prepared)
    other = make_model(seed=1)
    pd.testing.assert_frame_equal(evaluate(other, prepared), evaluate(other, TOKENIZER, tasks))
    handle = MODEL.model.layers[0].mlp.down_proj.register_forward_pre_hook(
        lambda module, inputs: (inputs[0] * 0,)
    )
    try:
        masked = evaluate(MODEL, prepared)
    finally:
        handle.remove()
    assert (masked["logprob_0"] != before["logprob_0"]).all()
    pd.testing.assert_frame_equal(evaluate(MODEL, prepared), before)


def test_bad_evaluations(tasks: Tasks, prepared: Prepared) -> None:
    with pytest.raises(TypeError, match="tasks are fixed"):
        evaluate(MODEL, prepared, tasks)
    with pytest.raises(ValueError, match="no tasks to evaluate"):
        prepare(MODEL, TOKENIZER, {})
    with pytest.raises(ValueError, match="maximum length of 128 tokens, but the model's is 96"):
        evaluate(make_model(max_position_embeddings=96), prepared)
    broken = make_model()
    torch.nn.init.constant_(broken.model.layers[1].mlp.up_proj.weight, torch.nan)
    with pytest.raises(ValueError, match=r"54 of 54 items .*'knowledge_en-0000': .nan"):
        evaluate(broken, prepared)


def test_scores_with_wilson_intervals() -> None:
    items = pd.DataFrame(
        {"task": ["b"] * 10 + ["a"] * 4, "correct": [True] * 7 + [False] * 3 + [False] * 4}
    )
    table = accuracies(items)
    assert list(table.index) == ["b", "a"]
    assert table["accuracy"].to_dict() == {"b": 0.7, "a": 0.0} and list(table["n"]) == [10, 4]
    low, high = table["low"].tolist(), table["high"].tolist()
    z = 1.959963984540054
    centre = (0.7 + z**2 / 20) / (1 + z**2 / 10)
    half = z / (1 + z**2 / 10) * math.sqrt(0.7 * 0.3 / 10 + z**2 / 400)
    assert (low[0], high[0]) == pytest.approx((centre - half, centre + half))
    assert low[1] == 0.0 and 0 < high[1] < 1
    with pytest.raises(ValueError, match="no items to score"):
        accuracies(items[:0])
