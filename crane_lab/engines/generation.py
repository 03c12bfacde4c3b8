"""Open-ended answers of a model, masked or not (§4.3-4.4): questions, prompts, greedy decoding.

One interface, two engines. `HuggingFaceEngine` runs `generate` of transformers, and
`crane_lab.engines.vllm_engine.VLLMEngine` runs vLLM. Both take token ids, so a prompt is tokenised
once and alike, and both intervene on neurons without loading the model again. In float32 they
answer alike, token for token.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crane_core.interventions import UNTOUCHED, Intervention, intervened
from crane_lab.engines.decoding import Greedy, Prompts, end_tokens
from crane_lab.engines.prompting import chat_tokens, opened, opening
from crane_lab.engines.thoughts import left_open, without_thoughts
from crane_lab.texts import plain

#: Where a base model's answer ends: it would go on with a question of its own. These are the stop
#: strings of LAPE (Tang et al., 2024), whose question-and-answer frame `prompts` uses.
STOP = ("\nQ:", "\nA:")
#: Tokens at a prompt's end among which it may begin the model's thoughts.
_TAIL = 32


# ------------------------------------------------------------------------------------- questions


def question_file(folder: str | Path, language: str) -> Path:
    """The path of one language's questions, `<folder>/<language>.txt`.

    Raises FileNotFoundError if the folder or the file does not exist, listing the languages that
    do.
    """
    folder = Path(os.path.expanduser(folder))
    if not folder.is_dir():
        raise FileNotFoundError(
            f"question folder {folder} does not exist; expected one <language>.txt per language, "
            "with one question per line"
        )
    path = folder / f"{language}.txt"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.txt"))) or "none"
        own = (file.name for file in sorted(folder.iterdir()))
        near = [x for x in own if x.casefold().split(".")[0] == language.casefold()]
        raise FileNotFoundError(
            f"no questions for language {language!r}: {path} does not exist (available: {known}"
            + "".join(f"; {name} is not read" for name in near)
            + "); expected UTF-8 text with one question per line"
        )
    return path


BLANK = "is blank; expected a text"


def unfit(question: str) -> str:
    """What is wrong with a question's characters, in words; "" for nothing."""
    if not any(sign.isprintable() and not sign.isspace() for sign in question):
        return BLANK
    if question in plain.NOTHING:
        return f"is {question!r}, which tables have where a text is missing; put the text there"
    for sign in question:
        if sign == "\0" or "\ud800" <= sign <= "\udfff" or "\ufdd0" <= sign <= "\ufdef":
            return f"holds U+{ord(sign):04X}, which is no character of a text; take it out"
    return ""


def _read(path: Path) -> list[str]:
    lines = [line.strip() for line in plain.lines(path)]
    if not any(lines):
        raise ValueError(f"{path} is empty; expected one question per line")
    blank = [number for number, line in enumerate(lines, 1) if unfit(line) == BLANK]
    if blank:
        raise ValueError(
            f"{path} has {len(blank)} blank line(s), the first is line {blank[0]} of {len(lines)}; "
            "expected a question on every line, because the n-th line of every language is the "
            "n-th question: remove the line, or put the question there"
        )
    first: dict[str, int] = {}
    for number, question in enumerate(lines, 1):
        if problem := unfit(question):
            raise ValueError(f"{path}, line {number}: the question {problem}")
        if first.setdefault(question, number) != number:
            raise ValueError(
                f"{path}, line {number}: the question of line {first[question]} once more "
                f"({question[:60]!r}), which would count twice; ask another, or remove the line "
                "from the files of all languages"
            )
    return lines


def read_questions(folder: str | Path, languages: Sequence[str]) -> dict[str, list[str]]:
    """Parallel questions, `{language: [question, ...]}`, from `<folder>/<language>.txt`.

    One question per line; the n-th line of every file is the n-th question. LAPE's released files
    are read as they are.

    Raises FileNotFoundError as `question_file` does, ValueError and OSError as `plain.lines`, and
    ValueError for a file that is empty, or has a blank line, a question twice, a sign that is no
    character or "None", "nan" and the like for a question, and for languages that differ in the
    number of questions.
    """
    if isinstance(languages, str) or not languages:
        raise ValueError(f"expected a list of language codes such as ['en', 'zh']; got {languages}")
    questions = {language: _read(question_file(folder, language)) for language in languages}
    counts = {language: len(lines) for language, lines in questions.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(
            f"the languages in {folder} have different numbers of questions ("
            + ", ".join(f"{language}: {n}" for language, n in counts.items())
            + "); expected parallel files, where the n-th line is the n-th question: add the "
            "missing lines"
        )
    return questions


# --------------------------------------------------------------------------------------- prompts


def prompts(
    tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], chat: bool
) -> list[list[int]]:
    """Token ids of one prompt per question.

    Parameters
    ----------
    questions : plain questions.
    chat : False for a base model, which gets the frame "Q: <question>\\nA:" as the tokenizer
        encodes any text; decode with `stop=STOP` then. True for a chat model: its own template
        around the question as the user's only message, open for the model's answer.

    A prompt begins with the beginning-of-sequence token exactly once if the tokenizer begins plain
    text with it, whether or not the template writes it, too; it never ends with a token that ends a
    text. Control tokens that a question spells (`</s>`) are text. Templates are told one day
    (`prompting.DAY`), so that prompts are the same on any, and not to think, where they can be.

    Raises ValueError for a question that is blank or no text (`unfit`), and as `prompting`'s
    functions do: if `chat` is True and the template is missing, loops, or refuses a question.
    """
    _check(questions)
    if not chat:
        return opened(tokenizer, [f"Q: {question}\nA:" for question in questions])
    found = chat_tokens(tokenizer, questions) if questions else []
    bos = tokenizer.bos_token_id
    opens = bos is not None and opening(tokenizer)[:1] == [bos]
    prompted = []
    for ids in found:
        start = 0
        while bos is not None and ids[start : start + 1] == [bos]:
            start += 1
        prompted.append([bos] * int(opens or start > 0) + list(ids[start:]))
    return prompted


def _check(questions: Sequence[str]) -> None:
    for number, question in enumerate(questions):
        if problem := unfit(question):
            raise ValueError(f"question {number} {problem}")


# -------------------------------------------------------------------------------------- decoding


@dataclass(frozen=True)
class Decoding:
    """How an answer is decoded; always greedily.

    Attributes
    ----------
    max_new_tokens : tokens of an answer at most, the one that ends it included.
    repetition_penalty : divides positive and multiplies negative logits of every token that the
        prompt or the answer holds already; 1 is none.
    context : tokens of prompt and answer together at most; None for all positions of the model. An
        answer that reaches it is cut there.
    stop : strings that end an answer and are cut off it.

    Raises ValueError for a count below 1, a penalty that is not positive and an empty stop string,
    and TypeError for stop strings in one string.
    """

    max_new_tokens: int = 96
    repetition_penalty: float = 1.1
    context: int | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")
        if not 0 < self.repetition_penalty < math.inf:
            raise ValueError(
                f"repetition_penalty must be positive (1 is none), got {self.repetition_penalty}"
            )
        if self.context is not None and self.context < 2:
            raise ValueError(
                f"context must hold at least a token of the prompt and one of the answer, "
                f"got {self.context}"
            )
        stop: Any = self.stop
        if isinstance(stop, str):
            raise TypeError(f"stop must be a tuple of strings, got the string {stop!r}")
        if not all(stop):
            raise ValueError("stop holds an empty string, which would end every answer at once")
        object.__setattr__(self, "stop", tuple(stop))  # a list is as good


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes
    ----------
    text : without special tokens, without thoughts (`thoughts.without_thoughts`), without a stop
        string and what follows it, without surrounding white space.
    tokens : all generated ids, with the end-of-sequence token or those of the stop string.
    finish : "stop" for an answer that the model ended, "length" for one that was cut off, and
        "thinking" for one that ended within the model's thoughts, whose text is empty.
    """

    text: str
    tokens: tuple[int, ...]
    finish: str


def context_length(decoding: Decoding, positions: int) -> int:
    """The context in tokens for a model with that many positions.

    Raises ValueError if more are asked for.
    """
    if decoding.context is None:
        return positions
    if decoding.context > positions:
        raise ValueError(
            f"a context of {decoding.context} tokens exceeds the model's {positions} positions; "
            f"set context to {positions} or less, or to None"
        )
    return decoding.context


def room(prompts: Prompts, decoding: Decoding, context: int, vocabulary: int) -> list[int]:
    """How many tokens each answer may have: `max_new_tokens`, or what is left of the context.

    Raises ValueError for a prompt without tokens, with one that is not in the vocabulary (of so
    many tokens), or that leaves no room in the context.
    """
    if empty := [index for index, ids in enumerate(prompts) if not len(ids)]:
        raise ValueError(f"prompt {empty[0]} has no tokens; make prompts with `prompts`")
    if foreign := [index for index, ids in enumerate(prompts) if max(ids) >= vocabulary]:
        raise ValueError(
            f"prompt {foreign[0]} has token {max(prompts[foreign[0]])}, but the model's vocabulary "
            f"has {vocabulary} ({len(foreign)} of {len(prompts)} prompts); take the tokenizer that "
            "the model was trained with"
        )
    if long := [index for index, ids in enumerate(prompts) if len(ids) >= context]:
        raise ValueError(
            f"prompt {long[0]} has {len(prompts[long[0]])} tokens, which leaves no room for an "
            f"answer in a context of {context} tokens ({len(long)} of {len(prompts)} prompts are "
            "too long); shorten the question or raise the context, if the model has the positions"
        )
    return [min(decoding.max_new_tokens, context - len(ids)) for ids in prompts]


def answer(
    tokenizer: PreTrainedTokenizerBase,
    tokens: Sequence[int],
    ends: Sequence[int],
    stop: Sequence[str],
    prompt: Sequence[int] = (),
) -> Answer:
    """The answer that generated `tokens` spell; both engines read theirs here.

    `prompt` is what they were generated from, which may have begun the model's thoughts.
    """
    begun = left_open(tokenizer.decode(list(prompt)[-_TAIL:])) if len(prompt) else False
    text, unfinished = without_thoughts(tokenizer, tokens, begun)
    cuts = [place for string in stop if (place := text.find(string)) >= 0]
    ended = bool(cuts) or (len(tokens) > 0 and tokens[-1] in ends)
    text = text[: min(cuts, default=len(text))].strip()
    finish = "thinking" if unfinished else "stop" if ended else "length"
    return Answer(text, tuple(int(token) for token in tokens), finish)


# ------------------------------------------------------------------------------------ the engine


class HuggingFaceEngine:
    """Answers by `generate` of transformers, in batches padded on the left.

    Parameters
    ----------
    model, tokenizer : as `crane_core.models.load` returns them.
    decoding : see `Decoding`.
    batch_size : prompts that are decoded together. In float32 answers do not depend on it; shorter
        types round differently with what shares a batch, and where two tokens are nearly as likely,
        so may the answer.
    progress : whether to show a progress bar.

    Raises ValueError for a context longer than the model's positions and a batch size below 1.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        decoding: Decoding | None = None,
        batch_size: int = 70,
        progress: bool = True,
    ):
        self.model, self.tokenizer = model, tokenizer
        self.decoding = decoding or Decoding()
        self._hidden: dict[str, Any] = {} if progress else {"disable": True}
        config = model.config.get_text_config()
        self.context = context_length(self.decoding, config.max_position_embeddings)
        self._vocabulary = config.vocab_size
        self._decoder = Greedy(
            model,
            tokenizer,
            end_tokens(model.generation_config, tokenizer),
            self.decoding.stop,
            self.decoding.repetition_penalty,
            batch_size,
        )

    def generate(self, prompts: Prompts, intervention: Intervention = UNTOUCHED) -> list[Answer]:
        """One answer per prompt (token ids), in their order, under an intervention.

        The model is left as it was. Raises ValueError as `room`, for a set made for another model's
        shape, and for logits that are no numbers.
        """
        limits = room(prompts, self.decoding, self.context, self._vocabulary)
        with (
            intervened(self.model, intervention),
            # Given only where it hides the bar: a value would override the TQDM_DISABLE that
            # keeps bars out of executed notebooks.
            tqdm(total=len(prompts), desc="answers", unit="answer", **self._hidden) as bar,
        ):
            tokens = self._decoder.tokens(prompts, limits, bar.update)
        ends, stop = self._decoder.ends, self._decoder.stop
        return [
            answer(self.tokenizer, row, ends, stop, prompt)
            for row, prompt in zip(tokens, prompts, strict=True)
        ]
