"""Ways to score neurons for a language that could do better than CRANE's: the candidates.

A candidate is a statistic of each neuron in each language, how languages are set against each other
(`FORMS`), and how the neurons of a budget are spread over layers. `EXPLORED` has every one that was
tried; which of them is confirmed on other languages is set down before (`data/criterion`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from crane_core.selection import contrast_of, normalise, relative_contrast
from crane_lab.pipeline import Pipeline
from crane_lab.study.criteria import (
    Score,
    gradient_x_activation,
    lape_places,
    order,
    relative_shares,
)

#: statistic -> what it is: those of relevance (`concentration.STATISTICS`), and others.
RELEVANCE = ("mean_abs", "signed_mean", "variance", "kurtosis")
GRADIENT, LAPE = "gradient_x_activation", "lape_order"
STATISTICS = (*RELEVANCE, GRADIENT, LAPE)
#: How languages are set against each other: not at all; own less the largest other; that as a share
#: of the sum over languages; own as a share of that sum.
FORMS = ("alone", "difference", "relative", "share")
#: On which scale a statistic is before that: as it is, or as CRANE's kurtosis within each layer.
SCALES = ("", "zscore", "ratio")
#: A budget's neurons: the best of all layers together, or the best of each, as many in every one.
SPREADS = ("all layers", "each layer")


@dataclass(frozen=True)
class Candidate:
    """One way to score neurons; `floor` is `relative_contrast`'s, for the two forms of shares.

    Raises ValueError for what is none of the choices, or does not go together.
    """

    statistic: str
    form: str = "relative"
    floor: float = 0.5
    scale: str = ""
    spread: str = SPREADS[0]

    def __post_init__(self) -> None:
        for name, known in (
            ("statistic", STATISTICS),
            ("form", FORMS),
            ("scale", SCALES),
            ("spread", SPREADS),
        ):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"unknown {name} {getattr(self, name)!r} of a candidate: expected one of "
                    f"{', '.join(map(repr, known))}"
                )
        if self.shared and (self.scale or self.statistic in ("signed_mean", LAPE)):
            raise ValueError(f"{self.name}: only an amount of 0 or more can be shared out")
        if self.form == "share" and self.floor != 0.5:
            raise ValueError(f"{self.name}: a plain share is known with the floor 0.5 alone")

    @property
    def shared(self) -> bool:
        """Whether the sum over languages is divided by."""
        return self.form in ("relative", "share")

    @property
    def name(self) -> str:
        """All choices in words, such as "mean_abs, relative, floor 0.5"."""
        parts = [self.statistic, self.form]
        parts += [f"floor {self.floor:g}"] if self.shared else []
        parts += [self.scale] if self.scale else []
        parts += [self.spread] if self.spread != SPREADS[0] else []
        return ", ".join(parts)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Candidate:
        """A candidate as a file has it, field by field.

        Raises ValueError for a field that there is not, or a value that cannot be.
        """
        if unknown := set(given) - set(cls.__dataclass_fields__):
            raise ValueError(
                f"a candidate has no {sorted(unknown)[0]!r}: expected some of "
                f"{', '.join(cls.__dataclass_fields__)}"
            )
        return cls(**given)

    def as_dict(self) -> dict[str, Any]:
        """What `of` takes."""
        return asdict(self)


#: The paper's criterion, the baseline's order, and relevance without any contrast.
CRANE = Candidate("kurtosis", "difference", scale="zscore")
BASELINES = (CRANE, Candidate(LAPE, "alone"), Candidate("mean_abs", "alone"))
_SHARED = ("mean_abs", "variance", GRADIENT)
#: Every candidate that was tried.
EXPLORED = (
    *BASELINES,
    *(Candidate(name, "difference") for name in ("mean_abs", "signed_mean", "variance", GRADIENT)),
    *(Candidate("mean_abs", "difference", scale=scale) for scale in ("zscore", "ratio")),
    *(
        Candidate(name, "relative", floor)
        for name in _SHARED
        for floor in (0, 0.25, 0.5, 0.75, 0.9)
    ),
    *(Candidate(name, "share") for name in _SHARED),
    Candidate("kurtosis", "relative"),
    Candidate("mean_abs", "relative", spread="each layer"),
    Candidate("mean_abs", "difference", spread="each layer"),
    Candidate("signed_mean", "difference", spread="each layer"),
)
#: Those of them that are tried on a larger model, where a mask takes half a minute.
FEW = (
    *BASELINES[:2],
    *(Candidate(name, "difference") for name in ("mean_abs", "signed_mean", GRADIENT)),
    *(Candidate("mean_abs", "relative", floor) for floor in (0, 0.5, 0.9)),
    Candidate(GRADIENT, "relative"),
    Candidate("variance", "relative"),
    Candidate("mean_abs", "relative", spread="each layer"),
)

#: Those that are held against random masks: the ones of the plan in `data/criterion`.
HELD = (
    *BASELINES[:2],
    *(Candidate(name, "difference") for name in ("signed_mean", GRADIENT)),
    *(Candidate(name) for name in ("mean_abs", GRADIENT)),
)


#: What candidates' names are made of, in words; whole names first.
_WORDS = {
    "kurtosis, difference, zscore": "CRANE’s (kurtosis, difference, z-score)",
    "lape_order, alone": "LAPE’s order",
    "signed_mean": "signed mean",
    "mean_abs": "mean |relevance|",
    "gradient_x_activation": "gradient × activation",
    "zscore": "z-score",
    "little_harm": "little harm",
}


def worded(text: object) -> str:
    """A text with the names of candidates in it as readers are shown them."""
    said = str(text)
    for name, words in _WORDS.items():
        said = said.replace(name, words)
    return said


def statistics_of(pipeline: Pipeline, wanted: Iterable[str]) -> dict[str, Score]:
    """What candidates are made of: statistic -> language -> float64 (layers, neurons)."""
    found: dict[str, Score] = {}
    for name in dict.fromkeys(wanted):
        if name == GRADIENT:
            found[name] = gradient_x_activation(pipeline)
        elif name == LAPE:
            found[name] = lape_places(pipeline)
        else:
            every = pipeline.statistic("intermediate", name)
            found[name] = {x: v for x, v in every.items() if isinstance(v, Tensor)}
    return found


def candidate_scores(candidate: Candidate, statistics: Mapping[str, Score]) -> dict[str, Tensor]:
    """A candidate's score of every neuron: language -> (layers, neurons); large is taken first.

    `statistics` as `statistics_of` gives them, among all languages that are compared.
    """
    values = statistics[candidate.statistic]
    if candidate.scale:
        values = {x: normalise(v, candidate.scale) for x, v in values.items()}
    if candidate.form == "alone":
        return dict(values)
    if candidate.form == "difference":
        return {x: contrast_of(values, x) for x in values}
    if candidate.form == "relative":
        return {x: relative_contrast(values, x, candidate.floor) for x in values}
    return relative_shares(values)


def ordered(candidate: Candidate, score: Tensor) -> Tensor:
    """Places in the flattened (layers, neurons) in the order in which a budget takes them."""
    if candidate.spread == SPREADS[0]:
        return order(score)
    filled = torch.where(score.isnan(), -torch.inf, score.double())
    place = filled.argsort(dim=1, descending=True, stable=True).argsort(dim=1, stable=True)
    best = filled.flatten().argsort(descending=True, stable=True)
    return best[place.flatten()[best].argsort(stable=True)]
