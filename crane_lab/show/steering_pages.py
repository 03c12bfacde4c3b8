"""Tables, figures and sentences of notebook 16, Steering.

`table` is that of `steering.answer_outcomes`, `summary` that of
`steering_effects.steering_summary`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown
from pandas.io.formats.style import Styler

from crane_lab.show import figures
from crane_lab.show.alternative import in_short
from crane_lab.show.curves import Line
from crane_lab.show.explorer import choice_view
from crane_lab.show.foreign import as_markdown, prose
from crane_lab.show.tables import p_value, written_intervals
from crane_lab.stages.standing import FDR
from crane_lab.study.steering import SURE, ForcedQuestion, answered
from crane_lab.study.steering_effects import SETUP, UNSTEERED, Setting, forcing_matrix
from crane_lab.study.taught import RANDOM
from crane_lab.texts.names import full_names
from crane_lab.texts.told import identified_surely


def _setup_name(kind: str, statistic: str, strength: float) -> str:
    """A setup as it is called in tables and figures."""
    if not kind:
        return "untouched"
    if kind == "scale":
        return f"scale by {strength:g}"
    times = "" if strength == 1 else f" × {strength:g}"
    return f"{kind} {statistic}{times}"


def steering_questions_table(questions: Mapping[str, Sequence[ForcedQuestion]]) -> Styler:
    """The questions, in every language."""
    rows = [
        {x: own[number].question for x, own in questions.items()}
        for number in range(len(next(iter(questions.values()))))
    ]
    return figures.table(pd.DataFrame(rows), "Questions by language")


def forcing_figure(table: pd.DataFrame, methods: Sequence[str], setup: Setting) -> HTML:
    """Which language answers: the model as it is, and under methods' sets and random ones."""
    untouched = forcing_matrix(table, UNSTEERED, ("", "", 0.0))
    panels = {}
    for method in methods:
        for name in (method, f"{RANDOM} as {method}"):
            matrix = forcing_matrix(table, name, setup)
            if not matrix.empty:
                panels[name] = matrix.reindex(untouched.index, columns=untouched.columns)
    panels["untouched"] = untouched
    told = []
    for name, matrix in panels.items():
        apart = [matrix.loc[x, y] for x in matrix.index for y in matrix.columns if x != y]
        mean = float(np.nanmean(apart))
        told.append((f"{name}: {mean:.0%} of answers in another language as wanted", mean))
    return figures.show(
        figures.shares_grid(
            panels, "language that is wanted", "language of the question", columns=2
        ),
        alt=in_short(
            "Share of answers in the language wanted, by language of the question, "
            f"{_setup_name(*setup)}.",
            told,
            "steering.csv",
        ),
    )


def steering_table(summary: pd.DataFrame) -> Styler:
    """How often the language follows, and what it costs."""
    ends = {end: summary[end].clip(0, 1) for end in ("low", "high")}
    shown = pd.DataFrame(
        {
            "method": summary["method"],
            "neurons are": [_setup_name(*row) for row in summary[SETUP].itertuples(index=False)],
            "in the target": written_intervals(summary.assign(**ends), "share", form="{:.2f}"),
            "more than untouched": written_intervals(
                summary, "gain", "gain_low", "gain_high", "{:+.2f}"
            ),
            "q": summary["q"],
            "of that, surely": summary["sure"],
            "in the target, right": summary["both"],
            "in the question's": summary["stayed"],
            "in a third": summary["elsewhere"],
            "cannot be told": summary["untold"],
            "repeated": summary["repeated"],
            "loss": summary["loss"],
        }
    )
    native, right = summary["native_loss"].mean(), summary["native_both"].mean()
    forms = dict.fromkeys(shown.columns[5:], "{:.2f}")
    return figures.table(
        shown,
        "Answers to questions in another language: shares by the language they are in, means over "
        "pairs of languages with 95 % intervals for other targets and questions (of shares cut off "
        f"at 0 and 1); surely: with a confidence of the identifier of {SURE:.0%} or more; repeated "
        "is the share of runs of three characters that an answer has had before; loss in nats per "
        f"token under the model as it is; asked in the target itself it gives {native:.2f} to its "
        f"own answers, of which {right:.2f} are in the target and right",
        {**forms, "q": p_value},
    )


def steering_random_table(summary: pd.DataFrame) -> Styler:
    """Methods' sets beside random ones with as many neurons in every layer."""
    own = summary[summary["random"].notna()]
    shown = pd.DataFrame(
        {
            "method": own["method"],
            "neurons are": [_setup_name(*row) for row in own[SETUP].itertuples(index=False)],
            "in the target": own["share"],
            "random": own["random"],
            "more than random": written_intervals(
                own, "ahead", "ahead_low", "ahead_high", "{:+.2f}"
            ),
            "q": own["ahead_q"],
            "loss": own["loss"],
            "loss, random": own["random_loss"],
        }
    )
    return figures.table(
        shown,
        "Share of answers in the target language, beside random neurons of the same layers to "
        "which the same numbers are written",
        {"in the target": "{:.2f}", "random": "{:.2f}", "q": p_value},
    )


def steering_in_words(summary: pd.DataFrame, level: float = FDR) -> Markdown:
    """What can be said of forcing: gains beyond the untouched model, and beyond random neurons."""
    lines = []
    for row in summary[summary["method"] == UNSTEERED].to_dict("records"):
        lines.append(
            f"- Untouched: {row['stayed']:.0%} of answers are in the question's language, "
            f"{row['share']:.0%} in a given other one, {row['untold']:.0%} cannot be told."
        )
    steered = summary[summary["method"] != UNSTEERED]
    for method, own in steered.groupby("method", sort=False):
        records = own.to_dict("records")
        best = max(records, key=lambda row: float(row["share"]))
        sure = int(((own["q"] <= level) & (own["gain"] > 0)).sum())
        line = (
            f"{as_markdown(str(method))}: {sure} of {len(own)} setups certainly bring more answers "
            f"in the target; the most, {best['share']:.0%}, by "
            f"{as_markdown(_setup_name(*(best[name] for name in SETUP)))}"
        )
        beside = own[own["random"].notna()]
        if len(beside):
            ahead = int(((beside["ahead_q"] <= level) & (beside["ahead"] > 0)).sum())
            line += (
                f". Beside random neurons it is certainly more in {ahead} of {len(beside)}; these "
                f"bring at most {beside['random'].max():.0%}"
            )
        lines.append(f"- {line}.")
    return prose("\n".join(lines))


def tradeoff_figures(summary: pd.DataFrame) -> list[HTML]:
    """Success against each side effect, a curve per method from untouched on: how much is done.

    A panel for each kind of intervention that was run at more than one strength (if any was).
    """
    nothing = summary[summary["method"] == UNSTEERED]
    of_mean = summary[summary["statistic"] == "mean"].sort_values("strength", kind="stable")
    kinds = {str(kind): own for kind, own in of_mean.groupby("kind", sort=False)}
    swept = {kind: own for kind, own in kinds.items() if own["strength"].nunique() > 1} or kinds
    columns = {
        "loss": "loss of the answers (nats per token)",
        "both": "share in the target and right",
        "repeated": "share repeated",
    }
    pages = []
    for name, label in columns.items():
        lines: dict[str, dict[str, Line]] = {}
        told = [
            (f"untouched: {row['share']:.0%} in the target, {row[name]:.2f}", row["share"])
            for row in nothing.to_dict("records")
        ]
        for kind, own in swept.items():
            lines[kind] = {}
            for method, steered in own.groupby("method", sort=False):
                part = pd.concat([nothing, steered])
                lines[kind][str(method)] = (
                    part["share"].to_numpy(float),
                    part[name].to_numpy(float),
                )
            told += [
                (
                    f"{row['method']}, {_setup_name(kind, 'mean', row['strength'])}: "
                    f"{row['share']:.0%} in the target, {row[name]:.2f}",
                    row["share"],
                )
                for row in own.to_dict("records")
            ]
        figure = figures.curves(lines, "share in the target language", label)
        lead = f"{label[0].upper()}{label[1:]} against success."
        alt = in_short(lead, told, "steering_summary.csv", by="share in the target")
        pages.append(figures.show(figure, alt))
    return pages


def setup_contrast_table(found: pd.DataFrame) -> Styler | Markdown:
    """One setup against another, paired: `steering_effects.setup_contrasts`, if two were run."""
    if found.empty:
        return prose("No two of these setups have been run, so this cannot be said yet.")
    shown = found[["compared", "method", "targets"]].copy()
    shown["difference"] = written_intervals(found, "difference", form="{:+.2f}")
    shown["q"] = found["q"]
    return figures.table(
        shown,
        "Difference in the share of answers in the target language, with 95 % intervals for other "
        "targets and questions; q is corrected over the table",
        {"q": p_value},
    )


def answers_explorer(answers: pd.DataFrame, asked: Mapping[str, Sequence[ForcedQuestion]]) -> HTML:
    """Every answer under every setup, for a reader who chooses the question and two languages.

    `answers`: the table of `steering.read_steering`, whose texts are in the order of the questions
    `asked`, by language. At first it shows the first question, asked in the first language and
    wanted in the second. Readers can narrow it to one method, beside its random neurons, and to one
    setup; the model as it is always stands there.

    Raises ValueError if a row has more or fewer answers than there are questions.
    """
    languages = list(asked)
    names = full_names(languages)
    several = answers["seed"].max() > 0
    rows = []
    for row in answers.to_dict("records"):
        texts = json.loads(row["answers"])
        told = identified_surely(texts, languages)
        method, seed, source = str(row["method"]), int(row["seed"]), str(row["source"])
        how, steered = _setup_name(*(row[name] for name in SETUP)), method != UNSTEERED
        for target in [row["target"]] if row["target"] else languages:
            items = zip(asked[languages[0]], asked[source], asked[target], texts, told, strict=True)
            for named, question, wanted, text, (language, confidence) in items:
                right = answered(text, wanted.answers)
                rows.append(
                    {
                        "question": named.question,
                        "asked in": names[source],
                        "wanted in": names[target],
                        "as asked": question.question,
                        "right if it has": " / ".join(wanted.answers).replace("*", "…"),
                        "neurons of": f"{method}, draw {seed + 1}"
                        if several and seed >= 0
                        else method,
                        "neurons are": how,
                        "answer": text,
                        "counted as": (
                            f"{names[language]} ({confidence:.2f})" if language else "untold"
                        )
                        + (", right" if right else ""),
                        "source": source,
                        "target": target,
                        "language": language,
                        "method": method.removeprefix(f"{RANDOM} as ") if steered else "",
                        "how": how if steered else "",
                    }
                )
    table = pd.DataFrame(rows)
    # Setup by setup as they were run; within one, random neurons after those they stand beside.
    order = {x: pd.factorize(table[x])[0] for x in ("neurons are", "method", "neurons of")}
    table = table.iloc[np.lexsort(list(order.values())[::-1])]
    return choice_view(
        table,
        choices=["question", "asked in", "wanted in"],
        narrowed=["method", "how"],
        shown=["neurons of", "neurons are", "answer", "counted as"],
        caption="Answers to one question, by whose neurons are changed and how; “counted as” is "
        "what the shares on this page count, with the identifier's confidence",
        first={
            "question": asked[languages[0]][0].question,
            "asked in": names[languages[0]],
            "wanted in": names[languages[1]],
        },
        above=["as asked", "right if it has"],
        languages={"as asked": "source", "right if it has": "target", "answer": "language"},
    )
