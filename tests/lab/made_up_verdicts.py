"""Outcomes of 400 items per language under masks, and the verdicts on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from crane_lab.stages import comparisons

TASKS = {"en": "knowledge_en", "zh": "knowledge_zh"}
N = 400


def outcomes(share: float, n: int = N) -> np.ndarray:
    """Right on the first share of the items."""
    return np.arange(n) < round(share * n)


def rows(method: str, target: str, seed: int, en: float, zh: float) -> pd.DataFrame:
    return pd.concat(
        pd.DataFrame(
            {
                "method": method,
                "mask_language": target,
                "seed": seed,
                "task": TASKS[x],
                "correct": outcomes(share),
            }
        )
        for x, share in (("en", en), ("zh", zh))
    )


def random_masks(lost: float = 0.0, n: int = 200) -> pd.DataFrame:
    """Random masks that take about `lost` from each language."""
    rng = np.random.default_rng(0)
    start = {"en": 0.8, "zh": 0.4}
    return pd.DataFrame({TASKS[x]: start[x] - lost - rng.normal(0, 0.01, n) for x in TASKS})


def judge(
    masks: list[tuple[str, str, int, float, float]],
    n_neurons: int = 5,
    nulls: comparisons.Nulls | None = None,
) -> pd.DataFrame:
    items = pd.concat([rows("Org", "", -1, 0.8, 0.4), *(rows(*mask) for mask in masks)])
    lines = [{"method": "Org", "mask_language": "", "n_neurons": 0, "en": 0.8, "zh": 0.4}]
    f1 = {"CRANE": (0.2, 0.3, 0.4), "LAPE": (0.05, 0.06, 0.07), "Random": (0.08, 0.1, 0.15)}
    for method, target in dict.fromkeys(mask[:2] for mask in masks):
        low, middle, high = f1[method]
        lines.append(
            {"method": method, "mask_language": target, "n_neurons": n_neurons, "en": 0, "zh": 0}
            | {"langspec_f1": middle, "langspec_f1_low": low, "langspec_f1_high": high}
        )
    return comparisons.verdicts(items, pd.DataFrame(lines), TASKS, nulls=nulls)


def first(found: pd.DataFrame) -> dict[str, Any]:
    return {str(key): value for key, value in found.iloc[0].items()}
