"""What a chat model keeps of sets found on its base model (§5.4, strict transfer).

How far tuning moved the weights that neurons consist of, whether a search on the chat model finds
the same neurons, and what the two kinds of sets do to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from transformers import PreTrainedModel

from crane_core import models
from crane_core.selection import overlap
from crane_lab.stages.outcomes import Row

#: The methods that are searched again on the chat model: CRANE, and LAPE with as many neurons.
METHODS = ("CRANE", "LAPE matched")


def weight_changes(base: PreTrainedModel, chat: PreTrainedModel) -> pd.DataFrame:
    """How far tuning moved each layer's MLP weights, relative to their size (Frobenius norms).

    One row per `layer`, with a column for each projection.
    """
    rows = []
    sites = zip(models.mlp_sites(base), models.mlp_sites(chat), strict=True)
    for layer, (before, after) in enumerate(sites):
        row: dict[str, float] = {"layer": layer}
        for name in ("gate_proj", "up_proj", "down_proj"):
            w, v = (getattr(mlp, name).weight.detach().float() for mlp in (before, after))
            row[name] = float((v - w).norm() / w.norm())
        rows.append(row)
    return pd.DataFrame(rows)


def shared_neurons(
    base: Iterable[Row], chat: Iterable[Row], methods: Sequence[str] = METHODS
) -> pd.DataFrame:
    """How many neurons a method's sets of two models share, against what chance would give.

    One row per method and `language`: the sizes `n_base` and `n_chat`, `shared`, the number
    `expected` of random sets with the same counts per layer, the p-value `p` of so many shared or
    more (hypergeometric, layers pooled) and the `jaccard` index.
    """
    on_base, on_chat = (
        {(row.method, row.language): row.neurons for row in rows} for rows in (base, chat)
    )
    rows = []
    for method in methods:
        for x in (language for name, language in on_base if name == method):
            first, second = on_base[method, x], on_chat[method, x]
            test = overlap(first, second)
            rows.append(
                {
                    "method": method,
                    "language": x,
                    "n_base": len(first),
                    "n_chat": len(second),
                    "shared": len(first & second),
                    "expected": test.expected_within_layers,
                    "p": test.p_value,
                    "jaccard": test.jaccard,
                }
            )
    return pd.DataFrame(rows)


def counterparts(
    tables: Mapping[tuple[str, str], pd.DataFrame],
    languages: Sequence[str],
    methods: Sequence[str] = METHODS,
) -> pd.DataFrame:
    """One model's tables under masks found on it and on another model, as one table.

    `tables`: (read-out, model that the sets were found on) -> a table as `Scored.table` makes it.
    One row per read-out, model and mask, with `method`, `mask_language`, `read_out`, `found_on`,
    the number of neurons, the scores and LangSpec-F1 with its interval.
    """
    keys = ["method", "mask_language", "read_out", "found_on", "n_neurons"]
    columns = [*keys, *languages, "langspec_f1", "langspec_f1_low", "langspec_f1_high"]
    found = [
        table[table["method"].isin(methods)].assign(read_out=read_out, found_on=model)[columns]
        for (read_out, model), table in tables.items()
    ]
    return pd.concat(found, ignore_index=True)


def told_apart(counterpart: pd.DataFrame) -> pd.DataFrame:
    """Whether a set found on the chat model does clearly more, or less, than the base model's.

    `counterpart` as `counterparts` makes it. One row per read-out, method and masked language;
    `verdict` is "above" or "below" where the intervals of LangSpec-F1 do not overlap, else "open".
    """
    keys = ["read_out", "method", "mask_language"]
    ends = ["langspec_f1_low", "langspec_f1_high"]
    wide = counterpart.pivot_table(index=keys, columns="found_on", values=ends, sort=False)
    above = wide["langspec_f1_low", "chat"] > wide["langspec_f1_high", "base"]
    below = wide["langspec_f1_high", "chat"] < wide["langspec_f1_low", "base"]
    verdict = np.where(above, "above", np.where(below, "below", "open"))
    return wide.index.to_frame(index=False).assign(verdict=verdict)


#: A drop in accuracy that a share can be taken of, half a point being an item or two.
LEAST = 0.02


def kept_drops(table: pd.DataFrame) -> pd.DataFrame:
    """Drop of the masked language on both models, and the share of it that the chat model keeps.

    `table` as Table 3 (`outcomes.side_by_side`), row Org first. One row per mask; `kept` is NaN
    where the drop on the base model is too small to be divided by: below `LEAST`.
    """
    org = table.iloc[0]
    rows = []
    for row in table.iloc[1:].to_dict("records"):
        x = row["mask_language"]
        base, chat = (float(org[f"{m}_{x}"]) - row[f"{m}_{x}"] for m in ("base", "chat"))
        rows.append(
            {
                "method": row["method"],
                "mask": x,
                "drop, base": base,
                "drop, chat": chat,
                "kept": chat / base if base >= LEAST else np.nan,
            }
        )
    return pd.DataFrame(rows)
