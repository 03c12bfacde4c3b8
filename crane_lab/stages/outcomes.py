"""Outcomes of single items under interventions, and the tables made of them (Tables 1 to 4).

Whatever is scored, an item right or wrong or an answer judged from 1 to 10, before and after are
paired item by item, and a table's row is a mask.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from crane_core import metrics
from crane_core.interventions import Intervention
from crane_core.selection import NeuronSet

#: Outcomes of a language's items, `{language: (items,)}`; NaN where there is none.
Values = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Row:
    """An intervention, and the row of a table it belongs to.

    `seed` is None except for random sets.
    """

    method: str
    language: str
    intervention: Intervention = field(hash=False)
    seed: int | None = None

    @property
    def n_neurons(self) -> int:
        """How many neurons are touched."""
        return len(self.intervention)

    @property
    def neurons(self) -> NeuronSet:
        """The neurons that are touched. Raises ValueError for an intervention without any step."""
        found = self.intervention.neurons
        if found is None:
            raise ValueError(f"row {self.method!r}, {self.language!r} does nothing to any neuron")
        return found

    @property
    def key(self) -> dict[str, Any]:
        """The columns that name the mask in a table of items: method, mask_language, seed."""
        seed = -1 if self.seed is None else self.seed
        return {"method": self.method, "mask_language": self.language, "seed": seed}


#: What stands in the same columns for the unmasked model.
UNMASKED: dict[str, Any] = {"method": "Org", "mask_language": "", "seed": -1}


def stacked(
    rows: Sequence[Row], original: pd.DataFrame, found: Sequence[pd.DataFrame]
) -> pd.DataFrame:
    """Every item under every mask in one table, the unmasked model first: `items_tableN`."""
    tables = [original.assign(**UNMASKED)]
    tables += [items.assign(**row.key) for row, items in zip(rows, found, strict=True)]
    return pd.concat(tables, ignore_index=True)


@dataclass(frozen=True)
class Reading:
    """How LangSpec-F1 is read: `how` and `relative` of `metrics.langspec_f1`."""

    how: str = "max"
    relative: bool = False


@dataclass(frozen=True)
class Scored:
    """Items' outcomes without a mask and under each intervention.

    `clusters` names what items share, as for `metrics.langspec_f1_interval`. An outcome that is NaN
    (an answer that the judge gave no score) counts in no mean, and in no interval of the mask it
    is missing under; how many are missing stands in the column `unscored`.
    """

    languages: Sequence[str]
    rows: Sequence[Row]
    before: Values
    after: Sequence[Values]
    clusters: Mapping[str, Sequence[str]]
    reading: Reading = Reading()

    def table(self, n_boot: int = 2000) -> pd.DataFrame:
        """A table like the paper's: scores per language and LangSpec-F1 for each row.

        Random rows are means over seeds, with LangSpec-F1 computed from those means. Columns that
        end in `_low` and `_high` are 95 % intervals: for single masks by paired bootstrap over
        items (`n_boot` resamples), for random ones the range over seeds. `relative_<language>` are
        relative drops. An empty set is a row with `n_neurons` 0 and a warning.

        Raises ValueError if no item of a language has a score before or under a mask.
        """
        start = self._means(self.before)
        rows = [
            {
                **{"method": "Org", "mask_language": "", "n_neurons": 0},
                **start,
                **dict.fromkeys(("langspec_f1", "langspec_f1_low", "langspec_f1_high"), np.nan),
                **self._intervals(self.before),
                **self._missing(self.before),
            }
        ]
        seeds = self.seeds()
        for row, after in self._rows():
            if not row.n_neurons:
                warnings.warn(f"{row.method} selects no neuron for {row.language}", stacklevel=2)
            if row.seed is None:
                means = self._means(after)
                interval = self._interval(after, row.language, n_boot)
                low_high = {"langspec_f1_low": interval.low, "langspec_f1_high": interval.high}
                low_high |= self._intervals(after)
                missing = self._missing(after)
            else:
                own = seeds[(seeds.method == row.method) & (seeds.mask_language == row.language)]
                means = {x: float(own[x].mean()) for x in self.languages}
                low_high = {
                    f"{name}_{end}": float(getattr(own[name], how)())
                    for name in ("langspec_f1", *self.languages)
                    for end, how in (("low", "min"), ("high", "max"))
                }
                missing = {"unscored": int(own["unscored"].sum())} if "unscored" in own else {}
            found = self._f1(start, means, row.language)
            rows.append(
                {
                    "method": row.method,
                    "mask_language": row.language,
                    "n_neurons": row.n_neurons,
                    **means,
                    "langspec_f1": found.f1,
                    **low_high,
                    **{f"relative_{x}": found.relative_drops[x] for x in self.languages},
                    **missing,
                }
            )
        return pd.DataFrame(rows)

    def seeds(self) -> pd.DataFrame:
        """One row per random mask: which, its seed and size, scores, LangSpec-F1."""
        start = self._means(self.before)
        rows = []
        for row, after in zip(self.rows, self.after, strict=True):
            if row.seed is None:
                continue
            means = self._means(after)
            rows.append(
                {
                    **row.key,
                    "n_neurons": row.n_neurons,
                    **means,
                    "langspec_f1": self._f1(start, means, row.language).f1,
                    **self._missing(after),
                }
            )
        return pd.DataFrame(rows)

    def _f1(
        self, start: Mapping[str, float], means: Mapping[str, float], target: str
    ) -> metrics.LangSpecF1:
        how, relative = self.reading.how, self.reading.relative
        return metrics.langspec_f1(start, means, target, how=how, relative=relative)

    def _rows(self) -> Iterator[tuple[Row, Values]]:
        """The interventions with their outcomes; of random masks the first of each row."""
        seen = set()
        for row, after in zip(self.rows, self.after, strict=True):
            if (row.method, row.language) not in seen:
                seen.add((row.method, row.language))
                yield row, after

    def _means(self, values: Values) -> dict[str, float]:
        means = {}
        for x in self.languages:
            scored = values[x][~np.isnan(values[x])]
            if not len(scored):
                raise ValueError(
                    f"none of the {len(values[x])} items in {x!r} has a score, so there is no mean"
                )
            means[x] = float(scored.mean())
        return means

    def _missing(self, values: Values) -> dict[str, int]:
        """The column `unscored`, if anything can be missing at all."""
        count = sum(int(np.isnan(values[x]).sum()) for x in self.languages)
        ever = [self.before, *self.after]
        return {"unscored": count} if any(np.isnan(v[x]).any() for v in ever for x in v) else {}

    def _intervals(self, values: Values) -> dict[str, float]:
        found: dict[str, float] = {}
        for x in self.languages:
            kept = ~np.isnan(values[x])
            clusters = [name for name, keep in zip(self.clusters[x], kept, strict=True) if keep]
            interval = metrics.mean_interval(values[x][kept], clusters=clusters)
            found |= {f"{x}_low": interval.low, f"{x}_high": interval.high}
        return found

    def _interval(self, after: Values, target: str, n_boot: int) -> metrics.Interval:
        kept = {x: ~(np.isnan(self.before[x]) | np.isnan(after[x])) for x in self.languages}
        return metrics.langspec_f1_interval(
            {x: self.before[x][kept[x]] for x in self.languages},
            {x: after[x][kept[x]] for x in self.languages},
            target,
            n_boot,
            how=self.reading.how,
            relative=self.reading.relative,
            clusters={
                x: [name for name, keep in zip(self.clusters[x], kept[x], strict=True) if keep]
                for x in self.languages
            },
        )


def side_by_side(base: pd.DataFrame, chat: pd.DataFrame, languages: Sequence[str]) -> pd.DataFrame:
    """Two models' tables as one (Table 3): `base_<language>` and `chat_<language>`.

    All other columns, LangSpec-F1 among them, are the chat model's. Intervals of the scores come
    last, as `base_<language>_low` and so on.
    """
    scores, ends = list(languages), [f"{x}_{end}" for x in languages for end in ("low", "high")]
    ends = [name for name in ends if name in chat]
    keys = [name for name in ("method", "mask_language", "seed", "n_neurons") if name in chat]
    rest = [name for name in chat if name not in (*keys, *scores, *ends)]
    both = (("base", base), ("chat", chat))
    parts = [chat[keys], *(table[scores].add_prefix(f"{model}_") for model, table in both)]
    parts += [chat[rest], *(table[ends].add_prefix(f"{model}_") for model, table in both)]
    return pd.concat(parts, axis=1)


Outcome = tuple[pd.DataFrame, dict[str, Tensor]]


@dataclass(frozen=True)
class Evaluated:
    """Task items and held-out losses under interventions (Tables 1 and 3)."""

    languages: list[str]
    rows: list[Row]
    original: Outcome
    outcomes: list[Outcome]
    reading: Reading = Reading()

    def scored(self, tasks: Mapping[str, str]) -> Scored:
        """Right or wrong of every item; `tasks`: language -> the task that stands for it."""

        def column(items: pd.DataFrame, x: str, name: str) -> pd.Series:
            return items.loc[items["task"] == tasks[x], name]

        def correct(items: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
            return {x: column(items, x, "correct").to_numpy(float) for x in self.languages}

        return Scored(
            self.languages,
            self.rows,
            correct(self.original[0]),
            [correct(items) for items, _ in self.outcomes],
            {x: column(self.original[0], x, "cluster").to_list() for x in self.languages},
            self.reading,
        )

    def table(self, tasks: Mapping[str, str], n_boot: int = 2000) -> pd.DataFrame:
        """`Scored.table` of some tasks."""
        return self.scored(tasks).table(n_boot)

    def seeds(self, tasks: Mapping[str, str]) -> pd.DataFrame:
        """`Scored.seeds` of some tasks."""
        return self.scored(tasks).seeds()

    def items(self) -> pd.DataFrame:
        """Every item under every mask, for paired intervals: `evaluate`'s columns and the mask."""
        return stacked(self.rows, self.original[0], [items for items, _ in self.outcomes])

    def perplexities(self) -> pd.DataFrame:
        """Held-out perplexity per language under every mask.

        `<language>` is the perplexity; `<language>_change` the mean change in loss (nats per token)
        against the unmasked model, `<language>_se` its standard error over windows, paired.
        """
        start = {x: self.original[1][x].double().numpy() for x in self.languages}
        rows = [
            {
                "method": "Org",
                "mask_language": "",
                "seed": -1,
                "n_neurons": 0,
                **{x: float(np.exp(losses.mean())) for x, losses in start.items()},
            }
        ]
        for row, (_, losses) in zip(self.rows, self.outcomes, strict=True):
            line: dict[str, Any] = {
                "method": row.method,
                "mask_language": row.language,
                "seed": -1 if row.seed is None else row.seed,
                "n_neurons": row.n_neurons,
            }
            for x in self.languages:
                after = losses[x].double().numpy()
                change = after - start[x]
                line[x] = float(np.exp(after.mean()))
                line[f"{x}_change"] = float(change.mean())
                spread = change.std(ddof=1) if len(change) > 1 else np.nan
                line[f"{x}_se"] = float(spread / np.sqrt(len(change)))
            rows.append(line)
        return pd.DataFrame(rows)


@dataclass(frozen=True)
class Judged:
    """Judged answers to open questions under interventions (Tables 2 and 4).

    `original` and each of `outcomes` are tables of answers with `language`, `id`, `score` and
    `text_language`, in the same order.
    """

    languages: list[str]
    rows: list[Row]
    original: pd.DataFrame
    outcomes: list[pd.DataFrame]
    reading: Reading = Reading()

    def scored(self, column: str = "score") -> Scored:
        """The judge's scores, 1 to 10, or another column of numbers; clusters are questions.

        The n-th question is the same in every language, as far as the question set is parallel.
        """

        def values(answers: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
            return {
                x: answers.loc[answers["language"] == x, column].to_numpy(float)
                for x in self.languages
            }

        return Scored(
            self.languages,
            self.rows,
            values(self.original),
            [values(answers) for answers in self.outcomes],
            {
                x: self.original.loc[self.original["language"] == x, "cluster"].to_list()
                for x in self.languages
            },
            self.reading,
        )

    def table(self, n_boot: int = 2000) -> pd.DataFrame:
        """`Scored.table` of the judge's scores, with `<language>_in_language` columns.

        Those are the shares of answers that are in the language of the question, whatever their
        score: language fidelity alone. They are missing where the language cannot be told.
        """
        table = self.scored().table(n_boot)
        by = ["method", "mask_language", "language"]
        fidelity = self.items().groupby(by)["in_language"].mean().unstack("language")
        rows = fidelity.loc[list(zip(table["method"], table["mask_language"], strict=True))]
        for x in self.languages:
            table[f"{x}_in_language"] = rows[x].to_numpy(float, na_value=np.nan)
        return table

    def seeds(self) -> pd.DataFrame:
        """`Scored.seeds` of the judge's scores."""
        return self.scored().seeds()

    def items(self) -> pd.DataFrame:
        """Every judged answer under every mask."""
        return stacked(self.rows, self.original, self.outcomes)

    def spoken(self) -> pd.DataFrame:
        """Which language the answers come in: one row per mask and language of the question.

        `<language>` is the share of answers in that language, `none` of answers without letters;
        random masks are averaged. `n` counts answers. Shares are missing where the language of an
        answer cannot be told, for want of an identifier that knows it.
        """
        items = self.items()
        by = ["method", "mask_language", "language"]
        rows = []
        for _, own in items.groupby(by, sort=False):
            shares = own["text_language"].value_counts(normalize=True)
            none = 0.0 if own["text_language"].notna().any() else np.nan
            rows.append(
                {
                    **{name: own[name].iloc[0] for name in by},
                    **{x: float(shares.get(x, none)) for x in self.languages},
                    "none": float(shares.get("", none)),
                    "n": len(own),
                }
            )
        return pd.DataFrame(rows)
