"""A task learned in one language and asked in all: what is run, kept, and gone on with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_pipeline import folder, settings_in

from crane_core.interventions import UNTOUCHED
from crane_core.neurons import NeuronSet
from crane_lab.cli import tune
from crane_lab.pipeline import Pipeline
from crane_lab.store import ROOT, Store
from crane_lab.study import taught, text_taught, tuned, tuned_transfer
from crane_lab.study.activations import written_name
from crane_lab.study.contenders import contenders
from crane_lab.testbed.unseen import unseen_items
from crane_lab.tuning.training import TuningRecipe

__all__ = ["folder"]  # a fixture
RECIPE = TuningRecipe(items=6, epochs=1, batch=3, rank=2, learning_rate=0.01)
RECIPES = {"nli": RECIPE, "qa": RECIPE}
PLAN = taught.Teaching(seeds=1, draws=1, tuned_draws=1, n_test=3, recipes=RECIPES, value_draws=1)


@pytest.fixture(scope="module")
def pipeline(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    settings = settings_in(folder, random_seeds=(0,), task_limit=2, n_perplexity=2)
    return Pipeline(settings, Store(tmp_path_factory.mktemp("store")))


@pytest.mark.parametrize("task", tuned.TASKS)
def test_every_language_is_asked_and_the_model_stays(pipeline: Pipeline, task: str) -> None:
    before = {name: value.clone() for name, value in pipeline.model.state_dict().items()}
    zero = pipeline.masking(NeuronSet.from_pairs([(0, i) for i in range(40)], pipeline.shape))
    x = pipeline.settings.languages[-1]
    under = {"none": UNTOUCHED, "zero": zero}
    found = tuned.tuned_outcomes(pipeline, task, RECIPE, under=under, n_test=3, only={"zero": x})
    asked = found.groupby("under")["language"].unique()
    assert list(asked["none"]) == list(pipeline.settings.languages)
    assert list(asked["zero"]) == [x]
    assert found.groupby(["under", "language"]).size().eq(3).all()
    assert found["score"].isin([0.0, 1.0]).all() and ("f1" in found) == (task == "qa")
    after = pipeline.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_is_wrong_is_refused(pipeline: Pipeline) -> None:
    with pytest.raises(ValueError, match="xnli"):
        tuned.tuned_outcomes(pipeline, "xnli", RECIPE)
    with pytest.raises(ValueError, match="'fr' has no items of nli"):
        tuned.tuned_outcomes(pipeline, "nli", RECIPE, source="fr", n_test=3)
    with pytest.raises(FileNotFoundError, match="recompute_taught"):
        taught.taught_tables(pipeline, "weights", "data/nothing")
    with pytest.raises(ValueError, match="n_test is 0"):
        tuned.tuned_outcomes(pipeline, "nli", RECIPE, n_test=0)
    with pytest.raises(ValueError, match="expected a training or more"):
        taught.Teaching(seeds=0)
    with pytest.raises(ValueError, match=r"random sets at .*P11.*: expected some of"):
        taught.Teaching(random_values=(("P11", "after"),))
    with pytest.raises(ValueError, match="epochs is 0"):
        TuningRecipe(epochs=0)
    strange = taught.Teaching(source="fr")
    with pytest.raises(ValueError, match="expected 'fr' and a target"):
        next(taught.trainings(pipeline, "weights", strange))
    many = {"nli": TuningRecipe(items=3001), "qa": TuningRecipe(rank=10_000)}
    for task, plan, said in (
        ("nli", taught.Teaching(recipes=many), "items is 3001: expected 1 to 3000"),
        ("qa", taught.Teaching(recipes=many), "rank is 10000: expected 1 to"),
        ("qa", taught.Teaching(n_test=601), "n_test is 601: expected 1 to 600"),
        ("xnli", PLAN, "unknown task 'xnli'"),
        ("qa", strange, "'fr' has no items of qa: expected en, zh, vi"),
    ):
        with pytest.raises(ValueError, match=said):
            taught.ship_taught(pipeline, task, "weights", plan, "never")
    for recipe, source, said in (
        (TuningRecipe(items=3001), "en", "items is 3001"),
        (TuningRecipe(rank=10_000), "en", "rank is 10000"),
        (RECIPE, "de", "'de' has no items of qa"),
    ):
        with pytest.raises(ValueError, match=said):
            tuned.save_tuned(pipeline, recipe, "never", source)
    assert not Path("never").exists()
    with pytest.raises(ValueError, match="heads"):
        next(taught.trainings(pipeline, "heads", PLAN))


def test_a_language_without_items_is_left_out_of_what_is_read_and_not_trained(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = str(ROOT / "data" / "texts")
    german = pipeline.changed(languages=("en", "de"), corpus=texts, perplexity_corpus=texts)
    monkeypatch.setattr(taught, "contenders", lambda _: pytest.fail("a pass before the check"))
    monkeypatch.setattr(text_taught, "sets_with_neurons", lambda _: pytest.fail("a pass, too"))
    for ship in (
        lambda: taught.ship_taught(german, "qa", "weights", PLAN, "never"),
        lambda: text_taught.ship_text_taught(german, text_taught.TextTeaching(), "never"),
        lambda: tuned_transfer.ship_transfer(german, "no", tuned_transfer.TransferPlan(), "never"),
    ):
        with pytest.raises(ValueError, match="'de' has no items of qa: expected en, zh, vi"):
            ship()
    monkeypatch.setattr(taught, "contenders", lambda _: {})
    data = ROOT / "data" / "testbed"
    _, made = taught.taught_tables(german, "activations", data)
    assert {"languages", "items"} <= set(made["qa"]["differing"])
    _, made_text = text_taught.read_text_taught(german, data)
    assert {"languages", "items"} <= set(made_text["differing"])
    assert list(tuned.untuned_answers(german, 2)) == ["en"]
    assert tuned.untuned_answers(german.changed(languages=("de", "fr")), 2) == {}
    with pytest.raises(ValueError, match="n_test is -5"):
        tuned.untuned_answers(german, -5)


def test_the_command_checks_every_part_before_the_first(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tune, "contenders", lambda _: pytest.fail("a pass before the check"))
    given = ["--profile", "smoke", "--out", str(tmp_path / "out"), "--parts", "sets", "weights"]
    for option, value, said in (("--rank", "4096", "rank is 4096"), ("--test", "0", "n_test is 0")):
        assert tune.main([*given, option, value]) == 1
        assert said in capsys.readouterr().err
    assert tune.main([*given, "--betas", "0.9", "1.5"]) == 1
    assert "betas are (0.9, 1.5): expected" in capsys.readouterr().err
    seen = []
    monkeypatch.setattr(tune, "require_teachable", lambda *of: seen.append(of[-1]))
    monkeypatch.setattr(tune, "ship_taught", lambda *_: None)
    given[-2:] = ["weights"]
    how = ["--betas", "0.9", "0.99", "--tuned-parts", "gate", "--warmup", "0.5", "--clip", "3"]
    assert tune.main([*given, *how, "--weight-decay", "0"]) == 0
    for recipe in seen[0].recipes.values():
        assert (recipe.betas, recipe.parts, recipe.warmup) == ((0.9, 0.99), "gate", 0.5)
        assert (recipe.clip, recipe.weight_decay) == (3.0, 0.0)
    assert not (tmp_path / "out").exists()


def test_weights_are_those_of_source_target_both_and_random(pipeline: Pipeline) -> None:
    own = [t.asked[0][0] for t in taught.trainings(pipeline, "weights", PLAN)]
    crane = [about["of"] for about in own if about["method"] == "CRANE"]
    en, *others = pipeline.settings.languages
    assert set(crane) == {en, *others, *(f"{en}+{x}" for x in others)}
    assert {"none", "all", "Random as CRANE"} <= {about["method"] for about in own}
    # LAPE finds neurons of some languages only; a set without any is not tuned.
    found = {x for x, neurons in contenders(pipeline)["LAPE"].items() if len(neurons)}
    tuned_sets = {about["of"] for about in own if about["method"] == "LAPE"}
    assert tuned_sets == found | {f"{en}+{x}" for x in found - {en}}
    assert all(about["n_neurons"] for about in own if about["method"] != "none")
    by_name = {(about["method"], about["of"]): about["n_neurons"] for about in own}
    assert by_name["none", ""] == 0 and by_name["all", ""] == -1


def test_a_language_without_neurons_is_refused(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    en, x, *rest = pipeline.settings.languages
    none, some = NeuronSet.empty(pipeline.shape), NeuronSet.from_pairs([(0, 1)], pipeline.shape)
    sets = {"A": {en: some, x: none}, "B": {en: none, x: some}}
    of_all = {method: of | dict.fromkeys(rest, some) for method, of in sets.items()}
    monkeypatch.setattr(taught, "contenders", lambda _: of_all)
    found = taught.sets_with_neurons(pipeline)
    assert x not in found["A"] and en not in found["B"]
    of_all["B"][x] = none
    with pytest.raises(ValueError, match=f"no method finds neurons of '{x}'"):
        next(taught.trainings(pipeline, "weights", PLAN))


def test_activations_are_set_to_every_value_beside_random_sets(pipeline: Pipeline) -> None:
    training, beside = taught.trainings(pipeline, "activations", PLAN)
    assert training.neurons is None and beside.neurons is None
    crane = [about for about, _ in training.asked if about["method"] == "CRANE"]
    _en, *others = pipeline.settings.languages
    wanted = {(x, written_name(one)) for x in others for one in taught.VALUES}
    assert {(about["of"], about["set_to"]) for about in crane} == wanted
    random = [about for about, _ in training.asked if about["method"] == "Random as CRANE"]
    assert [about["set_to"] for about in random] == ["zero"] * len(others)
    drawn = [about for about, _ in beside.asked if about["method"] == "Random as CRANE"]
    at = [written_name(one) for one in taught.AS_READ]
    assert [about["set_to"] for about in drawn] == at * len(others)  # the first draw, again
    assert {about["draw"] for about in drawn} == {0}
    # One mask at each value, so what is written is what differs.
    own = {about["set_to"]: one for about, one in beside.asked if about in drawn[: len(at)]}
    assert len({one.digest() for one in own.values()}) == len(at)
    none = replace(PLAN, value_draws=0)
    assert len(list(taught.trainings(pipeline, "activations", none))) == 1


def test_a_table_goes_on_from_what_is_there(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught.ship_taught(pipeline, "nli", "weights", PLAN, tmp_path)
    file = tmp_path / "lsn_weights_nli.csv"
    first, written = taught.read_taught(file), file.read_bytes()
    languages = len(pipeline.settings.languages)
    assert (first["set_to"] == "").sum() == languages * len(
        list(taught.trainings(pipeline, "weights", PLAN))
    )
    after = first[first["set_to"] != ""]  # a target's neurons, of a method, and only it is asked
    assert set(after["set_to"]) == {written_name(one) for one in taught.AFTER_TUNING}
    assert (after["of"].str[-2:] == after["language"]).all() and (after["draw"] == -1).all()
    shares = first["right"].map(lambda bits: bits.count("1") / len(bits))
    assert (shares - first["score"]).abs().max() < 1e-5 and (first["right"].str.len() == 3).all()
    seeds: list[int] = []
    trained = tuned.tuned_outcomes

    def watched(*arguments: object, **more: object) -> object:
        seeds.append(arguments[2].seed)  # type: ignore[attr-defined]
        return trained(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(taught, "tuned_outcomes", watched)
    taught.ship_taught(pipeline, "nli", "weights", PLAN, tmp_path)
    assert not seeds and file.read_bytes() == written
    more = taught.Teaching(2, 1, 1, 3, recipes=RECIPES)
    taught.ship_taught(pipeline, "nli", "weights", more, tmp_path)
    assert set(seeds) == {1} and len(taught.read_taught(file)) == 2 * len(first)
    grown = file.read_bytes()
    other = taught.Teaching(1, 1, 1, 2, recipes=RECIPES)
    with pytest.raises(FileExistsError, match="n_test, items"):  # nothing is lost
        taught.ship_taught(pipeline, "nli", "weights", other, tmp_path)
    assert file.read_bytes() == grown
    tables, made = taught.taught_tables(pipeline, "weights", tmp_path)
    assert list(tables) == ["nli"] and made["nli"]["seeds"] == 2
    # How, and with how much, is no matter; of what model and neurons is.
    assert "n_test" in made["nli"]["differing"]
    assert list(taught.of_this_run(tables, made)) == ["nli"]
    made["nli"]["differing"] = ["recipe", "sets"]
    assert not taught.of_this_run(tables, made)
    file.with_suffix(".json").unlink()
    with pytest.raises(FileNotFoundError, match="what it was made with"):
        taught.taught_tables(pipeline, "weights", tmp_path)


def test_what_is_asked_of_one_model_is_asked_at_once(pipeline: Pipeline, tmp_path: Path) -> None:
    taught.ship_taught(pipeline, "nli", "activations", PLAN, tmp_path)
    file = tmp_path / "lsn_activations_nli.csv"
    first = taught.read_taught(file)
    more = taught.Teaching(1, 2, 1, 3, recipes=RECIPES)
    taught.ship_taught(pipeline, "nli", "activations", more, tmp_path)
    found = taught.read_taught(file)
    assert len(found) > len(first) and not found.duplicated([*taught.KEYS, "language"]).any()
    own, languages = found[found["method"] == "none"], pipeline.settings.languages
    assert own["language"].to_list() == list(languages)
    # Seeds of draws do not depend on how many there are: the first draw is the first draw.
    again = found.merge(first, on=[*taught.KEYS, "language"], suffixes=("", "_before"))
    assert len(again) == len(first) and (again["right"] == again["right_before"]).all()


def test_a_tuned_model_is_kept_as_a_checkpoint(pipeline: Pipeline, tmp_path: Path) -> None:
    tuned.save_tuned(pipeline, RECIPE, tmp_path / "tuned")
    after = pipeline.on_chat(str(tmp_path / "tuned"))
    assert after.shape == pipeline.shape and after.settings.chat
    before, now = (of.model.get_input_embeddings().weight for of in (pipeline, after))
    assert torch.equal(before, now)  # LoRA is of attention and MLPs
    differ = [
        not torch.equal(weight, after.model.get_parameter(name))
        for name, weight in pipeline.model.named_parameters()
    ]
    assert any(differ) and [file.name for file in tmp_path.iterdir()] == ["tuned"]
    with pytest.raises(FileExistsError, match="exists"):
        tuned.save_tuned(pipeline, RECIPE, tmp_path / "tuned")


def test_the_untuned_model_is_asked_the_same(pipeline: Pipeline) -> None:
    found = tuned.untuned_answers(pipeline, 4)
    assert list(found) == sorted(pipeline.settings.languages)
    x = pipeline.settings.languages[0]
    items = unseen_items("qa", "test")[x][:4]
    asked = tuned.ask_questions(pipeline.model, pipeline.tokenizer, x, items)
    assert found[x] == sum(row["score"] for row in asked) / 4


def test_tables_of_another_model_are_read_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no lsn_weights_<task>\.csv"):
        taught.shipped_tables("weights", tmp_path)
    tables, made = taught.shipped_tables("activations", ROOT / "data" / "testbed")
    assert set(tables) == set(tuned.TASKS) == set(made)
    assert made["qa"]["differing"] == [] and "recipe" in made["qa"]["inputs"]
