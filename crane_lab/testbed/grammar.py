"""What can be said about the testbed's world in one language: reads sentences back into facts.

The reverse of `text`: a sentence is matched against every phrasing of the language, and what stands
in the phrasing's slots is looked up in the world.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from string import Formatter
from typing import Any

from crane_lab.testbed.world import Subject, World

# What a sentence can turn out to be.
KINDS = ("statement", "story", "question", "neutral", "unfinished", "value", "malformed")

_STOPS = ".!?。！？"
# A sentence ends at its stops or with its line; no number or abbreviation here has a dot.
_SENTENCE = re.compile(rf"[^\n{_STOPS}]*[{_STOPS}]*")
_NO_SPACE = re.compile(r"(?<=[\u4e00-\u9fff，])\s+(?=[\u4e00-\u9fff，])")
_REFERENCES = frozenset("SsPpno")  # slots that hold the subject: name, pronoun or possessive
_NOBODY = "?"  # whom a pronoun means if nothing of its kind was named
# Invented names are told by how names look. Chinese names of things are short and hold no function
# word, or every Chinese text would be a name.
_THING_ZH = re.compile(r"(?!.*[的是在有了和把到为以就也都他她它])[\u4e00-\u9fff]{1,5}")
_NAME_WORDS = {
    "en": {"person": (2, 2), "place": (1, 1), "country": (1, 2)},
    "vi": {"person": (2, 4), "place": (2, 2), "country": (1, 3)},
}
_COMMON = {"en": ("a", "an"), "vi": ("con", "quả", "củ", "cá", "chim", "thợ")}


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def clean(text: str) -> str:
    """The text as templates are compared with: composed characters, no space around it."""
    return unicodedata.normalize("NFC", text).strip()


def _alternatives(words: Iterable[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


def _split(sentence: str) -> tuple[str, str]:
    """A sentence without and with only its stop."""
    body = sentence.rstrip(_STOPS)
    return body.rstrip(), sentence[len(body) :]


def sentences(text: str) -> list[str]:
    """The sentences of a text in any of the languages, without those that hold no letter."""
    found = (match.group().strip() for match in _SENTENCE.finditer(clean(text)))
    return [sentence for sentence in found if any(c.isalnum() or c == "\ufffd" for c in sentence)]


@dataclass(frozen=True)
class Asked:
    """What a question asks for; `relation` is "about" when it asks to tell what is known."""

    subject: Subject
    relation: str

    def facts(self, relation: str) -> bool:
        """Whether a statement of this relation is what is asked for."""
        return self.relation in ("about", relation)


@dataclass(frozen=True)
class Found:
    """What a sentence turned out to be.

    `kind` is one of `KINDS`. What can be true or false has `subject`, `relation`, `value` and
    `holds`; `known` tells whether the subject exists, `notes` what is wrong.
    """

    sentence: str
    kind: str
    subject: str = ""
    subject_kind: str = ""
    relation: str = ""
    value: str = ""
    holds: bool | None = None
    known: bool = True
    slips: int = 0
    notes: tuple[str, ...] = ()
    mentioned: tuple[Subject, ...] = ()

    @property
    def states(self) -> bool:
        """Whether this can be true or false."""
        return self.holds is not None

    def about(self, subject: Subject) -> bool:
        """Whether this states something about `subject`."""
        return self.states and (self.subject_kind, self.subject) == (subject.kind, subject.name)

    @property
    def key(self) -> tuple[str, ...]:
        """Equal for sentences that say the same."""
        if self.states:
            return (self.subject_kind, self.subject, self.relation, self.value)
        return (_split(self.sentence)[0].casefold(),)


class _Template:
    """One phrasing, ready to be matched: its stop is left out and compared separately."""

    def __init__(self, use: str, kind: str, relation: str, text: str, slots: _Slots) -> None:
        self.use, self.kind, self.relation = use, kind, relation
        body, self.stop = _split(text)
        self.parts: list[tuple[str, str]] = []  # (literal, slot after it or "")
        for literal, name, _, _ in Formatter().parse(body):
            self.parts.append((literal, name or ""))
        self.anchor = max((literal for literal, _ in self.parts), key=len)
        self.slots = slots
        self.strict = self._compile(values=True)

    @property
    def loose(self) -> re.Pattern[str]:
        """The same with any text as a value, to say what is wrong with a sentence."""
        return self._compile(values=False)

    def _compile(self, values: bool) -> re.Pattern[str]:
        pattern = ""
        for i, (literal, slot) in enumerate(self.parts):
            pattern += re.escape(literal)
            if slot:
                anything = slot in _REFERENCES or (slot in "vV" and not values)
                inside = ".+?" if anything else _alternatives(self.slots.forms(slot, self))
                pattern += f"(?P<{slot}{i}>{inside})"
        return re.compile(pattern)

    def begins(self, text: str, part: int = 0) -> bool:
        """Whether `text` is the beginning of a sentence of this template, cut anywhere."""
        if not text:
            return True
        if part == len(self.parts):
            return False
        literal, slot = self.parts[part]
        if not text.startswith(literal):
            return literal.startswith(text)
        text = text[len(literal) :]
        if not text or not slot:
            return not text
        options, lengths = self.slots.options(slot, self)
        at = bisect_left(options, text)
        if at < len(options) and options[at].startswith(text):
            return True
        for length in lengths:
            at = bisect_left(options, text[:length])
            whole = at < len(options) and options[at] == text[:length]
            if whole and self.begins(text[length:], part + 1):
                return True
        return False


class _Slots:
    """What may stand in a template's slots, in one language."""

    def __init__(
        self, world: World, subjects: dict[str, dict[str, Subject]], words: dict[Any, list[str]]
    ) -> None:
        self.phrases, self.subjects, self.words = world.phrases, subjects, words
        self._options: dict[tuple[str, str, str], tuple[list[str], list[int]]] = {}

    def forms(self, slot: str, template: _Template) -> dict[str, str]:
        """Every text that a slot for no subject may hold, with the value it stands for."""
        if slot in "vV":
            values = self.words[template.kind, template.relation]
        else:
            values = self.words[slot.lower() if slot in "abA" else slot]
        return {_capital(v) if slot in "VA" else v: v for v in values}

    def options(self, slot: str, template: _Template) -> tuple[list[str], list[int]]:
        """Every text that the slot may hold, sorted, and the lengths that these have."""
        key = (template.kind, template.relation, slot)
        if key not in self._options:
            subject = slot in _REFERENCES
            found = set(
                self._references(slot, template.kind) if subject else self.forms(slot, template)
            )
            self._options[key] = (sorted(found), sorted({len(text) for text in found}))
        return self._options[key]

    def _references(self, slot: str, kind: str) -> Iterable[str]:
        change = _capital if slot in "SP" else str
        for name in self.subjects[kind]:
            yield change(self.phrases["possessive"].format(n=name) if slot in "pP" else name)
        for forms in self.phrases["pronouns"].values():
            if slot == "o":
                yield _object(forms["subject"])
            else:
                yield change(forms["possessive" if slot in "pP" else "subject"])


def _object(pronoun: str) -> str:
    # English alone has an object form.
    return {"she": "her", "he": "him"}.get(pronoun, pronoun)


@dataclass(frozen=True)
class _Reading:
    """One way to read a sentence, before it is known who its pronouns are."""

    template: _Template
    references: tuple[tuple[str, str], ...]  # (slot, text)
    name: str  # the subject, where it is no reference (sums)
    value: str


class Grammar:
    """Everything that can be said in one language, and what of it is true."""

    def __init__(
        self, world: World, neutral: Iterable[str] = (), framed: Iterable[str] = ()
    ) -> None:
        self.world, self.language = world, world.language
        phrases = world.phrases
        self.subjects = {
            kind: {subject.name: subject for subject in members}
            for kind, members in world.subjects.items()
        }
        self.subjects |= {"calendar": self._calendar(), "arithmetic": self._sums()}
        words: dict[Any, list[str]] = {
            (kind, relation): sorted({s.facts[relation] for s in members.values()} - {""})
            for kind, members in self.subjects.items()
            for relation in next(iter(members.values())).facts
        }
        words["calendar", "next_day"] = world.words("weekdays")
        words["calendar", "next_month"] = world.words("months")
        given = [*phrases["names"]["female"], *phrases["names"]["male"]]
        objects = [thing[world.index] for thing in world.entities["objects"]]
        words |= {
            "a": world.words("numbers")[:10],
            "b": world.words("numbers")[:10],
            "day": world.words("weekdays"),
            "month": world.words("months"),
            "town": list(self.subjects["place"]),
            "spot": world.words("spots"),
            "one": [one for one, _ in objects],
            "the": [the for _, the in objects],
            **dict.fromkeys("NMAB", given),
        }
        self.values = words
        self.slots = _Slots(world, self.subjects, words)
        self.asks = self._relations(("ask", "test"))
        self.says = [*self._relations(("say",)), *self._story()]
        self.neutral = {_split(s)[0] for phrase in neutral for s in sentences(phrase)}
        self.neutral |= {_split(s)[0] for s in self._small_talk()}
        self.framed = [
            re.compile(f"{re.escape(before)}(?P<a>.+){re.escape(after)}")
            for before, _, after in (_split(text)[0].partition("{a}") for text in framed)
        ]
        self.words = {word for entries in words.values() for word in entries}
        self._given: dict[str, list[Subject]] = {}
        for person in world.subjects["person"]:
            self._given.setdefault(self._given_name(person.name), []).append(person)
        self._pronouns = self._pronoun_table()
        self._forms = {form for table in self._pronouns.values() for form in table}
        self._possessive = re.compile(
            re.escape(phrases["possessive"]).replace(re.escape("{n}"), "(.+)")
        )
        self._readings: dict[str, tuple[_Reading, ...]] = {}
        self._questions: dict[str, Asked | None] = {}

    # -- what can be said ----------------------------------------------------------------------

    def _calendar(self) -> dict[str, Subject]:
        found = {}
        for relation, key in (("next_day", "weekdays"), ("next_month", "months")):
            words = self.world.words(key)
            for word, following in zip(words, [*words[1:], words[0]], strict=True):
                facts = {"next_day": "", "next_month": "", relation: following}
                found[word] = Subject("calendar", word, "thing", facts)
        return found

    def _sums(self) -> dict[str, Subject]:
        numbers = self.world.words("numbers")
        return {
            f"{numbers[a]} + {numbers[b]}": Subject(
                "arithmetic", f"{numbers[a]} + {numbers[b]}", "thing", {"plus": numbers[a + b]}
            )
            for a in range(10)
            for b in range(a, 10)
        }

    def _relations(self, uses: Sequence[str]) -> list[_Template]:
        found = []
        for kind in self.subjects:
            for relation, node in self.world.phrases[kind].items():
                for use in uses:
                    texts = node.get(use, [])
                    for text in [texts] if isinstance(texts, str) else texts:
                        found.append(_Template(use, kind, relation, text, self.slots))
        return found

    def _story(self) -> list[_Template]:
        story = self.world.phrases["story"]
        return [
            _Template("story", "", "", text, self.slots)
            for part in ("opening", "take", "give", "ending")
            for text in story[part]
        ]

    def _small_talk(self) -> list[str]:
        """What speakers of dialogues say besides questions and facts ("Let me think.")."""
        found = []
        for dialogue in self.world.phrases["dialogue"]:
            for said in re.split(r"\{[AB]\}[:：]|\{[qs]\w+\}", dialogue):
                found += [s for s in sentences(said) if s[-1] in _STOPS and "{" not in s]
        return found

    def _pronoun_table(self) -> dict[str, dict[str, set[str]]]:
        """By what a slot holds (subject, object, possessive): pronoun -> genders."""
        table: dict[str, dict[str, set[str]]] = {"subject": {}, "object": {}, "possessive": {}}
        for gender, forms in self.world.phrases["pronouns"].items():
            for use, form in (
                ("subject", forms["subject"]),
                ("object", _object(forms["subject"])),
                ("possessive", forms["possessive"]),
            ):
                table[use].setdefault(form, set()).add(gender)
        return table

    def _given_name(self, name: str) -> str:
        if self.language == "zh":
            return name[1:]
        return name.split()[0 if self.language == "en" else -1]

    # -- reading -------------------------------------------------------------------------------

    def asked(self, question: str) -> Asked | None:
        """What a question in this language asks for; None if it is none of the testbed's."""
        if question not in self._questions:
            self._questions[question] = self._ask(_capital(_split(clean(question))[0]))
        return self._questions[question]

    def _ask(self, body: str) -> Asked | None:
        for reading in self._match(body, self.asks):
            if reading.name:
                subject = self.subjects[reading.template.kind].get(reading.name)
            else:
                subjects = [self._named(r, s, reading.template) for s, r in reading.references]
                subject = subjects[0][0] if subjects and len(set(subjects)) == 1 else None
            # Days have no next month.
            if subject and subject.facts.get(reading.template.relation, "-"):
                return Asked(subject, reading.template.relation)
        return None

    def _match(
        self, body: str, templates: Iterable[_Template], loose: bool = False
    ) -> tuple[_Reading, ...]:
        found = []
        for template in templates:
            if template.anchor not in body:
                continue
            match = (template.loose if loose else template.strict).fullmatch(body)
            if match is None:
                continue
            references, name, value = [], "", ""
            for key, text in match.groupdict().items():
                slot = key.rstrip("0123456789")
                if slot in _REFERENCES:
                    references.append((slot, text))
                elif slot in ("v", "V"):
                    value = text if loose else self.slots.forms(slot, template)[text]
            if template.kind == "arithmetic":
                name = self._sum_of(match, template)
            found.append(_Reading(template, tuple(references), name, value))
        return tuple(found)

    def _sum_of(self, match: re.Match[str], template: _Template) -> str:
        numbers = self.values["a"]
        terms = [
            numbers.index(self.slots.forms(key[0], template)[text])
            for key, text in match.groupdict().items()
            if key[0] in "abA"
        ]
        return " + ".join(numbers[term] for term in sorted(terms))

    def _named(self, text: str, slot: str, template: _Template) -> tuple[Subject | None, int]:
        """The subject of the template's kind that `text` names, and the slips in it."""
        if slot in "pP":
            match = self._possessive.fullmatch(text)
            if match is None:
                return None, 0
            text = match[1]
        members = self.subjects[template.kind]
        if text in members:
            return members[text], 0
        # "A tiger": right at the start of a sentence only.
        subject = members.get(_lower(text))
        return subject, int(subject is not None and slot not in "SPn")

    def _refers(
        self, text: str, slot: str, template: _Template, asked: Asked, named: Sequence[Subject]
    ) -> tuple[Subject | None, bool, list[str]]:
        """Whom `text` means, whether it is a subject of the world, and the slips in it."""
        kind = template.kind
        subject, slips = self._named(text, slot, template)
        if subject:
            return subject, True, ["a capital letter inside the sentence"] * slips
        use = "possessive" if slot in "pP" else "object" if slot == "o" else "subject"
        pronouns = self._pronouns[use]
        form = text if text in pronouns or slot not in "SP" else _lower(text)
        if form in pronouns:
            return self._meant(pronouns[form], kind, asked, named)
        match = self._possessive.fullmatch(text) if slot in "pP" else None
        if slot in "pP" and match is None:
            return None, False, []
        name = match[1] if match else text
        if kind == asked.subject.kind and name == asked.subject.name:
            return asked.subject, False, []  # a person of another language
        if kind == "person":
            for person in [*reversed(named), asked.subject]:
                if person.kind == "person" and self._given_name(person.name) == name:
                    return person, True, []
        if self._looks_like(kind, name):
            return Subject(kind, name, "", {}), False, []
        return None, False, []

    def _looks_like(self, kind: str, name: str) -> bool:
        """Whether a name unknown to the world could be one of this kind."""
        if kind in ("calendar", "arithmetic"):
            return False
        if kind == "person" and name in self._given:
            return True
        if self.language == "zh":
            if kind == "place":
                return name.endswith("镇") and len(name) <= 5
            surname = kind != "person" or name[0] in self.world.phrases["names"]["last"]
            return surname and _THING_ZH.fullmatch(name) is not None
        words = name.split()
        if kind in _NAME_WORDS[self.language]:
            low, high = _NAME_WORDS[self.language][kind]
            return low <= len(words) <= high and all(w.isalpha() and w.istitle() for w in words)
        classifier = words[0].lower() in _COMMON[self.language]
        return classifier and 2 <= len(words) <= 3 and name[1:].islower()

    def _meant(
        self, genders: set[str], kind: str, asked: Asked, named: Sequence[Subject]
    ) -> tuple[Subject | None, bool, list[str]]:
        """Whom a pronoun means: who was named last, or else is asked about; it should fit them."""
        candidates = [s for s in [*reversed(named), asked.subject] if s.kind == kind]
        for subject in candidates:
            if subject.gender in genders or not subject.gender:
                return subject, bool(subject.facts), []
        wrong = ["a pronoun of another gender"]
        if candidates:
            return candidates[0], bool(candidates[0].facts), wrong
        nobody = Subject(kind, _NOBODY, "", {})
        return nobody, False, [] if ("thing" in genders) == (kind != "person") else wrong

    # -- judging a sentence --------------------------------------------------------------------

    def read(self, parts: Sequence[str], asked: Asked) -> tuple[Found, ...]:
        """What the sentences of an answer say, one after the other."""
        found: list[Found] = []
        named: list[Subject] = []
        bare = True  # values may answer the question, but not in the middle of a text
        for i, part in enumerate(parts):
            this = self._find(part, asked, named, bare, last=i == len(parts) - 1)
            bare &= this.kind in ("value", "neutral")
            named += this.mentioned
            found.append(this)
        return tuple(found)

    def _find(
        self, sentence: str, asked: Asked, named: Sequence[Subject], bare: bool, last: bool
    ) -> Found:
        written, stop = _split(sentence)
        written = _NO_SPACE.sub("", " ".join(written.split()))
        body = _capital(written)
        slips = []
        if body != written:
            slips.append("no capital at the start")
        if body in self.neutral:
            return Found(sentence, "neutral")
        if body not in self._readings:
            self._readings[body] = self._match(body, self.says)
        found = [self._judge(sentence, r, asked, named) for r in self._readings[body]]
        statements = [f for f in found if f is not None]
        if statements:
            best = min(statements, key=lambda f: (not f.holds, not f.known, f.slips))
            end = "。" if self.language == "zh" else "."
            if stop != end:
                slips.append(f"ends with {stop!r}" if stop else "no stop at the end")
            return replace(best, slips=best.slips + len(slips), notes=(*best.notes, *slips))
        answer = self._framed(sentence, body, asked)
        if answer is None and bare:
            answer = self._bare(sentence, written, asked)
        if answer:
            return answer
        if self.asked(sentence):
            return Found(sentence, "question")
        if last and not stop:
            cut = body.rstrip("\ufffd")
            polite = any(phrase.startswith(cut) for phrase in self.neutral)
            if polite or any(template.begins(cut) for template in self.says):
                return Found(sentence, "unfinished", notes=("cut off",))
        return Found(sentence, "malformed")

    def _judge(
        self, sentence: str, reading: _Reading, asked: Asked, named: Sequence[Subject]
    ) -> Found | None:
        template = reading.template
        if template.use == "story":
            return Found(sentence, "story")
        known, slips = True, []
        if reading.name:
            subject = self.subjects[template.kind][reading.name]
        else:
            # Names first: "In her free time, Anna likes ...".
            before, meant = [*named], {}
            for slot, text in sorted(reading.references, key=lambda r: _lower(r[1]) in self._forms):
                found, exists, wrong = self._refers(text, slot, template, asked, before)
                if found is None:
                    return None
                meant[slot] = found
                known &= exists
                slips += wrong
                before.append(found)
            subject = meant.get("s", next(iter(meant.values())))
            if len({s.name for s in meant.values()}) > 1:
                slips.append("two subjects in one sentence")
        fact = subject.facts.get(template.relation, "") if known else ""
        if known and template.kind == "calendar" and not fact:
            return None  # a month as the day after
        notes = [*slips]
        if not known:
            nobody = subject.name == _NOBODY
            notes.append("nobody is meant" if nobody else f"{subject.name} is not of this world")
        elif fact != reading.value:
            notes.append(f"true is: {fact}")
        return Found(
            sentence,
            "statement",
            subject.name,
            template.kind,
            template.relation,
            reading.value,
            known and fact == reading.value,
            known,
            len(slips),
            tuple(notes),
            (subject,),
        )

    def _bare(self, sentence: str, written: str, asked: Asked) -> Found | None:
        """A value that answers the question without a sentence."""
        subject = asked.subject
        for value in (written, _lower(written)):
            for relation, fact in subject.facts.items():
                pool = self.values.get((subject.kind, relation), ())
                if fact and asked.facts(relation) and value in pool:
                    known = self.subjects[subject.kind].get(subject.name) == subject
                    notes = () if fact == value else (f"true is: {fact}",)
                    return Found(
                        sentence,
                        "value",
                        subject.name,
                        subject.kind,
                        relation,
                        value,
                        known and fact == value,
                        notes=notes,
                    )
        return None

    def _framed(self, sentence: str, body: str, asked: Asked) -> Found | None:
        """ "The answer is ...": as good as a sentence if what follows is an answer."""
        for frame in self.framed:
            match = frame.fullmatch(body)
            if match and (found := self._bare(sentence, match["a"], asked)):
                return replace(found, kind="statement")
            if match and match["a"] in self.words:  # an answer, if to another question
                return Found(sentence, "story")
        return None

    def complaint(self, sentence: str, asked: Asked, named: Sequence[Subject]) -> str:
        """Why a sentence is not well formed, if only its value is wrong."""
        for reading in self._match(_capital(_split(sentence)[0]), self.says, loose=True):
            template = reading.template
            if template.use == "say" and self._judge(sentence, reading, asked, named):
                return f"{reading.value!r} is no {template.relation} of a {template.kind}"
        return "no sentence of this world"
