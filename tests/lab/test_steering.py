"""Language forcing: what is done to neurons, what is asked, and what is said of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from bs4 import BeautifulSoup
from test_pipeline import folder, settings_in

from crane_core.baselines import random_matched
from crane_core.interventions import UNTOUCHED, Intervention, intervened
from crane_core.neurons import NeuronSet
from crane_lab.pipeline import Pipeline
from crane_lab.show import steering_pages as page
from crane_lab.store import ROOT, Store
from crane_lab.study import steering
from crane_lab.study.many_languages import LAPE, RELEVANCE
from crane_lab.study.steering import Setup, Steered, SteeringPlan
from crane_lab.study.steering_effects import (
    forcing_matrix,
    setup_contrasts,
    steering_summary,
)
from crane_lab.study.taught import RANDOM
from crane_lab.texts.told import identified, identified_surely
from crane_lab.texts.visible import visible

__all__ = ["folder"]  # a fixture
LANGUAGES = ("en", "zh", "vi")
CENTRAL = ("add", "mean", 1.0)


@pytest.fixture(scope="module")
def pipeline(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline(settings_in(folder), Store(tmp_path_factory.mktemp("store")))


def two_each(pipeline: Pipeline, languages: Sequence[str]) -> dict[str, NeuronSet]:
    """A set of two neurons, in two layers, for each language."""
    size = pipeline.shape["intermediate"]
    return {
        x: NeuronSet.from_pairs([(0, i), (1, i + 1)], {"intermediate": size})
        for i, x in enumerate(languages)
    }


@pytest.fixture(scope="module")
def steered(pipeline: Pipeline) -> Steered:
    sets, size = two_each(pipeline, LANGUAGES), pipeline.shape["intermediate"]
    values = {x: torch.full(size, float(i + 1)) for i, x in enumerate(LANGUAGES)}
    every = {LAPE: sets, RELEVANCE: sets}
    return Steered(every, {"mean": values, "probability": values})


PLAN = SteeringPlan(
    languages=LANGUAGES,
    methods=(LAPE, RELEVANCE),
    steered=(LAPE,),
    setups=(Setup("set"), Setup("zero + add")),
    draws=1,
    questions=str(ROOT / steering.QUESTIONS),
)


def seen_at_act_fn(pipeline: Pipeline, setup: Setup, steered: Steered) -> torch.Tensor:
    """How far each neuron of the first layer is moved at act_fn's output."""
    neurons = steered.sets[LAPE]["zh"]
    source = steered.sets[LAPE]["en"]
    one = steering.intervention_of(steered, neurons, "zh", setup, source)
    found = []
    ids = torch.tensor([[5, 6, 7]])
    for intervention in (UNTOUCHED, one):
        with intervened(pipeline.model, intervention), torch.no_grad():
            kept: list[torch.Tensor] = []
            mlp = pipeline.model.model.layers[0].mlp.act_fn
            handle = mlp.register_forward_hook(lambda m, a, out, kept=kept: kept.append(out))
            pipeline.model(input_ids=ids)
            handle.remove()
        found.append(kept[0][0, -1])
    return torch.stack(found)


def test_each_kind_does_what_it_is_called(pipeline: Pipeline, steered: Steered) -> None:
    before, after = seen_at_act_fn(pipeline, Setup("add", strength=2.0), steered)
    expected = torch.zeros_like(before)
    expected[1] = 4.0  # twice zh's value, at zh's neuron of this layer
    torch.testing.assert_close(after - before, expected)
    before, after = seen_at_act_fn(pipeline, Setup("set"), steered)
    assert after[1] == 2.0 and torch.equal(after[2:], before[2:])
    before, after = seen_at_act_fn(pipeline, Setup("contrast"), steered)
    assert float(after[1] - before[1]) == pytest.approx(0.0, abs=1e-6)  # 2 less (1 + 3) / 2
    before, after = seen_at_act_fn(pipeline, Setup("scale", strength=3.0), steered)
    torch.testing.assert_close(after[1], 3 * before[1])
    before, after = seen_at_act_fn(pipeline, Setup("zero + add"), steered)
    assert after[0] == 0 and float(after[1] - before[1]) == pytest.approx(2.0)


def test_a_table_grows_and_is_not_computed_twice(
    pipeline: Pipeline, steered: Steered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steering.ship_steering(pipeline, steered, PLAN, tmp_path)
    answers = steering.read_steering(tmp_path)
    # untouched; for three targets two methods, and two setups of one, each with a random set
    assert len(answers) == 3 * (1 + 3 * 2 * (2 + 2))
    questions = steering.read_steering_questions(LANGUAGES, PLAN.questions)
    table = steering.answer_outcomes(answers, questions)
    assert len(table) == 9 * (1 + 4 + 4)
    for row in table.to_dict("records"):
        kinds = ("in_target", "stayed", "elsewhere", "untold")
        each = [sum(int(row[kind][place]) for kind in kinds) for place in range(10)]
        assert each == [1] * 10  # an answer is one of them
        assert all(a <= b for a, b in zip(row["sure"], row["in_target"], strict=True))
        assert row["source"] != row["target"] or row["stayed"] == "0" * 10
    first = (tmp_path / steering.FILE).read_bytes()

    def never(*args: object) -> pd.DataFrame:
        raise AssertionError("computed again")

    monkeypatch.setattr(steering, "forced", never)
    steering.ship_steering(pipeline, steered, PLAN, tmp_path)
    assert (tmp_path / steering.FILE).read_bytes() == first
    summary = steering_summary(table)
    assert len(summary) == 1 + 4
    assert "zero + add mean" in page.steering_table(summary).to_html()
    beside = vars(page.steering_random_table(summary))["data"]
    assert beside[["random", "loss", "loss, random"]].notna().all(axis=None)
    assert summary["native_both"].between(0, 1).all()
    assert "Untouched" in str(page.steering_in_words(summary).data)
    assert "Random as LAPE" in page.forcing_figure(table, [LAPE], CENTRAL).data
    view = BeautifulSoup(page.answers_explorer(answers, questions).data, "lxml")
    shown = [[cell.text for cell in row.find_all(["th", "td"])] for row in view.select("tbody tr")]
    assert [row[:2] for row in shown] == [
        ["none", "untouched"],
        *([of, "add mean"] for name in (LAPE, RELEVANCE) for of in (name, f"{RANDOM} as {name}")),
        *(
            [of, f"{kind} mean"]
            for kind in ("set", "zero + add")
            for of in (LAPE, f"{RANDOM} as {LAPE}")
        ),
    ]
    # At first the first question, asked in en and wanted in zh.
    own = answers[(answers["source"] == "en") & answers["target"].isin(["", "zh"])]
    said = [visible(json.loads(texts)[0]).replace("\n", "") for texts in own["answers"]]
    assert {row[2] for row in shown} == set(said) and shown[0][2] == said[0]
    pd.testing.assert_frame_equal(steering.shipped_outcomes(tmp_path, PLAN.questions), table)
    fewer = {x: own[:-1] for x, own in questions.items()}
    with pytest.raises(ValueError, match="10 answers of none in 'en', 9 questions"):
        steering.answer_outcomes(answers, fewer)
    # As many questions, of which one has another answer: nothing but the record tells.
    other = tmp_path / "other.yaml"
    text = Path(PLAN.questions).read_text(encoding="utf-8")
    other.write_text(text.replace('answers: ["Paris"]', 'answers: ["London"]', 1), encoding="utf-8")
    with pytest.raises(ValueError, match=r"steering\.csv in .* other questions than .*other\.yaml"):
        steering.shipped_outcomes(tmp_path, other)


def test_bad_input_is_refused_before_anything_is_generated(
    pipeline: Pipeline, steered: Steered, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="'qqq' cannot be told"):
        plan = SteeringPlan(languages=("en", "qqq"))
        steering.ship_steering(pipeline, steered, plan, tmp_path)
    with pytest.raises(ValueError, match=r"'th' cannot be told: expected letters .* Thai"):
        plan = SteeringPlan(languages=("en", "th"))  # py3langid knows it
        steering.ship_steering(pipeline, steered, plan, tmp_path)
    with pytest.raises(ValueError, match="no question with answers in 'ko'"):
        steering.read_steering_questions(["en", "ko"], ROOT / steering.QUESTIONS)
    with pytest.raises(ValueError, match="unknown kind 'push'"):
        Setup("push")
    with pytest.raises(ValueError, match="unknown statistic 'median'"):
        Setup("add", "median")
    for name in ("methods", "steered"):
        unknown = dataclasses.replace(PLAN, **{name: (LAPE, "nope")})  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="unknown method 'nope': expected some of"):
            steering.ship_steering(pipeline, steered, unknown, tmp_path)
    with pytest.raises(ValueError, match="-1 random sets"):
        SteeringPlan(draws=-1)
    empty = NeuronSet.empty(pipeline.shape)
    none = {LAPE: {**steered.sets[LAPE], "zh": empty}}
    hollow = dataclasses.replace(steered, sets={**steered.sets, **none})
    with pytest.raises(ValueError, match="LAPE gives 'zh' no neurons: leave it out of --asked"):
        steering.ship_steering(pipeline, hollow, PLAN, tmp_path)
    with pytest.raises(ValueError, match="no neurons of 'zh'"):
        steering.intervention_of(steered, empty, "zh", Setup("add"), None)
    with pytest.raises(FileNotFoundError, match=r"crane_lab\.cli\.steer"):
        steering.read_steering(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("", "expected a list of questions, .* got nothing"),
        ("en: {question: x}", "expected a list of questions, .* got a dict"),
        ("- Paris", "question 0 in .* expected a mapping with an id"),
        ("- {id: a, en: Paris}", "'a' in .*, en: expected a mapping .* got 'Paris'"),
        ("- {id: a, en: {question: x, answers: Paris}}", "'a'.*, en: expected a list of answers"),
        ("- {id: a, en: {question: x, answers: [no]}}", "expected answers that are texts.* False"),
        ("- {id: a, en: {question: x, answers: ['*']}}", "expected answers that are texts"),
        ("- {id: a, en: {question: x, answers: [b], words: b}}", "expected a list of words"),
        ("- {id: a, en: {question: 7, answers: [b]}}", "expected a question in words, got 7"),
        ("- {id: a, en: {question: x}}", "'a' .* no question with answers in 'en'"),
        ("- [", "cannot be read as YAML"),
    ],
)
def test_questions_that_cannot_be_asked_are_named(tmp_path: Path, said: str, expected: str) -> None:
    file = tmp_path / "questions.yaml"
    file.write_text(said, encoding="utf-8")
    with pytest.raises(ValueError, match=expected):
        steering.read_steering_questions(["en"], file)
    with pytest.raises(FileNotFoundError, match="expected questions, as data/steering"):
        steering.read_steering_questions(["en"], tmp_path / "none.yaml")


def test_a_contrast_needs_another_language(steered: Steered) -> None:
    alone = Steered(steered.sets, {"mean": {"en": steered.values["mean"]["en"]}})
    with pytest.raises(ValueError, match="expected values of another language"):
        steering.require_writable(alone, Setup("contrast"))


def test_a_contrast_may_be_stronger_where_languages_are_alike(steered: Steered) -> None:
    alike = {x: value / 1e3 + 1 for x, value in steered.values["mean"].items()}
    near = Steered(steered.sets, {"mean": alike})
    strength = 100 * steering.LARGEST
    steering.require_writable(near, Setup("contrast", strength=strength))
    with pytest.raises(ValueError, match="take a smaller strength"):
        steering.require_writable(near, Setup("add", strength=strength))


def test_the_strongest_that_is_taken_leaves_an_answer(pipeline: Pipeline, steered: Steered) -> None:
    strength = 0.9 * steering.LARGEST / 3  # the largest value is 3
    steering.require_writable(steered, Setup("add", strength=strength))
    setup = Setup("add", strength=strength)
    one = steering.intervention_of(steered, steered.sets[LAPE]["vi"], "vi", setup)
    with intervened(pipeline.model, one), torch.no_grad():
        logits = pipeline.model(input_ids=torch.tensor([[5, 6, 7]])).logits
    # Where a norm overflows it puts out zeros, and all tokens are as likely.
    assert logits.isfinite().all() and (logits.std(-1) > 0).all()


@pytest.mark.parametrize("strength", [1e18, 1e20, float("inf"), float("nan")])
@pytest.mark.parametrize("kind", ["add", "scale"])
def test_a_strength_that_overflows_is_refused(
    pipeline: Pipeline, steered: Steered, tmp_path: Path, strength: float, kind: str
) -> None:
    plan = dataclasses.replace(PLAN, setups=(Setup(kind, strength=strength),))
    with pytest.raises(ValueError, match=rf"{kind} with strength .* take a smaller strength"):
        steering.ship_steering(pipeline, steered, plan, tmp_path)
    assert not list(tmp_path.iterdir())


def test_questions_are_the_same_in_every_language() -> None:
    questions = steering.read_steering_questions(
        SteeringPlan().languages, ROOT / steering.QUESTIONS
    )
    ids = {tuple(question.id for question in own) for own in questions.values()}
    assert len(ids) == 1 and len(next(iter(ids))) >= 10
    for own in questions.values():  # an answer is not given away by its question
        for question in own:
            assert not steering.answered(question.question, question.answers), question
            assert question.words


@pytest.mark.parametrize(
    ("language", "text", "right"),
    [
        ("ru", "восемь", False),
        ("ru", "который", False),
        ("ru", "завод", False),
        ("ru", "медведь", False),
        ("fr", "beaucoup", False),
        ("fr", "dix-septembre", False),
        ("en", "education", False),
        ("en", "17 of them", False),
        ("en", "It has 7.", True),
        ("ja", "蜜蜂", False),
        ("zh", "水果", False),
        ("zh", "7天", True),
        ("ru", "Холодный.", True),
        ("de", "Der Pazifische Ozean", True),
        ("vi", "nước Pháp", False),
        ("es", "diecisiete", False),
    ],
)
def test_answers_are_whole_words(language: str, text: str, right: bool) -> None:
    questions = steering.read_steering_questions([language], ROOT / steering.QUESTIONS)
    found = [
        question for question in questions[language] if steering.answered(text, question.answers)
    ]
    assert bool(found) == right, found


def test_random_neurons_get_the_same_numbers_and_are_drawn_anew(steered: Steered) -> None:
    own = steered.sets[LAPE]["zh"]
    values = torch.arange(own.mask().numel(), dtype=torch.float32).view(own.mask().shape)
    drawn = random_matched(own, 3)
    found = steering.moved(values, own, drawn, 3)
    for layer in range(len(values)):
        given = found[layer][drawn.mask()[layer]].sort().values
        assert torch.equal(given, values[layer][own.mask()[layer]].sort().values)
    kept = ~drawn.mask()
    assert torch.equal(found[kept], values[kept])
    pushed = steering.intervention_of(steered, own, "zh", Setup("add"), None, (drawn, 3))
    assert pushed.neurons == drawn


def test_targets_and_methods_have_random_sets_of_their_own(
    pipeline: Pipeline, steered: Steered, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = dict.fromkeys(LANGUAGES, steered.sets[LAPE]["en"])
    every = Steered({LAPE: same, RELEVANCE: same}, steered.values)
    seen = []

    def seeing(
        pipeline: Pipeline, questions: object, under: dict[str, Intervention]
    ) -> pd.DataFrame:
        seen.append(next(iter(under.values())).neurons)
        return pd.DataFrame({"source": list(under)})

    monkeypatch.setattr(steering, "forced", seeing)
    plan = dataclasses.replace(PLAN, draws=2, setups=())
    for part in steering.steering_parts(pipeline, every, plan):
        part.compute()
    drawn = [one for one in seen if one is not None and one != same["en"]]
    assert len(drawn) == 12 and len({one.digest() for one in drawn}) > 6


def test_no_language_is_favoured_where_nothing_tells() -> None:
    among = list(SteeringPlan().languages)
    texts = ["Paris", "1945", "", "フランス", "Привет, как дела?", "Das ist ein Haus."]
    assert identified(texts, among) == ["", "", "", "ja", "ru", "de"]
    assert identified(["Привет"], ["en", "fr"]) == [""]
    with pytest.raises(ValueError, match="'qqq' cannot be told: py3langid does not know"):
        identified(["x"], ["en", "qqq"])


def test_the_identifier_says_how_sure_it_is() -> None:
    texts = ["Paris", "フランス", "Das ist ein Haus.", "hotel"]
    (none, nothing), (ja, script), (de, german), (_, short) = identified_surely(
        texts, ["en", "de", "fr", "ja", "zh"]
    )
    assert (none, nothing, ja, script, de) == ("", 0.0, "ja", 1.0, "de")
    assert german > 0.99 > short >= 0
    alike, apart = (
        identified_surely(["Hovedstaden er Oslo"], ["no", other])[0][1] for other in ("da", "fi")
    )
    assert 0.5 <= alike < apart  # beside a language that is like it


def made_up(shares: dict[tuple[str, str, float], float], seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = []
    for (method, kind, strength), share in shares.items():
        for target in ("en", "zh", "vi", "de"):
            for source in ("en", "zh", "vi", "de"):
                inside = "".join(str(int(rng.random() < share)) for _ in range(20))
                rest = "".join(str(1 - int(x)) for x in inside)
                about = {"method": method, "kind": kind, "statistic": "mean" if kind else ""}
                about |= {"target": target, "source": source, "in_target": inside, "stayed": rest}
                about |= {"elsewhere": "0" * 20, "untold": "0" * 20, "correct": inside}
                about["sure"] = inside
                rows.append({**about, "strength": strength, "loss": 3.0, "seed": -1})
    return pd.DataFrame(rows).assign(first="x", repeated=0.1)


def only(frame: pd.DataFrame, conditions: Sequence[tuple[str, object]]) -> dict[Hashable, Any]:
    for name, value in conditions:
        frame = frame[frame[name] == value]
    (row,) = frame.to_dict("records")
    return row


def test_what_works_is_told_from_what_does_not() -> None:
    table = made_up(
        {
            ("none", "", 0.0): 0.02,
            ("A", "add", 1.0): 0.9,
            (f"{RANDOM} as A", "add", 1.0): 0.1,
            ("A", "set", 1.0): 0.5,
            ("B", "add", 1.0): 0.1,
            (f"{RANDOM} as B", "add", 1.0): 0.1,
        }
    )
    summary = steering_summary(table)
    a, b = (only(summary, [("method", x), ("kind", "add")]) for x in "AB")
    assert a["share"] == pytest.approx(0.9, abs=0.05) and a["low"] < a["share"] < a["high"]
    assert a["ahead"] > 0.7 and a["ahead_q"] < 0.01 and a["q"] < 0.01
    assert b["ahead_q"] > 0.05
    better = setup_contrasts(table, {"x": (CENTRAL, ("set", "mean", 1.0))})
    assert "cannot be said yet" in page.setup_contrast_table(better.iloc[:0]).data  # type: ignore[union-attr]
    assert list(better["method"]) == ["A"] and better["low"].iloc[0] > 0.2
    matrix = forcing_matrix(table, "A", CENTRAL)
    assert matrix.shape == (4, 4) and matrix.to_numpy().mean() == pytest.approx(0.9, abs=0.05)
    text = page.steering_in_words(summary).data
    assert "certainly more in 1 of 1" in text and "certainly more in 0 of 1" in text
    assert "Untouched: 98%" in text
    shown = page.tradeoff_figures(summary)
    assert len(shown) == 3 and all("A, add mean: 9" in figure.data for figure in shown)
