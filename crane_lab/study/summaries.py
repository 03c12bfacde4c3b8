"""Tables that sum up the studies: from rows as they were measured to rows as they are read.

Nothing is measured here. Each function takes what `choices`, `necessity` or `criteria` returned and
makes a table of it; `crane_lab.show` puts it on a page.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from crane_core.concentration import STATISTICS
from crane_lab.settings import Settings
from crane_lab.store import Store
from crane_lab.study import choices, criteria
from crane_lab.study.necessity import Necessity

#: What a sum of single effects has to reach before a set's effect is divided by it, in nats per
#: token: below it the ratio is noise.
ENOUGH = 0.005
#: Windows per language of the case that is computed again.
FEW = 30
QUANTILES = (0.0, 0.1, 0.5, 0.9, 0.99, 1.0)

# ----------------------------------------------------------------------------- the sweep of choices


def sets_again(
    settings: Settings,
    made_with: Mapping[str, Any],
    sweep: pd.DataFrame,
    n_windows: int = FEW,
    store: Store | None = None,
) -> pd.DataFrame:
    """A small case of the shipped sweep, selected again on this machine.

    Parameters
    ----------
    settings : where this run finds the model, the texts and the tasks; all else is as the shipped
        tables were made with.
    made_with, sweep : as `choices.read` returns them.
    n_windows : a number of windows per language that the sweep tried.
    store : where what is selected from is kept.

    Returns one row per language: `language`, `n_neurons` and `equal`, whether the set is the
    shipped one, neuron for neuron.
    """
    paths = ("model", "corpus", "perplexity_corpus", "tasks")
    original = dataclasses.replace(
        Settings(**made_with["settings"]), **{name: getattr(settings, name) for name in paths}
    )
    few = choices.Variant("n_samples", str(n_windows), {"n_samples": n_windows})
    own = sweep[(sweep["choice"] == few.choice) & (sweep["value"] == few.value)]
    digests = own.set_index("mask_language")["digest"]
    return pd.DataFrame(
        [
            {"language": x, "n_neurons": len(found), "equal": found.digest() == digests[x]}
            for x, found in choices.sets_under(choices.probe(original, store), few).items()
        ]
    )


def default_reading(sweep: pd.DataFrame) -> pd.DataFrame:
    """The rows of `sweep` under the default of every choice, one per language (the index)."""
    own = sweep[(sweep["choice"] == "seed") & sweep["reference"]]
    return own.set_index("mask_language")


def of_choices(sweep: pd.DataFrame) -> pd.DataFrame:
    """How far each choice moves what, most first: the summary that notebook 08 leaves as a file.

    `sweep` as `choices.with_floor` returns it. All numbers but `lowest Jaccard` are departures from
    the reference value, averaged over languages.
    """
    by_measure = {
        measure: choices.departures(sweep, measure).set_index("choice")
        for measure in ("langspec_f1", "langspec_f1_above", "selectivity", "jaccard")
    }
    found = by_measure["langspec_f1"]
    return pd.DataFrame(
        {
            "choice": [choices.LABELS[c] for c in found.index],
            "values": found["values"].to_numpy(),
            "LangSpec-F1, largest": found["largest"].to_numpy(),
            "mean": found["typical"].to_numpy(),
            "above random, largest": by_measure["langspec_f1_above"]
            .loc[found.index, "largest"]
            .to_numpy(),
            "selectivity, largest": by_measure["selectivity"]
            .loc[found.index, "largest"]
            .to_numpy(),
            "lowest Jaccard": by_measure["jaccard"].loc[found.index, "low"].to_numpy(),
        }
    )


def quiet_choices(found: pd.DataFrame) -> list[str]:
    """The choices of `choices.departures` that move a measure no more than a new draw of windows.

    The draw of windows itself, the choice "seed", is left out.
    """
    largest = found.set_index("choice")["largest"]
    return [str(c) for c, value in largest.items() if value <= largest["seed"] and c != "seed"]


def of_statistics(selected: pd.DataFrame, random: pd.DataFrame) -> pd.DataFrame:
    """Each statistic alone and as a contrast, by mean selectivity, most first.

    Parameters
    ----------
    selected : as `choices.compare_statistics` returns it, one row per statistic, how and language.
    random : as `choices.random_floor` returns it; of its masks those with the default's counts per
        layer are compared with.

    Returns
    -------
    `statistic` (its label), `how`, `langspec_f1` and `selectivity` (means over languages),
    `above_random`, in how many languages the interval of LangSpec-F1 lies above every random
    mask's, `own_most`, in how many the mask clearly hurts its own language most, and `repeat`, the
    mean Jaccard of the sets from two halves of the texts.
    """
    floor = random[random["kind"] == "default"].groupby("mask_language")["langspec_f1"].max()
    rows = []
    for (name, how), own in selected.groupby(["statistic", "how"], sort=False):
        above = own["langspec_f1_low"].to_numpy() > floor[own["mask_language"]].to_numpy()
        rows.append(
            {
                "statistic": STATISTICS[str(name)].label,
                "how": how,
                "langspec_f1": own["langspec_f1"].mean(),
                "above_random": int(above.sum()),
                "selectivity": own["selectivity"].mean(),
                "own_most": int((own["verdict"] == "larger").sum()),
                "repeat": own["repeat"].mean(),
            }
        )
    return pd.DataFrame(rows).sort_values("selectivity", ascending=False, ignore_index=True)


# -------------------------------------------------------------------------------- single ablations


def spread(necessity: Necessity) -> pd.DataFrame:
    """How the loss increases of single ablations are spread, by value and language, in nats.

    Quantiles over all neurons, the median standard error over texts, and which share of all
    increases falls to the one percent of neurons that matter most.
    """
    rows = []
    for value in necessity.values:
        for x in necessity.languages:
            effect = necessity.necessity(x, value)
            flat = effect.value.flatten().numpy()
            top = np.sort(np.clip(flat, 0, None))[::-1]
            rows.append(
                {
                    "set to": value,
                    "language": x,
                    **{f"{q:.0%}": np.quantile(flat, q) for q in QUANTILES},
                    "standard error": float(effect.error.median()),
                    "top 1 % of neurons": top[: round(len(top) / 100)].sum() / top.sum(),
                }
            )
    return pd.DataFrame(rows)


def significant_counts(necessity: Necessity, level: float) -> pd.DataFrame:
    """How many neurons are significantly necessary or selective, in all and by layer.

    `level` is the false-discovery rate. Columns: set_to, language, kind, n, share, layer_0, ….
    """
    rows = []
    for value in necessity.values:
        for x in necessity.languages:
            for kind in criteria.KINDS:
                hit = necessity.significant(x, kind, value, level)
                rows.append(
                    {
                        "set_to": value,
                        "language": x,
                        "kind": kind,
                        "n": int(hit.sum()),
                        "share": float(hit.double().mean()),
                        **{f"layer_{i}": int(n) for i, n in enumerate(hit.sum(1))},
                    }
                )
    return pd.DataFrame(rows)


def zero_against_mean(necessity: Necessity) -> dict[str, float]:
    """Language -> rank correlation of selectivity at zero with that at the mean, over all neurons.

    Empty if neurons were set to one value only.
    """
    if not {"zero", "mean"} <= set(necessity.values):
        return {}
    found = {}
    for x in necessity.languages:
        zero, mean = (
            pd.Series(necessity.selectivity(x, value).value.flatten().numpy())
            for value in ("zero", "mean")
        )
        found[x] = float(zero.corr(mean, method="spearman"))
    return found


# ----------------------------------------------------------------- criteria, and masking whole sets


def overall(agreed: pd.DataFrame, value: str = "zero") -> pd.DataFrame:
    """Correlations with selectivity as means over languages, highest first.

    `agreed` is `criteria.rank_agreement`'s table with `set_to`, the value neurons were set to.
    """
    own = agreed[
        (agreed["set_to"] == value)
        & (agreed["language"] == "all")
        & (agreed["truth"] == "selectivity")
    ]
    return own.sort_values("rho", ascending=False, kind="stable")


def mean_damage(damaged: pd.DataFrame, budget: int, column: str = "difference") -> pd.Series:
    """A column of `damage.damage` at a budget as a mean over seeds and languages, most first."""
    own = damaged[damaged["budget"] == budget].groupby(["criterion", "language"])[column].mean()
    return own.groupby("criterion").mean().sort_values(ascending=False)


def clear_hits(damaged: pd.DataFrame, names: Iterable[str], budget: int) -> dict[str, list[str]]:
    """Criterion -> the languages whose set does clearly what a language-specific set should.

    Clearly: the masked language's loss rises more than any other's by more than two standard
    errors, and that lead is larger than every random set's.
    """
    here = damaged[damaged["budget"] == budget]
    random = here[here["criterion"] == "random order"]
    floor = random.groupby("language")["difference"].max()
    found: dict[str, list[str]] = {}
    for name in names:
        own = here[here["criterion"] == name]
        least = own["difference"] - 2 * own["difference_se"]
        bar = own["language"].map(floor).fillna(0.0).clip(lower=0.0)
        found[name] = own.loc[least > bar, "language"].to_list()
    return found


def ahead_of_greedy(damaged: pd.DataFrame, budget: int) -> dict[str, list[str]]:
    """Language -> the orders whose set beats the greedy search's by the lead of its own loss."""
    found = {}
    here = damaged[damaged["budget"] == budget]
    for x, own in here.groupby("language", sort=False):
        greedy = own.loc[own["criterion"] == "greedy search", "difference"]
        if len(greedy):
            ahead = own.loc[own["difference"] > float(greedy.iloc[0]), "criterion"].to_list()
            if ahead:
                found[str(x)] = ahead
    return found


def additivity(added: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Effect of a set over the sum of its neurons' effects, by kind of set and budget.

    Parameters
    ----------
    added : as `damage.predicted` returns it; sums below `ENOUGH` are left out.
    names : the criteria, which are one kind together.

    Returns rows of `kind`, `budget` and the quartiles `low`, `median` and `high` of the ratio.
    """
    enough = added[added["predicted"] > ENOUGH]
    kinds = {
        "random order": ["random order"],
        "criteria": list(names),
        "single effects": ["single effects"],
        "greedy search": ["greedy search"],
    }
    rows = []
    for kind, members in kinds.items():
        for budget, own in enough[enough["criterion"].isin(members)].groupby("budget"):
            low, median, high = (own["ratio"].quantile(q) for q in (0.25, 0.5, 0.75))
            rows.append((kind, budget, low, median, high))
    return pd.DataFrame(rows, columns=["kind", "budget", "low", "median", "high"])
