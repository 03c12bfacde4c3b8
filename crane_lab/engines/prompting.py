"""Prompts as token ids: texts that a model goes on with, and a chat model's own template (§4.4).

What a text or a question holds stays text. A template is a program that comes with a checkpoint.
transformers runs it in a sandbox; here it also gets no clock, and no time without end.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from types import FrameType
from typing import Any

import jinja2
from transformers import PreTrainedTokenizerBase

from crane_core.windows import plain_tokens

#: The day that every template is told, today or next year: what Llama 3's own falls back to.
DAY = datetime(2024, 7, 26)
#: What templates are told besides. Models that can be told so do not think: a short answer would
#: end within their thoughts.
SWITCHES = {"enable_thinking": False, "thinking": False, "strftime_now": DAY.strftime}
#: Seconds of computing after which a template is taken to have no end; milliseconds are usual.
LONGEST = 5.0
#: Characters that a template may put around a question.
LARGEST = 1_000_000
#: Where a text is cut so that no token reaches across: a code point that stands for nothing.
_CUT = "\ufdd0"
#: What shows whether a template writes a question, and in which form it takes one.
_PROBE = "Q7X9"


# ------------------------------------------------------------------------------------- plain texts


def opening(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The special tokens that the tokenizer begins every text with, mostly one or none.

    Those that it may end a text with count nowhere: what a model is to go on with has no end.
    """
    whole, (bare,) = (
        list(tokenizer("a", verbose=False)["input_ids"]),
        plain_tokens(tokenizer, ["a"]),
    )
    starts = range(len(whole) - len(bare) + 1)
    found = next((start for start in starts if whole[start : start + len(bare)] == bare), 0)
    return whole[:found]


def spelled(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """`plain_tokens`, and text are also the control tokens that a tokenizer calls no special ones.

    See `_controls`. Raises as `plain_tokens`.
    """
    found = plain_tokens(tokenizer, texts)
    controls = set(_controls(*_state(tokenizer)).values())
    for number, ids in enumerate(found):
        if not controls.isdisjoint(ids):
            found[number] = _joined(tokenizer, _cutter(tokenizer)(texts[number]).split(_CUT))
    return found


def opened(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts behind what opens them, without an end; raises as `plain_tokens`."""
    first = opening(tokenizer)
    return [first + ids for ids in spelled(tokenizer, texts)]


# ---------------------------------------------------------------------------------- chat templates


def chat_tokens(tokenizer: PreTrainedTokenizerBase, questions: Sequence[str]) -> list[list[int]]:
    """Token ids of each question as a user's only message, open for the model's answer.

    The template's control tokens are such, a default system prompt is kept; control tokens that a
    question spells are text. Nothing is added to what the template writes.

    Raises ValueError for a template that is missing, broken, has no end, does not write the
    question, or refuses it (which question).
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(
            f"the tokenizer {tokenizer.name_or_path!r} has no chat template; expected that of a "
            "chat model: load the tokenizer saved with the chat model, set "
            "tokenizer.chat_template, or pass chat=False for a base model"
        )
    where = f"the chat template of {tokenizer.name_or_path!r}"
    _check(tokenizer, where)
    form, cut = _form(tokenizer, where), _cutter(tokenizer)
    return [
        _joined(tokenizer, _rendered(tokenizer, form(cut(question)), where).split(_CUT))
        for question in questions
    ]


def turn_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The control token that the template writes behind an answer, or None.

    Not every checkpoint with `<|im_end|>` there says that it ends a text.
    """
    if not getattr(tokenizer, "chat_template", None):
        return None
    try:
        _check(tokenizer, "the template")
        text = _rendered(tokenizer, _PROBE, "the template", answer := _PROBE[::-1])
    except ValueError:  # it is no good, or takes no answers
        return None
    rest = text.partition(answer)[2].lstrip()
    controls = _controls(*_state(tokenizer)).items()
    return next((id_ for text, id_ in controls if rest.startswith(text)), None)


def _parts(question: str) -> Any:
    return [{"type": "text", "text": question}]


def _form(tokenizer: PreTrainedTokenizerBase, where: str) -> Callable[[str], Any]:
    """How the template takes a question: as a text, or, in models that see, as a list of parts."""
    try:
        if _PROBE in _rendered(tokenizer, _PROBE, where):
            return str
        failed = None
    except _RefusedError as error:
        failed = error
    try:
        written = _rendered(tokenizer, _parts(_PROBE), where)
    except _RefusedError:
        written = ""
    if _PROBE in written and "'type'" not in written:
        return _parts
    raise failed or ValueError(
        f"{where} does not write the question into the prompt; expected one that takes a single "
        "message of a user: correct it, or save another as chat_template.jinja"
    )


class _RefusedError(ValueError):
    pass


class _NoEndError(BaseException):  # which nothing on the way takes for an error of its own
    pass


def _rendered(
    tokenizer: PreTrainedTokenizerBase, content: Any, where: str, answer: str | None = None
) -> str:
    """The conversation with one message of this content, as the template writes it.

    It is open for an answer, or goes on with the one given.
    """
    messages = [{"role": "user", "content": content}]
    if answer is not None:
        messages.append({"role": "assistant", "content": answer})
    try:
        with _bounded(LONGEST):
            text = tokenizer.apply_chat_template(
                messages, add_generation_prompt=answer is None, tokenize=False, **SWITCHES
            )
    except _NoEndError:
        raise ValueError(
            f"{where} came to no end in {LONGEST:.0f} seconds of computing: it loops; correct it, "
            "or save another as chat_template.jinja"
        ) from None
    except (
        jinja2.TemplateError,
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        shown = str(content).replace(_CUT, "")
        raise _RefusedError(
            f"{where} cannot be applied to {shown[:60]!r} ({type(error).__name__}: {error}); "
            "expected one that takes a single message of a user: correct it, or save another as "
            "chat_template.jinja"
        ) from error
    if len(text) > LARGEST + len(content):
        raise ValueError(f"{where} makes {len(text):,} characters of one question; correct it")
    return str(text)


@contextmanager
def _bounded(seconds: float) -> Iterator[None]:
    """Interrupts a template that computes for longer, in whatever thread this is."""
    end = time.thread_time() + seconds

    def watch(frame: FrameType, event: str, argument: Any) -> Any:
        if time.thread_time() > end:
            raise _NoEndError
        # Lines are watched in templates alone, elsewhere calls.
        return watch if frame.f_code.co_filename == "<template>" else None

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        yield
    finally:
        sys.settrace(before)


def _check(tokenizer: PreTrainedTokenizerBase, where: str) -> None:
    """ValueError for a template that is none, or that raises to a power.

    One step of a power can take longer than anyone waits.
    """
    before = ""
    try:
        for _, kind, value in jinja2.Environment().lex(tokenizer.get_chat_template()):
            if kind == "operator" and value == "**" and before not in ("(", ","):
                raise ValueError("it computes powers (**), which may have no end; take them out")
            before = before if kind == "whitespace" else value
    except jinja2.TemplateSyntaxError:  # said when it is applied
        pass
    except ValueError as error:  # also for several templates by name without a default
        raise ValueError(f"{where} cannot be used: {error}") from error


# ------------------------------------------------------------------------- control tokens as text


def _state(tokenizer: PreTrainedTokenizerBase) -> tuple[PreTrainedTokenizerBase, int, str]:
    """What control tokens depend on."""
    return tokenizer, len(tokenizer), str(getattr(tokenizer, "chat_template", None))


@lru_cache(2)  # some tokenizers have thousands
def _controls(tokenizer: PreTrainedTokenizerBase, size: int, template: str) -> dict[str, int]:
    """The ids of control tokens by how they are written, long ones first.

    Those that the tokenizer calls special; and, of others that some checkpoints have, those like
    `<|this|>` and those in brackets that the chat template writes (`<think>`).
    """
    found = set(tokenizer.all_special_tokens)
    for token in tokenizer.added_tokens_decoder.values():
        text = token.content
        barred = re.fullmatch(r"<[|｜].+[|｜]>", text)
        written = re.fullmatch(r"[^\w\s].*\w.*[^\w\s]", text) and text in template
        if token.special or barred or written:
            found.add(text)
    longest = sorted((one for one in found if len(one) > 1), key=lambda one: (-len(one), one))
    return {one: int(tokenizer.convert_tokens_to_ids(one)) for one in longest}


def _cutter(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], str]:
    """A function that puts a `_CUT` into all that reads like a control token in a text."""
    longest = _controls(*_state(tokenizer))
    if not longest:
        return str
    # Behind the first sign. What follows it is only looked at: they may overlap.
    inside = re.compile("|".join(f"{re.escape(x[0])}(?={re.escape(x[1:])})" for x in longest))
    return lambda text: inside.sub(lambda match: match[0] + _CUT, text)


def _joined(tokenizer: PreTrainedTokenizerBase, pieces: Sequence[str]) -> list[int]:
    """Token ids of a text that is cut into pieces; control tokens within a piece are such."""

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    found, line = ids(pieces[0]), ids("\n")
    for piece in pieces[1:]:
        # Behind a line break: some tokenizers put a space before what begins a text.
        behind = ids("\n" + piece)
        found += behind[len(line) :] if behind[: len(line)] == line else ids(piece)
    return found
