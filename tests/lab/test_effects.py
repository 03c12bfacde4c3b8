"""What one mask does to the next token, to a continuation, and to held-out loss."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from crane_core.baselines import random_matched
from crane_core.interventions import zero
from crane_core.masking import masked
from crane_core.selection import NeuronSet
from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.store import ROOT, Store
from crane_lab.study import effects

FOLDER = ROOT / "data" / "testbed"
SMALL = Settings(
    model=str(FOLDER / "base"),
    perplexity_corpus=str(FOLDER / "corpus" / "perplexity"),
    languages=("vi", "en"),
    window=12,
    n_perplexity=4,
)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline(SMALL, Store(tmp_path_factory.mktemp("store")))


def some(pipeline: Pipeline, n: int = 60) -> NeuronSet:
    return NeuronSet.from_pairs([(0, i) for i in range(n)], pipeline.shape)


def test_a_prompt_without_and_under_masks(pipeline: Pipeline) -> None:
    prompt, neurons = "The capital of India is", some(pipeline)
    found = effects.continued(pipeline, prompt, {"en": neurons})
    assert [(one.mask, one.n_neurons) for one in found] == [("none", 0), ("en", 60)]
    plain = effects.next_logits(pipeline.model, pipeline.tokenizer, prompt)
    assert torch.equal(found[0].logits, plain) and not torch.equal(found[1].logits, plain)
    with masked(pipeline.model, neurons):
        text = effects.continuation(pipeline.model, pipeline.tokenizer, prompt)
    assert found[1].text == text
    first = pipeline.tokenizer.decode([int(plain.argmax())])
    assert found[0].text.startswith(first)


def test_losses_are_compared_window_by_window(pipeline: Pipeline) -> None:
    neurons = some(pipeline)
    table = effects.loss_effects(pipeline, {"en": neurons}, seeds=[0, 1])
    assert table["text_language"].tolist() == ["vi", "en"]  # the order of the run
    row = table.set_index("text_language").loc["en"]
    before, after = pipeline.losses()["en"], pipeline.losses(zero(neurons))["en"]
    change = (after - before).double().numpy()
    assert row["change"] == pytest.approx(change.mean())
    reach = 1.96 * change.std(ddof=1) / 2
    assert row["change_high"] - row["change"] == pytest.approx(reach)
    random = [
        float((pipeline.losses(zero(random_matched(neurons, s)))["en"] - before).double().mean())
        for s in (0, 1)
    ]
    assert (row["random_low"], row["random_high"]) == pytest.approx((min(random), max(random)))
    assert row["random_mean"] == pytest.approx(np.mean(random))


def test_one_window_has_no_interval(pipeline: Pipeline) -> None:
    one = Pipeline(dataclasses.replace(SMALL, n_perplexity=1), pipeline.store)
    table = effects.loss_effects(one, {"en": some(one, 3)}, seeds=[0])
    assert table["change_low"].isna().all() and table["change"].notna().all()


@pytest.mark.parametrize(
    ("own", "other", "against", "most", "clear"),
    [
        (0.5, 0.1, "more", "en", True),
        (0.15, 0.3, "within", "vi", False),
        (-0.2, 0.1, "less", "vi", True),
    ],
)
def test_a_mask_is_judged_by_its_own_language(
    own: float, other: float, against: str, most: str, clear: bool
) -> None:
    table = pd.DataFrame(
        [("en", 5, "vi", other, 0.0, 0.2), ("en", 5, "en", own, 0.1, 0.2)],
        columns=[
            "mask_language", "n_neurons", "text_language", "change", "random_low", "random_high",
        ],
    )  # fmt: skip
    table = table.assign(change_low=table["change"] - 0.1, change_high=table["change"] + 0.1)
    (row,) = effects.judged(table).to_dict("records")
    assert (row["against"], row["most"], row["clear"]) == (against, most, clear)
    assert (row["change"], row["most_change"]) == (own, max(own, other))
