"""Tables, figures and sentences of a task that was learned in one language (`study.taught`).

`effects` is task -> the table of `taught_effects.taught_effects`, and for text that of
`text_taught.text_effects`; `names` is language -> its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown
from pandas.io.formats.style import Styler

from crane_lab.show import figures
from crane_lab.show.foreign import as_markdown, prose
from crane_lab.show.tables import written_intervals
from crane_lab.stages.standing import FDR
from crane_lab.study.taught import others_of
from crane_lab.testbed.unseen import LABELS
from crane_lab.texts.languages import language_names

Items = Mapping[str, Sequence[Mapping[str, Any]]]


def nli_items_table(items: Items, number: int = 0) -> Styler:
    """One item of `nli` in every language."""
    rows = [
        {
            "language": x,
            "premise": own[number]["premise"],
            "hypothesis": own[number]["hypothesis"],
            "label": LABELS[int(own[number]["label"])],
        }
        for x, own in items.items()
    ]
    return figures.table(pd.DataFrame(rows), "An item of NLI in every language")


def qa_items_table(items: Items, number: int = 0) -> Styler:
    """One item of `qa` in every language."""
    names = ("passage", "question", "answer")
    rows = [{"language": x, **{n: own[number][n] for n in names}} for x, own in items.items()]
    return figures.table(pd.DataFrame(rows), "A question with its passage in every language")


def levels_table(
    levels: Mapping[str, pd.DataFrame], before: Mapping[str, Mapping[str, float]]
) -> Styler:
    """How well each task is done after training, by language: `taught_effects.taught_levels`.

    `before`: task -> language -> share right of the model untrained, for tasks that it can do.
    """
    frame = pd.concat(levels, names=["task", None]).reset_index("task")
    frame["before"] = [
        before.get(str(task), {}).get(str(x), np.nan)
        for task, x in zip(frame["task"], frame["language"], strict=True)
    ]
    frame["after"] = written_intervals(frame, "score", form="{:.3f}")
    frame["above the floor"] = frame["above"].map({True: "yes", False: "not certain"})
    known = ["before"] if frame["before"].notna().any() else []
    frame = frame.rename(columns={"seeds": "trainings", "f1": "F1 after"})
    partly = ["F1 after"] if frame["F1 after"].notna().any() else []
    names = ["task", "language", *known, "after", *partly, "trainings", "floor", "above the floor"]
    return figures.table(
        frame[names],
        f"Share of test items right {' and '.join([*known, 'after'])} training in English, with "
        "95 % intervals over trainings and items; the floor is what naming the most common label "
        "of the items always gets, of qa nothing",
        dict.fromkeys((*known, *partly, "floor"), "{:.3f}"),
    )


def trainings_table(table: pd.DataFrame, language: str, items: str = "items") -> Styler:
    """Share right in one language after each training: untouched, and each method's set at zero.

    `table` as `taught.read_taught` gives it, of interventions; `items`: what they are called.
    """
    own = table[(table["language"] == language) & (table["draw"] == -1)]
    own = own[own["set_to"].isin(("", "zero"))]
    wide = own.assign(sets=own["method"].replace("none", "untouched")).pivot_table(
        index="seed", columns="sets", values="score", sort=False
    )
    shown = wide.reset_index().rename(columns={"seed": "training"})
    return figures.table(
        shown,
        f"Share of {items} right in {language} after each training: untouched, and with the "
        "language's neurons of each method set to zero",
        dict.fromkeys(wide.columns, "{:.2f}"),
    )


def labels_table(found: pd.DataFrame) -> Styler:
    """How often items of each label are right: `taught_effects.right_by_label`."""
    wide = found.pivot_table(
        index=["language", "seed"], columns="label", values="right", sort=False
    ).reset_index()
    items = found.groupby("label", sort=False)["items"].max()
    names = {label: f"{label} ({n})" for label, n in items.items()}
    return figures.table(
        wide.rename(columns={"seed": "training", **names}),
        "Share of items right by their label (how many there are), after each training",
        dict.fromkeys(names.values(), "{:.2f}"),
    )


def labels_in_words(found: pd.DataFrame) -> Markdown:
    """After how many trainings a label is never right in a language, or all items get the same."""
    lines = []
    for x, own in found.groupby("language", sort=False):
        wide = own.pivot_table(index="seed", columns="label", values="right", sort=False)
        never = (wide == 0).sum(axis=1)
        same = int(((never == wide.shape[1] - 1) & (wide == 1).any(axis=1)).sum())
        if some := int((never > 0).sum()):
            line = f"- {x}: after {some} of {len(wide)} no item of some label is right"
            lines.append(
                line + (f", after {same} every item is given the same label." if same else ".")
            )
    if not lines:
        return prose("After every training, items of every label are right in every language.")
    return prose("NLI, label by label:\n\n" + "\n".join(lines))


def transfer_in_words(
    levels: Mapping[str, pd.DataFrame],
    source: str,
    before: Mapping[str, Mapping[str, float]] | None = None,
) -> Markdown:
    """Where what was learned in the source certainly arrives: languages above their floor.

    And above what the model could do `before` (task -> language -> share), if that is known.
    """
    lines = []
    for task, own in levels.items():
        could = (before or {}).get(task, {})
        better = own["low"] > own["language"].map(could).fillna(-np.inf)
        above = [str(x) for x in own[own["above"] & better]["language"]]
        learned = "is learned" if source in above else "is not certainly learned"
        others = [x for x in own["language"] if x != source]
        arrived = [x for x in others if x in above]
        said = f"arrives in {' and '.join(arrived)}" if arrived else "certainly arrives nowhere"
        missing = [x for x in others if x not in above]
        rest = f", not certainly in {' and '.join(missing)}" if arrived and missing else ""
        lines.append(f"- {task} {learned} in {source}, and {said}{rest}.")
    return prose("\n".join(lines))


def people_table(found: pd.DataFrame) -> Styler:
    """How often questions are right by the number of people: `taught_effects.right_by_people`."""
    wide = found.pivot_table(index="people", columns="language", values="right", sort=False)
    wide["picking any that fits"] = found.groupby("people")["fitting"].first()
    return figures.table(
        wide.reset_index(),
        "Share of questions right by the number of people in the story, beside what picking any "
        "word of the right kind from the passage would get",
        dict.fromkeys(wide.columns, "{:.2f}"),
    )


def effects_figure(
    effects: Mapping[str, pd.DataFrame], names: Mapping[str, str], of: str
) -> HTML | Markdown:
    """Changes of the score by method and value, or tuned set: a panel per task, one language.

    A sentence for a language that no table has.
    """
    panels, told = {}, []
    if not any((every["language"] == of).any() for every in effects.values()):
        return prose(f"These results have no row of {names[of]}.")
    for task, every in effects.items():
        own = every[every["language"] == of]
        own = pd.concat([own[own["method"] != "all"], own[own["method"] == "all"]])
        value = own["set_to"].where(own["set_to"] != "", "tuned: " + own["of"])
        value = value.where(own["method"] != "all", "tuned: all")
        panels[f"{task}: change of the share right"] = pd.DataFrame(
            {"row": value, "series": own["method"], "value": own["change"]}
            | {"low": own["low"], "high": own["high"], "reference": own["random"]}
        )
        told += [
            f"{task}, {method}: {part['change'].min():+.3f} to {part['change'].max():+.3f}"
            for method, part in own.groupby("method", sort=False)
        ]
    return figures.show(
        figures.dot_ranges(
            panels, zero=list(panels), title=names[of], reference_label="random sets, likewise"
        ),
        alt=f"Changes by what neurons are set to or which are tuned, {names[of]}. "
        + "; ".join(told),
    )


def effects_counts_table(effects: Mapping[str, pd.DataFrame], level: float = FDR) -> Styler:
    """How many effects are gains and losses beyond trainings and items, by task and method."""
    rows = []
    for task, found in effects.items():
        for method, own in found.groupby("method", sort=False):
            sure = own[own["q_change"] <= level]["change"]
            row = {"task": task, "method": method, "changes": len(own)}
            row |= {"better, certain": int((sure > 0).sum())}
            row |= {"worse, certain": int((sure < 0).sum())}
            least, most = own["change"].min(), own["change"].max()
            rows.append({**row, "from": least, "to": most})
    return figures.table(
        pd.DataFrame(rows),
        "Changes of the share right; certain is beyond trainings and items, at a false-discovery "
        "rate of 5 % over a task's rows",
        {"from": "{:+.3f}", "to": "{:+.3f}"},
    )


def gains_in_words(effects: Mapping[str, pd.DataFrame], level: float = FDR) -> Markdown:
    """Which changes are certain gains, beyond trainings and items, and what random sets do there.

    Corrected over a task's rows.
    """
    lines = []
    for task, found in effects.items():
        own = found[(found["q_change"] <= level) & (found["change"] > 0)]
        for row in own.to_dict("records"):
            line = (
                f"- {task}, {as_markdown(row['method'])} {row['language']}, {row['set_to']}: "
                f"{row['change']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
            )
            if row["draws"]:
                line += f"; {row['draws']} random sets, likewise, {row['random']:+.3f} on average"
            if row["null_masks"]:
                line += f", and it lies above {row['percentile']:.0f} % of them"
            elif not row["draws"] and row["set_to"]:
                line += "; no random set was set to this value"
            lines.append(f"{line}.")
        if own.empty:
            lines.append(f"- {task}: none.")
    return prose("Certain gains:\n\n" + "\n".join(lines))


def taught_table(effects: Mapping[str, pd.DataFrame], caption: str) -> Styler:
    """The rows that have random sets beside them, in numbers, by task."""
    every = pd.concat(effects, names=["task", None]).reset_index("task")
    own = every[every["null_masks"] > 0]
    shown = own[["task", "method", "language"]].copy()
    shown["change"] = written_intervals(own, "change")
    for name, column in (
        ("random sets", "null_masks"),
        ("their mean", "null_mean"),
        ("percentile", "percentile"),
        ("q, larger", "q"),
        ("q, smaller", "q_low"),
    ):
        shown[name] = own[column].to_numpy()
    formats = {"their mean": "{:+.3f}", "percentile": "{:.0f}"}
    formats |= {"q, larger": "{:.3f}", "q, smaller": "{:.3f}"}
    return figures.table(shown, caption, formats)


def beyond_random_in_words(effects: Mapping[str, pd.DataFrame], level: float = FDR) -> Markdown:
    """How many sets lie beyond random ones, and how many beyond all of too few, by task."""
    lines = []
    for task, found in effects.items():
        own = found[found["null_masks"] > 0]
        beyond = (own["q"] <= level) | (own["q_low"] <= level)
        outside = ~beyond & own["percentile"].isin((0, 100))
        line = (
            f"{task}: {int(beyond.sum())} of {len(own)} sets lie beyond random ones, corrected "
            "over the rows"
        )
        ends = []
        for percentile, said in ((0, "cost more"), (100, "cost less")):
            named = own[outside & (own["percentile"] == percentile)].to_dict("records")
            if named:
                sets = ", ".join(f"{as_markdown(row['method'])} {row['language']}" for row in named)
                ends.append(f"{sets} {said}")
        if ends:
            line += (
                f"; {' and '.join(ends)} than every one of {int(own['null_masks'].max())}, which "
                "are too few to tell after that correction"
            )
        lines.append(f"- {line}.")
    return prose("\n".join(lines))


def made_in_words(made: Mapping[str, Mapping[str, Any]], again: str) -> Markdown:
    """Where tables of trainings come from, and whether they are about this run's neurons.

    `made` has the records that `grown.made_of` returns, by what was learned; `again` is the command
    that makes them anew.
    """
    lines, others = [], set[str]()
    for what, record in made.items():
        recipe = record["inputs"]["recipe"]
        others |= others_of(record)
        n_test = record["inputs"].get("n_test")
        asked = f", {n_test} items asked in each language" if n_test else ""
        lines.append(
            f"- {what}: {record['seeds']} trainings of each set on {recipe['items']:,} items in "
            f"batches of {recipe['batch']}, passes over them: {recipe['epochs']}, learning rate "
            f"{recipe['learning_rate']:g}, LoRA of rank {recipe['rank']}{asked}; on "
            f"{as_markdown(str(record['machine']['cpu']))} with torch "
            f"{as_markdown(record['versions']['torch'])}."
        )
    if others:
        lines.append(
            "\n**These results are not those of your run.** They were made with another "
            f"{', '.join(name.replace('_', ' ') for name in sorted(others))}; set "
            "`recompute_taught`."
        )
    return prose("\n".join([*lines, f"\nMade anew by `{again}`."]))


def contrast_table(contrasts: Mapping[tuple[str, str], pd.DataFrame]) -> Styler:
    """Zero against other values: `taught_effects.taught_contrast`, by (task, the other value)."""
    frame = pd.concat(contrasts, names=["task", "value", None]).reset_index(["task", "value"])
    shown = frame[["task", "method", "language"]].drop_duplicates()
    for value, own in frame.groupby("value", sort=False):
        said = own[["task", "method", "language"]].copy()
        said[f"zero less {value}"] = written_intervals(own, "difference")
        said[f"q, {value}"] = own["q"].map("{:.3f}".format)
        shown = shown.merge(said, how="left")
    return figures.table(
        shown, "Share right with neurons at zero, less that with them at another value"
    )


def contrast_in_words(
    contrasts: Mapping[tuple[str, str], pd.DataFrame], level: float = FDR
) -> Markdown:
    """In how many rows zero is certainly better or worse than another value."""
    lines = []
    for (task, value), found in contrasts.items():
        sure = found[found["q"] <= level]["difference"]
        lines.append(
            f"- {task}, {value}: certainly worse than zero in {int((sure > 0).sum())} of "
            f"{len(found)} rows, certainly better in {int((sure < 0).sum())}; on average by "
            f"{100 * found['difference'].mean():+.1f} points."
        )
    return prose("\n".join(lines))


def resolution_in_words(effects: Mapping[str, pd.DataFrame]) -> Markdown:
    """How small a change can be told with the items and trainings at hand, by task."""
    halves = {
        task: 100 * ((found["high"] - found["low"]) / 2).median() for task, found in effects.items()
    }
    said = ", ".join(f"{half:.1f} points in {task}" for task, half in halves.items())
    return prose(
        f"Half of these intervals reach further than {said} to either side: a claim about less "
        "than a point cannot be settled here, whatever is true."
    )


def beside_random_table(found: Mapping[str, pd.DataFrame]) -> Styler:
    """Tuned sets less random ones that were tuned likewise: `taught_beside_random`, by task."""
    frame = pd.concat(found, names=["task", None]).reset_index("task")
    frame = frame[frame["of"].str.rpartition("+")[2] == frame["language"]]
    shown = pd.DataFrame(
        {
            "task": frame["task"],
            "method": frame["method"],
            "tuned": frame["of"],
            "less random": written_intervals(frame, "difference"),
            "q": frame["q"],
            "random sets": frame["draws"],
            "one of them": [
                f"{low:+.3f} to {high:+.3f}"
                for low, high in zip(frame["random_low"], frame["random_high"], strict=True)
            ],
        }
    )
    return figures.table(
        shown,
        "Share right in the target, less the mean of random sets tuned likewise, with 95 % "
        "intervals of one more random set; and how far single ones are from that mean",
        {"q": "{:.3f}"},
    )


def values_beside_random_table(found: Mapping[str, pd.DataFrame]) -> Styler:
    """Sets less random ones at the same value: `taught_beside_random`, by task; values as heads."""
    frame = pd.concat(found, names=["task", None]).reset_index("task")
    certain = frame["q"] <= FDR
    frame["cell"] = frame["difference"].map("{:+.3f}".format) + certain.map({True: " *", False: ""})
    wide = frame.pivot_table(
        index=["task", "method", "language"],
        columns="set_to",
        values="cell",
        aggfunc="first",
        sort=False,
    )
    return figures.table(
        wide.reset_index(),
        "Share right with a set at a value, less the mean of random sets at it; with * certain for "
        "one more random set and other trainings, corrected over a task's rows",
    )


def values_beside_random_in_words(found: Mapping[str, pd.DataFrame]) -> Markdown:
    """How many sets at a value do certainly more or less than random ones at it, by task."""
    lines = []
    for task, every in found.items():
        certain, own = every["q"] <= FDR, every["difference"]
        draws = sorted(set(every["draws"].astype(int)), reverse=True)
        reach = 100 * ((every["high"] - every["low"]) / 2).median()
        lines.append(
            f"- {task}: of {len(every)} sets at a value, {int((certain & (own > 0)).sum())} are "
            f"certainly better than random ones at it and {int((certain & (own < 0)).sum())} "
            f"certainly worse ({' or '.join(map(str, draws))} random sets each); half of the "
            f"intervals reach further than {reach:.1f} points."
        )
    return prose("\n".join(lines))


def changed_weights_table(found: pd.DataFrame) -> Styler:
    """Which weights a training changed: `tuned.changed_weights`."""
    shown = pd.DataFrame(
        {
            "projection": found["projection"],
            "weights of chosen neurons": found["chosen"],
            "changed": found["changed"] / found["chosen"],
            "weights of the others": found["others"],
            "changed among them": found["others_changed"],
        }
    )
    return figures.table(
        shown,
        "Weights of the MLPs that a short training changed, computed for this page",
        {
            "weights of chosen neurons": "{:,}",
            "changed": "{:.1%}",
            "weights of the others": "{:,}",
        },
    )


def text_figure(effects: pd.DataFrame, names: Mapping[str, str]) -> HTML:
    """What tuning on text in one language does to each language's loss, by set."""
    names, panels = _names_of(effects, names), {}
    for of, own in effects[effects["method"] != "none"].groupby("of", sort=False):
        panels[f"{names[str(of)]}: change of loss (nats per token)"] = pd.DataFrame(
            {
                **{"row": own["method"], "series": own["language"], "value": own["change"]},
                **{"low": own["low"], "high": own["high"], "reference": own["random"]},
            }
        )
    own = effects[(effects["of"] == effects["language"]) & (effects["method"] != "none")]
    told = "; ".join(
        f"{row['method']}, {names[row['of']]}: {row['change']:+.3f}"
        for row in own.to_dict("records")
    )
    return figures.show(
        figures.dot_ranges(
            panels, zero=list(panels), reference_label="random sets", names=dict(names)
        ),
        alt=f"Change of held-out loss after tuning on text. Own language: {told}.",
    )


def _names_of(effects: pd.DataFrame, names: Mapping[str, str]) -> dict[str, str]:
    """The names, and those of a shipped table's languages that are not among them."""
    told = {str(x) for column in ("of", "language") for x in effects[column]}
    return {**names, **language_names(sorted(told - set(names)))}


def text_in_words(effects: pd.DataFrame, names: Mapping[str, str]) -> Markdown:
    """What tuning a method's neurons does to their language's loss, beside random sets."""
    names = _names_of(effects, names)
    own = effects[effects["of"] == effects["language"]]
    lines = []
    for method, found in own[own["draws"].fillna(0) > 0].groupby("method", sort=False):
        draws = int(found["draws"].min())
        told = [
            f"{row['change']:+.2f} in {names[row['of']]} (random {row['random']:+.2f}; questions "
            f"right {row['exact']:.2f}, random {row['random_exact']:.2f})"
            for row in found.to_dict("records")
        ]
        further = int((found["change"] < found["random_low"]).sum())
        those = "the random set" if draws == 1 else f"all {draws} random sets"
        lines.append(
            f"- {as_markdown(str(method))}: {', '.join(told)}; further than {those} in "
            f"{further} of {len(found)} languages."
        )
    head = "Change of the loss in the language of the text, nats per token:"
    return prose(
        "\n".join([head, "", *lines]) if lines else "Nothing was tuned beside random sets."
    )


def text_table(effects: pd.DataFrame) -> Styler:
    """The language's own loss, beside random sets tuned likewise: `text_taught.text_effects`."""
    own = effects[effects["of"] == effects["language"]]
    beyond = own.assign(low=own["beyond_low"], high=own["beyond_high"])
    shown = pd.DataFrame(
        {
            "method": own["method"],
            "language": own["of"],
            "neurons": own["n_neurons"].map(lambda n: "all" if n < 0 else str(n)),
            "change of loss": written_intervals(own, "change"),
            "random sets": own["random"],
            "further than they": written_intervals(beyond, "beyond"),
            "questions right": own["exact"],
            "with random sets": own["random_exact"],
        }
    )
    return figures.table(
        shown,
        "Held-out loss in the language of the text, nats per token, with 95 % intervals over "
        "trainings and windows; how much further it falls than under one more random set; and the "
        "share of questions that are still answered",
        {"random sets": "{:+.3f}", "questions right": "{:.3f}", "with random sets": "{:.3f}"},
    )


def tuned_levels_table(levels: pd.DataFrame) -> Styler:
    """What both models can do without a mask: `tuned_transfer.LEVELS`."""
    return figures.table(
        levels.rename(columns={"exact": "questions answered"}),
        "The base and the tuned model without a mask: nats per token on held-out text, and the "
        "share of questions on a passage that are answered to the word",
        {"loss": "{:.2f}", "questions answered": "{:.0%}"},
    )


def transfer_losses_table(summary: pd.DataFrame, shared: pd.DataFrame) -> Styler:
    """Nats that a set costs its language in the base and in the tuned model, with what is shared.

    `summary` is that of `tuned_transfer.transfer_summary`, `shared` its `SHARED`.
    """
    of = {(row["method"], row["language"]): row for row in shared.to_dict("records")}
    rows = []
    for row in summary.to_dict("records"):
        overlap = of[row["method"], row["of"]]
        again = row["found"] == "tuned"
        rows.append(
            {
                **{"method": row["method"], "neurons of": row["of"], "found in": row["found"]},
                **{"masked in": row["model"], "neurons": row["n_neurons"]},
                "own language": f"{row['own']:+.3f} ± {row['error']:.3f}",
                "another at most": row["others"],
                "random at most": row["most"],
                "shared with the base's": overlap["shared"] if again else np.nan,
                "by chance": overlap["chance"] if again else np.nan,
            }
        )
    return figures.table(
        pd.DataFrame(rows).sort_values(["method", "neurons of"], kind="stable"),
        "Nats per token that masking adds, with the standard error over windows: to the neurons' "
        f"own language, the most to another, and the most of {summary['draws'].max()} random sets "
        "to the own one; of neurons found in the tuned model, how many are the base's",
        {
            **dict.fromkeys(("another at most", "random at most"), "{:+.3f}"),
            **dict.fromkeys(("shared with the base's", "by chance"), "{:.0f}"),
        },
    )


def tuning_leaves_in_words(summary: pd.DataFrame, shared: pd.DataFrame) -> Markdown:
    """What tuning leaves of a method's neurons: their cost, and how many are found again."""
    draws = int(summary["draws"].min())
    lines = [
        f"One training; beside {draws} random sets a set costs more than all of them by chance in "
        f"one case of {draws + 1}."
    ]
    for method, own in summary.groupby("method", sort=False):
        said = []
        for (model, found), part in own.groupby(["model", "found"], sort=False):
            beyond = int((part["own"] > part["most"]).sum())
            said.append(
                f"{found}'s neurons in the {model} model {part['own'].mean():+.3f} nats (more than "
                f"random ones in {beyond} of {len(part)} languages, and more than another language "
                f"loses in {int((part['own'] > part['others']).sum())})"
            )
        both = shared[shared["method"] == method]
        lines.append(
            f"- {as_markdown(str(method))}: {'; '.join(said)}. Found in both: "
            f"{both['shared'].sum()} neurons, by chance {both['chance'].sum():.0f}."
        )
    return prose("\n".join([lines[0], "", *lines[1:]]))
