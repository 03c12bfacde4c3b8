"""Open-ended answers in the pipeline: questions, masks, judges, transfer to a chat model.

On the testbed itself, with few questions.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import make_tiny_llama

from crane_core import metrics, models
from crane_core.interventions import zero
from crane_core.selection import NeuronSet
from crane_lab.engines import generation
from crane_lab.engines.judging import JudgeError
from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show import readouts, table_pages
from crane_lab.stages import grading
from crane_lab.stages.outcomes import Judged, Row, Scored, side_by_side
from crane_lab.store import Store
from crane_lab.study import gate

LANGUAGES = ["en", "zh", "vi"]
SETTINGS = Settings(n_questions=4, max_new_tokens=24)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def base(store: Store) -> Pipeline:
    return Pipeline(SETTINGS, store)


@pytest.fixture(scope="module")
def chat(base: Pipeline) -> Pipeline:
    return base.on_chat("data/testbed/chat")


def some(pipeline: Pipeline, share: float = 0.6) -> NeuronSet:
    return gate.random_neurons(pipeline.model, share, 1)


# --- questions and answers ------------------------------------------------------------------


def test_questions_are_spread_over_the_set_and_numbered_alike(base: Pipeline) -> None:
    asked = base.asked
    assert asked.groupby("language").size().to_dict() == dict.fromkeys(LANGUAGES, 4)
    assert asked["cluster"].to_list() == ["000", "017", "035", "052"] * 3
    whole = generation.read_questions("data/questions", LANGUAGES)
    assert asked["question"].to_list() == [
        whole[x][int(number)] for x, number in zip(asked["language"], asked["cluster"], strict=True)
    ]
    assert (asked["id"] == asked["task"] + "-" + asked["cluster"]).all()


def test_no_more_questions_than_there_are(store: Store) -> None:
    everything = Pipeline(dataclasses.replace(SETTINGS, n_questions=900), store)
    assert len(everything.asked) == 3 * 70
    with pytest.raises(ValueError, match="n_questions is 0"):
        _ = Pipeline(dataclasses.replace(SETTINGS, n_questions=0), store).asked


def test_a_mask_changes_answers_and_leaves_no_trace(base: Pipeline) -> None:
    before = base.said()
    masked = base.said(zero(some(base)))
    assert (before["text"] != masked["text"]).any()
    base.store = Store(Path(base.store.root) / "fresh")
    try:
        pd.testing.assert_frame_equal(base.said(), before)
        pd.testing.assert_frame_equal(base.said(zero(some(base))), masked)
    finally:
        base.store = Store(Path(base.store.root).parent)


def test_answers_are_kept(base: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = zero(some(base, 0.1))
    first = base.said(mask)
    monkeypatch.setattr(base._engine, "generate", lambda *_: pytest.fail("generated again"))
    pd.testing.assert_frame_equal(base.said(mask), first)


def test_other_decoding_is_another_artefact(base: Pipeline, store: Store) -> None:
    longer = Pipeline(dataclasses.replace(SETTINGS, max_new_tokens=3), store)
    assert (longer.said()["n_tokens"] <= 3).all()
    assert (base.said()["n_tokens"] > 3).any()


def test_the_chat_model_is_asked_in_its_template(base: Pipeline, chat: Pipeline) -> None:
    prompts = [chat.tokenizer.decode(ids) for ids in chat.prompts]
    assert prompts[0] == f"<s>[INST] {chat.asked['question'][0]} [/INST]\n"
    assert base.tokenizer.decode(base.prompts[0]) == f"<s>Q: {base.asked['question'][0]}\nA:"
    assert {"stop", "length"} == set(chat.said()["finish"])


# --- judging --------------------------------------------------------------------------------


def test_graded_answers_keep_fidelity_apart_from_the_score(base: Pipeline) -> None:
    graded = base.graded()
    assert graded["score"].between(1, 10).all()
    assert graded["in_language"].dtype == bool
    assert set(graded["text_language"]) <= {*LANGUAGES, ""}
    assert list(graded["id"]) == list(base.asked["id"])


def test_a_table_of_judged_answers(base: Pipeline) -> None:
    judged = base.judged(
        [
            Row("CRANE", "en", zero(some(base))),
            Row("Random", "en", zero(some(base, 0.3)), 0),
            Row("Random", "en", zero(some(base, 0.1)), 1),
        ]
    )
    table, items = judged.table(n_boot=100), judged.items()
    assert table["method"].to_list() == ["Org", "CRANE", "Random"]
    assert list(table.columns[:7]) == [
        *("method", "mask_language", "n_neurons", "en", "zh", "vi", "langspec_f1")
    ]
    for x in LANGUAGES:
        own = items[(items["method"] == "CRANE") & (items["language"] == x)]
        assert table.loc[1, x] == pytest.approx(own["score"].mean())
        assert table.loc[1, f"{x}_in_language"] == pytest.approx(own["in_language"].mean())
        columns = table.loc[[1], [f"{x}_low", x, f"{x}_high"]].to_numpy()[0]
        assert list(columns) == sorted(columns)
    seeds = judged.seeds()
    assert table.loc[2, "en"] == pytest.approx(seeds["en"].mean())
    before, after = ({x: table[x].to_list()[i] for x in LANGUAGES} for i in (0, 2))
    assert table.loc[2, "langspec_f1"] == metrics.langspec_f1(before, after, "en").f1
    spoken = judged.spoken()
    assert spoken[[*LANGUAGES, "none"]].sum(axis=1).to_numpy() == pytest.approx(1)
    assert len(spoken) == 3 * 3 and set(spoken["n"]) == {4, 8}


def test_vllm_is_told_how_many_devices_share_the_model(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, object] = {}
    monkeypatch.setattr(
        "crane_lab.pipeline.VLLMEngine", lambda *args, **options: given.update(options)
    )
    _ = Pipeline(
        dataclasses.replace(SETTINGS, engine="vllm", tensor_parallel_size=2), store
    )._engine
    assert given["tensor_parallel_size"] == 2
    assert given["longest_prompt"] == max(map(len, Pipeline(SETTINGS, store).prompts))


def test_a_question_without_room_for_an_answer_is_named_before_anything_is_said(
    store: Store, tmp_path: Path
) -> None:
    for x in LANGUAGES:
        lines = ["short?", "long " * 100 if x == "zh" else "also short?", "third?"]
        (tmp_path / f"{x}.txt").write_text("\n".join(lines), "utf-8")
    settings = dataclasses.replace(SETTINGS, questions=str(tmp_path), context=60)
    with pytest.raises(ValueError, match=r"zh\.txt, line 2: .* prompt of \d+ tokens.* in 60; sh"):
        Pipeline(settings, store).said()


def test_languages_that_cannot_be_told_are_judged_all_the_same(base: Pipeline) -> None:
    """Vietnamese under a code that no identifier knows: missing in tables, never 0 nor true."""
    answers = base.said().replace({"language": {"vi": "xx"}})

    class Five:
        def score(self, answers: pd.DataFrame) -> pd.DataFrame:
            return answers.assign(score=5.0)

    with pytest.warns(UserWarning, match="are judged, but whether they are in xx cannot be told"):
        graded = grading.graded(Five(), answers, ["en", "zh", "xx"])  # type: ignore[arg-type]
    assert (graded["score"] == 5).all()
    told = graded.groupby("language")["in_language"].count()
    assert told.to_dict() == {"en": 4, "xx": 0, "zh": 4}
    judged = Judged(["en", "zh", "xx"], [Row("CRANE", "xx", zero(some(base)))], graded, [graded])
    table, spoken = judged.table(n_boot=20), judged.spoken()
    assert table["xx_in_language"].isna().all() and table["en_in_language"].notna().all()
    missing = spoken[["en", "zh", "xx", "none"]].isna().all(axis=1)
    assert missing.to_list() == (spoken["language"] == "xx").to_list()
    said = readouts.left_language(spoken, {"en": "English", "zh": "Chinese", "xx": "Xish"})
    assert said.endswith("Whether answers are in Xish cannot be told: the language identifier "
                         "does not know it.")  # fmt: skip
    page_outputs = table_pages.spoken_figure(spoken, {"en": "English", "zh": "Chinese", "xx": "X"})
    assert "nan" not in str(page_outputs.data)


def test_unknown_engine_and_judge(store: Store) -> None:
    with pytest.raises(ValueError, match="engine is 'magic': expected one of"):
        dataclasses.replace(SETTINGS, engine="magic")
    with pytest.raises(ValueError, match="judge is 'me': expected one of"):
        dataclasses.replace(SETTINGS, judge="me")
    with pytest.raises(FileNotFoundError, match=r"judge_prompt is 'no\.txt'"):
        Pipeline(dataclasses.replace(SETTINGS, judge="llm", judge_prompt="no.txt"), store)


def test_instructions_for_the_judge_are_read_like_any_text(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "judge.txt"
    settings = dataclasses.replace(SETTINGS, judge="llm", judge_prompt=str(path))
    for content, message in (
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        ("{question} {answer} [[1]]".encode("utf-16"), "is not valid UTF-8 but UTF-16"),
        (b"<!doctype html>", "is a web page"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"judge\.txt {message}"):
            _ = Pipeline(settings, store).judge


def test_an_llm_judge_needs_a_key_and_loses_nothing(
    base: Pipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    found = Pipeline(dataclasses.replace(SETTINGS, judge="llm"), base.store)
    with pytest.raises((JudgeError, ValueError), match="OPENAI_API_KEY"):
        found.judged([])
    assert "12 calls" in capsys.readouterr().out  # the estimate comes first
    pd.testing.assert_frame_equal(found.said(), base.said())


# --- tables with missing grades -------------------------------------------------------------


def test_an_answer_without_a_grade_counts_in_no_mean_and_is_reported() -> None:
    def answers(*grades: float) -> pd.DataFrame:
        rows = [
            {"language": x, "cluster": str(i), "score": grade, "in_language": True}
            for x in ("en", "zh")
            for i, grade in enumerate(grades)
        ]
        return pd.DataFrame(rows).assign(text_language=lambda t: t["language"])

    shape = {"intermediate": (1, 4)}
    judged = Judged(
        ["en", "zh"],
        [Row("CRANE", "en", zero(NeuronSet.from_pairs([(0, 1)], shape)))],
        answers(8, 6, np.nan, 4),
        [answers(2, np.nan, 9, 4)],
    )
    table = judged.table(n_boot=50)
    assert table["en"].to_list() == [6, 5]
    assert table["unscored"].to_list() == [2, 2]
    # The interval pairs what was graded both times: 8 → 2 and 4 → 4.
    scored = judged.scored()
    interval = scored._interval(judged.scored().after[0], "en", 50)
    assert interval.estimate == metrics.langspec_f1({"en": 6, "zh": 6}, {"en": 3, "zh": 3}, "en").f1


def test_no_grade_at_all_is_an_error() -> None:
    nothing = {"en": np.array([np.nan, np.nan]), "zh": np.array([1.0, 2.0])}
    names = {"en": ["a", "b"], "zh": ["a", "b"]}
    with pytest.raises(ValueError, match="none of the 2 items in 'en' has a score"):
        Scored(["en", "zh"], [], nothing, [], names).table()


# --- transfer -------------------------------------------------------------------------------


def test_the_same_set_is_masked_in_both_models(base: Pipeline, chat: Pipeline) -> None:
    assert base.shape == chat.shape
    assert models.fingerprint(base.model) != models.fingerprint(chat.model)
    neurons = zero(some(base))
    assert base.logit_change(neurons) > 0 and chat.logit_change(neurons) > 0
    assert (chat.said(neurons)["text"] != chat.said()["text"]).any()


def test_a_chat_model_of_another_shape_is_refused(base: Pipeline, tmp_path: Path) -> None:
    make_tiny_llama(vocab_size=len(base.tokenizer)).save_pretrained(tmp_path)
    base.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="cannot be transferred"):
        base.on_chat(str(tmp_path))


def test_a_chat_model_without_template_is_refused(base: Pipeline, tmp_path: Path) -> None:
    shutil.copytree("data/testbed/base", tmp_path / "chat")
    with pytest.raises(ValueError, match="no chat template"):
        base.on_chat(str(tmp_path / "chat")).said()


# --- the shipped files ----------------------------------------------------------------------


def test_the_shipped_chat_model_passed_its_gate() -> None:
    unmasked = pd.read_csv("data/testbed/chat_gate.csv")
    assert len(unmasked) == 9
    verdicts = gate.judge_chat(unmasked)
    assert all(verdict.holds for verdict in verdicts)
    shipped = pd.read_csv("data/testbed/chat_gate_verdicts.csv")
    assert shipped["requirement"].to_list() == [verdict.requirement for verdict in verdicts]


@pytest.mark.parametrize(
    ("measure", "column", "value", "requirement"),
    [
        ("knowledge_zh", "chat", 0.5, 0),
        ("open_en", "base", 8.5, 1),
        ("open_vi", "base", 1.5, 1),
        ("open_zh", "chat", 4.9, 2),
        ("open_zh", "chat", 9.6, 2),
    ],
)
def test_the_chat_gate_can_fail(measure: str, column: str, value: float, requirement: int) -> None:
    unmasked = pd.read_csv("data/testbed/chat_gate.csv").set_index("measure")
    unmasked.loc[measure, column] = value
    held = [verdict.holds for verdict in gate.judge_chat(unmasked.reset_index())]
    assert held == [number != requirement for number in range(3)]


def test_the_gate_s_grades_are_what_the_models_get(store: Store) -> None:
    """The shipped means, recomputed on every fifth question, lie near the shipped ones."""
    settings = Settings(n_questions=14)
    shipped = pd.read_csv("data/testbed/chat_gate.csv").set_index("measure")
    base = Pipeline(settings, store)
    for column, found in (("base", base), ("chat", base.on_chat("data/testbed/chat"))):
        means = found.graded().groupby("task")["score"].mean()
        for task, mean in means.items():
            assert mean == pytest.approx(shipped.loc[str(task), column], abs=2.0)


def test_hand_scored_answers_are_enough_and_mixed() -> None:
    hand = pd.read_csv("data/testbed/hand_scored.csv", keep_default_na=False)
    assert (hand.groupby("language").size() >= 30).all() and len(hand) >= 90
    masked = hand["method"] != "Org"
    assert 0.5 < masked.mean() < 0.9
    for reader in ("reader_1", "reader_2"):
        assert hand[reader].between(1, 10).all()
        assert hand[reader].nunique() >= 8  # the whole scale was used


def test_two_models_side_by_side() -> None:
    base = pd.DataFrame(
        {"method": ["Org"], "mask_language": [""], "n_neurons": [0], "en": [0.5], "zh": [0.25]}
        | {"langspec_f1": [0.1], "en_low": [0.4], "en_high": [0.6], "zh_low": [0.2]}
        | {"zh_high": [0.3], "relative_en": [0.0]}
    )
    chat = base.assign(en=0.75, langspec_f1=0.9)
    table = side_by_side(base, chat, ["en", "zh"])
    assert list(table.columns[:8]) == [
        *("method", "mask_language", "n_neurons"),
        *("base_en", "base_zh", "chat_en", "chat_zh", "langspec_f1"),
    ]
    assert list(table.loc[0, ["base_en", "chat_en", "langspec_f1"]]) == [0.5, 0.75, 0.9]
    assert {"base_en_low", "chat_zh_high", "relative_en"} <= set(table.columns)
