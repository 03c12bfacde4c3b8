"""Languages switched off one after another, and the logit lens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from test_pipeline import folder, settings_in

from crane_core.interventions import UNTOUCHED
from crane_core.neurons import NeuronSet
from crane_lab.cli import steer
from crane_lab.pipeline import Pipeline
from crane_lab.show import fallback_pages as page
from crane_lab.store import ROOT, Store
from crane_lab.study import fallback, steering
from crane_lab.study.fallback import FallbackPlan, cumulative, nested_random
from crane_lab.study.logit_lens import lens_logits, lens_table
from crane_lab.study.many_languages import LAPE, RELEVANCE
from crane_lab.study.steering import ForcedQuestion

__all__ = ["folder"]  # a fixture
QUESTIONS = str(ROOT / steering.QUESTIONS)
PLAN = FallbackPlan(
    order=("en", "zh", "vi"), methods=(LAPE,), shuffles=1, draws=1, windows=2, asked="en"
)


@pytest.fixture(scope="module")
def pipeline(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline(settings_in(folder), Store(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def sets(pipeline: Pipeline) -> dict[str, dict[str, NeuronSet]]:
    size = {"intermediate": pipeline.shape["intermediate"]}
    return {
        LAPE: {
            x: NeuronSet.from_pairs([(0, n) for n in range(9 * i, 9 * i + 9)], size)
            for i, x in enumerate(PLAN.order)
        }
    }


def test_steps_add_up_from_nothing(sets: dict[str, dict[str, NeuronSet]]) -> None:
    steps = cumulative(sets[LAPE], ["zh", "en"])
    assert [len(step) for step in steps] == [0, 9, 18]
    assert steps[1] == sets[LAPE]["zh"]
    drawn = nested_random(steps, 3)
    assert [step.counts("intermediate").tolist() for step in drawn] == [
        step.counts("intermediate").tolist() for step in steps
    ]
    assert len(drawn[1] - drawn[2]) == 0 and drawn[2] != steps[2]
    assert nested_random(steps, 3) == drawn != nested_random(steps, 4)


def test_a_table_grows_by_a_method_but_not_by_another_set(
    pipeline: Pipeline, sets: dict[str, dict[str, NeuronSet]], tmp_path: Path
) -> None:
    plan = replace(PLAN, shuffles=0, draws=0)
    fallback.ship_fallback(pipeline, sets, plan, tmp_path, QUESTIONS)
    before = fallback.read_fallback(tmp_path)
    both = {**sets, RELEVANCE: dict.fromkeys(PLAN.order, sets[LAPE]["zh"])}
    plan = replace(plan, methods=(LAPE, RELEVANCE))
    fallback.ship_fallback(pipeline, both, plan, tmp_path, QUESTIONS)
    after = fallback.read_fallback(tmp_path)
    assert after[after["method"] == LAPE].equals(before)
    assert fallback.read_fallback(tmp_path, QUESTIONS).equals(after)
    questions = tmp_path / "other.yaml"
    text = Path(QUESTIONS).read_text(encoding="utf-8")
    questions.write_text(text.replace("capital of France", "largest town of France"), "utf-8")
    with pytest.raises(ValueError, match=r"fallback\.csv in .* other questions than"):
        fallback.read_fallback(tmp_path, questions)
    assert len(after) == 2 * len(before)
    other = {**both, LAPE: both[RELEVANCE]}
    for wrong in (other, sets):  # another set of a method, and a method less
        with pytest.raises(FileExistsError, match="another sets"):
            fallback.ship_fallback(pipeline, wrong, PLAN, tmp_path, QUESTIONS)


def test_orders_are_the_papers_and_drawn_ones() -> None:
    orders = FallbackPlan(shuffles=2).orders()
    assert list(orders) == ["the paper's", "drawn 0", "drawn 1"]
    assert all(sorted(own) == sorted(FallbackPlan().order) for own in orders.values())
    assert orders["drawn 0"] != orders["drawn 1"] != list(FallbackPlan().order)


def test_every_step_says_who_answers_and_what_it_costs(
    pipeline: Pipeline, sets: dict[str, dict[str, NeuronSet]], tmp_path: Path
) -> None:
    fallback.ship_fallback(pipeline, sets, PLAN, tmp_path, QUESTIONS)
    table = fallback.read_fallback(tmp_path)
    assert len(table) == 4 * 4 * 3  # languages and elsewhere, steps, runs
    assert (table.groupby(["method", "order", "step", "seed"])["answers"].sum() == 10).all()
    first = table[table["step"] == 0]
    assert first.groupby("language")["loss"].nunique(dropna=False).eq(1).all()
    assert table[table["step"] == 3]["n_neurons"].eq(27).all()
    zh = first[first["language"] == "zh"]["loss"].iloc[0]
    assert zh == pytest.approx(
        float(pipeline.losses(UNTOUCHED)["zh"][: PLAN.windows].mean()), abs=1e-5
    )
    n = fallback.windows_read(tmp_path)
    order = table["order"].iloc[0]
    answers = vars(page.first_answers_table(table, order))["data"]
    assert len(answers) == 4 and answers["LAPE"].iloc[0] == first["first"].iloc[0]
    said = str(page.asked_in_words(table, n).data)
    assert n == PLAN.windows and f"and {n} windows of held-out text" in said
    random = vars(page.fallback_random_table(table))["data"]
    assert random["answers in en, random"].notna().sum() == 2  # of the paper's order
    assert "+ zh" in str(page._steps(table)["row"].to_list())
    assert "Random as LAPE: at the end" in page.fallback_figure(table, order).data
    assert "Random as LAPE: +" in page.fallback_loss_figure(table, order).data.replace("-", "+")
    assert "with nothing off" in str(page.fallback_in_words(table).data)


def test_bad_input_is_refused_before_anything_is_generated(
    pipeline: Pipeline,
    sets: dict[str, dict[str, NeuronSet]],
    tmp_path: Path,
) -> None:
    with pytest.raises(ValueError, match="'qqq' cannot be told"):
        fallback.ship_fallback(pipeline, sets, FallbackPlan(order=("qqq",)), tmp_path, QUESTIONS)
    with pytest.raises(ValueError, match="'th' cannot be told"):  # py3langid knows it
        fallback.ship_fallback(pipeline, sets, FallbackPlan(order=("th",)), tmp_path, QUESTIONS)
    none = {LAPE: {**sets[LAPE], "vi": NeuronSet.empty(sets[LAPE]["vi"].shape)}}
    with pytest.raises(ValueError, match="gives 'vi' no neurons"):
        fallback.ship_fallback(pipeline, none, PLAN, tmp_path, QUESTIONS)
    with pytest.raises(ValueError, match="no set of 'ru'"):
        fallback.ship_fallback(
            pipeline, sets, FallbackPlan(order=("en", "ru"), methods=(LAPE,)), tmp_path, QUESTIONS
        )
    for plan, said in (
        (replace(PLAN, order=("en", "zh", "en")), "the order has 'en' twice"),
        (replace(PLAN, order=()), "the order is empty"),
        (replace(PLAN, methods=("nope",)), "unknown method 'nope'"),
    ):
        with pytest.raises(ValueError, match=said):
            fallback.ship_fallback(pipeline, sets, plan, tmp_path, QUESTIONS)
    with pytest.raises(ValueError, match="0 random sets, -1 drawn orders"):
        FallbackPlan(draws=0, shuffles=-1)
    with pytest.raises(FileNotFoundError, match=r"crane_lab\.cli\.steer"):
        fallback.read_fallback(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_command_refuses_what_its_parts_would_before_any_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steer, "read_parts", lambda *_: pytest.fail("read before the checks"))
    none = str(tmp_path / "none.yaml")
    for arguments, said in (
        ("--languages en fr --asked en de", "--asked has 'de', which is not among --languages"),
        ("--asked en fr en", "--asked has 'en' twice"),
        ("--order en fr en --parts fallback", "--order has 'en' twice"),
        ("--languages en th --asked en th --parts forcing", "'th' cannot be told"),
        ("--languages en th --order en th --parts fallback", "'th' cannot be told"),
        ("--languages en ko --asked en ko --parts forcing", "no question with answers in 'ko'"),
        ("--asked en fr --parts lens", "expected 'en' and two languages or more"),
        ("--asked en xx --languages en xx --parts known", "xx"),
        (f"--parts forcing --questions {none}", "none.yaml: expected questions"),
        ("--draws -1 --parts fallback", "-1 random sets"),
        ("--share 0", "share is 0.0: expected more than 0 and at most 1"),
        # --order's and --tested's languages do not matter to a part that takes none away.
        ("--languages en zh --asked en zh --parts forcing --draws -1", "-1 random sets"),
    ):
        given = ["--profile", "testbed", "--out", str(tmp_path / "out"), *arguments.split()]
        assert steer.main(given) == 1, arguments
        assert said in capsys.readouterr().err, arguments
    assert not list(tmp_path.iterdir())


def test_the_lens_is_the_models_own_prediction_at_the_last_layer(pipeline: Pipeline) -> None:
    ids = [1, 5, 9, 30]
    found = lens_logits(pipeline.model, ids)
    model = pipeline.model
    with torch.no_grad():
        output = model(input_ids=torch.tensor([ids]), output_hidden_states=True)
        # Norm and head of the last state are what the model itself says.
        torch.testing.assert_close(found[-1], output.logits[0, -1].float())
        for layer, states in enumerate(output.hidden_states[1:-1]):
            expected = model.lm_head(model.model.norm(states[0, -1]))
            torch.testing.assert_close(found[layer], expected.float())
    assert len(found) == model.config.num_hidden_layers
    assert not torch.allclose(found[0], found[-1])


def test_the_lens_compares_two_languages(pipeline: Pipeline) -> None:
    written = {"en": ("Mo", "ten"), "zh": ("ba", "wu"), "fr": ("ga", "ha")}
    questions = {
        x: [ForcedQuestion(word, "q", (), (word,)) for word in words]
        for x, words in written.items()
    }
    found = lens_table(pipeline, questions, others=("fr",))
    found = found[found["language"] == "zh"]
    assert len(found) and found[["own", "pivot", "other", "mismatched"]].le(0).to_numpy().all()
    layers = pipeline.model.config.num_hidden_layers
    assert (found.groupby("question").size() == layers).all()
    assert "zh: English above" in page.lens_figure(found).data
    assert list(vars(page.lens_table_of(found, visible=-99))["data"]["questions"]) == [2]
    with pytest.raises(ValueError, match="expected 'en' and two"):
        lens_table(pipeline, {"zh": questions["zh"]})
    same = {**questions, "zh": questions["en"]}
    assert (lens_table(pipeline, same, others=("fr",))["language"] == "fr").all()


def test_a_made_up_fallback_is_told() -> None:
    rows = []
    for step, answers in enumerate(({"en": 10, "fr": 0}, {"en": 0, "fr": 10})):
        for x, n in answers.items():
            about = {
                "method": LAPE,
                "order": "the paper's",
                "asked": "en",
                "seed": -1,
                "n_neurons": step,
            }
            row = {"step": step, "language": x, "off": "en" if step else "", "loss": 3.0 + step}
            rows.append({**about, **row, "answers": n, "first": "x"})
    text = str(page.fallback_in_words(pd.DataFrame(rows)).data)
    assert "English (100%) with nothing off" in text and "French (100%) at the end" in text
