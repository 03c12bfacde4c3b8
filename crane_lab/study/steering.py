"""Language forcing: a question in one language, and an answer wanted in another (paper 3).

A language's neurons are set, added to or scaled at `act_fn`'s output, in all layers and at all
positions, by a statistic of what they put out in that language. Beside them stand the model as it
is, and random neurons, as many in every layer, to which the very same numbers are written.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from torch import Tensor

from crane_core.baselines import random_matched
from crane_core.interventions import UNTOUCHED, Add, Intervention, Scale, SetTo, Step, intervened
from crane_core.neurons import NeuronSet
from crane_lab.engines.decoding import Greedy, end_tokens
from crane_lab.engines.perplexity import perplexity
from crane_lab.engines.prompting import opened
from crane_lab.pipeline import Pipeline
from crane_lab.store.files import canonical, digest_of
from crane_lab.store.grown import Key, Part, grow, made_of, read_grown, shipped_file
from crane_lab.study.many_languages import CRANE, LAPE, RELEVANCE, SIGNED, require_sets
from crane_lab.study.taught import RANDOM
from crane_lab.texts.told import identified_surely, require_told
from crane_lab.tuning.items import UNSPACED

#: What is done to the target's neurons. "add", "set" and "contrast" write the statistic, the last
#: one less the mean over the other languages; "scale" multiplies; "zero + add" sets the neurons of
#: the question's language to zero first.
KINDS = ("add", "set", "contrast", "scale", "zero + add")
#: What is written: the mean activation, or how often it is above zero, as the paper's first code
#: has it.
STATISTICS = ("mean", "probability")
QUESTIONS = "data/steering/questions.yaml"
FILE = "steering.csv"
#: What identifies a row, beside the question's language and the draw of a random set.
KEYS = ["method", "kind", "statistic", "strength", "target", "source", "seed"]
_TEXTS = ("method", "kind", "statistic", "target", "source", "answers")
#: Tokens of an answer at most, and what ends it.
LONGEST, STOP = 16, "\n"
#: As in the paper.
PENALTY = 1.1
#: The largest number that is written. A norm squares what `down_proj` makes of it, and puts out
#: zeros where that overflows, so that all tokens are as likely: on the testbed at a tenth of the
#: root of float32's largest number, not at a hundredth. A thousandth leaves room.
LARGEST = float(torch.finfo(torch.float32).max) ** 0.5 / 1e3
#: Confidence of the identifier from which on it counts as sure.
SURE = 0.9


@dataclass(frozen=True)
class ForcedQuestion:
    """One question in one language: `answers`, one of which a right answer has in it (`answered`).

    `words`: how a right answer can begin, in full words.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Setup:
    """One intervention by kind, statistic and strength, for any method and target.

    Raises ValueError for an unknown kind or statistic.
    """

    kind: str
    statistic: str = "mean"
    strength: float = 1.0

    def __post_init__(self) -> None:
        for name, value, known in (
            ("kind", self.kind, KINDS),
            ("statistic", self.statistic, STATISTICS),
        ):
            if value not in known:
                raise ValueError(f"unknown {name} {value!r}: expected one of {known}")


@dataclass(frozen=True)
class Steered:
    """What is needed to steer: method -> language -> neurons, and what they put out.

    `values`: statistic -> language -> (layers, neurons).
    """

    sets: Mapping[str, Mapping[str, NeuronSet]]
    values: Mapping[str, Mapping[str, Tensor]]


def read_steering_questions(
    languages: Sequence[str], file: str | Path = QUESTIONS
) -> dict[str, list[ForcedQuestion]]:
    """The questions by language, as many and in the same order in each.

    Raises FileNotFoundError without the file, and ValueError, with the question's name, for a file
    that is no list of questions, a language that a question lacks, or one without text or answers.
    """
    found: dict[str, list[ForcedQuestion]] = {x: [] for x in languages}
    for number, entry in enumerate(_entries(file)):
        name = f"question {str(entry.get('id', number))!r} in {file}"
        for x in languages:
            own = entry.get(x) or {}
            if not isinstance(own, dict):
                raise ValueError(
                    f"{name}, {x}: expected a mapping with question and answers, got {own!r}"
                )
            if not own.get("question") or not own.get("answers"):
                known = [code for code in entry if code != "id"]
                raise ValueError(
                    f"{name} has no question with answers in {x!r}: expected languages of "
                    f"{', '.join(map(str, known))}"
                )
            question = own["question"]
            if not isinstance(question, str) or not question.strip():
                raise ValueError(f"{name}, {x}: expected a question in words, got {question!r}")
            answers, words = (_several(own, kind, f"{name}, {x}") for kind in ("answers", "words"))
            found[x].append(ForcedQuestion(str(entry.get("id", number)), question, answers, words))
    return found


def _entries(file: str | Path) -> list[dict[Any, Any]]:
    """What a file of questions has, a mapping for each."""
    if not Path(file).is_file():
        raise FileNotFoundError(f"no file {file}: expected questions, as {QUESTIONS} has them")
    try:
        entries = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"{file} cannot be read as YAML in UTF-8: {said}") from error
    if not isinstance(entries, list) or not entries:
        kind = "nothing" if not entries else f"a {type(entries).__name__}"
        raise ValueError(f"{file}: expected a list of questions, as {QUESTIONS} has, got {kind}")
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ValueError(
                f"question {number} in {file}: expected a mapping with an id and languages, got "
                f"{entry!r}"
            )
    return entries


def _several(own: Mapping[str, Any], kind: str, where: str) -> tuple[str, ...]:
    """A question's answers or words; YAML takes a lone word for text, and `no` for false."""
    texts = own.get(kind) or []
    if not isinstance(texts, list):
        raise ValueError(f"{where}: expected a list of {kind}, got {texts!r}")
    for text in texts:
        if not isinstance(text, str) or not text.strip("* "):
            raise ValueError(f"{where}: expected {kind} that are texts in quotes, got {text!r}")
    return tuple(texts)


def intervention_of(
    steered: Steered,
    neurons: NeuronSet,
    target: str,
    setup: Setup,
    source: NeuronSet | None = None,
    as_drawn: tuple[NeuronSet, int] | None = None,
) -> Intervention:
    """What a setup does to neurons, for a target; `source`: those of the question's language.

    With `as_drawn`, random neurons and a seed, the same numbers are written to those instead: each
    layer's, in an order drawn from the seed, so that no set is pushed harder than the other.

    Raises ValueError for a set without neurons.
    """
    if not len(neurons):
        raise ValueError(f"no neurons of {target!r}: there is nothing to steer by")
    written = _written(steered, target, setup)
    if as_drawn is not None:
        drawn, seed = as_drawn
        written, neurons = moved(written, neurons, drawn, seed), drawn
    own, at = {"intermediate": written}, "act_fn"
    if setup.kind == "scale":
        return Intervention(Scale(neurons, setup.strength, at=at))
    if setup.kind == "set":
        return Intervention(SetTo(neurons, _times(own, setup.strength), at=at))
    first: list[Step] = []
    if setup.kind == "zero + add" and source is not None and len(source - neurons):
        first.append(SetTo(source - neurons, 0.0, at=at))
    return Intervention(*first, Add(neurons, own, setup.strength, at=at))


def _written(steered: Steered, target: str, setup: Setup) -> Tensor:
    """A target's values, (layers, neurons), before they are multiplied by the strength."""
    values = steered.values[setup.statistic]
    if setup.kind != "contrast":
        return values[target]
    others = [value for x, value in values.items() if x != target]
    if not others:
        raise ValueError(f"contrast with {target!r} alone: expected values of another language")
    return values[target] - torch.stack(others).mean(0)


def require_writable(steered: Steered, setup: Setup) -> None:
    """Raise ValueError if what a setup writes, or scales by, overflows when a norm squares it."""
    values = steered.values[setup.statistic]
    most = max(float(_written(steered, x, setup).abs().max()) for x in values)
    largest = abs(setup.strength) * (1 if setup.kind == "scale" else most)
    if not largest < LARGEST:
        raise ValueError(
            f"{setup.kind} with strength {setup.strength:g} writes up to {largest:.3g}: expected "
            f"less than {LARGEST:.3g}, whose square overflows in a norm; take a smaller strength"
        )


def drawn_as(neurons: NeuronSet, method: str, target: str, draw: int) -> tuple[NeuronSet, int]:
    """Random neurons, as many in every layer, and the seed that they were drawn with.

    Sets of other methods, targets and draws are other draws, not the same one again.
    """
    seed = zlib.crc32(f"{method} {target} {draw}".encode())
    return random_matched(neurons, seed), seed


def moved(values: Tensor, neurons: NeuronSet, drawn: NeuronSet, seed: int) -> Tensor:
    """`values` (layers, neurons) with each layer's numbers of `neurons` at those of `drawn`."""
    found, generator = values.clone(), torch.Generator().manual_seed(seed)
    for layer, (a, b) in enumerate(zip(neurons.mask(), drawn.mask(), strict=True)):
        numbers = values[layer][a]
        found[layer][b] = numbers[torch.randperm(len(numbers), generator=generator)]
    return found


def _times(values: Mapping[str, Tensor], strength: float) -> dict[str, Tensor]:
    return {site: strength * tensor for site, tensor in values.items()}


def forced(
    pipeline: Pipeline,
    questions: Mapping[str, Sequence[ForcedQuestion]],
    under: Mapping[str, Intervention],
) -> pd.DataFrame:
    """What the model answers to every question, by the question's language.

    `under`: the question's language -> intervention. One row per question's language, `source`:
    `answers`, a JSON list of texts in the questions' order; `loss`, nats per token of those that
    are not empty under the model as it is, without their question.
    """
    same: dict[str, list[str]] = {}
    for x, one in under.items():
        same.setdefault(one.digest(), []).append(x)
    rows = []
    for sources in same.values():
        asked = [(x, question.question) for x in sources for question in questions[x]]
        texts = answers_of(pipeline, [question for _, question in asked], under[sources[0]])
        losses = answer_losses(pipeline, texts)
        for x in sources:
            own = [place for place, (source, _) in enumerate(asked) if source == x]
            known = [losses[place] for place in own if losses[place] == losses[place]]
            rows.append(
                {
                    "source": x,
                    "answers": json.dumps([texts[place] for place in own], ensure_ascii=False),
                    "loss": sum(known) / len(known) if known else float("nan"),
                }
            )
    return pd.DataFrame(rows)


def answer_outcomes(
    table: pd.DataFrame, questions: Mapping[str, Sequence[ForcedQuestion]]
) -> pd.DataFrame:
    """What the answers of `read_steering` are worth, a row per target, source and setup.

    The untouched model's rows, which have no target, are there once for every target. A text of a 0
    or 1 per question each: `in_target`, `stayed` in the question's language, `elsewhere`, in
    another of the questions' languages, `untold` (`told.identified`; empty ones, too);
    `sure`, in the target with a confidence of `SURE` or more (`told.identified_surely`);
    `correct`, with a right answer in the target's words, in whatever language. `repeated`: the
    share of runs of three characters that an answer has had before, mean over answers; `first`: the
    first answer.

    Raises ValueError if a row has more or fewer answers than there are questions.
    """
    languages, rows = list(questions), []
    for row in table.to_dict("records"):
        texts = json.loads(row["answers"])
        if len(texts) != (n := len(questions[row["source"]])):
            raise ValueError(
                f"{len(texts)} answers of {row['method']} in {row['source']!r}, {n} questions: "
                "expected the questions that were answered"
            )
        told = identified_surely(texts, languages)
        about = {name: row[name] for name in (*KEYS, "loss")}
        for target in [row["target"]] if row["target"] else languages:
            source = row["source"]
            kinds = [
                "in_target"
                if x == target
                else "stayed"
                if x == source
                else "elsewhere"
                if x
                else "untold"
                for x, _ in told
            ]
            sure = (x == target and confidence >= SURE for x, confidence in told)
            rows.append(
                {
                    **about,
                    "target": target,
                    **{
                        kind: _digits(one == kind for one in kinds)
                        for kind in ("in_target", "stayed", "elsewhere", "untold")
                    },
                    "sure": _digits(sure),
                    "correct": _digits(
                        answered(text, question.answers)
                        for text, question in zip(texts, questions[target], strict=True)
                    ),
                    "repeated": sum(map(repeated_runs, texts)) / len(texts),
                    "first": texts[0],
                }
            )
    return pd.DataFrame(rows)


def answered(text: str, answers: Sequence[str]) -> bool:
    """Whether one of the answers is in a text, letter case and width of letters aside.

    Words must stand there whole, one that ends in * may go on, and of digits no more may stand
    beside them. In Chinese and Japanese, which write no spaces, anything may.
    """
    said = unicodedata.normalize("NFKC", text).casefold()
    return any(re.search(_pattern(answer), said) for answer in answers)


def _pattern(answer: str) -> str:
    stem = unicodedata.normalize("NFKC", answer.rstrip("*")).casefold()
    if stem.isdigit():
        return rf"(?<!\d){stem}(?!\d)"
    if UNSPACED.search(stem):
        return re.escape(stem)
    return rf"(?<!\w){re.escape(stem)}" + ("" if answer.endswith("*") else r"(?!\w)")


def repeated_runs(text: str) -> float:
    """The share of a text's runs of three characters that it has had before; 0 for shorter ones."""
    runs = [text[place : place + 3] for place in range(len(text) - 2)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def answers_of(
    pipeline: Pipeline, questions: Sequence[str], intervention: Intervention
) -> list[str]:
    """What the model answers to plain questions under an intervention, a line of text for each."""
    prompts = [f"Q: {question}\nA:" for question in questions]
    return lines_after(pipeline, prompts, intervention, LONGEST)


def lines_after(
    pipeline: Pipeline, prompts: Sequence[str], intervention: Intervention, longest: int
) -> list[str]:
    """How the model goes on with prompts, to the end of the line or for `longest` tokens."""
    model, tokenizer = pipeline.model, pipeline.tokenizer
    decoder = Greedy(
        model, tokenizer, end_tokens(model.generation_config, tokenizer), (STOP,), PENALTY
    )
    ids = opened(tokenizer, list(prompts))
    with intervened(model, intervention):
        found = decoder.tokens(ids, [longest] * len(ids))
    texts = (str(tokenizer.decode(own, skip_special_tokens=True)) for own in found)
    return [text.partition(STOP)[0].strip() for text in texts]


def _digits(values: Iterable[Any]) -> str:
    return "".join(str(int(bool(value))) for value in values)


def answer_losses(pipeline: Pipeline, texts: Sequence[str]) -> list[float]:
    """Nats per token of each text under the model as it is; NaN for a text without a token."""
    rows = opened(pipeline.tokenizer, list(texts))
    found = [float("nan")] * len(rows)
    for length in sorted({len(ids) for ids in rows if len(ids) > 1}):
        places = [place for place, ids in enumerate(rows) if len(ids) == length]
        windows = torch.tensor([rows[place] for place in places])
        for place, loss in zip(places, perplexity(pipeline.model, windows).losses, strict=True):
            found[place] = float(loss)
    return found


@dataclass(frozen=True)
class SteeringPlan:
    """What is run: which languages are asked and wanted, and how the neurons are changed.

    `central`: the setup that all of `methods` are run under, each beside `draws` random sets;
    `setups`: further ones, of the methods in `steered` alone, beside one random set each.
    """

    languages: tuple[str, ...] = ("en", "zh", "vi", "de", "fr", "es", "ru", "ja")
    methods: tuple[str, ...] = (LAPE, RELEVANCE, SIGNED, CRANE)
    steered: tuple[str, ...] = (LAPE, RELEVANCE)
    central: Setup = Setup("add")
    setups: tuple[Setup, ...] = (
        Setup("set"),
        Setup("contrast"),
        *(Setup("add", strength=strength) for strength in (2.0, 0.5)),
        Setup("zero + add"),
        Setup("scale", strength=2.0),
        Setup("add", "probability"),
        Setup("add", strength=0.25),
        Setup("contrast", strength=2.0),
        Setup("contrast", strength=0.5),
        Setup("scale", strength=4.0),
    )
    draws: int = 2
    questions: str = QUESTIONS

    def __post_init__(self) -> None:
        if self.draws < 0:
            raise ValueError(f"{self.draws} random sets: expected no negative number")

    def require_runnable(self) -> None:
        """Raise ValueError, before anything is run, for languages that cannot be asked or told."""
        require_told(self.languages)
        read_steering_questions(self.languages, self.questions)

    @property
    def runs(self) -> Iterator[tuple[Setup, str, int]]:
        """Setup, method and draw (-1 for the method's own set), what matters most first."""
        for draw in range(-1, self.draws):
            for method in self.methods:
                yield self.central, method, draw
        for setup in self.setups:
            for draw in (-1, 0):
                for method in self.steered:
                    yield setup, method, draw


def steering_parts(pipeline: Pipeline, steered: Steered, plan: SteeringPlan) -> Iterator[Part]:
    """Everything that a plan consists of, the model as it is first, then setup by setup.

    A language without neurons under a method is left out.
    """
    questions = read_steering_questions(plan.languages, plan.questions)
    languages = list(questions)
    nothing: dict[str, Any] = {
        "method": "none",
        "kind": "",
        "statistic": "",
        "strength": 0.0,
        "seed": -1,
    }
    keys = frozenset(_key(nothing, "", x) for x in languages)
    every = dict.fromkeys(languages, UNTOUCHED)

    def untouched() -> pd.DataFrame:
        found = forced(pipeline, questions, every).assign(target="", **nothing)
        return found.round(6)

    yield Part("the model as it is", keys, untouched)
    for setup, method, draw in plan.runs:
        about = {
            "method": method if draw < 0 else f"{RANDOM} as {method}",
            **{"kind": setup.kind, "statistic": setup.statistic},
            **{"strength": setup.strength, "seed": draw},
        }
        for target in languages:
            keys = frozenset(_key(about, target, x) for x in languages)
            compute = partial(
                _steered, pipeline, steered, questions, method, setup, draw, target, about
            )
            yield Part(f"{' '.join(map(str, about.values()))} {target}", keys, compute)


def _key(about: Mapping[str, Any], target: str, source: str) -> Key:
    return tuple({**about, "target": target, "source": source}[name] for name in KEYS)


def _steered(
    pipeline: Pipeline,
    steered: Steered,
    questions: Mapping[str, Sequence[ForcedQuestion]],
    method: str,
    setup: Setup,
    draw: int,
    target: str,
    about: Mapping[str, Any],
) -> pd.DataFrame:
    of = steered.sets[method]
    neurons, as_drawn = of[target], None
    if draw >= 0:
        as_drawn = drawn_as(neurons, method, target, draw)
    under = {
        x: intervention_of(steered, neurons, target, setup, of[x], as_drawn) for x in questions
    }
    return forced(pipeline, questions, under).assign(target=target, **about).round(6)


def ship_steering(
    pipeline: Pipeline, steered: Steered, plan: SteeringPlan, folder: str | Path
) -> None:
    """Bring `FILE` and the record beside it to what the plan asks for (`store.grown`).

    One row per setup, target and question's language: `KEYS`, and `forced`'s columns.

    Raises ValueError for a language that the identifier does not know, or without questions, or
    without neurons under a method, an unknown method, and a strength that overflows, before
    anything is generated.
    """
    plan.require_runnable()
    require_sets(steered.sets, (*plan.methods, *plan.steered), plan.languages, "--asked")
    for setup in (plan.central, *plan.setups):
        require_writable(steered, setup)
    inputs = {
        "model": pipeline.loaded.lasting_key,
        "sets": {m: {x: s.digest() for x, s in steered.sets[m].items()} for m in plan.methods},
        "questions": questions_digest(plan.questions),
        "languages": list(plan.languages),
        "values": {name: values_digest(of) for name, of in steered.values.items()},
        "decoding": [LONGEST, PENALTY],
    }
    parts = steering_parts(pipeline, steered, plan)
    grow(Path(folder) / FILE, inputs, KEYS, _TEXTS, parts)


def questions_digest(file: str | Path) -> str:
    """Short hex digest of a file of questions."""
    return digest_of(canonical(_entries(file)))


def require_made_with(table: str | Path, questions: str | Path) -> None:
    """Raise ValueError if a table, by the record beside it, is of other questions than a file's."""
    if made_of(table, {})["inputs"].get("questions") != questions_digest(questions):
        raise ValueError(
            f"{Path(table).name} in {Path(table).parent} was made with other questions than "
            f"{questions}: give that file, or run `python -m crane_lab.cli.steer` anew, with "
            "--questions"
        )


def values_digest(values: Mapping[str, Tensor]) -> str:
    """Short hex digest of what is written: float32 values by language."""
    parts = (x.encode() + own.float().numpy().tobytes() for x, own in values.items())
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def read_steering(folder: str | Path) -> pd.DataFrame:
    """A table as `ship_steering` wrote it, ordered by kind, statistic and strength.

    Raises FileNotFoundError, saying what makes it, without the file.
    """
    file = shipped_file(folder, FILE, "what steering does", "crane_lab.cli.steer")
    table = read_grown(file, _TEXTS)
    places = [
        table["kind"].map(("", *KINDS).index),
        table["statistic"].map(("", *STATISTICS).index),
    ]
    return table.iloc[np.lexsort([table["strength"], *places[::-1]])].reset_index(drop=True)


def shipped_outcomes(folder: str | Path, questions: str | Path = QUESTIONS) -> pd.DataFrame:
    """`answer_outcomes` of a folder's table, in the languages that it was made for.

    Raises FileNotFoundError without the table, its record or the questions, and ValueError if it
    was made with other questions than the file's.
    """
    table = read_steering(folder)
    require_made_with(Path(folder) / FILE, questions)
    languages = made_of(Path(folder) / FILE, {})["inputs"]["languages"]
    return answer_outcomes(table, read_steering_questions(languages, questions))
