"""Fine-tuning of chosen neurons: what changes, what does not, and how answers are scored."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from test_pipeline import folder, settings_in
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from crane_core.families import decoder, mlp_sites
from crane_core.neurons import NeuronSet
from crane_lab.pipeline import Pipeline
from crane_lab.store import Store
from crane_lab.study.tuned import changed_weights
from crane_lab.tuning.items import (
    nli_ids,
    qa_answers,
    qa_prompts,
    span_scores,
    validate_items,
    words,
)
from crane_lab.tuning.lora import low_rank
from crane_lab.tuning.training import (
    TuningRecipe,
    last_states,
    padded,
    tune_classifier,
    tune_generator,
    tune_text,
)

__all__ = ["folder"]  # a fixture
RECIPE = TuningRecipe(items=8, epochs=1, batch=4, learning_rate=0.05, rank=2)
TEXTS = [[1, 5, 6, 7], [1, 8], [1, 9, 9], [1, 5], [1, 2, 3, 4, 5], [1, 7], [1, 6, 6], [1, 3]]
LABELS = [0, 1, 2, 0, 1, 2, 0, 1]


@pytest.fixture(scope="module")
def pipeline(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline(settings_in(folder), Store(tmp_path_factory.mktemp("store")))


@pytest.fixture
def model(pipeline: Pipeline) -> PreTrainedModel:
    return copy.deepcopy(pipeline.model)


def chosen(pipeline: Pipeline) -> NeuronSet:
    return NeuronSet.from_pairs([(0, 3), (0, 5), (1, 2)], pipeline.shape)


@pytest.mark.parametrize("task", ["nli", "qa"])
def test_only_chosen_neurons_change(pipeline: Pipeline, model: PreTrainedModel, task: str) -> None:
    neurons = chosen(pipeline)
    if task == "nli":
        tune_classifier(model, TEXTS, LABELS, neurons, RECIPE)
    else:
        tune_generator(model, TEXTS, [[4, 2]] * len(TEXTS), neurons, RECIPE)
    pairs = zip(mlp_sites(pipeline.model), mlp_sites(model), strict=True)
    for layer, (before, after) in enumerate(pairs):
        own = neurons.mask("intermediate")[layer]
        for name in ("gate_proj", "up_proj", "down_proj"):
            old, new = (getattr(mlp, name).weight for mlp in (before, after))
            if name == "down_proj":
                old, new = old.t(), new.t()
            assert torch.equal(old[~own], new[~own])  # to the bit
            assert (old[own] != new[own]).any(1).all()  # every one of them
    changed = {
        name
        for name, old in pipeline.model.named_parameters()
        if not torch.equal(old, model.get_parameter(name))
    }
    kinds = {name.split(".")[-2] for name in changed}
    assert kinds == {f"{x}_proj" for x in ("q", "k", "v", "o", "gate", "up", "down")}


def test_without_neurons_the_mlps_stay(pipeline: Pipeline, model: PreTrainedModel) -> None:
    tune_classifier(model, TEXTS, LABELS, NeuronSet.empty(pipeline.shape), RECIPE)
    before = pipeline.model
    for name, new in model.named_parameters():
        assert torch.equal(before.get_parameter(name), new) != ("self_attn" in name), name


def test_gate_alone_as_the_public_code_has_it(pipeline: Pipeline, model: PreTrainedModel) -> None:
    recipe = TuningRecipe(items=8, epochs=1, learning_rate=0.05, rank=2, parts="gate")
    tune_classifier(model, TEXTS, LABELS, chosen(pipeline), recipe)
    for before, after in zip(mlp_sites(pipeline.model), mlp_sites(model), strict=True):
        assert torch.equal(before.down_proj.weight, after.down_proj.weight)  # type: ignore[arg-type]
        assert not torch.equal(before.gate_proj.weight, after.gate_proj.weight)  # type: ignore[arg-type]


def test_the_same_seed_gives_the_same_weights(pipeline: Pipeline) -> None:
    found = []
    for seed in (0, 0, 1):
        model = copy.deepcopy(pipeline.model)
        recipe = TuningRecipe(seed=seed, items=8, epochs=1, batch=4, rank=2)
        tune_classifier(model, TEXTS, LABELS, None, recipe)
        found.append(model.state_dict())
    same = [
        all(torch.equal(found[0][name], other[name]) for name in found[0]) for other in found[1:]
    ]
    assert same == [True, False]


def test_an_error_leaves_the_model_as_it_was(pipeline: Pipeline, model: PreTrainedModel) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(KeyError), low_rank(model, None, 2, 4, 0) as parameters:
        with torch.no_grad():
            for parameter in parameters:
                parameter.add_(1.0)
        raise KeyError
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_label_is_read_at_the_last_real_token(pipeline: Pipeline) -> None:
    model = pipeline.model
    together = last_states(model, TEXTS)
    for row, text in zip(together, TEXTS, strict=True):
        alone = model.base_model(input_ids=torch.tensor([text]), use_cache=False)
        assert torch.allclose(row, alone.last_hidden_state[0, -1], atol=1e-5)
    ids, mask = padded([[4, 5], [6]], pad=9)
    assert ids.tolist() == [[4, 5], [6, 9]] and mask.tolist() == [[1, 1], [1, 0]]


def test_training_lowers_the_loss(pipeline: Pipeline, model: PreTrainedModel) -> None:
    recipe = TuningRecipe(epochs=30, batch=8, learning_rate=0.02, rank=4)
    head = tune_classifier(model, TEXTS, LABELS, None, recipe)
    with torch.no_grad():
        loss = F.cross_entropy(head(last_states(model, TEXTS)), torch.tensor(LABELS))
    assert float(loss) < 0.5 < 1.0986  # three labels


def test_what_is_wrong_is_refused(pipeline: Pipeline, model: PreTrainedModel) -> None:
    with pytest.raises(ValueError, match="parts"), low_rank(model, None, 2, 4, 0, "rows"):
        pass
    other = NeuronSet.from_pairs([(0, 1)], {"intermediate": (1, 7)})
    with pytest.raises(ValueError, match="different models"), low_rank(model, other, 2, 4, 0):
        pass


def test_projections_must_be_linear_and_in_every_layer(model: PreTrainedModel) -> None:
    layer = decoder(model).layers[1]
    kept = layer.self_attn.q_proj
    layer.self_attn.q_proj = nn.Sequential(kept)
    with pytest.raises(ValueError, match="'q_proj' of layer 1 is a Sequential"):
        low_rank(model, None, 2, 4, 0).__enter__()
    del layer.self_attn.q_proj
    layer.self_attn.qkv = kept
    with pytest.raises(ValueError, match="no 'q_proj' in layer 1"):
        low_rank(model, None, 2, 4, 0).__enter__()


def test_answers_are_compared_as_the_language_writes() -> None:
    assert words("The red  Cat!", "en") == ["red", "cat"]
    assert words("新桥镇。", "zh") == ["新", "桥", "镇"]
    assert words("một con mèo.", "vi") == ["một", "con", "mèo"]
    assert span_scores("A cat.", "cat", "en") == (1.0, 1.0)
    assert span_scores("một con mèo", "một con bò", "vi") == pytest.approx((0.0, 2 / 3))
    assert span_scores("新桥", "新桥镇", "zh") == pytest.approx((0.0, 0.8))
    assert span_scores("", "cat", "en") == (0.0, 0.0)


def test_items_become_texts(pipeline: Pipeline) -> None:
    tokenizer = pipeline.tokenizer
    (row,) = nli_ids(tokenizer, [{"premise": "a b", "hypothesis": "c"}])
    assert "a b\nc" in tokenizer.decode(row)
    item = {"passage": "p q", "question": "r?", "answer": "q"}
    (prompt,) = qa_prompts(tokenizer, [item], "{passage}\n{question}\n>")
    (answer,) = qa_answers(tokenizer, [item])
    assert tokenizer.decode([*prompt, *answer]).endswith("p q\nr?\n> q\n")


def test_on_text_the_chosen_neurons_are_tuned_and_nothing_else(
    pipeline: Pipeline, model: PreTrainedModel
) -> None:
    neurons = chosen(pipeline)
    windows = torch.tensor([text[:3] for text in TEXTS if len(text) >= 3])
    tune_text(model, windows, neurons, RECIPE)
    changed = {
        name
        for name, old in pipeline.model.named_parameters()
        if not torch.equal(old, model.get_parameter(name))
    }
    assert {name.split(".")[-2] for name in changed} == {"gate_proj", "up_proj", "down_proj"}
    for layer, (old, new) in enumerate(
        zip(mlp_sites(pipeline.model), mlp_sites(model), strict=True)
    ):
        others = ~neurons.mask("intermediate")[layer]
        first, second = (mlp.up_proj.get_parameter("weight") for mlp in (old, new))
        assert torch.equal(first[others], second[others])


def test_nothing_to_train_is_refused(pipeline: Pipeline, model: PreTrainedModel) -> None:
    empty = NeuronSet.empty(pipeline.shape)
    with (
        pytest.raises(ValueError, match="nothing to train"),
        low_rank(model, empty, 2, 4, 0, attention=False),
    ):
        pass


def test_changed_weights_are_counted_by_whose_they_are(pipeline: Pipeline) -> None:
    neurons = chosen(pipeline)
    recipe = TuningRecipe(items=6, epochs=1, batch=3, rank=2, learning_rate=0.05)
    found = changed_weights(pipeline, neurons, recipe)
    assert found["projection"].to_list() == ["gate_proj", "up_proj", "down_proj"]
    hidden = pipeline.model.config.hidden_size
    assert (found["chosen"] == len(neurons) * hidden).all()
    assert (found["changed"] > 0).all() and (found["others_changed"] == 0).all()


def test_bad_items_are_refused_before_training() -> None:
    nli = {"id": "a", "premise": "p", "hypothesis": "h", "label": 0}
    qa = {"id": "b", "passage": "Ann has a cat.", "question": "What?", "answer": "a cat"}
    validate_items("nli", [nli])
    validate_items("qa", [qa])
    for task, item, message in (
        ("nli", {**nli, "label": None}, "'a' of nli has no label"),
        ("nli", {**nli, "label": 3}, "label 3"),
        ("nli", {**nli, "label": True}, "label True"),
        ("nli", {**nli, "premise": " "}, "no premise"),
        ("qa", {**qa, "answer": " "}, "no answer"),
        ("qa", {**qa, "answer": "a dog"}, "'a dog' does not stand in its passage"),
    ):
        with pytest.raises(ValueError, match=message):
            validate_items(task, [nli if task == "nli" else qa, item])
    with pytest.raises(ValueError, match="unknown task 'xx': expected one of nli, qa"):
        validate_items("xx", [nli])


def test_what_cannot_be_trained_is_said_and_nothing_is_left(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="rank is 1000"), low_rank(model, None, 1000, 4, 0):
        pass
    for name, value in (
        ("warmup", 1.5),
        ("warmup", float("nan")),
        ("rank", 2.5),
        ("learning_rate", float("inf")),
    ):
        with pytest.raises(ValueError, match=f"{name} is {value}: expected a"):
            TuningRecipe(**{name: value})  # type: ignore[arg-type]
    for changed in ({"weight_decay": -0.1}, {"betas": (0.9, 1.0)}):
        with pytest.raises(ValueError, match="expected 0 or more, and numbers from 0 to below 1"):
            TuningRecipe(**changed)  # type: ignore[arg-type]
    for train in (
        lambda: tune_classifier(model, [], [], None, RECIPE),
        lambda: tune_generator(model, [], [], None, RECIPE),
        lambda: tune_text(model, torch.zeros(0, 3, dtype=torch.long), None, RECIPE),
    ):
        with pytest.raises(ValueError, match="no items to train on"):
            train()
    with pytest.raises(ValueError, match="8 prompts and 7 answers"):
        tune_generator(model, TEXTS, TEXTS[1:], None, RECIPE)
    with pytest.raises(ValueError, match="8 texts and 7 labels"):
        tune_classifier(model, TEXTS, LABELS[1:], None, RECIPE)

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    before = {name: value.clone() for name, value in model.named_parameters()}
    monkeypatch.setattr(torch.Tensor, "backward", full)
    with pytest.raises(MemoryError, match="batch of 4 items"):
        tune_classifier(model, TEXTS, LABELS, None, RECIPE)
    assert all(torch.equal(before[name], value) for name, value in model.named_parameters())
