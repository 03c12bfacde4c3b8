"""What checks of exercises are made of: an answer, the right one, and the usual slips.

A check says that there is nothing yet, that an answer is right, or what is wrong with it: slips are
recognised by the numbers, functions or sets that they lead to. The right answer is computed from
what a page has in hand. Nothing in a stub stops a notebook, whatever it raises.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from crane_lab.show.foreign import as_code, prose

_HEADS = {"nothing": "Nothing here yet.", "right": "Right.", "wrong": "Not yet."}
_UNCHECKED = "This run has nothing to check an answer against."


@dataclass(frozen=True)
class Checked:
    """What a check found; a notebook shows it as a sentence."""

    state: Literal["nothing", "right", "wrong"]
    words: str

    def _repr_markdown_(self) -> str:
        return str(prose(f"**{_HEADS[self.state]}** {self.words}").data)


#: A slip: the numbers that it leads to, and what to say about it.
Slip = tuple[Sequence[float], str]
#: One number, several, or one for each name.
Answer = float | Sequence[float] | Mapping[str, float]


def nothing_yet(what: str) -> Checked:
    """For a stub that is empty; `what` goes into it."""
    return Checked("nothing", f"Put {what} in place of `...` and run the cell again.")


def not_yet(words: str) -> Checked:
    """For an answer that is wrong."""
    return Checked("wrong", words)


def stopped(error: Exception, what: str = "The function stops with an error") -> Checked:
    """For what a reader has written and what raises `error`; `what` says so, then which it is."""
    name, message = type(error).__name__, str(error)
    return not_yet(f"{what}: {as_code(f'{name}: {message}' if message else name)}.")


def returned(mine: Callable[..., Any], cases: Iterable[Sequence[Any]]) -> list[Any] | Checked:
    """What a reader's function returns in each of the `cases`, or what to say if it raises."""
    try:
        return [mine(*case) for case in cases]
    except Exception as error:  # whatever a reader's code may raise
        return stopped(error)


def is_blank(answer: object) -> bool:
    """Whether a part of an answer is missing: `...`, or None, which an empty function returns."""
    if isinstance(answer, Mapping):
        return any(map(is_blank, answer.values()))
    if isinstance(answer, list | tuple):
        return any(map(is_blank, answer))
    return answer is ... or answer is None


def as_numbers(answer: object) -> list[float]:
    """An answer as a flat list of numbers; empty if it is none."""
    try:
        found: list[float] = torch.as_tensor(answer, dtype=torch.float64).flatten().tolist()
    except Exception:  # whatever a reader's object may raise
        return []
    return found


def _same(
    found: Sequence[float], wanted: Sequence[float], within: float, part: float | None = None
) -> bool:
    """Whether numbers agree up to `within`, and up to a `part` of their size where that is less."""

    def near(a: float, b: float) -> bool:
        most = within if part is None else min(within, max(part * abs(b), 1e-3))
        return math.isclose(a, b, rel_tol=1e-6, abs_tol=most)

    return len(found) == len(wanted) and all(map(near, found, wanted))


def slipped(
    answer: object, right: Sequence[float], slips: Iterable[Slip], else_: str, within: float = 1e-4
) -> Checked | None:
    """What is wrong with an answer, or None if it is right up to `within`.

    A slip is recognised up to `within`, too, but no further than a quarter of its own size: where
    the right number is large, `within` may be larger than a slip.
    """
    found = as_numbers(answer)
    if len(found) != len(right):
        count = "One number is" if len(right) == 1 else f"{len(right)} numbers are"
        return not_yet(f"{count} expected here.")
    if _same(found, right, within):
        return None
    return not_yet(
        next((words for numbers, words in slips if _same(found, numbers, within, 0.25)), else_)
    )


def check_numbers(
    answer: object,
    right: Answer,
    slips: Iterable[tuple[Answer, str]],
    *,
    then: str,
    else_: str,
    within: float = 1e-4,
    what: str = "your number",
) -> Checked:
    """Check one number, several in order, or one for each name, up to `within`.

    `slips` have the shape of `right`, each with what to say about it; `then` is said to the right
    answer, `else_` to a wrong one that is no slip; `what` goes into an empty stub.
    """
    if is_blank(answer):
        return nothing_yet(what)
    if isinstance(right, Mapping):
        names = list(right)
        if not isinstance(answer, Mapping) or set(answer) != set(names):
            return not_yet(
                f"A dictionary is expected, with a number for each of {', '.join(names)}."
            )
        answer = [answer[x] for x in names]
    else:
        names = []

    def flat(numbers: Answer) -> list[float]:
        return as_numbers([numbers[x] for x in names] if isinstance(numbers, Mapping) else numbers)

    wanted = flat(right)
    if not wanted or not all(map(math.isfinite, wanted)):
        return Checked("nothing", _UNCHECKED)
    known = [(flat(numbers), words) for numbers, words in slips]
    return slipped(answer, wanted, known, else_, within) or Checked("right", then)


def check_function(
    mine: Callable[..., Any],
    right: Callable[..., float],
    slips: Iterable[tuple[Callable[..., float], str]],
    cases: Iterable[Sequence[float]],
    *,
    then: str,
    else_: str,
    within: float = 1e-6,
) -> Checked:
    """Check a function of numbers by what it returns in some `cases`; `slips` are functions, too.

    `then` and `else_` as in `check_numbers`.
    """
    cases = list(cases)
    answer = returned(mine, cases)
    if isinstance(answer, Checked):
        return answer
    wanted = [right(*case) for case in cases]
    known = [([slip(*case) for case in cases], words) for slip, words in slips]
    if not is_blank(answer) and any(len(as_numbers(one)) != 1 for one in answer):
        return not_yet("The function should return one number.")
    return check_numbers(
        answer, wanted, known, then=then, else_=else_, within=within, what="the formula"
    )


def check_names(
    answer: object,
    right: Collection[str],
    slips: Iterable[tuple[Collection[str], str]],
    *,
    then: str,
    else_: str,
    what: str = "a set of names",
) -> Checked:
    """Check a set of names, in any order and any collection; the rest as in `check_numbers`."""
    if is_blank(answer):
        return nothing_yet(what)
    names = _names(answer)
    if names is None:
        return not_yet('A set of names is expected, such as `{"a", "b"}`, or `set()` for none.')
    if names == set(right):
        return Checked("right", then)
    return not_yet(next((words for slip, words in slips if names == set(slip)), else_))


def _names(answer: object) -> set[str] | None:
    """An answer as a set of names, None if it is none."""
    if isinstance(answer, str):
        return {answer}
    try:
        found: list[Any] = list(answer) if isinstance(answer, Collection) else [None]
    except Exception:  # an array of one name says that it is a collection, and is none
        return None
    return set(found) if all(isinstance(name, str) for name in found) else None
