"""What a parameter can be: its type, its choices and its range, checked before anything runs."""

from __future__ import annotations

import math
import os
import re
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml


class Must(NamedTuple):
    """What a value must be besides its type: in words, as they end an error, and as a test."""

    words: str
    holds: Callable[[Any], bool]


def in_range(low: float, high: float) -> Must:
    """A number from `low` to `high`, both included."""
    return Must(
        f"at least {low}" if high == math.inf else f"from {low} to {high}",
        lambda value: low <= value <= high,
    )


def at_least(low: float) -> Must:
    """A number that is `low` or more."""
    return in_range(low, math.inf)


def matching(pattern: str, words: str) -> Must:
    """A text that a regular expression describes as a whole."""
    return Must(words, lambda value: re.fullmatch(pattern, value) is not None)


#: For anything that is no number and has no choices.
NOT_EMPTY = Must("a text that is not empty", lambda value: bool(value.strip()))


_UNWRITABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


class NoSuchPathError(FileNotFoundError, ValueError):
    """A parameter names a file or folder that is not there."""


@dataclass(frozen=True)
class Parameter:
    """One parameter.

    `type_name` is "int", "float", "str", "bool", "list", or "" if anything goes, `entry` that of a
    list's entries. `choices` are the values it can take (those of a list's entries), empty for all,
    and `must` says what else holds of it (of each entry). `path` is "file" or "folder" if it names
    one. `notebooks` are those whose parameter cell names it.
    """

    name: str
    default: Any
    help: str
    type_name: str
    notebooks: tuple[str, ...] = ()
    choices: tuple[Any, ...] = ()
    optional: bool = False
    entry: str = ""
    must: Must | None = None
    path: str = ""

    def check(self, value: Any) -> Any:
        """Return `value`, as a float where one is expected and as a list where one is.

        Raises TypeError if it has another type, and ValueError if it is not finite, not in range,
        not among the choices, or for a list that is empty or repeats itself.
        """
        if value is None and (self.optional or self.default is None):
            return None
        if self.type_name == "float" and isinstance(value, (int, str)):
            value = _as_float(value)  # YAML reads 1e-3 as a string
        elif self.type_name == "list" and isinstance(value, tuple):
            value = list(value)
        elif self.type_name == "str" and isinstance(value, os.PathLike):
            value = os.fspath(value)
        if self.type_name and type(value).__name__ != self.type_name:
            raise TypeError(self._mismatch(value))
        if not isinstance(value, list):
            self._check_one(value)
            return value
        if not value and self.must is not None:
            raise ValueError(f"parameter {self.name} is an empty list; expected at least one entry")
        wanted = self._entries
        for item in value:
            if wanted and type(item).__name__ not in wanted:
                raise TypeError(self._mismatch(value))
            self._check_one(item)
            if value.count(item) > 1:
                raise ValueError(
                    f"parameter {self.name} has {_shown(item)} {value.count(item)} times; expected "
                    "every entry once"
                )
        return value

    def _check_one(self, value: Any) -> None:
        expected = ""
        if isinstance(value, float) and not math.isfinite(value):
            expected = "a finite number"
        elif isinstance(value, str) and self.must is not None and _UNWRITABLE.search(value):
            expected = "one line of text, without control characters"
        elif self.choices and value not in self.choices:
            expected = f"one of {', '.join(map(repr, self.choices))}"
        elif self.must is not None and not self.must.holds(value):
            expected = self.must.words
        if expected:
            raise ValueError(f"parameter {self.name} is {_shown(value)}: expected {expected}")

    def parse(self, text: str) -> Any:
        """Return the value that `text` from the command line means for this parameter."""
        if text in ("None", "null", "~", "") and (self.optional or self.default is None):
            return None
        if self.type_name == "str":
            if text in ("None", "null") and not self.choices:
                raise ValueError(f"parameter {self.name} cannot be {text}: expected a text")
            return self.check(text)
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"parameter {self.name}: cannot read {text!r} as YAML") from error
        if type(value) is int and not re.fullmatch(r"[+-]?(0|[1-9][\d_]*)", text.strip()):
            value = text  # YAML would take 010 for 8 and 1:30 for 90
        return self.check(value)

    def check_path(self, value: Any, root: Path) -> None:
        """Raise NoSuchPathError if the file or folder that `value` names, from `root`, is missing.

        A file where a folder is expected, or the other way round, is missing, too.
        """
        if not self.path or value is None:
            return
        path = root / value
        try:
            there = path.is_dir() if self.path == "folder" else path.is_file()
        except OSError:  # a name that is too long
            there = False
        if not there:
            place = "" if Path(value).is_absolute() or root == Path() else f" in {root}"
            raise NoSuchPathError(
                f"parameter {self.name} is {_shown(value)}, but there is no such {self.path}{place}"
            )

    @property
    def line(self) -> str:
        """Its line in a notebook's parameter cell."""
        default = self.default
        text = f'"{default}"' if isinstance(default, str) else repr(default).replace("'", '"')
        return f"{self.name} = {text}  # {self.help}"

    @property
    def _entries(self) -> set[str]:
        """The types that a list's entries can have; empty for any."""
        return {self.entry} if self.entry else {type(item).__name__ for item in self.default or ()}

    def _mismatch(self, value: Any) -> str:
        hint = ""
        number = _as_float(value) if isinstance(value, str) else value
        if isinstance(value, list) and any(isinstance(item, bool) for item in value):
            hint = " (YAML reads a bare no, yes, on or off as true or false: put it in quotes)"
        elif self.type_name == "int" and isinstance(number, float) and number.is_integer():
            hint = f" (write {int(number)})"
        elif self.type_name == "list" and isinstance(value, str):
            hint = " (write [a, b]; papermill takes a list with -y)"
        expected = self.type_name
        if self.type_name == "list":
            expected += f" of {' or '.join(sorted(self._entries))}" if self._entries else ""
        if self.optional:
            expected += " or None"
        return (
            f"parameter {self.name} is {expected} (default {self.default!r}); "
            f"got {type(value).__name__} {_shown(value)}{hint}"
        )


def check_paths(
    parameters: Mapping[str, Parameter], values: Mapping[str, Any], root: Path = Path()
) -> None:
    """Raise NoSuchPathError for the first of `values` that names a path which is not there.

    Defaults are left to whatever needs them.
    """
    for name, value in values.items():
        if name in parameters and value != parameters[name].default:
            parameters[name].check_path(value, root)


def _shown(value: Any) -> str:
    short = reprlib.Repr()
    short.maxstring = short.maxother = 120
    return short.repr(value)


def _as_float(value: int | str) -> Any:
    if isinstance(value, bool):
        return value
    try:
        return float(value)
    except (ValueError, OverflowError):
        return value
