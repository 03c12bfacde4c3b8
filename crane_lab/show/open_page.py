"""What notebooks 05 and 05b show beside the tables: questions, the judge at work, answers."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd
from IPython.display import HTML, Markdown
from pandas.io.formats.style import Styler

from crane_core.metrics import mean_interval
from crane_lab.show import figures
from crane_lab.show.foreign import as_markdown, marked_up, markup, prose, verbatim
from crane_lab.testbed.rubric import SUBSCORES
from crane_lab.texts.visible import visible


def _part(name: Hashable) -> str:
    """What a subscore's column is called on the page."""
    return str(name).removesuffix("_score")


def questions_table(asked: pd.DataFrame) -> Styler:
    """The first and the last question of each language; `asked` as `Pipeline.asked`."""
    ends = asked["cluster"].unique()[[0, -1]]
    count = asked.groupby("language", sort=False).size().iloc[0]
    return figures.table(
        asked.loc[asked["cluster"].isin(ends), ["language", "id", "question"]],
        f"The first and the last of {count} questions per language",
    )


def framed(prompt: str) -> Markdown:
    """What the model reads, as it stands."""
    return verbatim(prompt, "What the model reads, with the token that begins every text:")


# --- the judge ----------------------------------------------------------------------------------


def taken_apart(
    answer: Mapping[Any, Any], explained: Sequence[Mapping[str, Any]]
) -> tuple[HTML, Styler, Markdown]:
    """One answer with its grade: question and answer, sentence by sentence, part by part.

    `explained` is what `Rubric.explain` says of it.
    """
    parts = pd.DataFrame(explained)
    parts["true"] = parts["true"].map({True: "true", False: "false"}).fillna("nothing stated")
    scored = ", ".join(f"{_part(name)} {answer[name]:.2f}" for name in SUBSCORES)
    return (
        marked_up(
            markup(
                "<p><b>{question}</b> “{answer}”</p>",
                question=answer["question"],
                answer=answer["text"],
            )
        ),
        figures.table(parts[["sentence", "relation", "value", "true"]], "Sentence by sentence"),
        prose(f"Its parts: {scored}. Its grade: {answer['score']:.2f}."),
    )


def extremes_table(graded: pd.DataFrame, subscores: Sequence[str]) -> Styler:
    """The answers with the lowest and the highest grade of each language, part by part.

    `graded` as `Pipeline.graded`; of equal grades the first, and none where no answer has a grade.
    """
    rows = []
    for _, own in graded[graded["score"].notna()].groupby("language", sort=False):
        ends = dict.fromkeys([int(own["score"].argmin()), int(own["score"].argmax())])
        rows.append(own.iloc[[*ends]])
    shown = {"language": "asked in", "question": "question", "text": "answer"}
    columns = [*shown, *subscores, "score"]
    frame = pd.concat(rows)[columns] if rows else pd.DataFrame(columns=columns)
    return figures.table(
        frame.rename(columns=shown).rename(columns=_part),
        "Unmasked answers with the lowest and the highest grade in each language",
        dict.fromkeys([*map(_part, subscores), "score"], "{:.2f}"),
    )


def graders_table(agreement: pd.DataFrame) -> Styler:
    """How well graders agree, of `comparisons.grader_agreement`."""
    return figures.table(
        agreement,
        "Agreement of the rubric with the readers, and of the readers with each other. "
        "Correlation: Spearman's, with a 95 % interval; within 1, within 2: shares of answers "
        "graded so near; difference: mean of the first less the second",
        {"within 1": "{:.0%}", "within 2": "{:.0%}", "difference": "{:+.2f}"},
    )


def graded_in_words(items: pd.DataFrame, names: Mapping[str, str]) -> Markdown:
    """How many answers got a grade, and how many unmasked ones came in another language.

    `items` as `Judged.items` returns them.
    """
    unmasked = items[items["method"] == "Org"]
    told = unmasked[unmasked["in_language"].notna()]
    untold = [names[x] for x in unmasked["language"].unique() if x not in set(told["language"])]
    thoughts = int((items["finish"] == "thinking").sum())
    return prose(
        f"{len(items):,} answers were graded; {int(items['score'].isna().sum())} got no grade that "
        "could be read. Without a mask "
        + ", ".join(
            f"{int((own['in_language'] == 0).sum())} of {len(own)} in {as_markdown(names[str(x)])}"
            for x, own in told.groupby("language", sort=False)
        )
        + " came in another language."
        + (f" For {as_markdown(', '.join(untold))} this cannot be told." if untold else "")
        + (
            f" {thoughts} ended within the model's thoughts and count as empty answers."
            if thoughts
            else ""
        )
    )


def parts_table(parts: pd.DataFrame) -> Styler:
    """Means of the parts of a grade, of `comparisons.own_language`."""
    frame = parts.rename(columns={"language": "asked in"}).rename(columns=_part)
    return figures.table(
        frame,
        "Means of the grade's parts under a language's own mask (Org: none)",
        dict.fromkeys(frame.columns.difference(["method", "asked in", "n"]), "{:.2f}"),
    )


def answers_table(items: pd.DataFrame, language: str, name: str) -> Styler:
    """Answers to the first question of a language, without a mask and under each made for it.

    Of random masks the first seed's.
    """
    own = items[(items["language"] == language) & items["mask_language"].isin(["", language])]
    rows = own[own["id"] == own["id"].iloc[0]].drop_duplicates("method")
    frame = rows[["method", "text", "score"]].replace({"method": {"Org": "none"}})
    return figures.table(
        frame.rename(columns={"method": "mask", "text": "answer"}),
        f"{name}: {visible(rows['question'].iloc[0])}",
        {"score": "{:.2f}"},
    )


# --- exercises ----------------------------------------------------------------------------------


def penalty_table(answers: Mapping[float, pd.DataFrame]) -> Styler:
    """Unmasked answers by repetition penalty (penalty -> graded answers): grades and lengths."""
    rows = []
    for penalty, graded in answers.items():
        for x, own in graded.groupby("language", sort=False):
            interval = mean_interval(own["score"].dropna())
            rows.append(
                {
                    "penalty": str(penalty),
                    "language": x,
                    "grade": f"{interval.estimate:.2f} [{interval.low:.2f}, {interval.high:.2f}]",
                    "tokens": own["n_tokens"].mean(),
                    "cut off": (own["finish"] != "stop").mean(),
                }
            )
    return figures.table(
        pd.DataFrame(rows), "Unmasked answers", {"tokens": "{:.1f}", "cut off": "{:.0%}"}
    )
