"""Notebook 01's measurements on a small model: step, token, neuron, rule and objective."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_tiny_llama
from transformers import AutoTokenizer, LlamaForCausalLM

from crane_core.attribution import neuron_relevance, objective_values, token_relevance
from crane_core.models import load
from crane_lab.store import ROOT
from crane_lab.study import relevance as study

pytestmark = pytest.mark.filterwarnings("ignore:kurtosis of")

FOLDER = ROOT / "data" / "testbed"


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return make_tiny_llama()


@pytest.fixture(scope="module")
def ids() -> torch.Tensor:
    return torch.randint(3, 64, (6, 9), generator=torch.Generator().manual_seed(0))


def test_by_step() -> None:
    def table(error: float, share: float) -> pd.DataFrame:
        steps = ["RMS norm"] * 2 + ["residual stream, across MLP"]
        return pd.DataFrame(
            {"step": steps, "due": 1.0, "share": share, "error": [0.0, error, 1e-7]}
        )

    found = study.by_step({"attnlrp": table(1e-3, 1.0), "gradient": table(1.0, 0.25)})
    assert found["conserves"].tolist() == ["no", "yes"] and found["n"].tolist() == [2, 1]
    assert found["plain gradient"][0] == 0.25 and np.isnan(found["plain gradient"][1])
    assert found["share passed on"][0] == "1.000 (1.000 to 1.000)"
    assert study.median_and_range([1, 2, 3, np.nan], ".1f") == "2.0 (1.1 to 2.9)"


def test_input_over_output(model: LlamaForCausalLM, ids: torch.Tensor) -> None:
    table = study.input_over_output(model, {"en": ids, "zh": ids}, "next_token", batch_size=4)
    assert table[["language", "rules"]].values.tolist() == [
        ["en", "attnlrp"], ["en", "gradient"], ["zh", "attnlrp"], ["zh", "gradient"],
    ]  # fmt: skip
    whole = token_relevance(model, ids).sum(1) / objective_values(model, ids)
    assert table["median"][0] == pytest.approx(float(np.median(whole.numpy())), rel=1e-4)
    assert (table["n"] == 6).all() and (table["5 %"] <= table["95 %"]).all()


def test_explained_is_the_token_that_tells_options_apart() -> None:
    model, tokenizer = load(str(FOLDER / "base"))
    prompt, right = "Question: What is the capital of Vietnam?\nAnswer:", " Hanoi"
    alone = study.explained(model, tokenizer, prompt, right)
    n = len(tokenizer(prompt)["input_ids"])
    assert len(alone.ids) == n == len(alone.relevance) and alone.answer == "Hanoi"
    assert 0 <= alone.probability <= 1 and alone.rank >= 1
    begins_alike = tokenizer.decode(tokenizer(prompt + right)["input_ids"][n : n + 1]) + "ska"
    later = study.explained(model, tokenizer, prompt, right, [begins_alike])
    assert len(later.ids) >= n
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([alone.ids])).logits[0, -1]
    token = tokenizer(prompt + right)["input_ids"][n]
    assert alone.rank == int((logits > logits[token]).sum()) + 1


def test_reading_questions_start_with_the_right_option() -> None:
    found = study.reading_questions(["en", "vi"], str(FOLDER / "tasks"))
    tokenizer = AutoTokenizer.from_pretrained(FOLDER / "base")
    for prompt, right, wrong in found.values():
        assert len(wrong) == 3 and right not in wrong and right.startswith(" ")
        assert right.strip() in prompt and len(tokenizer(prompt)["input_ids"]) > 20
    first, other = (
        study.reading_questions(["en"], str(FOLDER / "tasks"), r)["en"] for r in ("none", "thing.2")
    )
    assert first[0] != other[0]


def test_layers_of_one_window() -> None:
    relevance = torch.tensor([[3.0, -1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    np.testing.assert_allclose(study.covered(relevance)[0], [0.75, 1.0, 1.0, 1.0])
    table = study.by_layer(relevance, 8.0)
    assert table[["sum", "positive", "negative", "sum / output"]].values.tolist() == [
        [2.0, 3.0, -1.0, 0.25], [4.0, 4.0, 0.0, 0.5],
    ]  # fmt: skip
    assert table["neurons for half of |R|"].tolist() == [1, 2]


def test_gate_and_up_have_half_each(model: LlamaForCausalLM, ids: torch.Tensor) -> None:
    kurtosis, apart = study.at_both_sites(model, ids, "next_token", batch_size=4)
    assert list(kurtosis) == ["intermediate", "gate", "up", "down"] and apart < 1e-4
    torch.testing.assert_close(kurtosis["gate"], kurtosis["intermediate"], rtol=1e-3, atol=1e-3)


def test_rules_against_the_gradient(model: LlamaForCausalLM, ids: torch.Tensor) -> None:
    table, agreement = study.rules_against_gradient(model, {"en": ids}, "next_token", batch_size=4)
    assert table.columns.tolist() == ["layer", "relevance, en", "kurtosis, en"]
    assert agreement["en"].shape == (6, 3) and len(table) == 3
    scores = [neuron_relevance(model, ids, rules=rules) for rules in ("attnlrp", "gradient")]
    by_hand = np.corrcoef(scores[0][5, 1].numpy(), scores[1][5, 1].numpy())[0, 1]
    assert float(agreement["en"][5, 1]) == pytest.approx(by_hand, rel=1e-3)
    assert table["relevance, en"][1] == study.median_and_range(agreement["en"][:, 1], ".2f")
    assert table["kurtosis, en"].between(-1, 1).all()


def test_objectives(model: LlamaForCausalLM, ids: torch.Tensor) -> None:
    table = study.by_objective(model, ids[:1], most=7).set_index("objective")
    assert table.index.tolist() == ["next_token", "next_token_logprob", "last_max"]
    assert table.loc["next_token", "correlation"] == pytest.approx(1)
    assert table.loc["next_token", "shared"] == 7 and table["shared"].between(0, 7).all()
    value = objective_values(model, ids[:1], objective="last_max").item()
    assert table.loc["last_max", "explained"] == pytest.approx(value)
