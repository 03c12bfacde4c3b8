"""The chat model's training text and the open questions kept out of it."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from crane_core.models import load
from crane_lab.testbed import chat, train
from crane_lab.testbed.text import Writer
from crane_lab.testbed.world import LANGUAGES, build


def talker(language: str, avoid: set[str] | None = None) -> chat.Talker:
    return chat.Talker(Writer(build(language), random.Random(3)), avoid or set())


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_shipped_questions_are_what_the_code_writes(language: str) -> None:
    written = chat.questions(build(language), 0)
    assert Path(f"data/questions/{language}.txt").read_text("utf-8").splitlines() == written
    assert len(set(written)) == 70


def test_questions_ask_for_the_same_kind_of_thing_in_every_language() -> None:
    asked = [chat.questions(build(x), 0) for x in LANGUAGES]
    worlds = [build(x) for x in LANGUAGES]
    # Places and real things are shared: the n-th question names the same one.
    for number in (*range(28, 38), *range(58, 70)):
        named = []
        for world, questions in zip(worlds, asked, strict=True):
            subjects = [
                (len(subject.name), kind, i)
                for kind, members in world.subjects.items()
                if kind != "person"
                for i, subject in enumerate(members)
                if subject.name.casefold() in questions[number].casefold()
            ]
            named.append(max(subjects)[1:])
        assert named[0] == named[1] == named[2]


@pytest.mark.parametrize("language", LANGUAGES)
def test_conversations_keep_out_what_is_to_be_avoided(language: str) -> None:
    first = list(itertools.islice(talker(language).conversations(), 200))
    question, answer = first[0][0]
    avoided = talker(language, {question, first[3][0][0]}).conversations()
    later = list(itertools.islice(avoided, 300))
    assert all(user not in (question, first[3][0][0]) for turns in later for user, _ in turns)
    assert answer.strip()


def test_only_the_assistant_s_words_are_learned() -> None:
    _, tokenizer = load("data/testbed/chat")
    recipe = train.ChatRecipe(tokens=60_000)
    rows, targets, labels = train._chat_rows(recipe, tokenizer, ())
    assert rows.shape == targets.shape == (60_000 // 192, 192) and len(labels) == len(rows)
    assert (rows[:, 0] == tokenizer.bos_token_id).all()
    learned = targets != -100
    assert (targets[learned] == rows[learned]).all()
    end = tokenizer.eos_token_id
    assert learned[rows == end].all()  # an answer's end is learned
    assert not learned[rows == tokenizer.pad_token_id].any()
    talked = next(i for i in range(len(rows)) if not learned[i, 1:6].any())
    text = tokenizer.decode(rows[talked][learned[talked]])
    assert "[INST]" not in text and "[/INST]" not in text
    assert "[INST]" in tokenizer.decode(rows[talked])


def test_rows_are_the_same_every_time() -> None:
    _, tokenizer = load("data/testbed/chat")
    recipe = train.ChatRecipe(tokens=20_000)
    first, second = (train._chat_rows(recipe, tokenizer, ()) for _ in range(2))
    assert all((a == b).all() for a, b in zip(first, second, strict=True))


def test_tuning_resumes_where_it_was_stopped(tmp_path: Path) -> None:
    recipe = train.ChatRecipe(tokens=192 * 4 * 6, batch=4, warmup=1)
    whole, tokenizer, _ = train.tune(*load("data/testbed/base"), recipe, tmp_path / "a", every=3)
    assert tokenizer.chat_template == chat.TEMPLATE

    class Stopped(Exception):
        pass

    saved = train._save_checkpoint

    def stop(*args: object) -> None:
        saved(*args)  # type: ignore[arg-type]
        raise Stopped

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(train, "_save_checkpoint", stop)
        train.tune(*load("data/testbed/base"), recipe, tmp_path / "b", every=3)
    resumed, _, log = train.tune(*load("data/testbed/base"), recipe, tmp_path / "b", every=3)
    assert [line["step"] for line in log] == [3, 6]
    for name, value in whole.state_dict().items():
        assert value.equal(resumed.state_dict()[name]), name
