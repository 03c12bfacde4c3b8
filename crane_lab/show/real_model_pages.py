"""The causal check of a real model: criteria against ablations of a sample, and damage curves.

`names` is everywhere language -> its name. Tables are those of `crane_lab.cli.real_model`:
`agreed` is `criteria_correlations`, `tops` `criteria_precision`, `damaged` `criteria_damage` and
`effects` `single_effects`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown
from pandas.io.formats.style import Styler

from crane_lab.show import figures
from crane_lab.show.alternative import in_short
from crane_lab.show.criteria_pages import RANDOM, by_languages, damage_bands
from crane_lab.show.explorer import choice_view
from crane_lab.show.foreign import as_markdown, prose
from crane_lab.study import criteria, sampled, summaries

#: Columns of `damaged` -> what is on the axis.
LOSSES = {
    "own": "increase of the masked language's loss (nats)",
    "other": "largest increase of another's loss (nats)",
}

# ------------------------------------------------------------------------------------- the sample


def sampled_in_words(made: Mapping[str, Any], names: Mapping[str, str]) -> Markdown:
    """How many neurons were ablated, on how much text; `made` is `made.json`."""
    about, effects = made["sample"], made["effects"]
    layers, width = made["shape"]
    window, total = made["settings"]["window"], layers * width
    return prose(
        f"{about['neurons']:,} of {total:,} neurons ({about['neurons'] / total:.1%}): "
        f"{about['random_per_layer']} drawn from each of {layers} layers, and the first "
        f"{about['top']} of each of {len(about['main_criteria'])} criteria in each of "
        f"{len(names)} languages. Set to {' and to their '.join(effects['values'])}, on "
        f"{effects['exact']} windows of {window} tokens a language. On {effects['texts']} windows, "
        "these among them, there is an estimate from the gradient of the loss, which is corrected "
        "by what the ablations show where both are known."
    )


#: What neurons that no criterion put there are called among lists.
_DRAWN = "drawn at random"


def effects_chosen(effects: pd.DataFrame, names: Mapping[str, str], most: int = 12) -> HTML:
    """Single neurons of the sample, by the criterion and the language whose first they are.

    Of each list the `most` whose ablation costs that language most, in thousandths of a nat per
    token, with 95 % over texts. Neurons drawn at random are a list for every language.
    """
    before = list(effects).index(f"zero_{next(iter(names))}")
    lists = [str(name) for name in effects.columns[3:before]]
    rows = []
    for what in [*lists, _DRAWN]:
        for x, name in names.items():
            if what == _DRAWN:
                own = effects[effects["random"].astype(bool)]
            else:
                own = effects[effects[what].fillna("").str.split().map(lambda of, x=x: x in of)]
            own = own.sort_values(f"zero_{x}", ascending=False)
            middle = f"{_thousandths(own[f'zero_{x}'].median())}"
            for row in own.head(most).to_dict("records"):
                selective = [y for y in names if row[f"zero_{y}_selective"]]
                rows.append(
                    {
                        **{"first neurons by": what, "for": name},
                        "neurons on the list": str(len(own)),
                        "median effect on the language": middle,
                        "layer.neuron": f"{row['layer']}.{row['neuron']}",
                        **{
                            names[y]: f"{_thousandths(row[f'zero_{y}'])}\u00a0±\u00a0"
                            f"{1000 * 1.96 * row[f'zero_{y}_se']:.2f}"
                            for y in names
                        },
                        "selective for": ", ".join(names[y] for y in selective) or "none",
                    }
                )
    return choice_view(
        pd.DataFrame(rows),
        ["first neurons by", "for"],
        ["layer.neuron", *names.values(), "selective for"],
        f"What setting a neuron to zero adds to each language's loss, in thousandths of a nat per "
        f"token (95 % over texts): the {most} of the list with the largest effect on the language",
        above=["neurons on the list", "median effect on the language"],
    )


def _thousandths(nats: float) -> str:
    return f"{1000 * nats:+.2f}".replace("-", "−")


def effects_summary(effects: pd.DataFrame, names: Mapping[str, str], value: str = "zero") -> Styler:
    """What single ablations do in each language, among random neurons and in the whole sample."""
    drawn = effects["random"].astype(bool)
    rows = []
    for x, name in names.items():
        column = f"{value}_{x}"
        rows.append(
            {
                "language": name,
                "median": 1000 * effects.loc[drawn, column].median(),
                "90 %": 1000 * effects.loc[drawn, column].quantile(0.9),
                "standard error": 1000 * effects.loc[drawn, f"{column}_se"].median(),
                "selective, random": effects.loc[drawn, f"{column}_selective"].mean(),
                "selective, others": effects.loc[~drawn, f"{column}_selective"].mean(),
            }
        )
    return figures.table(
        pd.DataFrame(rows),
        "Increase of the loss by ablating a random neuron (millinats per token): median, 90th "
        "percentile, median standard error over texts; and the share that is significantly "
        f"selective among the {int(drawn.sum())} random neurons and among the "
        f"{int((~drawn).sum())} others, which some criterion puts first for some language (tested "
        "apart)",
        {
            **dict.fromkeys(("median", "90 %"), "{:+.2f}"),
            "standard error": "{:.2f}",
            **dict.fromkeys(("selective, random", "selective, others"), "{:.0%}"),
        },
    )


# ------------------------------------------------------------------------ against single ablations


def _of(agreed: pd.DataFrame, value: str, truth: str, part: str = sampled.RANDOM) -> pd.DataFrame:
    own = agreed[(agreed["set_to"] == value) & (agreed["truth"] == truth)]
    return own[own["part"] == part] if "part" in own else own


def _overall(agreed: pd.DataFrame, value: str, truth: str) -> pd.DataFrame:
    """Means over languages by criterion, highest first."""
    own = _of(agreed, value, truth)
    own = own[own["language"] == "all"].set_index("criterion")
    return own.sort_values("rho", ascending=False, kind="stable")


#: Model -> how criteria rank its neurons (`criteria_correlations`), and how well the effects that
#: they are held against repeat (`criteria.split_half`).
Ranked = Mapping[str, tuple[pd.DataFrame, pd.DataFrame]]


def _in_all(ranked: Ranked, value: str, truth: str) -> dict[str, pd.DataFrame]:
    """Model -> means over languages of the criteria that every model has, highest first."""
    means = {model: _overall(agreed, value, truth) for model, (agreed, _) in ranked.items()}
    shared = set.intersection(*(set(mean.index) for mean in means.values()))
    return {model: mean[mean.index.isin(shared)] for model, mean in means.items()}


def correlations_beside(
    ranked: Ranked, names: Mapping[str, str], value: str = "zero", truth: str = "selectivity"
) -> HTML:
    """How each criterion ranks neurons, model by model and language by language.

    Of a sample, over its random part. Ticks are the limit that noise in the effects sets.
    """
    means = _in_all(ranked, value, truth)
    order = [str(c) for c in list(means.values())[-1].index]
    panels, told = {}, []
    for title, (agreed, trust) in ranked.items():
        own = _of(agreed, value, truth)
        own = own[own["criterion"].isin(order) & own["language"].isin(list(names))]
        limit = criteria.attainable(_of(trust, value, truth).set_index("language")["all"])
        panels[f"{title}: rank correlation with {truth}"] = own.assign(
            reference=own["language"].map(limit)
        ).rename(columns={"criterion": "row", "language": "series", "rho": "value"})[
            ["row", "series", "value", "low", "high", "reference"]
        ]
        rho = means[title]["rho"]
        told += [(f"{title}, {c} {rho[c]:+.2f}", rho[c]) for c in order]
    figure = figures.dot_ranges(
        panels,
        zero=list(panels),
        reference_label="limit set by noise",
        order=order,
        names=names,
    )
    return figures.show(
        figure,
        alt=in_short(
            f"Rank correlation of each criterion with {truth} by language, with intervals. Means "
            "over languages:",
            told,
            "the table of correlations on this page",
        ),
    )


def correlations_beside_in_words(
    ranked: Ranked, reference: str, value: str = "zero", truth: str = "selectivity"
) -> Markdown:
    """Which criteria rank better than chance on each model, and whether the models agree."""
    means, lines = _in_all(ranked, value, truth), []
    for title, own in means.items():
        first, crane = own.iloc[0], own.loc[reference]
        above, below = int((own["low"] > 0).sum()), int((own["high"] < 0).sum())
        repeats = _of(ranked[title][1], value, truth)["all"]
        limit = criteria.attainable(repeats)
        lines.append(
            f"{as_markdown(title)}: {above} of {len(own)} criteria are clearly above a random "
            f"order, {below} clearly below. First is {as_markdown(first.name)}, "
            f"{_interval(first)}; CRANE's default score is number {_place_of(own, reference)}, "
            f"{_interval(crane)}"
            + ("" if _told_apart(own) else "; their intervals overlap, so no order is told")
            + f". The effects, measured again on as many texts, would correlate with themselves at "
            f"{repeats.min():.2f} to {repeats.max():.2f}, so that a criterion without any error "
            f"could reach {limit.min():.2f} to {limit.max():.2f}."
        )
    both = pd.DataFrame({title: own["rho"] for title, own in means.items()})
    rho = both.iloc[:, 0].corr(both.iloc[:, -1], method="spearman")
    lines.append(
        f"The order of these {len(both)} criteria on one model correlates with that on the other "
        f"at {rho:+.2f} (of so few, {_beyond_chance(len(both)):.2f} or more comes by chance in one "
        "case of twenty)."
    )
    return prose("\n".join(f"- {line}" for line in lines))


def _listed(hits: Mapping[str, Sequence[str]], names: Mapping[str, str]) -> str:
    """Criteria with the languages that they have something in, in words; those without left out."""
    return "; ".join(
        f"{as_markdown(c)} ({', '.join(as_markdown(names[x]) for x in own)})"
        for c, own in hits.items()
        if own
    )


def _told_apart(own: pd.DataFrame) -> bool:
    """Whether some criterion's interval lies above that of some other."""
    return bool(own["low"].max() > own["high"].min())


def _place_of(own: pd.DataFrame, criterion: str) -> int:
    """A criterion's place, from 1, in a table indexed by criteria, the best first."""
    return list(own.index).index(criterion) + 1


def overall_places(
    ranked: Ranked, criterion: str, value: str = "zero", truth: str = "selectivity"
) -> dict[str, str]:
    """A criterion's place among those that all models have, by model, such as "5 of 7"."""
    return {
        title: f"{_place_of(own, criterion)} of {len(own)}"
        + ("" if _told_apart(own) else ", not told apart")
        for title, own in _in_all(ranked, value, truth).items()
    }


def _beyond_chance(n: int, level: float = 0.05, draws: int = 10_000) -> float:
    """The rank correlation that two random orders of `n` reach, either way, at this level."""
    rng = np.random.default_rng(0)
    ranks = np.arange(n, dtype=float)
    drawn = [abs(np.corrcoef(ranks, rng.permutation(n))[0, 1]) for _ in range(draws)]
    found = np.round(drawn, 9)
    return float(min((v for v in np.unique(found) if (found >= v).mean() <= level), default=1.0))


def _interval(row: Any) -> str:
    return f"{row['rho']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"


# --------------------------------------------------------------------------- the first of each


def tops_figure(tops: pd.DataFrame, names: Mapping[str, str], value: str = "zero") -> HTML:
    """How selective the first neurons of each criterion are, beside random ones."""
    own = tops[tops["set_to"] == value]
    mean = own.groupby("criterion", sort=False)["selectivity"].mean()
    order = [str(c) for c in mean.sort_values(ascending=False, kind="stable").index]
    panels = {
        "mean selectivity (millinats per token)": _dots(own, "selectivity", 1000),
        "share significantly selective (%)": _dots(own, "significant", 100),
    }
    figure = figures.dot_ranges(panels, zero=list(panels)[:1], order=order, names=names)
    n = int(own.loc[own["criterion"] != sampled.RANDOM, "n"].max())
    share = own.groupby("criterion")["significant"].mean()
    told = [(f"{c} {1000 * mean[c]:+.2f} millinats, {share[c]:.0%}", mean[c]) for c in order]
    return figures.show(
        figure,
        alt=in_short(
            f"Mean selectivity, and share significantly selective, of the first {n} neurons of "
            "each criterion and of random ones, by language, with intervals. Means over languages:",
            told,
            "data/gemma/criteria_precision.csv",
            by="mean selectivity",
        ),
    )


def _dots(own: pd.DataFrame, name: str, scale: float) -> pd.DataFrame:
    found = own[["criterion", "language"]].set_axis(["row", "series"], axis=1)
    ends = {"value": name, "low": f"{name}_low", "high": f"{name}_high"}
    return found.assign(**{to: scale * own[column] for to, column in ends.items()})


def tops_in_words(
    tops: pd.DataFrame, names: Mapping[str, str], reference: str, value: str = "zero"
) -> Markdown:
    """Whose first neurons are clearly more selective than random ones, and whose are not."""
    own = tops[tops["set_to"] == value]
    drawn = own[own["criterion"] == sampled.RANDOM]
    rest = own[own["criterion"] != sampled.RANDOM]
    mean = rest.groupby("criterion", sort=False)[["selectivity", "significant"]].mean()
    first = str(mean["selectivity"].idxmax())
    more, less = (
        _listed(
            {str(c): list(own.loc[own["criterion"] == c, "language"]) for c in mean.index}, names
        )
        for own in (rest[rest["ahead_low"] > 0], rest[rest["ahead_high"] < 0])
    )

    def said(c: str) -> str:
        row = mean.loc[c]
        return f"{1000 * row['selectivity']:+.2f} millinats and {row['significant']:.0%}"

    return prose(
        f"First neurons that are clearly more selective than random ones of the same layers (none "
        f"of these {len(rest)} comparisons is corrected for the others, so that one or two may be "
        f"chance): {more or 'none. A null result'}. Clearly less selective: {less or 'none'}. Mean "
        "over languages: largest for "
        f"{as_markdown(first)} ({said(first)} significantly selective); CRANE's default score "
        f"{said(reference)}; random neurons {1000 * drawn['selectivity'].mean():+.2f} millinats "
        f"and {drawn['significant'].mean():.0%}."
    )


# ---------------------------------------------------------------------------- whole sets of neurons


def damage_by_share(
    damaged: pd.DataFrame,
    names: Mapping[str, str],
    column: str = "own",
    highlighted: Sequence[str] = (),
) -> HTML:
    """What the first neurons of each order do, by their share of all; `column` is one of `LOSSES`.

    The band is one standard error of the masked language's loss (another's has none), for random
    orders the range over seeds.
    """
    percent = damaged.assign(percent=(100 * damaged["share"]).round(2))
    panels = damage_bands(percent, names, "percent", column)
    last = damaged[damaged["budget"] == damaged["budget"].max()]
    mean = last.groupby("criterion", sort=False)[column].mean()
    return figures.show(
        figures.curves(
            panels,
            "share of all neurons masked (%)",
            LOSSES[column],
            level=0.0,
            level_label="",
            highlighted=highlighted,
            xscale="log",
            yscale="symlog",
        ),
        alt=in_short(
            f"Damage curves: {LOSSES[column]}, by share of neurons masked. At "
            f"{last['share'].iloc[0]:.0%}, mean over languages:",
            [(f"{name} {value:+.2f}", value) for name, value in mean.items()],
            "data/gemma/criteria_damage.csv",
        ),
    )


def damage_by_share_in_words(
    damaged: pd.DataFrame, names: Mapping[str, str], share: float, reference: str
) -> Markdown:
    """Which sets clearly hurt their own language most, at the budget nearest to a share of all."""
    budgets = damaged.drop_duplicates("budget").set_index("budget")["share"]
    budget = min(map(int, budgets.index), key=lambda size: abs(budgets[size] - share))
    given = [c for c in dict.fromkeys(damaged["criterion"]) if c != RANDOM]
    hits = summaries.clear_hits(damaged, given, budget)
    mean = summaries.mean_damage(damaged, budget)
    own = ", ".join(as_markdown(names[x]) for x in hits[reference])
    first = next(c for c in mean.index if c != RANDOM)
    return prose(
        f"At {budget:,} neurons ({budgets[budget]:.1%}), criteria whose sets hit their own "
        "language more than any other by more than two standard errors, and more than every random "
        f"set does, by language:\n\n{by_languages(hits, names)}\n\nCRANE's default score: "
        f"{own or 'for no language'}. Own loss less the largest other, mean over languages: "
        f"{as_markdown(first)} {mean[first]:+.3f}, CRANE's default score {mean[reference]:+.3f}, "
        f"random orders {mean[RANDOM]:+.3f}."
    )
