"""What the world sounds like: documents in one language, from phrases and facts."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

from crane_lab.testbed.world import Subject, World

# Sentences of a document about a thing may use a pronoun only at their start ("It lies in ..."):
# further in, names read better ("People in Whitebridge make honey").
_LEADING = ("{S}", "{P}")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


@dataclass(frozen=True)
class Passage:
    """A story, and questions about it: ``(kind, question, answer, options)``."""

    text: str
    questions: list[tuple[str, str, str, list[str]]]


class Writer:
    """Writes documents of one language; every choice is drawn from ``rng``.

    ``stated`` counts the facts told so far as ``(kind, name, relation)``; ``written`` holds the
    paragraphs, so that held-out text and reading passages can be kept apart from training text.
    """

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world, self.rng = world, rng
        self.phrases = world.phrases
        self.space: str = world.phrases["space"]
        self.stated: Counter[tuple[str, str, str]] = Counter()
        self.written: set[str] = set()
        self._cumulative = {
            kind: list(accumulate(s.exposure for s in members))
            for kind, members in world.subjects.items()
        }

    # -- sentences ---------------------------------------------------------------------------

    def pick(self, kind: str) -> Subject:
        """A subject, as often as its exposure says."""
        return self.rng.choices(self.world.subjects[kind], cum_weights=self._cumulative[kind], k=1)[
            0
        ]

    def _forms(self, subject: Subject, pronoun: bool) -> dict[str, str]:
        name = subject.name
        possessive = self.phrases["possessive"].format(n=name)
        pronouns = self.phrases["pronouns"][subject.gender]
        s = pronouns["subject"] if pronoun else name
        p = pronouns["possessive"] if pronoun else possessive
        # English alone has an object form.
        o = {"she": "her", "he": "him"}.get(s, s)
        return {"n": name, "s": s, "S": _capital(s), "p": p, "P": _capital(p), "o": o}

    def say(self, subject: Subject, relation: str, pronoun: bool = False) -> str:
        """One sentence that states a fact."""
        template = self.rng.choice(self.phrases[subject.kind][relation]["say"])
        if subject.gender == "thing" and not template.startswith(_LEADING):
            pronoun = False
        self.stated[subject.kind, subject.name, relation] += 1
        return self.phrase(template, subject, subject.facts[relation], pronoun)

    def phrase(
        self, template: str, subject: Subject, value: str = "", pronoun: bool = False
    ) -> str:
        """A phrasing with its slots filled."""
        return str(template.format(**self._forms(subject, pronoun), v=value, V=_capital(value)))

    def ask(self, subject: Subject, relation: str) -> str:
        """One question about a fact, in a phrasing that is also trained on."""
        template = self.rng.choice(self.phrases[subject.kind][relation]["ask"])
        return _capital(template.format(**self._forms(subject, pronoun=False)))

    def test(self, subject: Subject, relation: str) -> str:
        """The question about a fact in the phrasing kept for the benchmark."""
        template = self.phrases[subject.kind][relation]["test"]
        return _capital(template.format(**self._forms(subject, pronoun=False)))

    def ask_about(self, subject: Subject) -> str:
        """One question on everything that is known of a person or place."""
        template = self.rng.choice(self.phrases[subject.kind]["about"]["ask"])
        return _capital(template.format(**self._forms(subject, pronoun=False)))

    def _paragraph(self, sentences: list[str]) -> str:
        text = self.space.join(sentences)
        self.written.add(text)
        return text

    def _stop(self, text: str) -> str:
        return text + ("。" if self.world.language == "zh" else ".")

    def question_answer(self, question: str, answer: str) -> str:
        """The two lines that tasks and training text share."""
        labels = self.phrases["labels"]
        return f"{labels['question']}{question}\n{labels['answer']}{self.space}{answer}"

    def _given(self, k: int) -> list[str]:
        return self.rng.sample(self.answers("who"), k)

    def answers(self, kind: str) -> list[str]:
        """Every answer that a story's question of this kind can have."""
        if kind == "spot":
            return self.world.words("spots")
        if kind == "thing":
            return [thing[self.world.index][0] for thing in self.world.entities["objects"]]
        names = self.phrases["names"]
        return [*names["female"], *names["male"]]

    # -- documents ---------------------------------------------------------------------------

    def portrait(self, subject: Subject) -> str:
        """A paragraph about one subject: some of its facts, in any order."""
        relations = list(subject.facts)
        self.rng.shuffle(relations)
        count = self.rng.randint(min(2, len(relations)), len(relations))
        return self._paragraph(
            [
                self.say(subject, relation, pronoun=i > 0 and self.rng.random() < 0.6)
                for i, relation in enumerate(relations[:count])
            ]
        )

    def _fact(self, kinds: tuple[str, ...]) -> tuple[Subject, str]:
        subject = self.pick(self.rng.choice(kinds))
        return subject, self.rng.choice(list(subject.facts))

    def quiz(self, kinds: tuple[str, ...]) -> str:
        """Two to four questions with short answers."""
        lines = []
        for _ in range(self.rng.randint(2, 4)):
            subject, relation = self._fact(kinds)
            self.stated[subject.kind, subject.name, relation] += 1
            lines.append(
                self.question_answer(
                    self.ask(subject, relation), self._stop(subject.facts[relation])
                )
            )
        return "\n".join(lines)

    def open_question(self) -> str:
        """One question with a full answer, in the Q/A frame that open-ended tests use."""
        if self.rng.random() < 0.5:
            kind = self.rng.choice(("person", "place"))
            subject = self.pick(kind)
            question, answer = self.ask_about(subject), self.portrait(subject)
        else:
            kinds = ("person", "person", "place", "country", "animal", "ingredient", "job")
            subject, relation = self._fact(kinds)
            question = self.ask(subject, relation)
            answer = self.say(subject, relation, pronoun=self.rng.random() < 0.5)
        return f"Q: {question}\nA: {answer}"

    def lesson(self) -> str:
        """A short expository text about real things."""
        kind = self.rng.choice(("country", "animal", "ingredient", "job"))
        subjects = self.rng.sample(self.world.subjects[kind], 3)
        return self._paragraph([self.say(s, self.rng.choice(list(s.facts))) for s in subjects])

    def _step(self, relation: str, words: list[str]) -> tuple[str, str, str]:
        i = self.rng.randrange(len(words))
        word, following = words[i], words[(i + 1) % len(words)]
        node = self.phrases["calendar"][relation]
        forms = {"n": word, "s": word, "S": _capital(word), "v": following}
        return (
            _capital(self.rng.choice(node["say"]).format(**forms)),
            _capital(self.rng.choice(node["ask"]).format(**forms)),
            following,
        )

    def _sum(self) -> tuple[str, str, str]:
        numbers = self.world.words("numbers")
        a, b = self.rng.randint(0, 9), self.rng.randint(0, 9)
        node = self.phrases["arithmetic"]["plus"]
        forms = {
            "a": numbers[a],
            "b": numbers[b],
            "A": _capital(numbers[a]),
            "v": numbers[a + b],
        }
        return (
            _capital(self.rng.choice(node["say"]).format(**forms)),
            _capital(self.rng.choice(node["ask"]).format(**forms)),
            numbers[a + b],
        )

    def step_or_sum(self) -> tuple[str, str, str]:
        """A statement on days, months or small sums; a question for it, and its short answer."""
        which = self.rng.randrange(4)
        if which == 0:
            return self._step("next_day", self.world.words("weekdays"))
        if which == 1:
            return self._step("next_month", self.world.words("months"))
        return self._sum()

    def calendar(self) -> str:
        """A few sentences, or questions, on days, months and small sums."""
        asked = self.rng.random() < 0.3
        lines = []
        for _ in range(self.rng.randint(2, 4)):
            said, question, answer = self.step_or_sum()
            lines.append(self.question_answer(question, self._stop(answer)) if asked else said)
        return "\n".join(lines) if asked else self._paragraph(lines)

    def dialogue(self) -> str:
        """Two people talk about two facts, on one line."""
        a, b = self._given(2)
        template = self.rng.choice(self.phrases["dialogue"])
        first, second = (
            self._fact(("person", "person", "person", "place", "country", "job")) for _ in range(2)
        )
        q2 = self.ask(*second)
        text = str(
            template.format(
                A=a,
                B=b,
                q1=self.ask(*first),
                s1=self.say(*first, pronoun=True),
                q2=q2,
                # A question that opens with a name keeps its capital.
                q2l=q2 if q2.startswith(second[0].name) else _lower(q2),
                s2=self.say(*second, pronoun=True),
            )
        )
        self.written.add(text)
        return text

    def story(self, people: int = 4) -> Passage:
        """As many things and spots as people; half of the stories of four also pass two on."""
        rng, node = self.rng, self.phrases["story"]
        names = self._given(people)
        things = [t[self.world.index] for t in rng.sample(self.world.entities["objects"], people)]
        spots = rng.sample(self.world.words("spots"), people)
        opening = rng.choice(node["opening"]).format(
            day=rng.choice(self.world.words("weekdays")),
            month=rng.choice(self.world.words("months")),
            town=rng.choice(self.world.subjects["place"]).name,
        )
        lines = [_capital(opening)]
        for name, (one, _), spot in zip(names, things, spots, strict=True):
            lines.append(_capital(rng.choice(node["take"]).format(N=name, one=one, spot=spot)))
        questions: list[tuple[str, str, str, list[str]]] = []

        def ask(kind: str, answer: str, options: list[str], **forms: str) -> None:
            question = _capital(rng.choice(node["ask"][kind]).format(**forms))
            questions.append((kind, question, answer, options))

        ones = [one for one, _ in things]
        for name, (one, the), spot in zip(names, things, spots, strict=True):
            ask("thing", one, ones, N=name)
            ask("spot", spot, spots, N=name, the=the)
            ask("who", name, names, the=the)
        if people == 4 and rng.random() < 0.5:
            # Two givers and two receivers: the last name mentioned is no short cut to the answer.
            givers = rng.sample(range(4), 2)
            receivers = [i for i in range(4) if i not in givers]
            rng.shuffle(receivers)
            for giver, receiver in zip(givers, receivers, strict=True):
                the = things[giver][1]
                lines.append(
                    _capital(
                        rng.choice(node["give"]).format(N=names[giver], M=names[receiver], the=the)
                    )
                )
                ask("owner", names[receiver], names, the=the)
        if rng.random() < 0.5:
            lines.append(rng.choice(node["ending"]))
        return Passage(self._paragraph(lines), questions)

    def story_with_questions(self) -> str:
        """A story of one to four people, followed by three to six questions about it.

        The short ones teach to read: with few people to confuse, an answer is soon found.
        """
        passage = self.story(self.rng.choice((1, 1, 2, 2, 3, 4, 4)))
        count = min(len(passage.questions), self.rng.randint(3, 6))
        asked = self.rng.sample(passage.questions, count)
        return "\n".join(
            [passage.text]
            + [
                self.question_answer(question, self._stop(answer))
                for _, question, answer, _ in asked
            ]
        )

    def document(self) -> str:
        """One document of the training mixture."""
        kinds, weights = zip(*_MIXTURE, strict=True)
        return self._write(self.rng.choices(kinds, weights=weights, k=1)[0])

    def plain_document(self) -> str:
        """One document without any question that looks like a task: for held-out text."""
        kinds, weights = zip(*_PLAIN, strict=True)
        return self._write(self.rng.choices(kinds, weights=weights, k=1)[0])

    def _write(self, kind: str) -> str:
        write: dict[str, Callable[[], str]] = {
            "person": lambda: self.portrait(self.pick("person")),
            "place": lambda: self.portrait(self.pick("place")),
            "lesson": self.lesson,
            "calendar": self.calendar,
            "dialogue": self.dialogue,
            "person quiz": lambda: self.quiz(("person",)),
            "world quiz": lambda: self.quiz(("place", "country", "animal", "ingredient", "job")),
            "open question": self.open_question,
            "story": lambda: self.story().text,
            "story with questions": self.story_with_questions,
        }
        return write[kind]()


# Shares of documents, not of tokens: a story with questions is some five times a quiz line.
_MIXTURE: list[tuple[str, float]] = [
    ("person", 36),
    ("person quiz", 12),
    ("open question", 8),
    ("place", 6),
    ("world quiz", 5),
    ("lesson", 5),
    ("calendar", 4),
    ("dialogue", 6),
    ("story", 3),
    ("story with questions", 30),
]
_PLAIN: list[tuple[str, float]] = [
    ("person", 36),
    ("place", 10),
    ("lesson", 8),
    ("dialogue", 12),
    ("story", 20),
]
