"""Interventions reach every evaluation: items, losses, free answers and open-ended ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from test_pipeline import LANGUAGES, folder, settings_in
from torch import Tensor
from torch.nn import Module

from crane_core.interventions import UNTOUCHED, Add, Intervention, Scale, SetTo, zero
from crane_core.neurons import NeuronSet
from crane_lab.engines import multiple_choice
from crane_lab.engines.generation import STOP, Decoding, HuggingFaceEngine
from crane_lab.engines.perplexity import perplexity
from crane_lab.pipeline import Pipeline
from crane_lab.stages.outcomes import Row
from crane_lab.store import Store

__all__ = ["folder"]  # a fixture: the model, corpora and tasks made up in test_pipeline

pytestmark = pytest.mark.filterwarnings("ignore:kurtosis of")

SHAPE = {"intermediate": (2, 48), "gate": (2, 48), "up": (2, 48), "down": (2, 32)}
NEURONS = NeuronSet.from_pairs([(0, 3), (0, 40), (1, 7), (1, 21)], SHAPE)
MEANS = {"intermediate": torch.linspace(-2, 2, 96).view(2, 48)}
#: Kind -> the intervention, and what it makes of activations (..., 48) of a layer.
KINDS: dict[str, Intervention] = {
    "add": Intervention(Add(NEURONS, 1.5, 2.0)),
    "scale": Intervention(Scale(NEURONS, -3.0)),
    "set to means": Intervention(SetTo(NEURONS, MEANS)),
    "set at act_fn": Intervention(SetTo(NEURONS, 2.0, at="act_fn")),
    "two at once": zero(NEURONS)
    + Intervention(Add(NeuronSet.from_pairs([(1, 1), (1, 2)], SHAPE), 3.0)),
}


@pytest.fixture(scope="module")
def found(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    questions = tmp_path_factory.mktemp("questions")
    for language, text in zip(LANGUAGES, ("ab cde?", "天地?", "ăâ đê?"), strict=True):
        (questions / f"{language}.txt").write_text(f"{text}\n{text[:2]}\n", encoding="utf-8")
    settings = settings_in(folder, questions=str(questions), max_new_tokens=6)
    return Pipeline(settings, Store(tmp_path_factory.mktemp("store")))


def by_hand(model: Any, kind: str) -> list[Any]:
    """Hooks that do the same in plain words; handles to remove them."""

    def changed(kind: str, layer: int, x: Tensor) -> Tensor:
        x = x.clone()
        for at, neuron in NEURONS.pairs():
            if at == layer:
                if kind == "add":
                    x[..., neuron] += 3.0
                elif kind == "scale":
                    x[..., neuron] *= -3.0
                elif kind == "set to means":
                    x[..., neuron] = MEANS["intermediate"][layer, neuron]
                elif kind == "set at act_fn":
                    x[..., neuron] = 2.0
                else:
                    x[..., neuron] = 0.0
        if kind == "two at once" and layer == 1:
            x[..., 1:3] += 3.0
        return x

    handles = []
    for layer, block in enumerate(model.model.layers):

        def before(_: Module, args: tuple[Tensor], layer: int = layer) -> tuple[Tensor]:
            return (changed(kind, layer, args[0]),)

        def after(_: Module, args: Any, output: Tensor, layer: int = layer) -> Tensor:
            return changed(kind, layer, output)

        if kind == "set at act_fn":
            handles.append(block.mlp.act_fn.register_forward_hook(after))
        else:
            handles.append(block.mlp.down_proj.register_forward_pre_hook(before))
    return handles


@pytest.mark.parametrize("kind", KINDS)
def test_every_evaluation_is_of_the_model_under_the_intervention(
    found: Pipeline, kind: str
) -> None:
    intervention = KINDS[kind]
    items, losses = found.items(intervention), found.losses(intervention)
    said, answers = found.said(intervention), found.answers(intervention, 4, 3)
    untouched = found.items(), found.losses(), found.said(), found.answers(UNTOUCHED, 4, 3)
    assert not items["margin"].equals(untouched[0]["margin"])
    assert all(not torch.equal(losses[x], untouched[1][x]) for x in LANGUAGES)
    assert (said["text"] != untouched[2]["text"]).any()
    assert (answers["text"] != untouched[3]["text"]).any()
    handles = by_hand(found.model, kind)
    try:
        expected = multiple_choice.evaluate(found.model, found.prepared)
        pd.testing.assert_frame_equal(items, expected, rtol=1e-4, atol=1e-5)
        for x in LANGUAGES:
            own = perplexity(found.model, found.perplexity_windows[x]).losses
            torch.testing.assert_close(losses[x], own, rtol=1e-5, atol=1e-5)
        decoding = Decoding(max_new_tokens=6, stop=STOP)
        engine = HuggingFaceEngine(found.model, found.tokenizer, decoding, progress=False)
        texts = [answer.text for answer in engine.generate(found.prompts)]
        assert list(said["text"]) == texts
    finally:
        for handle in handles:
            handle.remove()


def test_digests_keep_interventions_apart_in_the_store(found: Pipeline) -> None:
    interventions = [UNTOUCHED, zero(NEURONS), *KINDS.values()]
    losses = [found.losses(one)["zh"] for one in interventions]
    kept = [
        record["key"]["intervention"]
        for record in found.store.records()
        if record["stage"] == "losses"
    ]
    assert len(set(kept)) == len(kept) == len(interventions)
    assert {one.digest() for one in interventions} == set(kept)
    assert zero(NEURONS).digest() == NEURONS.digest()  # of "set to zero" the set's own
    for i, one in enumerate(losses):
        assert not any(torch.equal(one, other) for other in losses[:i])
    again = [found.losses(one)["zh"] for one in interventions]
    assert all(torch.equal(a, b) for a, b in zip(losses, again, strict=True))


def test_generated_positions_only_change_what_is_said(found: Pipeline) -> None:
    everywhere = Intervention(Add(NEURONS, 4.0))
    generated = Intervention(Add(NEURONS, 4.0, positions="generated"))
    texts = [list(found.said(one)["text"]) for one in (UNTOUCHED, everywhere, generated)]
    assert texts[0] != texts[2] != texts[1]
    tokens = [
        [answer.tokens for answer in found._engine.generate(found.prompts, one)]
        for one in (UNTOUCHED, generated)
    ]
    # The first token is chosen at the end of the question, which is as it was.
    assert [t[:1] for t in tokens[0]] == [t[:1] for t in tokens[1]]
    assert tokens[0] != tokens[1]
    told = found.answers(generated, 4, 3)["text"]
    assert (told != found.answers(UNTOUCHED, 4, 3)["text"]).any()


@pytest.mark.parametrize("what", ["losses", "items"])
def test_generated_positions_are_no_matter_of_given_texts(found: Pipeline, what: str) -> None:
    generated = Intervention(Add(NEURONS, 4.0, positions="generated"))
    stages = [record["stage"] for record in found.store.records()]
    with pytest.raises(ValueError, match=r"needs a generation with a cache.*positions='all'"):
        getattr(found, what)(generated)
    assert [record["stage"] for record in found.store.records()] == stages


def test_a_row_can_be_any_intervention(found: Pipeline) -> None:
    rows = [Row("Means", x, KINDS["set to means"]) for x in LANGUAGES]
    evaluated = found.evaluated(rows)
    table = evaluated.table(found.tables["paper"], n_boot=10)
    assert table["method"].to_list() == ["Org", "Means", "Means", "Means"]
    assert table["n_neurons"].to_list() == [0, 4, 4, 4]
    losses = evaluated.perplexities()
    assert (losses["en_change"].iloc[1:] != 0).all()
    nothing = Row("Nothing", "en", UNTOUCHED)
    assert nothing.n_neurons == 0
    with pytest.raises(ValueError, match="'Nothing', 'en' does nothing"):
        _ = nothing.neurons


def test_the_model_is_as_it_was(found: Pipeline) -> None:
    before = found.losses()["vi"]
    for intervention in KINDS.values():
        found.losses(intervention)
        own = perplexity(found.model, found.perplexity_windows["vi"]).losses
        assert torch.equal(own, before)
    hooked = [m for m in found.model.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert not hooked
