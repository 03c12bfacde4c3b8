"""What neurons put out, before and after act_fn, and what setting them to it does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_pipeline import folder, settings_in

from crane_core.baselines import random_matched
from crane_core.families import mlp_sites
from crane_core.interventions import intervened
from crane_core.neurons import NeuronSet
from crane_lab.pipeline import Pipeline
from crane_lab.show import lsn_pages
from crane_lab.stages.relevance import QUANTILE_TOKENS
from crane_lab.store import ROOT, Store
from crane_lab.study import activations, contenders, nulls, value_losses

__all__ = ["folder"]  # a fixture
LAPE_FILE = ROOT.parent / "shared/reference/lape/LLaMA-2-7B.neuron.pth"


@pytest.fixture(scope="module")
def pipeline(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    settings = settings_in(folder, random_seeds=(0,), task_limit=2, n_perplexity=3)
    return Pipeline(settings, Store(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def values(pipeline: Pipeline) -> dict[str, dict[str, dict[str, torch.Tensor]]]:
    return activations.activation_values(pipeline)


def some(pipeline: Pipeline, *neurons: tuple[int, int]) -> NeuronSet:
    return NeuronSet.from_pairs(neurons, pipeline.shape)


def read(pipeline: Pipeline, language: str) -> tuple[torch.Tensor, torch.Tensor]:
    """What the first layer's act_fn takes in and puts out over a language's windows."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    act_fn = mlp_sites(pipeline.model)[0].act_fn
    handle = act_fn.register_forward_hook(lambda m, args, out: seen.append((args[0], out)))
    with torch.no_grad():
        pipeline.model(input_ids=pipeline.windows[language], use_cache=False)
    handle.remove()
    before, after = seen[0]
    opening = pipeline.how["opening"]
    return before[:, opening:].flatten(0, 1), after[:, opening:].flatten(0, 1)


def test_statistics_are_those_of_the_windows(pipeline: Pipeline, values: dict) -> None:
    language = pipeline.settings.languages[0]
    for place, stream in zip(activations.PLACES, read(pipeline, language), strict=True):
        found = values[place][language]
        assert tuple(found) == activations.STATISTICS
        assert torch.allclose(found["mean"][0], stream.mean(0), atol=1e-5)
        if len(stream) <= QUANTILE_TOKENS:  # then nothing is drawn
            assert torch.allclose(found["P10"][0], stream.quantile(0.1, dim=0), atol=1e-5)
        assert (found["P5"] <= found["P10"]).all() and (found["P90"] <= found["P95"]).all()


def test_the_least_output_is_that_of_silu(pipeline: Pipeline) -> None:
    assert activations.least_output(pipeline.model) == pytest.approx(-0.27846, abs=1e-5)


def test_nothing_read_after_act_fn_is_out_of_reach(pipeline: Pipeline, values: dict) -> None:
    x = pipeline.settings.languages[0]
    sets = {"ours": {x: some(pipeline, (0, 1), (1, 5)), "none": NeuronSet.empty(pipeline.shape)}}
    values = {place: {**of, "none": of[x]} for place, of in values.items()}
    values["before"][x] = {n: torch.full_like(v, -1.0) for n, v in values["before"][x].items()}
    found = activations.out_of_reach(values, sets, activations.least_output(pipeline.model))
    own = found[found["language"] == x].groupby("place")["share"]
    assert own.max()["after"] == 0 and own.min()["before"] == 1
    assert found[found["language"] == "none"]["share"].isna().all()


def test_values_are_written_where_act_fn_puts_out(pipeline: Pipeline, values: dict) -> None:
    x = pipeline.settings.languages[1]
    neurons = some(pipeline, (0, 3))
    done = activations.setting(neurons, values, x, ("P10", "before"))
    with intervened(pipeline.model, done):
        _, after = read(pipeline, x)
    assert torch.equal(after[:, 3], values["before"][x]["P10"][0, 3].expand(len(after)))
    assert activations.setting(neurons, values, x, None).is_zero


def test_changes_are_paired_and_zero_has_its_null(pipeline: Pipeline, values: dict) -> None:
    x, *_ = pipeline.settings.languages
    neurons = some(pipeline, (0, 1), (0, 2), (1, 5))
    written: list[activations.Written] = [None, ("P10", "before")]
    null = nulls.Nulls(pipeline, {"losses": 4})
    found = value_losses.perplexity_changes(pipeline, {"ours": {x: neurons}}, values, written, null)
    assert len(found) == 2 * len(pipeline.settings.languages)
    zero = found[found["set_to"] == "zero"].set_index("text_language")
    after, before = pipeline.losses(pipeline.masking(neurons)), pipeline.losses()
    for text, row in zero.iterrows():
        change = (after[str(text)] - before[str(text)]).double()
        assert row["change"] == pytest.approx(float(change.mean()))
        assert row["change_high"] - row["change"] == pytest.approx(
            1.96 * float(change.std()) / np.sqrt(len(change))
        )
        assert row["ratio"] == pytest.approx(np.exp(row["change"]))
    own = zero.loc[x]
    assert own["null_masks"] == 4 and own["q"] == own["p"]  # one row: nothing to correct for
    assert zero.drop(index=x)["q"].isna().all()
    assert found[found["set_to"] == "P10 before"]["q"].isna().all()
    other = found[found["set_to"] == "P10 before"].set_index("text_language")
    assert not np.allclose(other["change"], zero["change"])


def test_shipped_changes_are_read_if_they_are_of_this_run(
    pipeline: Pipeline, values: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, other, *_ = pipeline.settings.languages
    sets = {"ours": {x: some(pipeline, (0, 1), (1, 5))}, "theirs": {other: some(pipeline, (0, 7))}}
    random = nulls.Nulls(pipeline, {"losses": 3})
    value_losses.ship_value_losses(pipeline, sets, values, tmp_path, random)
    zero = pd.read_csv(tmp_path / value_losses.ZERO)
    assert zero["text_language"].to_list() == zero["mask_language"].to_list() == [x, other]
    assert zero["null_masks"].to_list() == [3, 3] and zero["q"].notna().all()
    read = value_losses.read_value_losses(tmp_path)
    assert set(zero) == set(read) and read["null_masks"].notna().sum() == 2
    means = activations.means_over_neurons(values)
    of_sets = means[means["language"].isin((x, other))].reset_index(drop=True)
    found = value_losses.read_means(tmp_path)
    pd.testing.assert_frame_equal(found, of_sets, atol=1e-6, check_names=False)
    shipped = value_losses.perplexity_changes(pipeline, sets, values, value_losses.WRITTEN)
    monkeypatch.setattr(Pipeline, "losses", lambda *_: pytest.fail("computed again"))
    again = value_losses.perplexity_changes(
        pipeline, sets, values, value_losses.WRITTEN, shipped=tmp_path
    )
    pd.testing.assert_frame_equal(again, shipped)
    # Another machine's values differ in their last digits; another method's sets do not matter.
    nearly = {
        place: {x: {n: v * (1 + 1e-6) for n, v in own.items()} for x, own in of.items()}
        for place, of in values.items()
    }
    one = {"ours": sets["ours"], "theirs": {other: some(pipeline, (0, 8))}}
    few = {"ours": sets["ours"]}
    first = value_losses.perplexity_changes(pipeline, few, nearly, [None], shipped=tmp_path)
    assert set(first["method"]) == {"ours"}
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        value_losses.perplexity_changes(pipeline, one, values, [None], shipped=tmp_path)
    moved = {place: {**of, x: {n: v + 1 for n, v in of[x].items()}} for place, of in values.items()}
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        value_losses.perplexity_changes(pipeline, sets, moved, [None], shipped=tmp_path)


def test_values_have_random_masks_of_their_own(
    pipeline: Pipeline, values: dict, tmp_path: Path
) -> None:
    x, other, *_ = pipeline.settings.languages
    none = NeuronSet.empty(pipeline.shape)
    sets = {"ours": {x: some(pipeline, (0, 1), (1, 5)), other: none}}
    value_losses.ship_value_masks(pipeline, sets, values, tmp_path, 3)
    masks = pd.read_csv(tmp_path / value_losses.MASKS)
    assert masks.groupby(["mask_language", "set_to"]).size().to_dict() == {
        (x, "P10 after"): 3,
        (x, "mean after"): 3,
    }
    drawn = random_matched(sets["ours"][x], nulls.FIRST_SEED + 1)
    one = activations.setting(drawn, values, x, ("mean", "after"))
    change = (pipeline.losses(one)[x] - pipeline.losses()[x]).double().mean()
    row = masks[(masks["set_to"] == "mean after") & (masks["seed"] == nulls.FIRST_SEED + 1)]
    assert row["change"].item() == pytest.approx(float(change), abs=1e-6)
    null = nulls.Nulls(pipeline, {"losses": 4})
    written: list[activations.Written] = [None, ("mean", "after"), ("P90", "after")]
    found = value_losses.perplexity_changes(pipeline, sets, values, written, null, tmp_path)
    own = found[(found["mask_language"] == x) & (found["text_language"] == x)].set_index("set_to")
    assert own["null_masks"].to_dict() == {"zero": 4, "mean after": 3, "P90 after": 0}
    at = masks[masks["set_to"] == "mean after"]["change"].mean()
    assert own.loc["mean after", "null_mean"] == pytest.approx(at)
    assert (own["q"][["zero", "mean after"]] == own["p"][["zero", "mean after"]]).all()
    assert found.loc[found["text_language"] == other, "q"].isna().all()
    # What is there is not computed again, and more masks are.
    written_before = (tmp_path / value_losses.MASKS).read_bytes()
    value_losses.ship_value_masks(pipeline, sets, values, tmp_path, 3)
    assert (tmp_path / value_losses.MASKS).read_bytes() == written_before
    value_losses.ship_value_masks(pipeline, sets, values, tmp_path, 4)
    assert len(pd.read_csv(tmp_path / value_losses.MASKS)) == 8


def test_contenders_have_as_many_neurons_as_crane(pipeline: Pipeline) -> None:
    sets = contenders.contenders(pipeline)
    sizes = {method: [len(neurons) for neurons in of.values()] for method, of in sets.items()}
    assert list(sizes) == ["LAPE", "LAPE matched", "CRANE", "Act Prob 90p", "mean |relevance|"]
    assert all(sizes[method] == sizes["CRANE"] for method in sizes if method != "LAPE")
    found = contenders.lape_by_languages(pipeline)
    own = found[found["without"].isna()].set_index("language")
    assert own["neurons"].to_dict() == {x: len(s) for x, s in sets["LAPE"].items()}
    assert (own["neurons"] == own["shared"]).all()
    languages = pipeline.settings.languages
    left_out = found[found["without"].notna()]
    assert len(left_out) == len(languages) * (len(languages) - 1)
    assert (left_out["without"] != left_out["language"]).all()
    two = contenders.lape_by_languages(pipeline.changed(languages=languages[:2]))
    assert two["without"].isna().all()
    assert "no other language" in lsn_pages.lape_languages_in_words(two).data
    pairs = contenders.shared_by_methods(sets)
    assert not (pairs["a"].eq("LAPE") & pairs["b"].eq("LAPE matched")).any()
    empty = dict.fromkeys(languages, NeuronSet.empty(pipeline.shape))
    none = contenders.shared_by_methods({"CRANE": empty, "LAPE": sets["LAPE"]})
    assert none.empty and list(none) == list(pairs)


def test_a_value_that_was_not_read_is_refused(pipeline: Pipeline, values: dict) -> None:
    x = pipeline.settings.languages[0]
    for neurons in (some(pipeline, (0, 1)), NeuronSet.empty(pipeline.shape)):
        for language, written, said in (
            (x, ("P99", "after"), "unknown statistic 'P99': expected one of mean, P5"),
            (x, ("P10", "middle"), "unknown place 'middle': expected one of before, after"),
            ("de", ("P10", "after"), "unknown language 'de': expected one of en"),
        ):
            with pytest.raises(ValueError, match=said):
                activations.setting(neurons, values, language, written)


def test_a_deep_model_is_shown_by_quarters() -> None:
    """As LAPE's released sets of 32 layers are, if they are there to be looked at."""
    sets = {x: NeuronSet.from_pairs([(0, 1), (31, 2)], (32, 50)) for x in ("en", "zh")}
    if LAPE_FILE.is_file():
        sets = NeuronSet.from_lape_file(LAPE_FILE, shape=contenders.LLAMA_2_7B)
        assert len(sets["zh"]) == 583
    shown = vars(lsn_pages.sizes_table(contenders.layer_sizes({"released": sets})))["data"]
    quarters = shown[[f"quarter {i}" for i in (1, 2, 3, 4)]]
    assert quarters.sum(axis=1).to_list() == shown["neurons"].to_list()
    assert lsn_pages.languages_figure(sets, "released").data


def test_rates_near_a_tenth_are_counted() -> None:
    score = torch.tensor([[0.1, 0.1005, 0.2, 0.0999]])
    (row,) = contenders.rates_above_own_90th({"en": score}).to_dict("records")
    assert row["same"] == pytest.approx(0.75) and row["low"] < 0.1 < row["high"]


def changes(own: float, q: float, masks: int = 200) -> pd.DataFrame:
    """A set that adds `own` to its own language by zero, more by P10 read before act_fn."""
    rows = []
    for set_to, more in (("zero", 0.0), ("P10 before", 0.5)):
        for text, change in (("en", own + more), ("zh", 0.1)):
            row = {"method": "LAPE", "mask_language": "en", "n_neurons": 5, "set_to": set_to}
            row |= {"text_language": text, "change": change, "ratio": float(np.exp(change))}
            row |= {"change_low": change - 0.1, "change_high": change + 0.1, "null_mean": 0.1}
            row |= {"null_masks": masks if set_to == "zero" else np.nan, "q": q, "percentile": 99}
            rows.append(row)
    return pd.DataFrame(rows)


def test_sentences_follow_the_numbers() -> None:
    beyond = lsn_pages.zero_in_words(changes(1.0, 0.01)).data
    assert "P10 before in 1 of 1" in beyond and "1 of the 1 sets" in beyond
    assert "LAPE en" in beyond
    assert "0 of the 1 sets" in lsn_pages.zero_in_words(changes(1.0, 0.2)).data
    assert "1 more lie beyond all" not in lsn_pages.zero_in_words(changes(1.0, 0.2)).data
    few = changes(1.0, 0.2).assign(percentile=100.0)
    assert "1 more lie beyond all" in lsn_pages.zero_in_words(few).data
    assert "Set to zero" not in lsn_pages.zero_in_words(changes(1.0, 0.01, 5)).data
    shown = lsn_pages.changes_table(changes(1.0, 0.01)).to_html()
    assert "+1.000" in shown and "+1.500" not in shown and "zh" in shown
    # A value with random masks of its own is told and shown after zero.
    at = changes(1.0, 0.01)
    at.loc[at["set_to"] != "zero", ["null_masks", "null_mean", "percentile", "q"]] = 40, 0, 50, 0.9
    told = lsn_pages.zero_in_words(at[::-1]).data
    assert told.index("Set to zero, 1 of the 1") < told.index("Set to P10 before, 0 of the 1")
    shown = vars(lsn_pages.changes_table(at[::-1]))["data"]
    assert list(shown["set to"]) == ["zero", "P10 before"]
