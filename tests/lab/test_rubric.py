"""The rubric: what a grade of an answer about the testbed's world depends on, and on what not.

Answers are written by the testbed's own `Writer` and then spoilt in one way at a time.
"""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from crane_lab.testbed.grammar import KINDS, sentences
from crane_lab.testbed.rubric import COUNTS, CREDIT, SUBSCORES, Rubric
from crane_lab.testbed.text import Writer
from crane_lab.testbed.world import LANGUAGES, Subject, World

QUESTIONS = Path(__file__).resolve().parents[2] / "data" / "questions"
RELATIONS = [
    *(("person", relation) for relation in ("town", "job", "food", "pet", "hobby")),
    *(("place", relation) for relation in ("region", "product", "landmark")),
    *(("country", relation) for relation in ("capital", "continent")),
    *(("animal", relation) for relation in ("kind", "home")),
    *(("ingredient", relation) for relation in ("kind", "colour")),
    ("job", "workplace"),
]
languages = pytest.mark.parametrize("language", LANGUAGES)


@pytest.fixture(scope="module")
def rubric() -> Rubric:
    return Rubric()


def world_of(rubric: Rubric, language: str) -> World:
    return rubric.grammars[language].world


def writer_of(rubric: Rubric, language: str, seed: int = 0) -> Writer:
    return Writer(world_of(rubric, language), random.Random(seed))


def frame(rows: list[tuple[str, str, str]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["language", "question", "text"])
    return table.assign(id=[f"q{i}" for i in range(len(rows))])


def grade(rubric: Rubric, language: str, question: str, text: str) -> pd.Series[Any]:
    return rubric.score(frame([(language, question, text)])).iloc[0]


def about(rubric: Rubric, language: str, subject: Subject, which: int = 0) -> str:
    node = world_of(rubric, language).phrases[subject.kind]["about"]["ask"]
    return str(node[which % len(node)].format(n=subject.name))


def told(rubric: Rubric, language: str, subject: Subject, relations: list[str]) -> str:
    """A portrait of these facts: the name first, then pronouns."""
    writer = writer_of(rubric, language)
    return writer.space.join(
        writer.say(subject, relation, pronoun=i > 0) for i, relation in enumerate(relations)
    )


# ------------------------------------------------------------------- what the testbed itself says


@languages
@pytest.mark.parametrize("kind", ["person", "place"])
def test_every_portrait_is_a_good_answer(rubric: Rubric, language: str, kind: str) -> None:
    writer = writer_of(rubric, language)
    rows = [
        (language, about(rubric, language, subject, i), writer.portrait(subject))
        for i, subject in enumerate(world_of(rubric, language).subjects[kind])
    ]
    scored = rubric.score(frame(rows))
    assert scored["score"].min() >= 9.5
    assert (scored["form"] == 1).all()
    assert (scored["true_statements"] == scored["statements"]).all()
    assert (scored["statements"] == scored["sentences"]).all()
    assert scored.loc[scored["statements"] >= 3, "score"].min() == 10


@languages
@pytest.mark.parametrize(("kind", "relation"), RELATIONS)
def test_every_phrasing_of_a_fact_answers_every_question_for_it(
    rubric: Rubric, language: str, kind: str, relation: str
) -> None:
    node = world_of(rubric, language).phrases[kind][relation]
    rows = []
    for subject in world_of(rubric, language).subjects[kind][:10]:
        forms = writer_of(rubric, language)._forms(subject, False)
        for asked in [*node["ask"], node["test"]]:
            question = asked.format(**forms)
            question = question[:1].upper() + question[1:]
            for seed in range(10):
                writer = writer_of(rubric, language, seed)
                rows.append((language, question, writer.say(subject, relation, seed % 2 == 0)))
    scored = rubric.score(frame(rows))
    assert (scored["score"] == 10).all(), scored.nsmallest(3, "score")


@languages
def test_held_out_text_reads_without_a_rest(rubric: Rubric, language: str) -> None:
    """Every sentence of every plain document but dialogues, whoever is asked about."""
    grammar, writer = rubric.grammars[language], writer_of(rubric, language, 7)
    asked = grammar.asked(about(rubric, language, writer.pick("place")))
    assert asked
    for _ in range(150):
        for text in (writer.lesson(), writer.calendar(), writer.story().text):
            if "\n" in text:  # questions with bare values
                continue
            for found in grammar.read(sentences(text), asked):
                assert found.kind in ("statement", "story"), found
                assert found.holds in (True, None), found


@languages
def test_the_questions_of_the_book_are_understood(rubric: Rubric, language: str) -> None:
    path = QUESTIONS / f"{language}.txt"
    if not path.exists():
        pytest.skip("no questions yet")
    found = [rubric.grammars[language].asked(q) for q in path.read_text("utf-8").splitlines()]
    assert all(found)
    assert len({(a.subject.kind, a.subject.name, a.relation) for a in found if a}) == len(found)


@languages
def test_polite_phrases_neither_help_nor_harm(rubric: Rubric, language: str) -> None:
    writer = writer_of(rubric, language)
    subject = writer.pick("person")
    question, answer = about(rubric, language, subject), told(rubric, language, subject, ["job"])
    plain = grade(rubric, language, question, answer)
    phrase = {"en": "Let me think.", "zh": "让我想想。", "vi": "Để tôi nghĩ xem."}[language]
    polite = grade(rubric, language, question, phrase + writer.space + answer)
    assert polite["score"] == plain["score"]
    assert polite["sentences"] == 2 and polite["statements"] == 1
    own = Rubric((language,), neutral={language: ["Hm, ja!"]})
    assert grade(own, language, question, "Hm, ja! " + answer)["score"] == plain["score"]
    assert grade(rubric, language, question, "Hm, ja! " + answer)["form"] == 0.5
    assert grade(rubric, language, question, phrase)["score"] < 2


# ------------------------------------------------------------------------- spoilt in one way each


@languages
@pytest.mark.parametrize(("kind", "relation"), RELATIONS)
def test_another_value_is_false_and_another_subject_beside_the_point(
    rubric: Rubric, language: str, kind: str, relation: str
) -> None:
    world = world_of(rubric, language)
    rng = random.Random(1)
    rows = []
    for seed in range(6):
        subject, other = rng.sample(world.subjects[kind], 2)
        writer = writer_of(rubric, language, seed)
        wrong = rng.choice([v for v in world.pools[kind, relation] if v != subject.facts[relation]])
        liar = Subject(kind, subject.name, subject.gender, {**subject.facts, relation: wrong})
        question = writer.test(subject, relation)
        rows += [
            (language, question, writer.say(liar, relation)),
            (language, question, writer.say(other, relation)),
            (language, question, writer._stop(subject.facts[relation])),
            (language, question, writer._stop(wrong)),
        ]
    scored = rubric.score(frame(rows))
    false, stray, bare, wrong_bare = (scored.iloc[i::4] for i in range(4))
    assert (false["truth"] == 0).all() and false["score"].between(3, 5).all()
    assert (stray["relevance"] == 0).all() and stray["score"].between(2.5, 3.5).all()
    assert (pd.concat([false["relevance"], stray["truth"]]) == 1).all()
    assert (pd.concat([false["form"], stray["form"]]) == 1).all()
    assert (bare[["language_score", "truth", "relevance"]] == 1).all(axis=None)
    assert bare["score"].between(6, 8).all()
    assert (wrong_bare["truth"] == 0).all() and wrong_bare["score"].between(2, 4).all()


@languages
def test_more_facts_are_a_better_portrait(rubric: Rubric, language: str) -> None:
    subject = world_of(rubric, language).subjects["person"][3]
    relations = list(subject.facts)
    texts = [told(rubric, language, subject, relations[:n]) for n in range(1, 6)]
    question = about(rubric, language, subject)
    scores = [grade(rubric, language, question, text)["score"] for text in texts]
    assert scores[0] < scores[1] < scores[2] == scores[3] == scores[4] == 10


@languages
def test_repetition_costs_variety_alone(rubric: Rubric, language: str) -> None:
    world, space = world_of(rubric, language), writer_of(rubric, language).space
    subject = world.subjects["person"][4]
    question = about(rubric, language, subject)
    fact = told(rubric, language, subject, ["pet", "food"])
    once, twice, often = (
        grade(rubric, language, question, space.join([fact] * n)) for n in (1, 2, 5)
    )
    assert once["variety"] == 1 > twice["variety"] == 0.5 > often["variety"]
    assert once["score"] > twice["score"] > often["score"]
    for name in SUBSCORES[:-1]:
        assert once[name] == twice[name] == often[name]
    # The same fact in other words is no news either.
    forms = writer_of(rubric, language)._forms(subject, False)
    said = [
        t.format(**forms, v=subject.facts["pet"]) for t in world.phrases["person"]["pet"]["say"]
    ]
    words = grade(rubric, language, question, space.join(said))
    assert words["form"] == 1 and words["variety"] == pytest.approx(1 / 5)


@languages
def test_loops_inside_a_sentence_cost_variety(rubric: Rubric, language: str) -> None:
    subject = world_of(rubric, language).subjects["person"][4]
    loop = {
        "en": "is a is a is a is a",
        "zh": "是一名是一名是一名是一名",
        "vi": "là một là một là một",
    }
    one = grade(rubric, language, about(rubric, language, subject), loop[language])
    assert one["variety"] < 0.6 and one["form"] == 0 and one["score"] == 1


@languages
def test_another_language_scores_low_and_still_counts_as_fluent(
    rubric: Rubric, language: str
) -> None:
    for other in set(LANGUAGES) - {language}:
        writer = writer_of(rubric, other)
        rows = []
        for i, subject in enumerate(world_of(rubric, language).subjects["place"]):
            same = world_of(rubric, other).subjects["place"][i]
            rows.append((language, about(rubric, language, subject), writer.portrait(same)))
        scored = rubric.score(frame(rows))
        assert (scored[["language_score", "form", "score"]] == [0, 1, 1]).all(axis=None)
        # The person asked about has no name in the other language; the answer keeps the name.
        person = world_of(rubric, language).subjects["person"][0]
        text = world_of(rubric, other).phrases["person"]["town"]["say"][0]
        town = same.name
        row = grade(
            rubric, language, about(rubric, language, person), text.format(S=person.name, v=town)
        )
        assert row["language_score"] == 0 and row["form"] == row["score"] == 1


@languages
def test_shuffled_text_scores_low(rubric: Rubric, language: str) -> None:
    rng, writer = random.Random(2), writer_of(rubric, language)
    rows = []
    for subject in world_of(rubric, language).subjects["person"][:100]:
        text = writer.portrait(subject)
        parts = list(text) if language == "zh" else text.split()
        rng.shuffle(parts)
        letters = list(text)
        rng.shuffle(letters)
        question = about(rubric, language, subject)
        rows += [
            (language, question, writer.space.join(parts)),
            (language, question, "".join(letters)),
        ]
    scored = rubric.score(frame(rows))
    # A shuffled text may begin with a bare value.
    assert scored["score"].mean() < 1.1
    assert (scored["score"] <= 2).mean() > 0.95


@languages
def test_an_answer_cut_off_anywhere_in_its_last_sentence_loses_little_form(
    rubric: Rubric, language: str
) -> None:
    writer = writer_of(rubric, language)
    subject = world_of(rubric, language).subjects["person"][9]
    question = about(rubric, language, subject)
    whole = told(rubric, language, subject, ["town", "job", "food"])
    for relation in ("pet", "hobby"):
        last = writer.say(subject, relation, pronoun=True)
        rows = [
            (language, question, whole + writer.space + last[:end]) for end in range(1, len(last))
        ]
        scored = rubric.score(frame(rows))
        assert (scored[["truth", "relevance", "variety"]] == 1).all(axis=None)
        assert scored["form"].min() >= 0.95
        assert scored["score"].min() >= 9.5
    middle = grade(rubric, language, question, last[:-3] + "\n" + whole)
    assert middle["form"] == 0.75  # nothing cuts a sentence that others follow


@languages
def test_a_value_of_the_wrong_sort_makes_no_sentence(rubric: Rubric, language: str) -> None:
    world = world_of(rubric, language)
    person = world.subjects["person"][0]
    question = about(rubric, language, person)
    template = world.phrases["person"]["town"]["say"][0]
    text = template.format(S=person.name, v=person.facts["job"])
    assert grade(rubric, language, question, text)["score"] == 1
    (line,) = rubric.explain(language, question, text)
    assert line["kind"] == "malformed" and line["true"] is None
    assert line["notes"] == f"{person.facts['job']!r} is no town of a person"


INVENTED = {"en": "Anna Blofeld", "zh": "王铁柱", "vi": "Nguyễn Thị Bưởi"}


@languages
def test_an_invented_name_makes_a_sentence_false(rubric: Rubric, language: str) -> None:
    world = world_of(rubric, language)
    person = world.subjects["person"][0]
    template = world.phrases["person"]["town"]["say"][0]
    text = template.format(S=INVENTED[language], v=person.facts["town"])
    row = grade(rubric, language, about(rubric, language, person), text)
    assert row["form"] == 1 and row["truth"] == 0 and row["relevance"] == 0
    (line,) = rubric.explain(language, about(rubric, language, person), text)
    assert INVENTED[language] in line["notes"]


@languages
def test_pronouns_mean_who_was_named_last(rubric: Rubric, language: str) -> None:
    world, writer = world_of(rubric, language), writer_of(rubric, language)
    people = world.subjects["person"]
    her = [p for p in people if p.gender == "female"]
    him = next(p for p in people if p.gender == "male")
    question = writer.test(her[0], "job")
    said = writer.say(her[0], "job", pronoun=True)
    assert grade(rubric, language, question, said)["score"] == 10
    # After another woman the same sentence is about her, after a man it is not.
    after = [writer.say(one, "town") + writer.space + said for one in (her[1], him)]
    assert her[0].facts["job"] != her[1].facts["job"]
    assert [grade(rubric, language, question, text)["relevance"] for text in after] == [0, 0.5]
    # The wrong pronoun is a slip.
    slip = Subject("person", her[0].name, "male", her[0].facts)
    row = grade(rubric, language, question, writer.say(slip, "job", pronoun=True))
    assert row["form"] == pytest.approx(0.9) and row["truth"] == row["relevance"] == 1


def test_true_asides_do_not_mend_a_false_answer(rubric: Rubric) -> None:
    person = world_of(rubric, "en").subjects["person"][0]
    question = f"What is the profession of {person.name}?"
    job = "a singer" if person.facts["job"] != "a singer" else "a cook"
    asides = told(rubric, "en", person, ["town", "food", "pet"])
    false = grade(rubric, "en", question, f"{person.name} is {job}. {asides}")
    right = grade(rubric, "en", question, f"{person.name} is {person.facts['job']}. {asides}")
    assert right["score"] == 10
    assert false["truth"] == pytest.approx(3 / 8)
    assert false["score"] < 6


# ---------------------------------------------------------------------- a few grades, spelled out

HONEY = "What do traders buy in Whitebridge?"


def test_grades_worked_out_by_hand(rubric: Rubric) -> None:
    product = world_of(rubric, "en").subjects["place"][0].facts["product"]
    assert world_of(rubric, "en").subjects["place"][0].name == "Whitebridge"
    cases = [
        (f"Whitebridge is famous for {product}.", 10, 1, 1, 1),
        (f"It is famous for {product}.", 10, 1, 1, 1),
        (f"whitebridge is famous for {product}", 8.2, 0.8, 1, 1),
        (f"{product}.", 7.3, 0.7, 1, 1),
        (f"It is {product}.", 10, 1, 1, 1),  # the chat model's frame
        ("It is a cow.", 1 + 9 / 16, 1, 0, 0),
        ("The answer is a camp.", 1 + 9 / 16, 1, 0, 0),
        (f"Whitebridge  is famous for {product} .", 10, 1, 1, 1),
        (f"Whitebridge is famous for {product}.It is famous for {product}.", 5.5, 1, 1, 1),
        ("She is a baker.", 1 + 9 / 16, 1, 0, 0),  # nobody was named
        ("Paris is the capital of France.", 3.25, 1, 1, 0),
        ("The capital of France is Rome.", 1 + 9 / 16, 1, 0, 0),
        ("What is the capital of France?", 1 + 9 / 16, 1, 0, 0),
        ("Three plus four is seven.", 3.25, 1, 1, 0),
        ("If you add four to three, you get eight.", 1 + 9 / 16, 1, 0, 0),
        ("The day after Sunday is Monday.", 3.25, 1, 1, 0),
        ("Anna picked up a lamp at the market.", 1 + 9 / 16, 1, 0, 0),
        ("Whitebridge lives in a baker.", 1, 0, 0, 0),
        ("the the the the the the the", 1, 0, 0, 0),
        ("", 1, 0, 0, 0),
        (" \n", 1, 0, 0, 0),
        ("?!...", 1, 0, 0, 0),
    ]
    scored = rubric.score(frame([("en", HONEY, text) for text, *_ in cases]))
    for (_, *expected), (_, row) in zip(cases, scored.iterrows(), strict=True):
        got = [row[name] for name in ("score", "form", "truth", "relevance")]
        assert got == pytest.approx(expected), row["text"]
    assert scored["status"].tolist() == ["scored"] * 19 + ["empty", "empty", "scored"]


@pytest.mark.parametrize(
    ("language", "question", "text", "right"),
    [
        ("en", "Which city is the seat of the government of Japan?", "Tokyo.", 1),
        ("vi", "Chính phủ của Nhật Bản đặt tại thành phố nào?", "Tokyo.", 1),
        ("vi", "Các thương nhân mua gì ở Cầu Trắng?", "dao.", 1),
        ("en", "What do traders buy in Whitebridge?", "dao.", 0),
        ("zh", "商人们在白桥镇买什么？", "刀具。", 1),
        ("zh", "商人们在白桥镇买什么？", "knives.", 0),
    ],
)
def test_bare_values_are_in_the_language_that_has_them(
    rubric: Rubric, language: str, question: str, text: str, right: int
) -> None:
    assert grade(rubric, language, question, text)["language_score"] == right


def test_questions_on_days_and_sums_are_understood(rubric: Rubric) -> None:
    cases = [
        ("en", "Which day comes after Sunday?", "The day after Sunday is Monday.", 10),
        ("en", "Which day comes after Sunday?", "After Sunday comes Tuesday.", 3.25),
        ("en", "What is three plus four?", "Three and four make seven.", 10),
        ("en", "What is three plus four?", "seven.", 7.3),
        ("zh", "三加四等于几？", "三与四的和是七。", 10),
        ("vi", "Tháng nào đến sau tháng mười?", "Sau tháng mười là đến tháng mười một.", 10),
    ]
    scored = rubric.score(frame([case[:3] for case in cases]))
    assert scored["score"].tolist() == pytest.approx([case[3] for case in cases])


# ------------------------------------------------------------------------------------ the contract


def test_rows_order_and_index_stay(rubric: Rubric) -> None:
    answers = frame([("en", HONEY, "honey."), ("zh", "白桥镇位于哪里？", "它位于北部海岸。")])
    answers.index = pd.Index(["b", "a"])
    answers["finish"] = "stop"
    before = answers.copy()
    scored = rubric.score(answers)
    pd.testing.assert_frame_equal(answers, before)
    pd.testing.assert_frame_equal(scored[answers.columns], answers)
    assert [*scored.columns[len(answers.columns) :]] == ["score", "status", *SUBSCORES, *COUNTS]
    assert scored["score"].between(1, 10).all()
    assert all(scored[name].between(0, 1).all() for name in SUBSCORES)
    assert all(scored[name].dtype.kind == "i" for name in COUNTS)
    assert set(CREDIT) == set(KINDS)
    assert rubric.score(answers.iloc[:0]).empty


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("fr", "Qui est-ce?", "x")], "judges en, zh, vi; got 'fr'"),
        ([("en", "What is love?", "x")], r"'What is love\?'"),
        ([("vi", HONEY, "x")], "What do traders buy"),
    ],
)
def test_what_cannot_be_judged_is_refused(
    rubric: Rubric, rows: list[tuple[str, str, str]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        rubric.score(frame(rows))


def test_missing_columns_are_named(rubric: Rubric) -> None:
    with pytest.raises(ValueError, match="id missing"):
        rubric.score(frame([("en", HONEY, "honey.")]).drop(columns="id"))


def test_the_fingerprint_is_json_and_follows_what_scores_depend_on(rubric: Rubric) -> None:
    first = rubric.fingerprint()
    assert json.loads(json.dumps(first)) == first == Rubric().fingerprint()
    assert rubric.name == first["judge"] == "rubric"
    others = [Rubric(("en", "vi")), Rubric(seed=1), Rubric(neutral={"en": ["Well!"]})]
    assert all(other.fingerprint() != first for other in others)


def test_explain_shows_each_sentence(rubric: Rubric) -> None:
    person = world_of(rubric, "en").subjects["person"][0]
    town = "Whitebridge" if person.facts["town"] != "Whitebridge" else "Blackhill"
    text = f"Let me think. {person.name} lives in {town}. Blah blah. She keeps"
    lines = rubric.explain("en", f"Who is {person.name}?", text)
    assert [line["kind"] for line in lines] == ["neutral", "statement", "malformed", "unfinished"]
    assert [line["true"] for line in lines] == [None, False, None, None]
    assert lines[1]["relation"] == "person.town" and lines[1]["subject"] == person.name
    assert lines[1]["notes"] == f"true is: {person.facts['town']}"


def test_a_table_of_answers_is_judged_fast(rubric: Rubric) -> None:
    """60 tables of 210 answers are judged in the book; no cached answer is among these."""
    rows = []
    for language in LANGUAGES:
        writer = writer_of(rubric, language, 99)
        for subject in world_of(rubric, language).subjects["person"][-70:]:
            text = writer.portrait(subject)
            rows.append((language, about(rubric, language, subject, 1), text + " " + text[::-1]))
    start = time.perf_counter()
    rubric.score(frame(rows))
    assert time.perf_counter() - start < 2  # 0.1 s on an idle core
