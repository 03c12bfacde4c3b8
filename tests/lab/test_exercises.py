"""What the stubs of exercises say: to the right answer, to each usual slip, to an empty stub."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, cast

import jupytext
import pytest
import torch
from torch import Tensor

from crane_core.baselines import random_matched
from crane_core.metrics import langspec_f1
from crane_core.neurons import NeuronSet
from crane_core.selection import normalise, select
from crane_lab.show import exercises
from crane_lab.show.checks import Checked
from crane_lab.store import ROOT
from crane_lab.study.necessity import Necessity

SHAPE = {"intermediate": (4, 64), "down": (4, 16)}
LANGUAGES = ("en", "zh", "vi")


def scores(seed: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        x: torch.rand((4, 64), generator=draw, dtype=torch.float64).pow(-0.5) for x in LANGUAGES
    }


MAGNITUDE, KURTOSIS = scores(0), normalise(scores(1), "zscore")
SCALED = normalise(MAGNITUDE, "zscore")


def sets(given: Mapping[str, Tensor], rule: str = "contrast") -> dict[str, NeuronSet]:
    return {x: select(given, x, rule=rule, threshold=1.0) for x in LANGUAGES}


def by_magnitude(answer: object) -> Checked:
    return exercises.sets_by_magnitude(answer, MAGNITUDE, KURTOSIS, "zscore", 1.0)


# The largest set: 3, 10, 0 and 2 in its layers; a quarter of the outputs of `down_proj` is 4.
LARGEST = NeuronSet.from_flat([0, 1, 2, *range(64, 74), 200, 201], SHAPE)


def down(*counts: int, drawn: bool = True) -> NeuronSet:
    mask = torch.arange(16).expand(4, 16) < torch.tensor(counts)[:, None]
    first = NeuronSet({"down": mask}, SHAPE)
    return random_matched(first, 0) if drawn else first


def in_down(answer: object) -> Checked:
    return exercises.random_down_set(answer, LARGEST)


class Effects:
    """Significant neurons of two languages: 8 at zero, 6 at the mean, 4 at both, and half that."""

    languages, values = ("en", "zh"), ["zero", "mean"]

    def significant(self, language: str, kind: str, value: str, level: float) -> Tensor:
        assert (kind, level) == ("necessity", 0.05)
        first, last = {"zero": (0, 8), "mean": (4, 10)}[value]
        found = torch.zeros((2, 8), dtype=torch.bool)
        found.view(-1)[first:last] = True
        found.view(-1)[9:] = False
        return found if language == "en" else found & (torch.arange(8) % 2 == 0)


def at_both(answer: object) -> Checked:
    return exercises.share_at_both(answer, cast(Necessity, Effects()), 0.05)


def reading(**how: Any) -> Callable[[Any, Any, str], float]:
    return lambda before, after, target: langspec_f1(before, after, target, **how).f1


def uncut(before: dict[str, float], after: dict[str, float], target: str) -> float:
    drops = {x: 1 - after[x] / before[x] for x in before}
    own = drops.pop(target)
    precision = own / (own + sum(drops.values()) / 2)
    return 2 * precision * own / (precision + own)


hand = exercises.relevance_by_hand
mean_relative, silu = exercises.mean_and_relative, exercises.silu_states
changed, chance = exercises.counted_changes, exercises.shared_by_chance

RIGHT = {
    "by hand": lambda: hand(12, [6, 6, 0], torch.tensor([16.0, -4.0])),
    "magnitude": lambda: by_magnitude(sets(SCALED)),
    "down": lambda: in_down(down(3, 4, 0, 2)),
    "choices": lambda: mean_relative(reading(how="mean", relative=True)),
    "at both": lambda: at_both({"en": 0.5, "zh": 0.5}),
    "silu": lambda: silu([-0.23, 0.09], [0.17]),
    "changed": lambda: changed(10, 0.002, 0.25),
    "chance": lambda: chance((78, 4.9), (267, 16.7)),
}

EMPTY = {
    "by hand": lambda: hand(12, ..., ...),
    "magnitude": lambda: by_magnitude(dict.fromkeys(LANGUAGES, ...)),
    "down": lambda: in_down(...),
    "choices": lambda: mean_relative(lambda before, after, target: None),
    "at both": lambda: at_both({"en": 0.5, "zh": ...}),
    "silu": lambda: silu(..., ...),
    "changed": lambda: changed(10, ..., ...),
    "chance": lambda: chance((78, 4.9), ...),
}

WRONG: dict[str, list[tuple[Callable[[], Checked], str]]] = {
    "by hand": [
        (lambda: hand(13, [6, 6, 1], [0, 0]), "below 0 before ReLU"),
        (lambda: hand(5, [6, 0, -1], [3, 2]), "for the first input"),
        (lambda: hand(11, [6, 6, 0], [16, -4]), "The output is not right"),
        (lambda: hand(12, [3, 2, 0], [16, -4]), "These are the hidden units"),
        (lambda: hand(12, [2, 3, -1], [16, -4]), "weights v alone"),
        (lambda: hand(12, [6, 6, 1], [16, -4]), "so is its relevance"),
        (lambda: hand(12, [6, 6], [16, -4]), "3 numbers are expected"),
        (lambda: hand("twelve", [6, 6, 0], [16, -4]), "One number is expected"),
        (lambda: hand(12, [5, 6, 0], [16, -4]), "the relevance of the hidden units is not"),
        (lambda: hand(12, [6, 6, 0], [8, 4]), "keep their signs"),
        (lambda: hand(12, [6, 6, 0], [4, 2]), "The second one's"),
        (lambda: hand(12, [6, 6, 0], [12, -6]), "The first one's"),
        (lambda: hand(12, [6, 6, 0], [-4, 16]), "wrong order"),
        (lambda: hand(12, [6, 6, 0], [6, 6]), "but the shares are not"),
        (lambda: hand(12, [6, 6, 0], [6, 5]), "does not add up"),
    ],
    "magnitude": [
        (lambda: by_magnitude(sets(KURTOSIS)), "the sets of kurtosis"),
        (lambda: by_magnitude(sets(MAGNITUDE)), "magnitudes as they are"),
        (lambda: by_magnitude(sets(SCALED, "threshold")), "whatever they are in the others"),
        (
            lambda: by_magnitude(sets(SCALED) | {"zh": sets(SCALED)["en"]}),
            "another language's set",
        ),
        (lambda: by_magnitude(sets(normalise(MAGNITUDE, "ratio"))), "Not the expected sets"),
        (lambda: by_magnitude(sets(SCALED)["en"]), "A dictionary is expected"),
        (lambda: by_magnitude(SCALED), "A NeuronSet is expected for each"),
    ],
    "down": [
        (lambda: in_down(LARGEST), 'are the site "down"'),
        (lambda: in_down(down(3, 10, 0, 2)), "more than a quarter"),
        (lambda: in_down(down(4, 4, 1, 0)), "not the number in each layer"),
        (lambda: in_down(down(3, 4, 0, 0)), "Some layers do not have"),
        (lambda: in_down(down(3, 4, 0, 2, drawn=False)), "no draw"),
        (lambda: in_down([(0, 1)]), "A NeuronSet is expected"),
        (
            lambda: in_down(NeuronSet({"down": torch.ones((2, 16), dtype=torch.bool)})),
            "another number of layers",
        ),
    ],
    "choices": [
        (lambda: mean_relative(reading()), "Equation 3 as it stands"),
        (lambda: mean_relative(reading(how="mean")), "drops are absolute"),
        (lambda: mean_relative(reading(relative=True)), "but the largest"),
        (lambda: mean_relative(reading(how="sum", relative=True)), "are added up"),
        (lambda: mean_relative(reading(how="sum")), "absolute drops, added up"),
        (lambda: mean_relative(uncut), "counts it as 0"),
        (lambda: mean_relative(langspec_f1), "Return its .f1"),
        (lambda: mean_relative(lambda before, after, target: 0.5), "Not the expected numbers"),
    ],
    "at both": [
        (lambda: at_both({"en": 4, "zh": 2}), "numbers of neurons"),
        (lambda: at_both({"en": 50, "zh": 50}), "percent"),
        (lambda: at_both({"en": 4 / 5, "zh": 2 / 3}), "at the mean. The question"),
        (lambda: at_both({"en": 4 / 9, "zh": 2 / 5}), "necessary at either"),
        (lambda: at_both({"en": 5 / 8, "zh": 3 / 4}), "one number by the other"),
        (lambda: at_both({"en": 0.1, "zh": 0.2}), "Not the expected shares"),
        (lambda: at_both(0.5), "A dictionary is expected"),
    ],
    "silu": [
        (lambda: silu([0.336, 0.542], [0.17]), "That is σ(x)"),
        (lambda: silu([0, 0.17], [0.17]), "That is ReLU"),
        (lambda: silu([-0.68, 0.17], [0.17]), "These are the inputs"),
        (lambda: silu([-0.452, 0.078], [0.17]), "Look at the sign"),
        (lambda: silu([1, 2], [0.17]), "outputs are not right"),
        (lambda: silu([-0.23, 0.09], []), "really no input"),
        (lambda: silu([-0.23, 0.09], [-0.68, 0.17]), "how far down"),
        (lambda: silu([-0.23, 0.09], 0.09), "as printed"),
    ],
    "changed": [
        (lambda: changed(5, 0, 0), "how many items is that"),
        (lambda: changed(20, 0, 0), "no item has changed for the worse"),
        (lambda: changed(12, 0, 0), "all of them change for the better"),
        (lambda: changed(10, 0.00098, 0), "take both sides"),
        (lambda: changed(10, 0.5, 0), "The first p-value"),
        (lambda: changed(10, 0.002, 0.1225), "take both sides"),
        (lambda: changed(10, 0.002, 0.0020), "half of them are for the better"),
        (lambda: changed(10, 0.002, 0.2026), "count as well"),
        (lambda: changed(10, 0.002, 0.9), "The second p-value"),
    ],
    "chance": [
        (lambda: chance((0.0381, 0.0024), (0, 0)), "Multiply by the number"),
        (lambda: chance((80, 10), (0, 0)), "How many would chance give"),
        (lambda: chance((4.9, 78), (0, 0)), "wrong order"),
        (lambda: chance((1, 2), (0, 0)), "with the share of the layer"),
        (lambda: chance((78, 4.9), (78, 4.9)), "whole layer again"),
        (lambda: chance((78, 4.9), (22.9, 1.43)), "The other way round"),
        (lambda: chance((78, 4.9), (1, 2)), "put 600"),
    ],
}


def shown(checked: Checked) -> str:
    """What a reader sees, without the signs of Markdown."""
    return re.sub(r"[*`]", "", checked._repr_markdown_())


@pytest.mark.parametrize("name", RIGHT)
def test_the_right_answer_passes(name: str) -> None:
    found = RIGHT[name]()
    assert found.state == "right", found
    assert shown(found).startswith("Right. ")


@pytest.mark.parametrize("name", RIGHT)
def test_an_empty_stub_is_no_mistake(name: str) -> None:
    found = EMPTY[name]()
    assert found.state == "nothing"
    assert shown(found).startswith("Nothing here yet. Put ")


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.filterwarnings("ignore::crane_core.selection.SelectionWarning")
def test_each_slip_has_its_explanation(name: str) -> None:
    said = []
    for answer, words in WRONG[name]:
        found = answer()
        assert found.state == "wrong" and words in shown(found), (words, found)
        said.append(found.words)
    # A hint that fits every mistake would fit none.
    assert len(set(said)) >= len(said) - 1


def test_a_run_without_the_mean_cannot_be_checked() -> None:
    effects = Effects()
    effects.values = ["zero"]
    found = exercises.share_at_both({"en": 1, "zh": 1}, cast(Necessity, effects), 0.05)
    assert found.state == "nothing"


# --- on the pages ---------------------------------------------------------------------------------

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))


def cells(name: str) -> str:
    return "\n".join(cell.source for cell in jupytext.read(ROOT / "notebooks" / name).cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_titles_say_how_hard_and_how_long(path: Any) -> None:
    titles = re.findall(r"```\{exercise(?:-start)?\}(.*)", cells(path.name))
    assert titles
    for title in titles:
        assert re.search(r"\S · (easy|medium|hard), \d+ minutes$", title), title


@pytest.mark.parametrize(
    "path",
    [path for path in NOTEBOOKS if "exercises." in path.read_text("utf-8")],
    ids=lambda path: path.stem,
)
def test_a_hint_comes_before_the_solution(path: Any) -> None:
    """And the stub before both: nothing of the answer is seen by accident."""
    text = cells(path.name)
    for start in re.finditer(r"```\{exercise-start\}.*\n:label: (\S+)", text):
        solution = re.search(rf"```\{{solution(-start)?\}} {start[1]}\n", text)
        assert solution
        end = solution.start()
        part = text[start.end() : end]
        if "exercises." in part:
            stub, hint = part.index("exercises."), part.index("```{dropdown} Hint")
            assert "..." in part[:stub] and stub < hint


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_exercise_has_a_hint(path: Any) -> None:
    text = cells(path.name)
    for start in re.finditer(r"```\{exercise(?:-start)?\}(.*) · .*\n:label: (\S+)", text):
        solution = re.search(rf"```\{{solution(-start)?\}} {start[2]}\n", text)
        assert solution, start[1]
        hinted = "```{dropdown} Hint" in text[start.end() : solution.start()]
        assert hinted, start[1]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_exercises_have_a_heading_and_the_next_page_comes_after(path: Any) -> None:
    """Where the book's quick questions are put in; without it they would follow the last line."""
    text = cells(path.name)
    heading = re.search(r"^## Exercises?$", text, re.MULTILINE)
    assert heading and text.count("```{exercise", 0, heading.start()) == 0
    between = text[heading.end() : text.index("```{exercise")]
    assert not between.strip()
    assert text.rindex("\nNext: ") > heading.end()


def test_these_have_stubs() -> None:
    with_stubs = {p.stem.split("_")[0] for p in NOTEBOOKS if "\nexercises." in p.read_text("utf-8")}
    first = "00 00b 01 02 02b 02c 03b 04 04b 04c 05 06 07 07b 08 08b 09 09b 09c 10 11 method"
    later = "12b 13 13b 13c 14 14b 15 16 17 18b 18c 19 19b"
    assert with_stubs >= {*first.split(), *later.split()}
