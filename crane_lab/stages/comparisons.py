"""What outcomes under masks amount to: which mask hits what, by more than the choice of items.

§3.1 asks for a *relative* difference between the masked language and the others, Eq. 3 takes an
absolute one. Both are judged here with intervals, and so are held-out losses, what a masked model
chooses and answers, and how graders agree. `crane_lab.show` puts it into words.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import fisher_exact, spearmanr

from crane_core import metrics
from crane_core.metrics import LangSpecF1
from crane_lab.engines.multiple_choice import Prepared
from crane_lab.stages.outcomes import Reading as F1Reading
from crane_lab.stages.outcomes import Row
from crane_lab.stages.standing import ENOUGH, FDR, decided, held_against, own_less_others

Array = NDArray[np.float64]
#: What random masks with the profile of a row's set do, by the row's method and masked language.
Nulls = Mapping[tuple[str, str], pd.DataFrame]

#: Eq. 3 as it is printed.
AS_PRINTED = F1Reading()
#: What a free continuation can be, as `answers.answer_instead` calls it.
CATEGORIES = ("gold", "wrong option", "same language", "other language", "nothing")


class _Difference(NamedTuple):
    """The masked language against one other."""

    other: str
    estimate: float
    low: float
    high: float
    verdict: str  # "larger" than every other language, "smaller" than one, or "open"


def _compare(
    damage: Mapping[str, float], error: Mapping[str, float], target: str, level: float
) -> _Difference:
    """Damage to the target less damage to each other language, with normal intervals.

    `error` holds standard errors; languages have items of their own, so that errors add in squares.
    """
    reach = NormalDist().inv_cdf((1 + level) / 2)
    others = [x for x in damage if x != target]
    gap = {x: damage[target] - damage[x] for x in others}
    width = {x: reach * float(np.hypot(error[target], error[x])) for x in others}
    if any(gap[x] + width[x] < 0 for x in others):
        verdict = "smaller"
    elif all(gap[x] - width[x] > 0 for x in others):
        verdict = "larger"
    else:
        verdict = "open"
    # The other language to name: the one that comes closest, or that is most clearly ahead.
    rank = {x: gap[x] + (width[x] if verdict == "smaller" else 0.0) for x in others}
    most = min(others, key=lambda x: (np.isnan(rank[x]), rank[x]))
    return _Difference(most, gap[most], gap[most] - width[most], gap[most] + width[most], verdict)


def _drop(before: Array, after: Array, relative: bool) -> tuple[float, float]:
    """A drop and its standard error, from outcomes (items,) and (masks, items).

    The error is that of paired items, for relative drops by the delta method; several masks add
    the spread between them.
    """
    scored = ~(np.isnan(before) | np.isnan(after).any(axis=0))
    before, after = before[scored], after[:, scored]
    if not len(before):
        return float("nan"), float("nan")
    start, mean = before.mean(), after.mean(axis=0)
    scale = start if relative else 1.0
    if scale == 0 or len(before) < 2:
        return float("nan"), float("nan")
    kept = mean.mean() / start if relative else 1.0
    variance = np.var(kept * before - mean, ddof=1) / len(before)
    if len(after) > 1:
        variance += np.var(after.mean(axis=1), ddof=1) / len(after)
    return float((start - mean.mean()) / scale), float(np.sqrt(variance) / scale)


def one_of_each(interventions: Iterable[Row]) -> list[Row]:
    """The interventions, but of the random masks of each language only the first seed's."""
    rows: dict[tuple[str, str], Row] = {}
    for row in interventions:
        rows.setdefault((row.method, row.language), row)
    return list(rows.values())


def both_sites(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Tables of several sites (site -> table) as one, with a last column `site`.

    The unmasked row, the same for all, comes once, with an empty site.
    """
    found = pd.concat([table.assign(site=site) for site, table in tables.items()])
    found.loc[found["method"] == "Org", "site"] = ""
    return found.drop_duplicates(["method", "mask_language", "site"] + ["seed"] * ("seed" in found))


def verdicts(
    items: pd.DataFrame,
    table: pd.DataFrame,
    tasks: Mapping[str, str],
    level: float = 0.95,
    value: str = "correct",
    nulls: Nulls | None = None,
    reading: F1Reading = AS_PRINTED,
) -> pd.DataFrame:
    """Does each mask hit its language more than every other, and more than random masks do?

    Parameters
    ----------
    items : every item under every mask, as `Evaluated.items` or `Judged.items` returns them; what
        has no score is left out, with its counterpart.
    table : the table of the same tasks; gives LangSpec-F1 and its intervals.
    tasks : language -> the task that stands for it.
    level : confidence of the intervals.
    value : the column of `items` that holds the outcomes.
    nulls : scores under random masks, a row per mask and a column per task; None: not asked for.
    reading : how LangSpec-F1 is read in the table.

    Returns
    -------
    One row per row of the table but Org. `drop` (with `_low`, `_high`) is the masked language's,
    `other` the language that comes closest or is most clearly ahead, and `difference` (with
    interval) what the masked one lost more than that. `absolute` is "larger" if the masked language
    lost more than every other by more than the interval, and by more than random masks make it
    (`standing.decided`), "smaller" if it lost less than another, else "open"; the columns
    `relative_…` say the same of drops relative to the unmasked scores, and `absolute_items` and
    `relative_items` what the intervals alone say. `difference_…`, `relative_difference_…` and
    `langspec_f1_…` have the columns of `standing.held_against`. `against_random` says of
    LangSpec-F1 "above" or "within" its null, "open" if it has too few masks to tell, or "" without
    one. All scores are in the unit of
    `value`. Where nulls are not asked for, verdicts are those of the intervals alone.

    Raises ValueError if the table's languages have no tasks, or are fewer than two.
    """
    languages = [x for x in tasks if x in table.columns]
    if len(languages) < 2:
        raise ValueError(
            f"the table has scores of {languages} among the tasks {dict(tasks)}: expected at least "
            "two languages to compare"
        )
    reach = NormalDist().inv_cdf((1 + level) / 2)
    by_mask = dict(list(items.groupby(["method", "mask_language"], sort=False)))
    before = {
        x: after[0] for x, after in _outcomes(by_mask["Org", ""], languages, tasks, value).items()
    }
    start = {x: float(np.nanmean(before[x])) for x in languages}
    rows, lost = [], []
    for _, row in table.iloc[1:].iterrows():
        target = row["mask_language"]
        after = _outcomes(by_mask[row["method"], target], languages, tasks, value)
        line = {key: row[key] for key in ("method", "mask_language", "n_neurons")}
        for relative, prefix in ((False, ""), (True, "relative_")):
            drops = {x: _drop(before[x], after[x], relative) for x in languages}
            drop, error = drops[target]
            if not relative:
                lost.append(pd.DataFrame([{x: d for x, (d, _) in drops.items()}]))
            found = _compare(
                {x: d for x, (d, _) in drops.items()},
                {x: e for x, (_, e) in drops.items()},
                target,
                level,
            )
            line |= {
                f"{prefix}drop": drop,
                f"{prefix}drop_low": drop - reach * error,
                f"{prefix}drop_high": drop + reach * error,
                f"{prefix}other": found.other,
                f"{prefix}other_drop": drops[found.other][0],
                f"{prefix}difference": found.estimate,
                f"{prefix}difference_low": found.low,
                f"{prefix}difference_high": found.high,
                "relative" if relative else "absolute": found.verdict,
            }
        line |= {key: row[key] for key in ("langspec_f1", "langspec_f1_low", "langspec_f1_high")}
        rows.append(line)
    judged = pd.DataFrame(rows)
    observed, null = [], []
    for line, own in zip(rows, lost, strict=True):
        target = str(line["mask_language"])
        masks = (nulls or {}).get(
            (line["method"], target), pd.DataFrame(columns=list(tasks.values()))
        )
        drops_of = {x: start[x] - masks[tasks[x]].astype(float) for x in languages}
        observed.append(_statistics(own, start, target, reading))
        null.append(_statistics(pd.DataFrame(drops_of), start, target, reading))
    for name in ("difference", "relative_difference", "langspec_f1"):
        held = held_against([float(o[name][0]) for o in observed], [n[name] for n in null])
        judged = judged.join(held.add_prefix(f"{name}_"))
    for name, key in (("absolute", "difference"), ("relative", "relative_difference")):
        judged[f"{name}_items"] = judged[name]
        if nulls is not None:
            held = judged[[f"{key}_q", f"{key}_q_low"]].set_axis(["q", "q_low"], axis=1)
            judged[name] = decided(judged[name].to_list(), held)
    q = judged["langspec_f1_q"]
    beyond_all = judged["langspec_f1_percentile"] == 100
    open_yet = beyond_all | (judged["langspec_f1_null_masks"] < ENOUGH)
    judged["against_random"] = np.select(
        [q.isna(), q <= FDR, open_yet], ["", "above", "open"], "within"
    )
    return judged


def _statistics(
    drops: pd.DataFrame, start: Mapping[str, float], target: str, reading: F1Reading
) -> dict[str, Array]:
    """What masks of `target` are held against their null by, from their drops, a row per mask."""
    languages = list(start)
    f1 = [
        metrics.langspec_f1(
            start,
            {x: start[x] - row[x] for x in languages},
            target,
            how=reading.how,
            relative=reading.relative,
        ).f1
        if not any(np.isnan(row[x]) for x in languages)
        else np.nan
        for row in drops.to_dict("records")
    ]
    return {
        "difference": own_less_others(drops, target, languages),
        "relative_difference": own_less_others(drops / pd.Series(start), target, languages),
        "langspec_f1": np.array(f1, float),
    }


def _outcomes(
    items: pd.DataFrame, languages: Sequence[str], tasks: Mapping[str, str], value: str
) -> dict[str, Array]:
    """Outcomes under one method's masks, language -> (masks, items)."""
    found = {}
    for x in languages:
        own = items[items["task"] == tasks[x]]
        masks = [group[value].to_numpy(float) for _, group in own.groupby("seed", sort=False)]
        found[x] = np.stack(masks)
    return found


def hit_most(verdicts: pd.DataFrame, method: str = "CRANE") -> set[str]:
    """The languages that lose clearly more than every other under a method's mask, absolutely."""
    own = verdicts[(verdicts["method"] == method) & (verdicts["absolute"] == "larger")]
    return set(own["mask_language"])


def ahead(verdicts: pd.DataFrame, method: str = "CRANE", other: str = "LAPE matched") -> list[str]:
    """The languages for which one method's LangSpec-F1 is larger than another's."""
    f1 = verdicts.set_index(["method", "mask_language"])["langspec_f1"]
    return [x for x in f1.loc[method].index if f1[method, x] > f1[other, x]]


#: A reading of LangSpec-F1: scores before and after, the masked language -> the metric.
Reading = Callable[[Mapping[str, float], Mapping[str, float], str], LangSpecF1]


def f1_readings(
    table: pd.DataFrame, languages: Iterable[str], readings: Mapping[str, Reading]
) -> pd.DataFrame:
    """LangSpec-F1 of each row of a table of scores (Org first), read in several ways.

    One row per mask, with `mask`, `method` and a column for each of `readings`.
    """
    rows = []
    original, *masks = table.to_dict("records")
    before = {x: float(original[x]) for x in languages}
    for row in masks:
        after, target = {x: float(row[x]) for x in before}, row["mask_language"]
        found = {name: read(before, after, target).f1 for name, read in readings.items()}
        rows.append({"mask": target, "method": row["method"], **found})
    return pd.DataFrame(rows)


def loss_changes(
    perplexities: pd.DataFrame,
    languages: Sequence[str],
    level: float = 0.95,
    nulls: Nulls | None = None,
) -> pd.DataFrame:
    """The language × language matrix: what each mask does to each language's held-out loss.

    Parameters
    ----------
    perplexities : as `Evaluated.perplexities` returns them.
    languages : the languages evaluated.
    nulls : changes under random masks, a row per mask and a column per language.

    Returns
    -------
    One row per method and masked language: `<language>`, the change in mean next-token loss (nats
    per token), and `<language>_se`, its standard error over windows; random masks are averaged,
    and the spread between them is added. `other`, `difference` (with `_low`, `_high`) and
    `verdict` compare the masked language's rise with the others', and with random masks', as in
    `verdicts`; `verdict_items` is what the intervals alone say, and the columns of
    `standing.held_against` are about the difference.
    """
    rows, observed, null = [], [], []
    masked = perplexities[perplexities["method"] != "Org"]
    for (method, target), group in masked.groupby(["method", "mask_language"], sort=False):
        change, error = {}, {}
        for x in languages:
            values = group[f"{x}_change"].to_numpy(float)
            variance = group[f"{x}_se"].mean() ** 2
            if len(values) > 1:
                variance += np.var(values, ddof=1) / len(values)
            change[x], error[x] = float(values.mean()), float(np.sqrt(variance))
        found = _compare(change, error, str(target), level)
        masks = (nulls or {}).get(
            (str(method), str(target)), pd.DataFrame(columns=list(languages), dtype=float)
        )
        observed.append(float(own_less_others(pd.DataFrame([change]), str(target), languages)[0]))
        null.append(own_less_others(masks, str(target), languages))
        rows.append(
            {
                "method": method,
                "mask_language": target,
                "n_neurons": int(group["n_neurons"].iloc[0]),
                **change,
                **{f"{x}_se": value for x, value in error.items()},
                "other": found.other,
                "difference": found.estimate,
                "difference_low": found.low,
                "difference_high": found.high,
                "verdict": found.verdict,
                "verdict_items": found.verdict,
            }
        )
    held = held_against(observed, null)
    changes = pd.DataFrame(rows).join(held)
    if nulls is not None:
        changes["verdict"] = decided(changes["verdict_items"].to_list(), held)
    return changes


def option_texts(prepared: Prepared) -> dict[str, list[str]]:
    """The options of every item, by its id."""
    return {item.id: list(item.options) for item in prepared.described}


def choice_shares(items: pd.DataFrame, texts: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """What is chosen under each mask, task by task; random masks are averaged.

    Parameters
    ----------
    items : as `Evaluated.items` returns them, with the unmasked model as method "Org".
    texts : the options of every item, as `option_texts` returns them.

    Returns
    -------
    One row per method, masked language and task, with shares of the items: `right`; `same`, chosen
    as by the unmasked model; `lost` and `gained`, right before and not now, and the other way
    round. `position_bits` is the entropy of the chosen positions (2 if all four are chosen equally
    often), `variety` the number of different answers relative to the right ones': the exponential
    of the entropy of the chosen texts over that of the right texts, within a relation, averaged
    over items. A model that says the same word wherever it can has little variety whatever the
    position.
    """
    unmasked = items[items["method"] == "Org"].set_index("id")
    options = np.array([texts[item] for item in unmasked.index], dtype=object)
    place = items["id"].map({item: i for i, item in enumerate(unmasked.index)}).to_numpy()
    known = unmasked.loc[items["id"]]
    right, was = items["correct"].to_numpy(bool), known["correct"].to_numpy(bool)
    table = items[["method", "mask_language", "seed", "task", "relation", "choice"]].assign(
        right=right,
        same=items["choice"].to_numpy() == known["choice"].to_numpy(),
        lost=was & ~right,
        gained=~was & right,
        said=options[place, items["choice"].to_numpy()],
        gold=options[place, items["answer"].to_numpy()],
    )
    rows = []
    by = ["method", "mask_language", "seed", "task"]
    for _, group in table.groupby(by, sort=False):
        variety = [
            len(part) * np.exp(_entropy(part["said"]) - _entropy(part["gold"]))
            for _, part in group.groupby("relation")
        ]
        rows.append(
            {
                **{name: group[name].iloc[0] for name in by},
                **{name: group[name].mean() for name in ("right", "same", "lost", "gained")},
                "position_bits": _entropy(group["choice"]) / np.log(2),
                "variety": sum(variety) / len(group),
            }
        )
    by_mask = pd.DataFrame(rows).groupby(["method", "mask_language", "task"], sort=False)
    return by_mask.mean().drop(columns="seed").reset_index()


def own_tasks(chosen: pd.DataFrame, tables: Mapping[str, Mapping[str, str]]) -> pd.DataFrame:
    """`choice_shares` in a language's own tasks under its own mask, averaged over tasks.

    `tables` as `Pipeline.tables`, which says what language a task is in. The unmasked model (Org)
    has a row for every language.
    One row per method and `language`, with the shares of `choice_shares`.
    """
    language = {task: x for table in tables.values() for x, task in table.items()}
    found = chosen.assign(language=chosen["task"].map(language))
    own = found[(found["method"] == "Org") | (found["language"] == found["mask_language"])]
    shares = ["right", "same", "lost", "gained", "position_bits", "variety"]
    return own.groupby(["method", "language"], sort=False)[shares].mean().reset_index()


def _entropy(values: pd.Series) -> float:
    """Entropy in nats of how often each value occurs."""
    shares = values.value_counts(normalize=True).to_numpy()
    return float(-(shares * np.log(shares)).sum())


def labelled(answers: Mapping[tuple[str, str], pd.DataFrame]) -> pd.DataFrame:
    """Tables of answers, by method and masked language, as one with the columns of those names."""
    return pd.concat(
        [found.assign(method=method, mask_language=x) for (method, x), found in answers.items()],
        ignore_index=True,
    )


def answer_shares(answers: pd.DataFrame) -> pd.DataFrame:
    """What free continuations are, as shares per mask and language of the question.

    Parameters
    ----------
    answers : `answers.answer_instead`'s rows, with columns `method` and `mask_language`.

    Returns
    -------
    One row per method, masked language and `language`: the share of each of `CATEGORIES`, the most
    frequent text as `favourite` and its share as `favourite_share`, and `n`.
    """
    rows = []
    by = ["method", "mask_language", "language"]
    for _, group in answers.groupby(by, sort=False):
        shares = group["category"].value_counts(normalize=True)
        texts = group["text"].value_counts(normalize=True, sort=False)
        rows.append(
            {
                **{name: group[name].iloc[0] for name in by},
                **{name: float(shares.get(name, 0.0)) for name in CATEGORIES},
                "favourite": texts.idxmax(),
                "favourite_share": float(texts.max()),
                "n": len(group),
            }
        )
    return pd.DataFrame(rows)


def leaves_language(now: float, before: float, n: int, level: float = 0.95) -> bool:
    """Whether a share of answers in another language is clearly larger than it was.

    Both are shares of `n` answers, with normal intervals, which are rough at shares near 0.
    """
    error = np.sqrt(sum(p * (1 - p) for p in (now, before)) / n)
    return bool(now - before > NormalDist().inv_cdf((1 + level) / 2) * error)


def changed_answers(before: pd.DataFrame, after: pd.DataFrame, n: int = 4) -> pd.DataFrame:
    """The first `n` answers that differ between two tables of the same questions.

    Columns: `item`, `right answer`, `unmasked` and `masked` (the answers) and `now` (what the
    second is, of `CATEGORIES`).
    """
    then, now = before.reset_index(drop=True), after.reset_index(drop=True)
    found = np.flatnonzero(then["text"] != now["text"])[:n]
    return pd.DataFrame(
        {
            "item": then.loc[found, "id"],
            "right answer": then.loc[found, "answer"],
            "unmasked": then.loc[found, "text"],
            "masked": now.loc[found, "text"],
            "now": now.loc[found, "category"],
        }
    )


def own_language(items: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Means of an answer's `columns` under each method's mask of the question's own language.

    `items` as `Judged.items` returns them; the unmasked model is "Org", and random masks are
    averaged. One row per method and language, with `n` answers.
    """
    own = items[(items["method"] == "Org") | (items["mask_language"] == items["language"])]
    grouped = own.groupby(["method", "language"], sort=False)[list(columns)]
    return grouped.mean().assign(n=grouped.size()).reset_index()


def leaving(spoken: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """The masks under which clearly fewer answers are in the masked language.

    Fisher's exact test at 1 - `level`, one-sided, of the mask's own language; `spoken` as
    `Judged.spoken` returns it. Columns: `method`, `language`, `now` and `before`, the shares.
    Languages whose shares are missing are left out.
    """
    unmasked = spoken[spoken["method"] == "Org"].set_index("language")
    rows = []
    for row in spoken[spoken["mask_language"] == spoken["language"]].to_dict("records"):
        x = row["language"]
        if pd.isna(row.get(x)):
            continue
        was, now = unmasked.loc[x], (round(row[x] * row["n"]), row["n"])
        kept = round(was[x] * was["n"])
        counts = [[kept, was["n"] - kept], [now[0], now[1] - now[0]]]
        if fisher_exact(counts, alternative="greater").pvalue < 1 - level:
            rows.append((row["method"], x, row[x], was[x]))
    return pd.DataFrame(rows, columns=["method", "language", "now", "before"])


def grader_agreement(
    graded: pd.DataFrame, graders: Sequence[str], level: float = 0.95
) -> pd.DataFrame:
    """How well graders agree, pair by pair, in each language and in all.

    Parameters
    ----------
    graded : one row per answer, with `language` and a column of grades for each grader.
    graders : the columns.

    Returns
    -------
    One row per pair and language: `answers`, Spearman's `correlation` with its interval as text
    (Fisher's transformation with Bonett and Wright's standard error), the shares `within 1` and
    `within 2`, and `difference`, the mean of the first less the second.

    Raises ValueError for fewer than two graders.
    """
    if len(graders) < 2:
        raise ValueError(f"agreement needs at least two graders, got {list(graders)}")
    reach = NormalDist().inv_cdf((1 + level) / 2)
    rows = []
    for first, second in itertools.combinations(graders, 2):
        groups = [("all", graded), *graded.groupby("language", sort=False)]
        for name, own in groups:
            a, b = own[first].to_numpy(float), own[second].to_numpy(float)
            rho = float(spearmanr(a, b).statistic)
            error = np.sqrt((1 + rho**2 / 2) / max(len(a) - 3, 1))
            low, high = np.tanh(np.arctanh(min(rho, 1 - 1e-9)) + reach * error * np.array([-1, 1]))
            rows.append(
                {
                    "graders": f"{first} and {second}".replace("_", " "),
                    "language": name,
                    "answers": len(own),
                    "correlation": f"{rho:.2f} [{low:.2f}, {high:.2f}]",
                    "within 1": float((np.abs(a - b) <= 1).mean()),
                    "within 2": float((np.abs(a - b) <= 2).mean()),
                    "difference": float((a - b).mean()),
                }
            )
    return pd.DataFrame(rows)
