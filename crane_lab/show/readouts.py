"""What the outcomes under masks say, beside the tables.

Whether a mask hits its language more than the others, by more than the choice of items explains
(§3.1 asks for a *relative* difference, Eq. 3 takes an absolute one); what becomes of the losses;
and what a masked model answers instead of what it answered before.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import fisher_exact, spearmanr

from crane_lab.engines.multiple_choice import Prepared

Array = NDArray[np.float64]

#: What a free continuation can be, as `evaluation.answer_instead` calls it.
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


def verdicts(
    items: pd.DataFrame,
    table: pd.DataFrame,
    tasks: Mapping[str, str],
    level: float = 0.95,
    value: str = "correct",
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

    Returns
    -------
    One row per row of the table but Org. `drop` (with `_low`, `_high`) is the masked language's,
    `other` the language that comes closest or is most clearly ahead, and `difference` (with
    interval) what the masked one lost more than that. `absolute` is "larger" if the masked language
    lost more than every other by more than the interval, "smaller" if it lost less than another,
    else "open"; the columns `relative_…` say the same of drops relative to the unmasked scores.
    `against_random` is where the interval of LangSpec-F1 lies: "above", "below" or "within" (which
    includes overlapping) the range of the random masks made for this language, or "" without them.
    All scores are in the unit of `value`.

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
    random = table[table["method"] == "Random"].set_index("mask_language")
    rows = []
    for _, row in table.iloc[1:].iterrows():
        target = row["mask_language"]
        after = _outcomes(by_mask[row["method"], target], languages, tasks, value)
        line = {key: row[key] for key in ("method", "mask_language", "n_neurons")}
        for relative, prefix in ((False, ""), (True, "relative_")):
            drops = {x: _drop(before[x], after[x], relative) for x in languages}
            drop, error = drops[target]
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
        line["random_low"], line["random_high"], line["against_random"] = np.nan, np.nan, ""
        if row["method"] != "Random" and target in random.index:
            low, high = random.loc[target, ["langspec_f1_low", "langspec_f1_high"]]
            line["random_low"], line["random_high"] = low, high
            line["against_random"] = (
                "above"
                if row["langspec_f1_low"] > high
                else "below"
                if row["langspec_f1_high"] < low
                else "within"
            )
        rows.append(line)
    return pd.DataFrame(rows)


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


class Unit(NamedTuple):
    """How a score is said: times `scale`, with `digits` decimals, followed by `name`."""

    scale: float
    digits: int
    name: str

    def signed(self, value: float) -> str:
        """A difference with its sign; the minus sign is one."""
        return f"{self.scale * value:+.{self.digits}f}".replace("-", "−")


#: Accuracies, and a judge's scale from 1 to 10.
PERCENT, GRADE = Unit(100, 1, "points"), Unit(1, 2, "grade points")


def sentence(
    verdict: Mapping[str, Any], names: Mapping[str, str] | None = None, unit: Unit = PERCENT
) -> str:
    """One row of `verdicts` in words (Markdown), null results as null results.

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
    absolute, relative = judged("", "absolute"), judged("relative_", "relative")
    text = (
        f"{start}{target} drops by {points('drop')}, {other} by "
        f"{unit.signed(verdict['other_drop'])}; the difference is {points('difference')}. "
    )
    if absolute == relative:
        text += f"In absolute and in relative terms the mask {absolute}."
    else:
        text += f"In absolute terms the mask {absolute}, in relative terms it {relative}."
    if verdict["against_random"]:
        lies = {"above": "lies above", "below": "lies below", "within": "overlaps"}
        text += (
            f" The interval of its LangSpec-F1, {verdict['langspec_f1']:.3f} "
            f"[{verdict['langspec_f1_low']:.3f}, {verdict['langspec_f1_high']:.3f}], "
            f"{lies[verdict['against_random']]} the range of the random masks "
            f"({verdict['random_low']:.3f} to {verdict['random_high']:.3f})."
        )
    return text


def shown(table: pd.DataFrame, languages: Sequence[str], digits: int = 3) -> pd.DataFrame:
    """A results table as it is read: every score and LangSpec-F1 with its interval, as text."""
    frame = pd.DataFrame({"method": table["method"], "mask": table["mask_language"]})
    frame["n"] = table["n_neurons"].map("{:,}".format)
    for column in (*languages, "langspec_f1"):
        places = 3 if column == "langspec_f1" else digits
        frame[column] = [
            # A break may come before the interval, not within it.
            f"{value:.{places}f} [{low:.{places}f},\u00a0{high:.{places}f}]"
            for value, low, high in zip(
                table[column], table[f"{column}_low"], table[f"{column}_high"], strict=True
            )
        ]
    frame.loc[frame["method"] == "Org", ["n", "langspec_f1"]] = "–"
    return frame.rename(columns={"langspec_f1": "LangSpec-F1"})


def drops_in_words(table: pd.DataFrame, languages: Sequence[str], digits: int = 3) -> str:
    """The drops of every row and its LangSpec-F1, for readers who cannot see a figure of them."""
    org = table.iloc[0]
    return " ".join(
        f"{row['method']} {row['mask_language']}: "
        + ", ".join(f"{x} {org[x] - row[x]:+.{digits}f}" for x in languages)
        + f"; LangSpec-F1 {row['langspec_f1']:.3f}."
        for _, row in table.iloc[1:].iterrows()
    )


def null_and_marks(
    table: pd.DataFrame, seeds: pd.DataFrame, names: Mapping[str, str]
) -> tuple[dict[str, Array], dict[str, dict[str, float]]]:
    """LangSpec-F1 of random masks by row, and of the other methods, for `figures.f1_strip`.

    `table` and `seeds` as `Scored` makes them; a row is a masked language with CRANE's number of
    neurons, which the random masks share.
    """
    counts = table[table["method"] == "CRANE"].set_index("mask_language")["n_neurons"]
    label = {str(x): f"{names.get(str(x), str(x))}, n = {n:,}" for x, n in counts.items()}
    null: dict[str, Array] = {}
    for x, text in label.items():
        own = seeds[seeds["mask_language"] == x] if len(seeds) else seeds
        null[text] = own["langspec_f1"].to_numpy(float) if len(own) else np.array([])
    marks: dict[str, dict[str, float]] = {}
    for row in table.iloc[1:].to_dict("records"):
        if row["method"] != "Random":
            found = marks.setdefault(row["method"], {})
            found[label[row["mask_language"]]] = row["langspec_f1"]
    return null, marks


def folded(lines: Sequence[str], title: str) -> str:
    """A list (Markdown) that opens when its title is clicked."""
    items = "\n".join(f"- {line}" for line in lines)
    return f"<details><summary>{title}</summary>\n\n{items}\n\n</details>"


def summary(verdicts: pd.DataFrame, method: str) -> str:
    """How often one method's masks did what they are for, in a sentence (Markdown)."""
    own = verdicts[verdicts["method"] == method]
    absolute, relative = (
        int((own[column] == "larger").sum()) for column in ("absolute", "relative")
    )
    above = int((own["against_random"] == "above").sum())
    n = len(own)
    text = (
        f"**{method}**: its own language loses clearly more than every other under {absolute} of "
        f"{n} masks in absolute terms and under {relative} in relative terms"
    )
    compared = bool((own["against_random"] != "").any())
    if compared:
        text += f"; LangSpec-F1 lies above the range of the random masks for {above}"
    if absolute == relative == 0 and not (compared and above):
        text += ": a null result"
    elif absolute == relative == n and (above == n or not compared):
        text += ": in every case what the method is for"
    return text + "."


def loss_changes(
    perplexities: pd.DataFrame, languages: Sequence[str], level: float = 0.95
) -> pd.DataFrame:
    """The language × language matrix: what each mask does to each language's held-out loss.

    Parameters
    ----------
    perplexities : as `Evaluated.perplexities` returns them.
    languages : the languages evaluated.

    Returns
    -------
    One row per method and masked language: `<language>`, the change in mean next-token loss (nats
    per token), and `<language>_se`, its standard error over windows; random masks are averaged,
    and the spread between them is added. `other`, `difference` (with `_low`, `_high`) and
    `verdict` compare the masked language's rise with the others', as in `verdicts`.
    """
    rows = []
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
            }
        )
    return pd.DataFrame(rows)


def option_texts(prepared: Prepared) -> dict[str, list[str]]:
    """The options of every item, by its id."""
    return {item.id: list(item.options) for item in prepared.described}


def choices(items: pd.DataFrame, texts: Mapping[str, Sequence[str]]) -> pd.DataFrame:
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


def _entropy(values: pd.Series) -> float:
    """Entropy in nats of how often each value occurs."""
    shares = values.value_counts(normalize=True).to_numpy()
    return float(-(shares * np.log(shares)).sum())


def answer_shares(answers: pd.DataFrame) -> pd.DataFrame:
    """What free continuations are, as shares per mask and language of the question.

    Parameters
    ----------
    answers : `evaluation.answer_instead`'s rows, with columns `method` and `mask_language`.

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


def strip_in_words(null: Mapping[str, ArrayLike], marks: Mapping[str, Mapping[str, float]]) -> str:
    """What `figures.f1_strip` draws, for readers who cannot see it."""
    return " ".join(
        f"{row}: random {', '.join(f'{v:.3f}' for v in np.asarray(values, dtype=float))}; "
        + ", ".join(f"{method} {found[row]:.3f}" for method, found in marks.items())
        + "."
        for row, values in null.items()
    )


def own_language(items: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Means of an answer's `columns` under each method's mask of the question's own language.

    `items` as `Judged.items` returns them; the unmasked model is "Org", and random masks are
    averaged. One row per method and language, with `n` answers.
    """
    own = items[(items["method"] == "Org") | (items["mask_language"] == items["language"])]
    grouped = own.groupby(["method", "language"], sort=False)[list(columns)]
    return grouped.mean().assign(n=grouped.size()).reset_index()


def spoken_panels(spoken: pd.DataFrame, names: Mapping[str, str]) -> dict[str, pd.DataFrame]:
    """`Judged.spoken` as one table per language of the question, for `figures.shares_heatmap`."""
    panels = {}
    for x, own in spoken.groupby("language", sort=False):
        labels = [
            f"{method} · {mask}" if mask else method
            for method, mask in zip(own["method"], own["mask_language"], strict=True)
        ]
        panels[f"asked in {names.get(str(x), str(x))}"] = own[[*names, "none"]].set_axis(labels)
    return panels


def left_language(spoken: pd.DataFrame, names: Mapping[str, str], level: float = 0.95) -> str:
    """Under which masks answers leave the language of the question, in words.

    A mask counts if clearly fewer answers than without it are in the question's language: Fisher's
    exact test at 1 - `level`, one-sided, for the mask's own language. `spoken` as `Judged.spoken`
    returns it.
    """
    before = spoken[spoken["method"] == "Org"].set_index("language")
    found = []
    for row in spoken[spoken["mask_language"] == spoken["language"]].to_dict("records"):
        x = row["language"]
        was, now = before.loc[x], (round(row[x] * row["n"]), row["n"])
        kept = round(was[x] * was["n"])
        counts = [[kept, was["n"] - kept], [now[0], now[1] - now[0]]]
        if fisher_exact(counts, alternative="greater").pvalue < 1 - level:
            found.append(
                f"{row['method']}, {names.get(x, x)} ({row[x]:.0%}, unmasked {was[x]:.0%})"
            )
    if not found:
        return (
            "No mask makes the model leave the language it is meant for: the share of answers in "
            "it is nowhere clearly below the unmasked one."
        )
    return (
        "Clearly fewer answers than without a mask come in the masked language under "
        + "; ".join(found)
        + ". No other mask makes the model leave the language it is meant for."
    )


def agreement(graded: pd.DataFrame, graders: Sequence[str], level: float = 0.95) -> pd.DataFrame:
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
