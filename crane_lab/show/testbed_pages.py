"""Tables, figures and sentences of notebooks 00 and 00b, the testbed and its gate."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from IPython.display import HTML, Markdown
from markupsafe import Markup
from pandas.io.formats.style import Styler
from scipy.stats import binomtest
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crane_core import models
from crane_core.windows import plain_tokens
from crane_lab.engines.tasks import OPTIONS
from crane_lab.pipeline import TABLES
from crane_lab.show import figures
from crane_lab.show.foreign import (
    as_attribute,
    as_code,
    as_markdown,
    marked_up,
    markup,
    prose,
)
from crane_lab.study import gate
from crane_lab.testbed import world
from crane_lab.testbed.text import Writer

#: Kinds of documents that the generator writes, and how each is asked for.
DOCUMENTS: dict[str, Callable[[Writer], str]] = {
    "Portrait of a person": lambda w: w.portrait(w.pick("person")),
    "Portrait of a town": lambda w: w.portrait(w.pick("place")),
    "Lesson on real things": lambda w: w.lesson(),
    "Days, months and sums": lambda w: w.calendar(),
    "Dialogue": lambda w: w.dialogue(),
    "Quiz on people": lambda w: w.quiz(("person",)),
    "Quiz on the world": lambda w: w.quiz(("place", "country", "animal", "ingredient", "job")),
    "Open question": lambda w: w.open_question(),
    "Story": lambda w: w.story().text,
    "Story with questions": lambda w: w.story_with_questions(),
}


def overview() -> HTML:
    """Figure 1."""
    return figures.show(
        figures.fig1_overview(),
        alt="Overview in three columns. Relevance: windows of text go through AttnLRP, which gives "
        "a distribution of relevance per neuron. Concentration and selection: kurtosis per "
        "language, normalised within each layer; the contrast picks neurons high for the target "
        "and low for every other language. Functional necessity: the picked neurons are masked, "
        "every language's tasks evaluated, and the damage summed up as LangSpec-F1.",
    )


def _in_language(language: str, content: str) -> Markup:
    """A paragraph marked as being in a language, with the line breaks that it has."""
    return markup(
        '<p lang="{code}" style="white-space:pre-wrap;margin:0.2em 0 0.6em">'
        "<b>{language}</b>&ensp;{content}</p>",
        code=as_attribute(language),
        language=language,
        content=content,
    )


# --- what it has read -----------------------------------------------------------------------------


def world_table(worlds: Mapping[str, world.World]) -> Styler:
    """What there is in the world that the training text describes, language by language."""
    first = next(iter(worlds.values()))
    frame = pd.DataFrame(
        [
            {
                "what": kind,
                "facts told about each": ", ".join(members[0].facts),
                **{f"how many, {x}": len(own.subjects[kind]) for x, own in worlds.items()},
                "an example": f"{members[0].name}: {', '.join(members[0].facts.values())}",
            }
            for kind, members in first.subjects.items()
        ]
    )
    return figures.table(frame, "What there is in the testbed's world.")


def documents(worlds: Mapping[str, world.World], seed: int) -> HTML:
    """One fresh document of each kind in every language, folded but for the first kind."""
    writers = {x: Writer(own, random.Random(seed)) for x, own in worlds.items()}
    return marked_up(
        Markup("").join(
            markup(
                "<details{open}><summary><b>{kind}</b></summary>{texts}</details>",
                open=Markup("") if number else Markup(" open"),
                kind=kind,
                texts=Markup("").join(_in_language(x, write(w)) for x, w in writers.items()),
            )
            for number, (kind, write) in enumerate(DOCUMENTS.items())
        )
    )


def tokens_table(needed: pd.DataFrame) -> Styler:
    """`unmasked.tokens_needed`."""
    return figures.table(
        needed,
        f"The same {needed['questions'].iloc[0]} questions with their answers in each language.",
        dict.fromkeys(("characters", "bytes", "tokens"), "{:,}")
        | {
            "tokens per question": "{:.1f}",
            "characters per token": "{:.2f}",
            needed.columns[-1]: "{:.2f}",
        },
    )


def cut_into_tokens(
    tokenizer: PreTrainedTokenizerBase, same_content: Mapping[str, Sequence[str]]
) -> HTML:
    """The first line of each language with a mark between tokens."""
    lines = []
    for x, texts in same_content.items():
        (ids,) = plain_tokens(tokenizer, texts[:1])
        pieces = "|".join(
            piece + (f" ({count:.0f} tokens)" if count > 1 else "")
            for piece, count in zip(*figures.readable_tokens(tokenizer, ids), strict=True)
        )
        lines.append(_in_language(x, pieces))
    return marked_up(
        markup(
            "<p>One of them, with a line between tokens (a space belongs to the token after it):"
            "</p>{lines}",
            lines=Markup("").join(lines),
        )
    )


# --- the model ------------------------------------------------------------------------------------


def model_table(model: PreTrainedModel) -> Styler:
    """The model beside Llama-2-7B, as published."""
    config = model.config
    layers, width = models.shape(model)["intermediate"]
    parameters = sum(p.numel() for p in model.parameters())
    in_mlps = sum(p.numel() for name, p in model.named_parameters() if ".mlp." in name)
    frame = pd.DataFrame(
        [
            ("layers", f"{layers}", "32"),
            ("hidden size (residual stream)", f"{config.hidden_size:,}", "4,096"),
            ("attention heads", f"{config.num_attention_heads}", "32"),
            ("MLP neurons per layer", f"{width:,}", "11,008"),
            ("MLP neurons in all", f"{layers * width:,}", "352,256"),
            ("vocabulary", f"{config.vocab_size:,}", "32,000"),
            ("positions", f"{config.max_position_embeddings:,}", "4,096"),
            ("parameters", f"{parameters / 1e6:,.2f} million", "6,738 million"),
            ("of these in MLPs", f"{in_mlps / parameters:.0%}", "64%"),
        ],
        columns=["", "model examined here", "Llama-2-7B (published)"],
    )
    return figures.table(frame, "The two models side by side.")


def _last_losses(log: pd.DataFrame) -> dict[str, float]:
    return {x: log[x].iloc[-1] for x in log.columns if x != "step"}


def training_curves(log: pd.DataFrame, recipe: Mapping[str, Any]) -> HTML:
    """Each language's training loss; `log` has `step` and a column per language."""
    seen = log["step"] * recipe["batch"] * recipe["length"] / 1e6
    last = _last_losses(log)
    return figures.show(
        figures.curves(
            {x: (seen, log[x]) for x in last},
            xlabel="tokens read, all languages together (millions)",
            ylabel="training loss (nats per token)",
        ),
        alt="Training loss against tokens read, one falling curve per language; last values "
        + ", ".join(f"{x} {loss:.2f}" for x, loss in last.items())
        + ".",
    )


def training_words(log: pd.DataFrame, recipe: Mapping[str, Any]) -> Markdown:
    """How much the model has read, and where its curves end."""
    shares = ", ".join(f"{x} {share:.0%}" for x, share in world.SHARES.items())
    return prose(
        f"The training text has {recipe['tokens'] / 1e6:.1f} million tokens ({shares}), read once. "
        "The curves end at "
        + ", ".join(f"{loss:.2f} ({as_markdown(x)})" for x, loss in _last_losses(log).items())
        + " nats per token. Values this low come from text that is made of templates: most words "
        "follow from those before them, and what remains is mainly the facts."
    )


# --- what it is asked, and how well it answers ----------------------------------------------------


def first_items(items: pd.DataFrame, requests: Sequence[Any], tasks: Iterable[str]) -> HTML:
    """The first item of each task as the model gets it, with the scores of its options.

    Folded but for the first.

    `items` as `multiple_choice.evaluate` returns them, `requests` those of `Prepared`.
    """
    shown: list[Markup] = []
    for task in tasks:
        row = int(items.index[items["task"] == task][0])
        item = items.loc[row]
        options = requests[row * OPTIONS : (row + 1) * OPTIONS]
        listed = []
        for number, request in enumerate(options):
            marks = [
                *(["right"] if number == item["answer"] else []),
                *(["chosen"] if number == item["choice"] else []),
            ]
            listed.append(
                markup(
                    "<li>{option}: {score:.2f}{marks}</li>",
                    option=request.args[1].strip(),
                    score=item[f"logprob_{number}"],
                    marks=markup(" <b>({marks})</b>", marks=", ".join(marks)) if marks else "",
                )
            )
        shown.append(
            markup(
                '<details class="folded"{open}><summary><b>{task}</b></summary>'
                "<p lang='{code}' style='white-space:pre-wrap'>{asked}</p>"
                "<ul lang='{code}'>{options}</ul></details>",
                open=Markup("") if shown else Markup(" open"),
                task=task,
                code=as_attribute(item["language"]),
                asked=options[0].args[0],
                options=Markup("").join(listed),
            )
        )
    shown.append(Markup("<p>Numbers are log-probabilities in nats.</p>"))
    return marked_up(Markup("").join(shown))


def accuracy_table(scores: pd.DataFrame) -> Styler:
    """Accuracies with intervals: `task`, `n`, `accuracy`, `low`, `high`, `chance`."""
    interval = [f"{a:.3f} to {b:.3f}" for a, b in zip(scores["low"], scores["high"], strict=True)]
    return figures.table(
        scores.assign(interval=interval)[["task", "n", "accuracy", "interval", "chance"]],
        "Accuracy of the unmasked model with 95 % Wilson intervals.",
        {"accuracy": "{:.3f}", "chance": "{:.2f}"},
    )


def accuracy_words(scores: pd.DataFrame, items: pd.DataFrame) -> Markdown:
    """For how many tasks accuracy lies above chance, and where the right options stand."""
    above = scores["low"] > scores["chance"]
    rest = scores.loc[~above, "task"].tolist()
    positions = items.groupby("task")["answer"].value_counts(normalize=True).unstack().fillna(0.0)
    low, high = float(positions.to_numpy().min()), float(positions.to_numpy().max())
    return prose(
        f"The interval lies above chance for {above.sum()} of {len(scores)} tasks"
        + (f" (not for {as_markdown(', '.join(rest))})" if rest else "")
        + ". The right option stands at each of the four positions in "
        f"{low:.0%} to {high:.0%} of a task's items"
        + (
            ", so that a preference for a position would not help."
            if high < 0.3
            else "; with the few items of this run they are not balanced, as they are in the files."
        )
    )


def relation_table(by_relation: pd.DataFrame) -> Styler:
    """`unmasked.by_relation`."""
    return figures.table(
        by_relation,
        "Accuracy of the unmasked model by kind of question. Few items make a rough estimate: with "
        "70, the interval is some ten points to either side.",
        dict.fromkeys(by_relation.columns[3:], "{:.2f}"),
    )


def relation_words(by_relation: pd.DataFrame, chance: float = 0.25) -> Markdown:
    """Kinds of question that one language fails and another answers, by `relation_table`."""
    languages = list(by_relation.columns[3:])
    failed = []
    for row in by_relation.to_dict("records"):
        n = int(row["items per language"])
        for x in languages:
            low = binomtest(round(row[x] * n), n).proportion_ci(method="wilson").low
            best = max(row[y] for y in languages)
            if low <= chance and best >= 3 * chance:
                failed.append(f"{as_code(row['asked'])} in {as_markdown(x)} ({row[x]:.2f})")
    if not failed:
        return prose("No kind of question is at chance in one language and well above in another.")
    return prose(
        f"At chance in one language and well above it in another: {', '.join(failed)}. The model "
        "has not learned there to connect the question's wording, which is kept out of training, "
        "with what it knows, or looks in the wrong place; no mask can lower these items further, "
        "and none of this was mended after the gate."
    )


def copier_table(copier: pd.DataFrame) -> Styler:
    """`unmasked.copier`."""
    columns = ["task", "n", "accuracy", "low", "high", "copier", "verdict"]
    return figures.table(
        copier[columns],
        "Reading against a copier; low and high: 95 % Wilson interval of the accuracy.",
        dict.fromkeys(["accuracy", "low", "high", "copier"], "{:.3f}"),
    )


def copier_words(copier: pd.DataFrame) -> Markdown:
    """In which languages the model reads better than a copier, and what follows for masks."""
    better = copier.loc[copier["verdict"] == "above", "task"].tolist()
    return prose(
        (
            f"The model reads better than a copier in {as_markdown(', '.join(better))}."
            if better
            else "**In no language is the model shown to read better than a copier.** What the "
            "reading tasks measure on this model is whether it copies the right kind of word from "
            "the passage, not whether it keeps apart who did what."
        )
        + " When a mask lowers a reading score, this ability is what it damaged; and a score can "
        f"stay well above {gate.CHANCE} as long as copying survives."
    )


def published_table(table1: pd.DataFrame) -> Styler:
    """The unmasked scores of the paper's Table 1, its first row."""
    tests = {"en": "MMLU (en)", "zh": "C-Eval (zh)", "vi": "Belebele (vi)"}
    return figures.table(
        table1.iloc[:1][list(tests)].rename(columns=tests),
        "Accuracy of the unmasked model, published (Llama-2-7B).",
        dict.fromkeys(tests.values(), "{:.4f}"),
    )


def perplexity_table(perplexity: pd.DataFrame, window: int) -> Styler:
    """`unmasked.perplexity_by_language` on windows of so many tokens."""
    return figures.table(
        perplexity,
        f"Held-out perplexity per token, windows of {window} tokens; low and high: 95 % interval "
        "over windows (Student's t, on the loss).",
        dict.fromkeys(["loss", "perplexity", "low", "high"], "{:.3f}"),
    )


# --- the gate -------------------------------------------------------------------------------------


def gate_curves(declined: pd.DataFrame) -> HTML:
    """Accuracy under random masks of growing size; `declined` as `gate.decline` returns it."""
    lines = {
        str(task): (
            100 * table["fraction"],
            table["mean"],
            table["mean"] - table["half_width"],
            table["mean"] + table["half_width"],
        )
        for task, table in declined.groupby("task", sort=False)
    }
    largest = declined["fraction"].max()
    at_largest = declined[declined["fraction"] == largest].set_index("task")["mean"]
    return figures.show(
        figures.curves(
            lines,
            xlabel="random neurons masked in every layer (%)",
            ylabel="accuracy",
            level=gate.CHANCE,
        ),
        alt=f"Accuracy of the six tasks under random masks of growing size. At {largest:.0%} "
        "masked: " + ", ".join(f"{task} {value:.2f}" for task, value in at_largest.items()) + ".",
    )


def gate_table(declined: pd.DataFrame) -> Styler:
    """The same in numbers, tasks in rows and sizes in columns."""
    cells = [
        f"{row['mean']:.3f}" + (f" ± {row['half_width']:.3f}" if row["count"] > 1 else "")
        for row in declined.to_dict("records")
    ]
    table = declined.assign(cell=cells, masked=declined["fraction"].map("{:.0%} masked".format))
    wide = table.pivot(index="task", columns="masked", values="cell")
    wide = wide.loc[list(dict.fromkeys(table["task"])), list(dict.fromkeys(table["masked"]))]
    return figures.table(
        wide.reset_index(),
        f"Accuracy under random masks: mean over {int(declined['count'].max())} masks ± half-width "
        "of its 95 % interval over masks (Student's t). Unmasked: one value.",
    )


def requirements_table(verdicts: pd.DataFrame) -> Styler:
    """The gate's requirements: `requirement`, `measured`, `holds`."""
    return figures.table(
        verdicts.assign(holds=verdicts["holds"].map({True: "yes", False: "NO"})),
        f"The gate's {len(verdicts)} requirements and what was measured.",
    )


def gate_words(
    verdicts: pd.DataFrame, curve: pd.DataFrame, scores: pd.DataFrame, task_limit: int | None
) -> Markdown:
    """Whether the gate's requirements hold, and whether this run's model is the gate's.

    Parameters
    ----------
    verdicts, curve : the gate's files.
    scores : this run's accuracies, by `task`.
    task_limit : items per task in this run; None for all.
    """
    failed = verdicts.loc[~verdicts["holds"].astype(bool), "requirement"].tolist()
    verdict = (
        f"All {len(verdicts)} requirements hold."
        if not failed
        else f"**{len(failed)} of {len(verdicts)} requirements do not hold**: "
        f"{as_markdown('; '.join(failed))}."
    )
    committed = curve[curve["fraction"] == 0].set_index("task")["accuracy"]
    now = scores.set_index("task")["accuracy"]
    apart = (now - committed.reindex(now.index)).abs().max()
    if task_limit is not None:
        check = (
            f"This run asks {task_limit} items per task, so its accuracies above are not the "
            "gate's, which come from all items."
        )
    elif apart < 1e-4:
        check = "The unmasked accuracies measured above are those in the gate's file."
    else:
        check = (
            "The unmasked accuracies measured above differ from those in the gate's file by up to "
            f"{apart:.3f}: this is another model, or other items."
        )
    return prose(f"{verdict} {check}")


def margins_figure(items: pd.DataFrame, tasks: Sequence[str]) -> HTML:
    """Histograms of the margins of each task's items."""
    by_task = {task: items.loc[items["task"] == task, "margin"] for task in tasks}
    return figures.show(
        figures.margin_histogram(by_task),
        alt="Histograms of item margins, one panel per task. Median margins: "
        + ", ".join(f"{task} {values.median():.2f}" for task, values in by_task.items())
        + " nats.",
    )


def difficulty_table(items: pd.DataFrame, tasks: Sequence[str]) -> Styler:
    """`gate.difficulty` of each task's items."""
    table = gate.difficulty(items).set_index("task").loc[list(tasks)].reset_index()
    table["n"] = table["task"].map(items["task"].value_counts())
    return figures.table(
        table,
        "Share of items by the probability, among the four options, that the model gives to the "
        "right one: impossible below 0.05, trivial above 0.95.",
        dict.fromkeys(["impossible", "between", "trivial"], "{:.2f}"),
    )


def difficulty_words(copier: pd.DataFrame) -> Markdown:
    """How the share of items of middling difficulty is to be read; `unmasked.copier`."""
    guessed = copier.loc[copier["verdict"] != "above", "task"].tolist()
    if not guessed:
        return prose(
            "Every reading task is answered better than by a copier, so its middle column is not "
            "mere wavering among the words of the story."
        )
    return prose(
        f"In {as_markdown(', '.join(guessed))}, where the model was no better than a copier, read "
        "the middle column with care: an item can also be *between* because the model wavers among "
        "the words of the story, without half knowing anything."
    )


def first_masks_table(found: pd.DataFrame, n_windows: int) -> Styler:
    """`unmasked.first_masks` on so many windows."""
    frame = pd.DataFrame(
        {
            "masked": found["share"].map("{:.0%}".format),
            "neurons": found["n_neurons"],
            "largest change": found["change"],
            "same as before, lifted": found["restored"].map({True: "yes", False: "NO"}),
        }
    )
    return figures.table(
        frame,
        f"Largest change of any logit on {n_windows} windows under random masks, and whether the "
        "logits are the old ones to the bit afterwards.",
        {"largest change": "{:.3f}"},
    )


# --- one test per language, or one in all ---------------------------------------------------------


def accuracy_grid(scores: pd.DataFrame, languages: Sequence[str]) -> pd.DataFrame:
    """Accuracy of each language (rows) under each kind of test (columns)."""
    now = scores.set_index("task")["accuracy"]
    return pd.DataFrame(
        {kind: {x: now[TABLES[kind][x]] for x in languages} for kind in ("knowledge", "reading")}
    )


def grid_table(grid: pd.DataFrame) -> Styler:
    """`accuracy_grid` as a table."""
    return figures.table(
        grid.rename_axis("language").reset_index(),
        "Accuracy of the unmasked model: the same language under two tests (rows), the same test "
        "in several languages (columns).",
        dict.fromkeys(grid, "{:.3f}"),
    )


def grid_words(grid: pd.DataFrame, scores: pd.DataFrame) -> Markdown:
    """Whether the test or the language moves accuracy more, before anything is masked."""
    tests = (grid["knowledge"] - grid["reading"]).abs()
    languages = grid.max() - grid.min()
    larger = "more" if tests.mean() > languages.mean() else "no more"
    return prose(
        f"Changing the test within a language moves accuracy by {tests.min():.3f} to "
        f"{tests.max():.3f}; changing the language within a test by up to "
        + ", ".join(f"{value:.3f} ({kind})" for kind, value in languages.items())
        + f". On average the test matters {larger} than the language, before anything is masked "
        "(each accuracy is uncertain by up to "
        f"{(scores['high'] - scores['low']).max() / 2:.3f}). "
        "Table 1 therefore comes three times: with the paper's assignment ("
        + ", ".join(as_code(TABLES["paper"][x]) for x in grid.index)
        + "), and with each kind of test in all languages."
    )


def how_many_items_table(found: Mapping[int, Sequence[Any]]) -> Styler:
    """Items -> scipy's binomial tests of a lower and of a higher accuracy: Wilson's intervals, and
    the gap between them."""
    rows = []
    for n, tests in found.items():
        low, high = (test.proportion_ci(method="wilson") for test in tests)
        names = [f"interval of {test.statistic:.2f}" for test in tests]
        said = [f"{one.low:.3f} to {one.high:.3f}" for one in (low, high)]
        rows.append({"items": n, **dict(zip(names, said, strict=True)), "gap": high.low - low.high})
    caption = "95 % Wilson intervals of two accuracies."
    return figures.table(pd.DataFrame(rows), caption, {"gap": "{:+.3f}"})
