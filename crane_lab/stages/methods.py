"""The rows of Table 1: which neurons each method masks for each language (§4.2).

A new row of the table is an entry in `METHODS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from crane_core import baselines
from crane_core.selection import NeuronSet
from crane_lab.stages.identification import Identification
from crane_lab.stages.outcomes import Row

#: language -> neurons.
Sets = Mapping[str, NeuronSet]


def _lape(of: Identification, crane: Sets) -> Sets:
    return baselines.lape(*of.activation_counts(), shape=of.shape)


def _lape_matched(of: Identification, crane: Sets) -> Sets:
    counts = {language: len(neurons) for language, neurons in crane.items()}
    return baselines.lape_matched(*of.activation_counts(), counts, shape=of.shape)


#: name of the row -> the neurons it masks, from the run and CRANE's own sets, whose sizes a budget
#: is matched to. All but CRANE are for intermediate neurons only.
METHODS: dict[str, Callable[[Identification, Sets], Sets]] = {
    "LAPE": _lape,
    "LAPE matched": _lape_matched,
    "CRANE": lambda of, crane: crane,
}
#: Rows that exist for projections, too.
AT_ANY_SITE = ("CRANE",)


def rows(of: Identification, site: str | None = None) -> list[Row]:
    """Every method's row for every language, and random controls of CRANE's, one per seed.

    Beside intermediate neurons, projections are set to zero whatever the settings' mask value: the
    other values are known for intermediate neurons only.
    Raises ValueError if another value is asked for where the settings' own site is projections.
    """
    crane = of.neuron_sets(site)
    inner = (site or of.settings.site) == "intermediate"
    value = None if inner or of.settings.site != "intermediate" else "zero"
    found = [
        Row(name, x, of.masking(neurons, value))
        for name, method in METHODS.items()
        if inner or name in AT_ANY_SITE
        for x, neurons in method(of, crane).items()
    ]
    return found + [
        Row("Random", x, of.masking(baselines.random_matched(neurons, seed), value), seed)
        for x, neurons in crane.items()
        for seed in of.settings.random_seeds
    ]
