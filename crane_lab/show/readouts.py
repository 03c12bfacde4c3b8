"""What outcomes under masks amount to, in sentences: for pages and for alternative texts.

The numbers come from `crane_lab.stages.comparisons`; here they are only worded, null results as
null results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from crane_lab.stages.comparisons import ahead, leaving


class Unit(NamedTuple):
    """How scores are said: a `score` with `places` decimals, a difference times `scale`.

    Differences have `digits` decimals and are followed by `name`.
    """

    scale: float
    digits: int
    name: str
    score: str
    places: int

    def signed(self, value: float) -> str:
        """A difference with its sign; the minus sign is one."""
        return f"{self.scale * value:+.{self.digits}f}".replace("-", "−")


#: Accuracies, and a judge's scale from 1 to 10.
PERCENT = Unit(100, 1, "points", "accuracy", 3)
GRADE = Unit(1, 2, "grade points", "grade", 2)


def sentence(
    verdict: Mapping[Any, Any], names: Mapping[str, str] | None = None, unit: Unit = PERCENT
) -> str:
    """One row of `comparisons.verdicts` in words (Markdown), null results as null results.

    `names` maps language codes to names, `unit` says what the outcomes are.
    """
    names = names or {}
    target = names.get(verdict["mask_language"], verdict["mask_language"])
    start = f"**{verdict['method']}, {target}** ({verdict['n_neurons']:,} neurons): "
    if verdict["n_neurons"] == 0:
        return start + "no neuron is selected, so nothing is masked and nothing can be said."

    def points(key: str) -> str:
        low, high = verdict[f"{key}_low"], verdict[f"{key}_high"]
        value = f"{unit.signed(verdict[key])} {unit.name}"
        return f"{value} [{unit.signed(low)}, {unit.signed(high)}]"

    def judged(prefix: str, key: str) -> str:
        other = names.get(verdict[f"{prefix}other"], verdict[f"{prefix}other"])
        return {
            "larger": f"costs {target} clearly more than every other language",
            "smaller": f"costs {target} clearly less than {other}",
            "open": f"does not cost {target} clearly more than {other}",
        }[verdict[key]]

    other = names.get(verdict["other"], verdict["other"])
    by = "" if verdict["against_random"] else "_items"
    absolute, relative = judged("", f"absolute{by}"), judged("relative_", f"relative{by}")
    text = (
        f"{start}{target} drops by {points('drop')}, {other} by "
        f"{unit.signed(verdict['other_drop'])}; the difference is {points('difference')}. "
    )
    if absolute == relative:
        text += f"In absolute and in relative terms the mask {absolute}."
    else:
        text += f"In absolute terms the mask {absolute}, in relative terms it {relative}."
    if verdict["against_random"]:
        text += (
            f" Among {verdict['difference_null_masks']:,.0f} random masks of its size in every "
            f"layer, the difference is {_standing(verdict, 'difference')}, and LangSpec-F1 "
            f"{verdict['langspec_f1']:.3f} is {_standing(verdict, 'langspec_f1')}: theirs is "
            f"{verdict['langspec_f1_null_mean']:.3f} on average, with "
            f"{verdict['langspec_f1_null_high']:.3f} as its 95 % point."
        )
    elif verdict["method"] != "Random":
        text += " Whether random masks of its kind do as much was not measured (`n_null`)."
    return text


def _standing(verdict: Mapping[Any, Any], key: str) -> str:
    """Where a statistic stands in its null, with its corrected p-value."""
    return f"at percentile {verdict[f'{key}_percentile']:.0f} (p = {verdict[f'{key}_q']:.3f})"


def summary(verdicts: pd.DataFrame, method: str) -> str:
    """How often one method's masks did what they are for, in a sentence (Markdown)."""
    own = verdicts[verdicts["method"] == method]
    compared = bool((own["against_random"] != "").any())
    by = "" if compared else "_items"
    absolute, relative = (
        int((own[f"{column}{by}"] == "larger").sum()) for column in ("absolute", "relative")
    )
    above = int((own["against_random"] == "above").sum())
    n = len(own)
    text = (
        f"**{method}**: its own language loses clearly more than every other under {absolute} of "
        f"{n} masks in absolute terms and under {relative} in relative terms"
    )
    undecided = int((own["against_random"] == "open").sum())
    text += (
        f"; LangSpec-F1 lies above its null for {above}"
        if compared
        else ", by the intervals over items alone (random masks of its kind were not measured)"
    )
    if undecided:
        text += f", and for {undecided} it cannot be told with so few random masks"
    elif absolute == relative == above == 0:
        text += ": a null result"
    elif compared and absolute == relative == above == n:
        text += ": in every case what the method is for"
    return text + "."


def at_equal_budgets(
    verdicts: pd.DataFrame, names: Mapping[str, str], published: pd.DataFrame | None = None
) -> str:
    """CRANE's summary, and where its LangSpec-F1 is larger than LAPE's with as many neurons.

    `published`: the paper's table of the same read-out, to say whose value is the largest there.
    """
    found = [names[x] for x in ahead(verdicts)]
    text = (
        f"{summary(verdicts, 'CRANE')} At equal budgets its LangSpec-F1 is larger than LAPE's for "
        f"{', '.join(found) or 'no language'}."
    )
    return text if published is None else f"{text} {largest_published(published, names)}"


def largest_published(published: pd.DataFrame, names: Mapping[str, str]) -> str:
    """For which languages CRANE's printed LangSpec-F1 is the largest, and whose is elsewhere."""
    f1 = published.iloc[1:].pivot(index="mask_language", columns="method", values="langspec_f1")
    most: list[str] = []
    least: list[str] = []
    for x in published["mask_language"].iloc[1:].unique():
        other = f1.loc[x].drop("CRANE").idxmax()
        own, best = f1.loc[x, "CRANE"], f1.loc[x, other]
        text = f"{names.get(x, x)} (CRANE {own:.4f}, {other} {best:.4f})"
        (most if own > best else least).append(text)
    text = f"In the published table CRANE's is the largest for {', '.join(most) or 'no language'}"
    return text + (f", and another's for {', '.join(least)}." if least else ".")


def drops_of_rows(
    table: pd.DataFrame, languages: Sequence[str], digits: int = 3
) -> list[tuple[str, float]]:
    """The drops of every row in words, for readers who cannot see them, and its LangSpec-F1."""
    org = table.iloc[0]
    return [
        (
            f"{row['method']} {row['mask_language']}: "
            + ", ".join(f"{x} {org[x] - row[x]:+.{digits}f}" for x in languages)
            + f", LangSpec-F1 {row['langspec_f1']:.3f}",
            float(row["langspec_f1"]),
        )
        for _, row in table.iloc[1:].iterrows()
    ]


def strip_in_words(
    null: Mapping[str, ArrayLike], marks: Mapping[str, Mapping[str, float]]
) -> list[tuple[str, float]]:
    """What `figures.f1_strip` draws, row by row in words, and CRANE's mark there."""
    rows = []
    for row, values in null.items():
        drawn = np.asarray(values, dtype=float)
        random = ", ".join(f"{v:.3f}" for v in drawn) or "not measured"
        if len(drawn) > 4:
            random = f"{drawn.min():.3f} to {drawn.max():.3f} ({len(drawn)} masks)"
        marked = ", ".join(f"{method} {found[row]:.3f}" for method, found in marks.items())
        rows.append((f"{row}: random {random}, {marked}", marks.get("CRANE", {}).get(row, np.nan)))
    return rows


def left_language(spoken: pd.DataFrame, names: Mapping[str, str], level: float = 0.95) -> str:
    """Under which masks answers leave the language of the question, in words.

    `spoken` as `Judged.spoken` returns it; `comparisons.leaving` says what counts.
    """
    found = [
        f"{row['method']}, {names.get(row['language'], row['language'])} ({row['now']:.0%}, "
        f"unmasked {row['before']:.0%})"
        for row in leaving(spoken, level).to_dict("records")
    ]
    untold = spoken.loc[spoken["none"].isna(), "language"].unique()
    lacking = (
        f" Whether answers are in {', '.join(names.get(x, x) for x in untold)} cannot be told: the "
        "language identifier does not know it."
        if len(untold)
        else ""
    )
    if not found:
        return (
            "No mask makes the model leave the language it is meant for: the share of answers in "
            f"it is nowhere clearly below the unmasked one.{lacking}"
        )
    return (
        "Clearly fewer answers than without a mask come in the masked language under "
        + "; ".join(found)
        + f". No other mask makes the model leave the language it is meant for.{lacking}"
    )


# --- rows of a table in words ---------------------------------------------------------------------


def each_row(frame: pd.DataFrame, say: Callable[[dict[str, Any]], str], between: str = ", ") -> str:
    """What `say` makes of every row, strung together."""
    return between.join(
        say({str(name): value for name, value in row.items()}) for row in frame.to_dict("records")
    )


def mask_name(row: Mapping[Any, Any]) -> str:
    """A published mask in words, such as `Table 1 CRANE en`."""
    return f"{row['table']} {row['method']} {row['mask_language']}"


def with_mask(frame: pd.DataFrame) -> pd.DataFrame:
    """The same table with `mask_language` called mask, as pages do."""
    return frame.rename(columns={"mask_language": "mask"})
