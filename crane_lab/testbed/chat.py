"""What the chat model is trained on, and the open-ended questions that it never sees there."""

import random
from collections.abc import Collection, Iterator
from importlib.resources import files
from typing import Any

import yaml

from crane_lab.testbed.text import Writer
from crane_lab.testbed.world import (
    PEOPLE_PER_LANGUAGE,
    PERSON_RELATIONS,
    PLACE_RELATIONS,
    Subject,
    World,
)

# One question per entry in every language, so that the n-th questions ask for the same kind of
# thing; "about" asks to tell what is known. 70, as in LAPE's question set.
QUESTIONS: dict[tuple[str, str], int] = {
    ("person", "about"): 28,
    ("place", "about"): 10,
    **{("person", relation): 4 for relation in PERSON_RELATIONS},
    **{("place", relation): 2 for relation in PLACE_RELATIONS},
    ("country", "capital"): 2,
    ("country", "continent"): 1,
    ("animal", "kind"): 1,
    ("ingredient", "colour"): 1,
    ("job", "workplace"): 1,
}
# The template of Llama-2-Chat, but for the line break, which lets an answer begin as a document of
# the base model's training text does.
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}[INST] {{ message['content'] }} [/INST]\n"
    "{% else %}{{ message['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)

Turn = tuple[str, str]


def phrases(language: str) -> dict[str, Any]:
    """The chat model's fixed phrases in one language."""
    text = files(__package__).joinpath("chat.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text)[language])


def questions(world: World, seed: int) -> list[str]:
    """70 open-ended questions in one language (`QUESTIONS`).

    "About" questions are worded as in training, the others in the wording kept for the benchmarks.
    Things that the languages share are the same in each of them.
    """
    asked = []
    for (kind, relation), count in QUESTIONS.items():
        subjects = world.subjects[kind]
        if kind == "person":  # each language has people of its own
            subjects = subjects[: min(PEOPLE_PER_LANGUAGE.values())]
        rng = random.Random(f"questions-{kind}-{relation}-{seed}")
        writer = Writer(world, rng)
        asked += [
            writer.ask_about(subject) if relation == "about" else writer.test(subject, relation)
            for subject in rng.sample(subjects, count)
        ]
    return asked


class Talker:
    """Writes conversations of one language: a list of (user, assistant) turns each.

    `avoid` holds questions, stories and paragraphs that no conversation may have.
    """

    def __init__(self, writer: Writer, avoid: Collection[str] = ()) -> None:
        self.writer, self.rng, self.avoid = writer, writer.rng, avoid
        self.phrases = phrases(writer.world.language)
        self.space = writer.space

    def _framed(self, answer: str) -> str:
        parts = [answer]
        if self.rng.random() < 0.25:
            parts.insert(0, self.rng.choice(self.phrases["openings"]))
        if self.rng.random() < 0.1:
            parts.append(self.rng.choice(self.phrases["closings"]))
        return self.space.join(parts)

    def _about(self) -> list[Turn]:
        writer = self.writer
        subject = writer.pick(self.rng.choice(("person", "person", "person", "place")))
        relations = list(subject.facts)
        self.rng.shuffle(relations)
        told = self.rng.randint(3, len(relations))
        turns = [(writer.ask_about(subject), self._framed(self._tell(subject, relations[:told])))]
        if relations[told:] and self.rng.random() < 0.5:
            more = self.rng.choice(self.phrases["more"])
            turns.append((more, self._tell(subject, relations[told:])))
        return turns

    def _tell(self, subject: Subject, relations: list[str]) -> str:
        return self.space.join(
            self.writer.say(subject, relation, pronoun=i > 0 and self.rng.random() < 0.6)
            for i, relation in enumerate(relations)
        )

    def _fact(self) -> list[Turn]:
        kinds = ("person", "person", "person", "place", "country", "animal", "ingredient", "job")
        subject = self.writer.pick(self.rng.choice(kinds))
        relations = list(subject.facts)
        self.rng.shuffle(relations)
        told = relations[: 2 if self.rng.random() < 0.3 else 1]
        return [(self.writer.ask(subject, told[0]), self._framed(self._tell(subject, told)))]

    def _story(self) -> list[Turn]:
        passage = self.writer.story(self.rng.choice((1, 1, 2, 2, 3)))
        asked = self.rng.sample(passage.questions, min(2, len(passage.questions)))
        answers = [self.rng.choice(self.phrases["story"]).format(a=a) for _, _, a, _ in asked]
        users = [passage.text + "\n" + asked[0][1]] + [question for _, question, _, _ in asked[1:]]
        return list(zip(users, answers, strict=True))

    def _count(self) -> list[Turn]:
        said, question, _ = self.writer.step_or_sum()
        return [(question, said)]

    def _talk(self) -> list[Turn]:
        question, answer = self.rng.choice(self.phrases["talk"])
        return [(question, answer)]

    def conversations(self) -> Iterator[list[Turn]]:
        """Endless conversations of one to two turns."""
        kinds = (self._about, self._fact, self._story, self._count, self._talk)
        while True:
            turns = self.rng.choices(kinds, weights=(40, 35, 18, 4, 3), k=1)[0]()
            said = {part for turn in turns for text in turn for part in text.split("\n")}
            if not any(text in self.avoid for text in said):
                yield turns
