"""Does another language answer when languages are taken away? Counts beside random sets."""

from __future__ import annotations

import pandas as pd
from scipy.stats import binomtest, fisher_exact

from crane_lab.stages.standing import corrected
from crane_lab.study.fallback import UNTOLD
from crane_lab.study.steering_effects import methods_in
from crane_lab.study.taught import RANDOM


def kept_language(table: pd.DataFrame) -> pd.DataFrame:
    """One row per method and step of the first order: answers in the language that is asked in.

    `table` is that of `fallback.read_fallback`. Columns: `kept` of `asked` questions, with the
    share's `low` and `high` (Wilson), and `random_kept`, the mean of random sets; `other`, the
    language beside it in which most answers are, `to` so many, `random_to` by random sets; `p` that
    fewer are kept *and* more are in the other one than with random sets (the larger of Fisher's
    two; the questions are the same on both sides, which makes it a cautious one), and `q`,
    corrected over the steps in which something is off. A method without random sets is left out.
    """
    own, rows = table[table["order"] == table["order"].iloc[0]], []  # it alone has random sets
    for method in methods_in(own):
        for step, at in own.groupby("step"):
            counts, beside = (
                _counts(at[at["method"] == name]) for name in (method, f"{RANDOM} as {method}")
            )
            if beside.empty:
                continue
            language, asked = str(at["asked"].iloc[0]), int(counts.sum())
            kept, others = counts[language], counts.drop([language, UNTOLD])
            to = str(others.idxmax())
            interval = binomtest(int(kept), asked).proportion_ci(method="wilson")
            row = {"method": method, "step": step, "kept": int(kept), "asked": asked}
            row |= {"low": interval.low, "high": interval.high, "random_kept": beside[language]}
            row |= {
                "other": to if others[to] else "",
                "to": int(others[to]),
                "random_to": beside[to],
            }
            p = max(
                _fisher(kept, beside[language], asked, "less"),
                _fisher(others[to], beside[to], asked, "greater"),
            )
            rows.append({**row, "p": p if step else float("nan")})
    found = pd.DataFrame(rows, columns=_COLUMNS)
    return found.assign(q=corrected(found["p"].astype(float)))


_COLUMNS = [
    *("method", "step", "kept", "asked", "low", "high", "random_kept"),
    *("other", "to", "random_to", "p"),
]


def _counts(rows: pd.DataFrame) -> pd.Series:
    """Answers by language, mean over draws."""
    return rows.groupby("language")["answers"].mean()


def _fisher(own: float, random: float, n: int, side: str) -> float:
    """Fisher's exact test of two counts of `n` each; a mean of draws counts as one of them."""
    a, b = round(own), round(random)
    return float(fisher_exact([[a, n - a], [b, n - b]], alternative=side).pvalue)
