"""Does another language answer when languages are taken away? Counts beside random sets."""

from __future__ import annotations

import pandas as pd
from scipy.stats import binomtest, fisher_exact

from crane_lab.stages.standing import corrected
from crane_lab.study.taught import RANDOM


def kept_language(table: pd.DataFrame) -> pd.DataFrame:
    """One row per method and step of the first order: answers in the language that is asked in.

    `table` is that of `fallback.read_fallback`. Columns: `kept` of `asked` questions, with the
    share's `low` and `high` (Wilson); `random_kept` of `random_asked`, over draws of random sets;
    `p` that fewer are kept than with random ones (Fisher's exact test) and `q`, corrected over all
    rows. A method without random sets is left out.
    """
    first = table["order"] == table["order"].iloc[0]  # the one that has random sets
    own, rows = table[first & (table["step"] > 0)], []
    methods = [str(x) for x in dict.fromkeys(own["method"]) if not str(x).startswith(RANDOM)]
    for method in methods:
        for step, at in own.groupby("step"):
            kept, asked = _counts(at[at["method"] == method])
            beside, of = _counts(at[at["method"] == f"{RANDOM} as {method}"])
            if not of:
                continue
            interval = binomtest(kept, asked).proportion_ci(method="wilson")
            test = fisher_exact([[kept, asked - kept], [beside, of - beside]], alternative="less")
            row = {"method": method, "step": step, "kept": kept, "asked": asked}
            row |= {"low": interval.low, "high": interval.high, "random_kept": beside}
            rows.append({**row, "random_asked": of, "p": float(test.pvalue)})
    columns = ["method", "step", "kept", "asked", "low", "high", "random_kept", "random_asked", "p"]
    found = pd.DataFrame(rows, columns=columns)
    return found.assign(q=corrected(found["p"].astype(float)))


def _counts(rows: pd.DataFrame) -> tuple[int, int]:
    """Answers in the language that is asked in, and all."""
    kept = rows[rows["language"] == rows["asked"]]["answers"]
    return int(kept.sum()), int(rows["answers"].sum())
