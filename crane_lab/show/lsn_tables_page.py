"""Tables, figures and sentences of what the LSN paper prints, for notebooks 13 and 14.

`changes` is everywhere the table of `audit.lsn.lsn_changes`.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from IPython.display import HTML, Markdown
from pandas.io.formats.style import Styler

from crane_lab.audit.lsn import LEAST_OF_SILU
from crane_lab.audit.noise import CANNOT, CERTAIN, OPEN
from crane_lab.show import figures
from crane_lab.show.foreign import as_markdown, prose

#: What a verdict of `noise_bounds` is called.
_SAID = {
    CERTAIN: "certainly more than the choice of items",
    OPEN: "cannot be told",
    CANNOT: "the choice of items can do that",
}


def lsn_changes_figure(changes: pd.DataFrame, unit: str) -> HTML:
    """Every printed change by value, coloured by what can be said of it."""
    shown = pd.concat(
        pd.DataFrame({"row": own["set_to"], "series": said, "value": own["change"]})
        for verdict, said in _SAID.items()  # in this order, so that a verdict keeps its colour
        for own in [changes[changes["verdict"] == verdict]]
    )
    values = list(dict.fromkeys(changes["set_to"]))
    told = "; ".join(
        f"{value}: {own['change'].min():+.1f} to {own['change'].max():+.1f}, "
        f"{int((own['verdict'] == CERTAIN).sum())} of {len(own)} certain"
        for value, own in changes.groupby("set_to", sort=False)
    )
    return figures.show(
        figures.dot_ranges({f"change in {unit}": shown}, zero=[f"change in {unit}"], order=values),
        alt=f"Printed changes in {unit} by the value that neurons are set to. {told}.",
    )


def lsn_counts_table(counts: pd.DataFrame, of: str) -> Styler:
    """How many changes are better and worse by value: `audit.lsn.lsn_counts`."""
    return figures.table(
        counts,
        f"{of}: printed changes by value, and of how many McNemar's test is certain whichever "
        "items changed (95 %)",
        {"mean change": "{:+.1f}"},
    )


def lsn_zero_in_words(changes: pd.DataFrame, unit: str) -> Markdown:
    """Whether zero degrades less than the tenth percentile, row by row."""
    keys = ["model", "method", "language"]
    wide = changes.pivot_table(index=keys, columns="set_to", values="change", sort=False)
    better = int((wide["zero"] > wide["P10"]).sum())
    zero = changes[changes["set_to"] == "zero"]
    by_method = []
    for method, own in zero.groupby("method", sort=False):
        certain = own[(own["verdict"] == CERTAIN) & (own["change"] < 0)]
        by_method.append(
            f"{as_markdown(method)} in {len(certain)} of {len(own)}"
            + (f" (by up to {-certain['change'].min():.0f} {unit})" if len(certain) else "")
        )
    return prose(
        f"Zero is above P10 in {better} of {len(wide)} rows; the mean change is "
        f"{wide['zero'].mean():+.1f} {unit} for zero and {wide['P10'].mean():+.1f} for P10. Zero "
        f"itself is certainly worse than no intervention with {', with '.join(by_method)} rows."
    )


def lsn_improves_in_words(every: Sequence[pd.DataFrame]) -> Markdown:
    """How many of all printed changes are improvements, and of how many that is certain."""
    changes = pd.concat(every)
    better = changes[changes["change"] > 0]
    worse = changes[changes["change"] < 0]
    return prose(
        f"Of {len(changes)} printed changes {len(worse)} are for the worse and {len(better)} for "
        f"the better; {int((worse['verdict'] == CERTAIN).sum())} of the former are certain to be "
        f"more than the choice of items and {int((better['verdict'] == CERTAIN).sum())} of the "
        "latter. Each model was trained once, and no random set of equal size is printed for any "
        "of them: whether damage is done by *language* neurons, or would be by any others in "
        "those layers, cannot be told."
    )


def lsn_tuning_in_words(
    changes: pd.DataFrame, tuned: pd.DataFrame, random: pd.DataFrame
) -> Markdown:
    """How far apart the printed scores are by whose neurons were tuned, random ones included.

    `tuned` is Table 7, `random` Table 8; `changes` the interventions' changes in Table 4.
    """
    plain = tuned[tuned["set_to"] == "none"]
    ranges = plain.groupby(["model", "language"])["accuracy"].agg(["min", "max"])
    spread = (ranges["max"] - ranges["min"]).max()
    model = plain["model"].iloc[0]
    own = random[random["model"] == model].drop_duplicates("language").set_index("language")
    apart = [
        float(row["accuracy"]) - float(own.loc[str(row["language"]), "accuracy"])
        for row in plain.to_dict("records")
    ]
    usual = changes[changes["model"] == model]["change"].abs().median()
    return prose(
        f"Whoever's neurons are tuned, {as_markdown(model)}'s accuracy for a language moves by at "
        f"most {spread:.1f} points, and by {min(apart):+.1f} to {max(apart):+.1f} from the row of "
        f"random neurons. (Under its interventions in Table 4 half of all changes are larger than "
        f"{usual:.1f}.) The paper takes this for a negative result. The public code suggests "
        "another reading: for this task the lines that restrict the update to chosen neurons are "
        "commented out there, and then all rows of Table 7 train the same thing, but for chance."
    )


def lsn_slips_list(slips: Sequence[str]) -> Markdown:
    """Where the printed tables disagree with each other."""
    return prose("\n".join(f"- {as_markdown(slip)}" for slip in slips) or "None was found.")


def lsn_statistics_table(found: pd.DataFrame) -> Styler:
    """Table 6 as printed, means over languages: `audit.lsn.lsn_before_act_fn`."""
    wide = found.groupby(["model", "statistic"], sort=False).agg(
        value=("value", "mean"), below=("out_of_reach", "mean")
    )
    shown = wide.reset_index().rename(
        columns={"value": "printed, mean over languages", "below": "languages below SiLU's least"}
    )
    return figures.table(
        shown,
        f"Table 6 as printed; SiLU's least value is {LEAST_OF_SILU:.3f}",
        {
            "printed, mean over languages": "{:+.3f}",
            "languages below SiLU's least": "{:.0%}",
        },
    )
