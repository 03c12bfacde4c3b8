# %% [markdown]
# # Meet the testbed
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** say what our small trilingual model has read, what it is asked and how
# well it answers; read an accuracy and a perplexity with their intervals; explain how the model
# was accepted before any method was run on it; and name what the paper's choice of benchmarks
# mixes up.
#
# **It assumes** that you know what a token and a Transformer are. Other words are in the
# [glossary](../book/glossary).
#
# **It takes** twenty minutes to read; the computer needs about half a minute.
#
# **It covers** the experimental setting, §4.1 and §4.3 of the paper {cite:p}`le2026crane`, as far
# as a testbed can stand in for it, and Figure 1.
# :::
#
# The paper asks which neurons Llama-2-7B {cite:p}`touvron2023llama2` needs for English, Chinese
# and Vietnamese. Before we ask that of a model, we should know the model: what it was trained on,
# what it can do, and how it bears having *any* neurons removed. For Llama-2 nobody outside can
# answer the first of these questions. For the testbed, a model of the same architecture that this
# project trained from nothing, we can answer all three.

# %% [markdown]
# ## Parameters
#
# Every notebook has one cell like the next. [How to rerun](../book/rerun) shows how to change its
# values.

# %% tags=["parameters", "hide-input"]
model = "data/testbed/base"  # checkpoint to examine: a folder, or a name on the hub
dtype = "float32"  # type of the weights: float32, bfloat16 or float16
device = "cpu"  # where the model runs: cpu, cuda, or auto for a GPU if any
offline = True  # False: weights, corpora and benchmarks may come from the hub
testbed = "data/testbed"  # folder with the testbed's training log and the files of its gate
languages = ["en", "zh", "vi"]  # languages by code, in the order of all tables
tasks = "data/testbed/tasks"  # folder with the benchmarks: lm-eval YAML files and their items
task_limit = None  # items per task, spread evenly over it; None takes all
perplexity_corpus = "data/testbed/corpus/perplexity"  # held-out text for perplexity, one file each
    "data/testbed/corpus/perplexity"  # held-out text for perplexity, one file per language
)
text_column = "text"  # column of JSON lines or Parquet that holds the documents
max_document_tokens = None  # tokens a document is cut to; None: it is not cut
deduplicate = True  # leave out documents that have occurred before
corpus_documents = 5000  # documents per language that are taken from a corpus on the hub
n_perplexity = 200  # windows per language that perplexity is measured on
window = 64  # tokens per window of text
seed = 0  # seed of everything that is drawn at random, except training
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %%
import html
import json
import random
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from IPython.display import HTML, Markdown
from scipy import stats

from crane_core import metrics
from crane_lab.engines import evaluation
from crane_lab.pipeline import TABLES, Pipeline
from crane_lab.settings import Settings
from crane_lab.show import figures
from crane_lab.store import write_table
from crane_lab.study import gate
from crane_lab.testbed import text, world
from crane_lab.texts.languages import NAMES

pipeline = Pipeline(Settings.of(globals()))
tokenizer = pipeline.tokenizer
results = Path(run_dir) / "results"

# %% [markdown]
# ## Figure 1: where the model comes in
#
# The whole method, drawn by us after §3. Everything in it happens to one model and to text in
# several languages; this notebook is about those two.

# %% tags=["hide-input"]
figures.show(
    figures.fig1_overview(),
    alt="Overview in three columns. Relevance: windows of text go through AttnLRP, which gives a "
    "distribution of relevance per neuron. Concentration and selection: kurtosis per language, "
    "normalised within each layer; the contrast picks neurons high for the target and low for "
    "every other language. Functional necessity: the picked neurons are masked, every language's "
    "tasks evaluated, and the damage summed up as LangSpec-F1.",
)


# %% tags=["hide-input"]
def named(language):
    """A language's name, where we know one."""
    return NAMES.get(language, language)


def in_language(language, content):
    """A paragraph marked as being in a language, with the line breaks that it has."""
    return (
        f'<p lang="{language}" style="white-space:pre-wrap;margin:0.2em 0 0.6em">'
        f"<b>{language}</b>&ensp;{content}</p>"
    )


# %% [markdown]
# ## A small world, told three times
#
# The training text describes one small world. Part of it is real: countries and their capitals,
# animals, foods, professions, the calendar, sums up to eighteen. Part of it is invented: towns
# and people that do not exist. Invented facts can be known from the training text and from
# nowhere else, so a right answer about them is memory, not luck with a plausible guess.
#
# Things and towns are shared: Whitebridge, 白桥镇 and Cầu Trắng are one town, in the same region in
# every language. People are not: each language has its own, more of them where there is more
# text.

# %%
worlds = {x: world.build(x) for x in languages}
first = worlds[languages[0]]
pd.DataFrame(
    [
        {
            "what": kind,
            "facts told about each": ", ".join(members[0].facts),
            **{f"how many, {x}": len(worlds[x].subjects[kind]) for x in languages},
            "an example": f"{members[0].name}: {', '.join(members[0].facts.values())}",
        }
        for kind, members in first.subjects.items()
    ]
).pipe(figures.table, "What there is in the testbed's world.")

# %% [markdown]
# A generator turns facts into documents: portraits, lessons, stories, dialogues, quizzes. Every
# relation has at least four phrasings per language, and some facts are told several times as
# often as others, so that the model knows some well, others hardly, and most of them somewhat.
# Here is one fresh document of each type; click on a type to see it. It is not a
# sentence-by-sentence translation: each language has its own phrasings and draws its own facts.

# %%
DOCUMENTS = {
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
writers = {x: text.Writer(worlds[x], random.Random(seed)) for x in languages}

# %% tags=["hide-input"]
HTML(
    "".join(
        f"<details{' open' if number < 2 else ''}><summary><b>{kind}</b></summary>"
        + "".join(in_language(x, html.escape(write(writers[x]))) for x in languages)
        + "</details>"
        for number, (kind, write) in enumerate(DOCUMENTS.items())
    )
)

# %% [markdown]
# ## What the model reads: tokens
#
# The model reads token ids. Its tokenizer is byte-level BPE, trained on the same mixture, in
# which every Chinese character is a piece of its own before merging, as it is in Llama-2's
# vocabulary. Languages do not need equally many tokens to say the same thing. To see by how much
# they differ we need text that *does* say the same thing: the questions and answers about shared
# things.

# %%
SHARED = ("country", "animal", "ingredient", "job", "place")


def parallel(language):
    """One question with its answer for every fact about a shared thing, in a fixed order."""
    writer = text.Writer(worlds[language], random.Random(0))
    return [
        f"{writer.test(subject, relation)}{writer.space}{answer}"
        for kind in SHARED
        for subject in worlds[language].subjects[kind]
        for relation, answer in subject.facts.items()
        if "test" in writer.phrases[kind][relation]
    ]


same_content = {x: parallel(x) for x in languages}
assert len({len(lines) for lines in same_content.values()}) == 1

# %%
rows = []
for x, lines in same_content.items():
    encoded = tokenizer(lines, add_special_tokens=False)["input_ids"]
    n_tokens = sum(map(len, encoded))
    rows.append(
        {
            "language": named(x),
            "questions": len(lines),
            "characters": sum(map(len, lines)),
            "bytes": sum(len(line.encode()) for line in lines),
            "tokens": n_tokens,
            "tokens per question": n_tokens / len(lines),
            "characters per token": sum(map(len, lines)) / n_tokens,
            "tokens relative to " + languages[0]: n_tokens
            / (rows or [{"tokens": n_tokens}])[0]["tokens"],
        }
    )
tokens_needed = pd.DataFrame(rows)
write_table(tokens_needed, results / "testbed_tokens.csv")
figures.table(
    tokens_needed,
    f"The same {rows[0]['questions']} questions with their answers in each language.",
    {
        "tokens per question": "{:.1f}",
        "characters per token": "{:.2f}",
        "tokens relative to " + languages[0]: "{:.2f}",
    },
)

# %% tags=["hide-input"]
pieces = {}
for x in languages:
    ids = tokenizer(same_content[x][0], add_special_tokens=False)["input_ids"]
    cut, counts = figures.readable_tokens(tokenizer, ids)
    pieces[x] = "|".join(
        piece + (f" ({count:.0f} tokens)" if count > 1 else "")
        for piece, count in zip(cut, counts, strict=True)
    )
HTML(
    "<p>One of them, with a line between tokens (a space belongs to the token after it):</p>"
    + "".join(in_language(x, html.escape(cut)) for x, cut in pieces.items())
)

# %% [markdown]
# Two consequences for the rest of the book. First, a window of $n$ tokens holds different amounts
# of *content* in different languages; we give every language windows of equally many tokens,
# because relevance is summed over tokens ([why](choice-corpus)). Second, perplexity per token
# cannot be compared between languages, only between a model and its masked self in the *same*
# language.
#
# ## The model
#
# A Llama {cite:p}`touvron2023llama2` in miniature: rotary positions, RMS normalisation and gated
# MLPs {cite:p}`shazeer2020glu`. The column on the right is Llama-2-7B, from its published
# configuration; it was not run here.

# %%
config = pipeline.model.config
layers, width = pipeline.shape["intermediate"]
parameters = sum(p.numel() for p in pipeline.model.parameters())
in_mlps = sum(p.numel() for name, p in pipeline.model.named_parameters() if ".mlp." in name)
description = pd.DataFrame(
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
figures.table(description, "The two models side by side.")

# %% [markdown]
# A *neuron* in this book is, by default, one entry of an MLP's intermediate layer
# ([other readings](choice-neuron)). Those $\text{layers} \times \text{width}$ units are what CRANE
# chooses from.
#
# It was trained once, from a seed, on the mixture above, in which English has the largest share,
# as it has in Llama-2's. Each language's training loss:

# %%
log = pd.read_csv(Path(testbed) / "training.csv")
recipe = json.loads((Path(testbed) / "recipe.json").read_text(encoding="utf-8"))
seen = log["step"] * recipe["batch"] * recipe["length"] / 1e6
trained_on = [x for x in log.columns if x != "step"]
figures.show(
    figures.curves(
        {x: (seen, log[x]) for x in trained_on},
        xlabel="tokens read, all languages together (millions)",
        ylabel="training loss (nats per token)",
    ),
    alt="Training loss against tokens read, one falling curve per language; last values "
    + ", ".join(f"{x} {log[x].iloc[-1]:.2f}" for x in trained_on)
    + ".",
)

# %% tags=["hide-input"]
shares = ", ".join(f"{x} {world.SHARES[x]:.0%}" for x in world.SHARES)
Markdown(
    f"The training text has {recipe['tokens'] / 1e6:.1f} million tokens ({shares}), read once. The "
    f"curves end at "
    + ", ".join(f"{log[x].iloc[-1]:.2f} ({x})" for x in trained_on)
    + " nats per token. Values this low come from text that is made of templates: most words "
    "follow from those before them, and what remains is mainly the facts."
)

# %% [markdown]
# ## Six tasks
#
# `knowledge_en`, `knowledge_zh`, `knowledge_vi`
# : Shaped like MMLU {cite:p}`hendrycks2021mmlu` and C-Eval {cite:p}`huang2023ceval`: they ask for
#   facts of the training text, in a phrasing that it never uses.
#
# `reading_en`, `reading_zh`, `reading_vi`
# : Shaped like Belebele {cite:p}`bandarkar2023belebele`: they ask about a short story of one to
#   three people that the model has never seen.
#
# The tasks are configured for lm-evaluation-harness {cite:p}`biderman2024lmeval`, which makes the
# prompts and scores the answers. Each item has four options. The model is not asked to write;
# each option's text is put behind the prompt, and the option with the highest log-probability is
# the model's choice.
#
# Why the text, and not the letters A to D, as MMLU is usually scored? Because models of this size
# do not learn the letters. In a prototype a third of all documents were four-option questions
# answered by letter, and after 16 million tokens its answers by letter were still at chance (0.21
# to 0.26), while the same model knew the facts when options were scored by their text. Answering
# by letter takes an extra step (find the option, then name its letter) that small models lack.
# Scoring the text measures the knowledge without it.
#
# Here is the first item of each task, exactly as the model gets it, with the four scores:

# %%
items = pipeline.items()
requests = pipeline.prepared.requests
asked = [task for task in evaluation.TASKS if task in pipeline.prepared.tasks]

# %% tags=["hide-input"]
shown_items = []
for task in asked:
    row = int(items.index[items["task"] == task][0])
    item = items.loc[row]
    options = requests[row * evaluation.OPTIONS : (row + 1) * evaluation.OPTIONS]
    listed = []
    for number, request in enumerate(options):
        marks = [
            *(["right"] if number == item["answer"] else []),
            *(["chosen"] if number == item["choice"] else []),
        ]
        listed.append(
            f"<li>{html.escape(request.args[1].strip())}: {item[f'logprob_{number}']:.2f}"
            + (f" <b>({', '.join(marks)})</b>" if marks else "")
            + "</li>"
        )
    shown_items.append(
        f"<h4>{task}</h4><p lang='{item['language']}' style='white-space:pre-wrap'>"
        f"{html.escape(options[0].args[0])}</p>"
        f"<ul lang='{item['language']}'>{''.join(listed)}</ul>"
    )
HTML("".join(shown_items) + "<p>Numbers are log-probabilities in nats.</p>")

# %% [markdown]
# ## How well it answers
#
# An accuracy from $n$ items is an estimate. The interval beside it is Wilson's, which behaves
# well for proportions: over many such samples of items, 95 % of the intervals would hold the true
# accuracy. Chance is one in four.

# %%
scores = evaluation.scores(items).loc[asked].reset_index()
positions = items.groupby("task")["answer"].value_counts(normalize=True).unstack(fill_value=0.0)
scores["chance"] = gate.CHANCE
write_table(scores, results / "testbed_accuracy.csv")
figures.table(
    scores.assign(
        interval=[f"{a:.3f} to {b:.3f}" for a, b in zip(scores.low, scores.high, strict=True)]
    )[["task", "n", "accuracy", "interval", "chance"]],
    "Accuracy of the unmasked model with 95 % Wilson intervals.",
    {"accuracy": "{:.3f}", "chance": "{:.2f}"},
)

# %% tags=["hide-input"]
above = scores[scores["low"] > gate.CHANCE]["task"].tolist()
rest = [task for task in scores["task"] if task not in above]
Markdown(
    f"The interval lies above chance for {len(above)} of {len(scores)} tasks"
    + (f" (not for {', '.join(rest)})" if rest else "")
    + ". The right option stands at each of the four positions in "
    f"{positions.min(axis=None):.0%} to {positions.max(axis=None):.0%} of a task's items"
    + (
        ", so that a preference for a position would not help."
        if positions.max(axis=None) < 0.3
        else "; with the few items of this run they are not balanced, as they are in the files."
    )
)

# %% [markdown]
# ### What it knows, and how it reads
#
# One number per task hides a lot. Here is the same by kind of question: what is asked about whom
# for knowledge, what is asked of a story with how many people for reading.

# %%
by_kind = items.assign(
    kind=items["task"].str.rsplit("_", n=1).str[0], asked=items["relation"]
).pivot_table(index=["kind", "asked"], columns="language", values="correct", sort=False)
counts = items.groupby("relation", sort=False).size() // len(languages)
by_kind = by_kind[languages].reset_index()
by_kind.insert(2, "items per language", by_kind["asked"].map(counts))
write_table(by_kind, results / "testbed_by_relation.csv")
figures.table(
    by_kind,
    "Accuracy of the unmasked model by kind of question. Few items make a rough estimate: with 70, "
    "the interval is some ten points to either side.",
    dict.fromkeys(languages, "{:.2f}"),
)

# %% [markdown]
# Mind the chance level of the reading tasks. Wrong options are taken from the story as far as it
# has any: a story of one person mentions one possible answer, and a story of three mentions
# three. A *copier* that picks any fitting word of the passage, without working out who did what,
# is right in all items of the first kind, in half of the second and in a third of the last.

# %%
reading = items[items["task"].isin(TABLES["reading"].values())]
people = pd.to_numeric(reading["relation"].str.rsplit(".", n=1).str[-1])
copier = (1 / people).groupby(reading["task"]).mean()
against = scores.set_index("task").loc[[task for task in asked if task in copier.index]]
against = against.assign(copier=copier).reset_index()
told = ["above" if a.low > a.copier else "below" if a.high < a.copier else "not told apart"
            for a in against.itertuples()]  # fmt: skip
figures.table(
    against.assign(verdict=told)[["task", "n", "accuracy", "low", "high", "copier", "verdict"]],
    "Reading against a copier; low and high: 95 % Wilson interval of the accuracy.",
    dict.fromkeys(["accuracy", "low", "high", "copier"], "{:.3f}"),
)

# %% tags=["hide-input"]
better = against[against["low"] > against["copier"]]["task"].tolist()
Markdown(
    (
        f"The model reads better than a copier in {', '.join(better)}."
        if better
        else "**In no language is the model shown to read better than a copier.** What the reading "
        "tasks measure on this model is whether it copies the right kind of word from the passage, "
        "not whether it keeps apart who did what."
    )
    + " When a mask lowers a reading score, this ability is what it damaged; and a score can stay "
    f"well above {gate.CHANCE} as long as copying survives."
)

# %% [markdown]
# For comparison, the scores of the paper's unmasked model. They come from other tests and another
# model, so only their level is of interest: Llama-2-7B, too, is not far above chance on such
# tests.

# %% tags=["hide-input"]
published = pd.read_csv("data/published/table1.csv").iloc[:1]
figures.table(
    published[["en", "zh", "vi"]].rename(
        columns={"en": "MMLU (en)", "zh": "C-Eval (zh)", "vi": "Belebele (vi)"}
    ),
    "Accuracy of the unmasked model, published (Llama-2-7B).",
    {"MMLU (en)": "{:.4f}", "C-Eval (zh)": "{:.4f}", "Belebele (vi)": "{:.4f}"},
)

# %% [markdown]
# ## A second read-out: perplexity
#
# An item's outcome is right or wrong, and a mask that makes the model less sure of an answer
# without changing it leaves no trace in accuracy. Perplexity, the exponential of the mean loss
# per token, on text that the model was not trained on sees such changes. The whole book reports
# it beside accuracy.

# %%
rows = []
for x in languages:
    values = pipeline.losses()[x].double().numpy()
    half = stats.t.ppf(0.975, max(len(values) - 1, 1)) * stats.sem(values)
    loss = values.mean()
    rows.append((x, len(values), loss, np.exp(loss), np.exp(loss - half), np.exp(loss + half)))
perplexity = pd.DataFrame(
    rows, columns=["language", "windows", "loss", "perplexity", "low", "high"]
)
write_table(perplexity, results / "testbed_perplexity.csv")
figures.table(
    perplexity,
    f"Held-out perplexity per token, windows of {window} tokens; low and high: 95 % interval over "
    "windows (Student's t, on the loss).",
    {"loss": "{:.3f}", "perplexity": "{:.3f}", "low": "{:.3f}", "high": "{:.3f}"},
)

# %% [markdown]
# ## The gate
#
# A testbed could be tuned until the method under study looks good on it. To rule that out, this
# one had to pass a gate that was fixed beforehand and knows two things only: the unmasked model,
# and *random* masks. A random mask zeroes the same share of MLP neurons in every layer. The model
# was committed when it passed, and no method was run on it before.
#
# What should a usable testbed show?
#
# - **Room both ways.** At a ceiling no mask shows an effect; at chance there is nothing to lose.
# - **A gradual decline.** If nothing happened up to a point and everything after it, masks of
#   different quality would look the same.
# - **Robustness to little damage.** If 3 % of random neurons ruined it, any set would look
#   necessary.
# - **Items of mixed difficulty.** If items were either trivial or hopeless, accuracy could only
#   move when a mask is large enough to flip trivial ones.

# %%
curve = pd.read_csv(Path(testbed) / "gate.csv")
declined = gate.decline(curve)
lines = {
    task: (
        100 * table["fraction"],
        table["mean"],
        table["mean"] - table["half_width"],
        table["mean"] + table["half_width"],
    )
    for task, table in declined.groupby("task", sort=False)
}
n_masks = int(declined["count"].max())
largest = declined["fraction"].max()
at_largest = declined[declined["fraction"] == largest].set_index("task")["mean"]
figures.show(
    figures.curves(
        lines,
        xlabel="random neurons masked in every layer (%)",
        ylabel="accuracy",
        level=gate.CHANCE,
    ),
    alt=f"Accuracy of the six tasks under random masks of growing size. At {largest:.0%} masked: "
    + ", ".join(f"{task} {value:.2f}" for task, value in at_largest.items())
    + ".",
)

# %% tags=["hide-input"]
table = declined.assign(
    cell=[
        f"{mean:.3f}" + (f" ± {half:.3f}" if count > 1 else "")
        for mean, half, count in zip(
            declined["mean"], declined["half_width"], declined["count"], strict=True
        )
    ],
    masked=declined["fraction"].map("{:.0%} masked".format),
)
wide = table.pivot(index="task", columns="masked", values="cell")
wide = wide.loc[list(dict.fromkeys(table["task"])), list(dict.fromkeys(table["masked"]))]
figures.table(
    wide.reset_index(),
    f"Accuracy under random masks: mean over {n_masks} masks ± half-width of its 95 % interval "
    "over masks (Student's t). Unmasked: one value.",
)

# %%
verdicts = pd.read_csv(Path(testbed) / "gate_verdicts.csv")
figures.table(
    verdicts.assign(holds=verdicts["holds"].map({True: "yes", False: "NO"})),
    f"The gate's {len(verdicts)} requirements and what was measured.",
)

# %% tags=["hide-input"]
failed = verdicts[~verdicts["holds"].astype(bool)]["requirement"].tolist()
verdict = (
    f"All {len(verdicts)} requirements hold."
    if not failed
    else f"**{len(failed)} of {len(verdicts)} requirements do not hold**: {'; '.join(failed)}."
)
committed = curve[curve["fraction"] == 0].set_index("task")["accuracy"]
now = scores.set_index("task")["accuracy"]
if task_limit is None:
    apart = (now - committed.reindex(now.index)).abs().max()
    check = (
        "The unmasked accuracies measured above are those in the gate's file."
        if apart < 1e-4
        else f"The unmasked accuracies measured above differ from those in the gate's file by up "
        f"to {apart:.3f}: this is another model, or other items."
    )
else:
    check = (
        f"This run asks {task_limit} items per task, so its accuracies above are not the gate's, "
        "which come from all items."
    )
Markdown(f"{verdict} {check}")

# %% [markdown]
# ### How hard the items are
#
# The *margin* of an item is the right option's log-probability minus that of the best wrong one:
# positive if the answer is right, and the further from zero the surer. A mask moves an item's
# outcome only if it moves the margin across zero, so items close to zero are what a small effect
# can be seen on.

# %%
figures.show(
    figures.margin_histogram({task: items.loc[items["task"] == task, "margin"] for task in asked}),
    alt="Histograms of item margins, one panel per task. Median margins: "
    + ", ".join(
        f"{task} {items.loc[items['task'] == task, 'margin'].median():.2f}" for task in asked
    )
    + " nats.",
)

# %%
difficulty = gate.difficulty(items).set_index("task").loc[asked].reset_index()
figures.table(
    difficulty.assign(n=scores["n"]),
    "Share of items by the probability, among the four options, that the model gives to the right "
    "one: impossible below 0.05, trivial above 0.95.",
    {"impossible": "{:.2f}", "between": "{:.2f}", "trivial": "{:.2f}"},
)

# %% tags=["hide-input"]
guessed = against[against["low"] <= against["copier"]]["task"].tolist()
Markdown(
    f"In {', '.join(guessed)}, where the model was no better than a copier, read the middle "
    "column with care: an item can also be *between* because the model wavers among the words of "
    "the story, without half knowing anything."
    if guessed
    else "Every reading task is answered better than by a copier, so its middle column is not mere "
    "wavering among the words of the story."
)

# %% [markdown]
# ## A first mask
#
# To *mask* a neuron is to make it put out zero while everything else stays as it is (§3.4).
# Before a mask is ever evaluated, the library makes sure that it does something: some logit must
# change. Here is that check with random masks of growing size, the empty one first, and a look at
# whether the model is back to what it was, to the last bit, once a mask is lifted.

# %%
probe = torch.cat([windows[:1] for windows in pipeline.perplexity_windows.values()])
probe = probe.to(pipeline.model.device)
with torch.no_grad():
    before = pipeline.model(input_ids=probe).logits
rows = []
for fraction in (0.0, *gate.FRACTIONS):
    neurons = gate.random_neurons(pipeline.model, fraction, seed=gate.SEEDS[0])
    change = pipeline.logit_change(neurons)
    with torch.no_grad():
        restored = torch.equal(before, pipeline.model(input_ids=probe).logits)
    rows.append((f"{fraction:.0%}", len(neurons), change, "yes" if restored else "NO"))
figures.table(
    pd.DataFrame(rows, columns=["masked", "neurons", "largest change", "same as before, lifted"]),
    f"Largest change of any logit on {len(probe)} windows under random masks, and whether the "
    "logits are the old ones to the bit afterwards.",
    {"largest change": "{:.3f}"},
)

# %% [markdown]
# ## One test per language, or one test in all languages?
#
# The paper's Table 1 measures English with MMLU, Chinese with C-Eval and Vietnamese with
# Belebele. A mask that hurts Belebele more than MMLU may have hit Vietnamese. It may also have
# hit *reading a passage*, whatever the language. With one test per language, language and test
# cannot be told apart: they are *confounded*.
#
# How different are the tests themselves? On the testbed both kinds of test exist in every
# language, so we can compare.

# %%
kinds = {kind: TABLES[kind] for kind in ("knowledge", "reading")}
grid = pd.DataFrame({kind: {x: now[by[x]] for x in languages} for kind, by in kinds.items()})
between_tests = (grid["knowledge"] - grid["reading"]).abs()
between_languages = grid.max() - grid.min()
figures.table(
    grid.rename_axis("language").reset_index(),
    "Accuracy of the unmasked model: the same language under two tests (rows), the same test in "
    "several languages (columns).",
    {"knowledge": "{:.3f}", "reading": "{:.3f}"},
)

# %% tags=["hide-input"]
larger = "more" if between_tests.mean() > between_languages.mean() else "no more"
Markdown(
    f"Changing the test within a language moves accuracy by {between_tests.min():.3f} to "
    f"{between_tests.max():.3f}; changing the language within a test by up to "
    + ", ".join(f"{value:.3f} ({kind})" for kind, value in between_languages.items())
    + f". On average the test matters {larger} than the language, before anything is masked (each "
    f"accuracy is uncertain by up to {(scores['high'] - scores['low']).max() / 2:.3f}). "
    "Table 1 therefore comes three times: with the paper's assignment ("
    + ", ".join(f"`{TABLES['paper'][x]}`" for x in languages)
    + "), and with each kind of test in all languages."
)

# %% [markdown]
# ## Exercises
#
# ```{exercise-start} How many items?
# :label: exercise-how-many-items
# ```
# Suppose that masking costs 3 of 100 points. With how many items per task would the Wilson
# intervals of an accuracy of 0.60 and of 0.57 no longer overlap? And why can we hope to see such
# a drop with fewer items than that?
# ```{exercise-end}
# ```
#
# ```{solution-start} exercise-how-many-items
# :class: dropdown
# ```

# %%
rows = []
for n in (160, 640, 2_560, 5_120):
    high, low = (
        metrics.accuracy_interval(np.arange(n) < round(share * n)) for share in (0.60, 0.57)
    )
    rows.append(
        {
            "items": n,
            "interval of 0.57": f"{low.low:.3f} to {low.high:.3f}",
            "interval of 0.60": f"{high.low:.3f} to {high.high:.3f}",
            "gap": high.low - low.high,
        }
    )
figures.table(pd.DataFrame(rows), "95 % Wilson intervals of two accuracies.", {"gap": "{:+.3f}"})

# %% [markdown]
# It takes thousands. But the two scores come from the *same* items, before and after. Most items
# keep their outcome, and only those that change carry the difference: an interval for the paired
# difference is much narrower than the two separate ones suggest. That is why [Table 1](04_table1)
# keeps every item's outcome and resamples items in pairs.
# ```{solution-end}
# ```
#
# ```{exercise-start} Fair to all languages
# :label: exercise-bits-per-byte
# ```
# Perplexity per token depends on how the tokenizer cuts a text. Bits per byte do not: they divide
# the total loss of a text by the number of its bytes. Compute them from `pipeline.losses()` and
# `pipeline.perplexity_windows`. Does the order of the languages change? Is this number fair?
# ```{exercise-end}
# ```
#
# ```{solution-start} exercise-bits-per-byte
# :class: dropdown
# ```

# %%
for x in languages:
    losses = pipeline.losses()[x]
    windows = pipeline.perplexity_windows[x][:, 1:]  # the first token of a window is not predicted
    n_bytes = sum(
        len(line.encode()) for line in tokenizer.batch_decode(windows, skip_special_tokens=True)
    )
    bits = losses.double().sum().item() * windows.shape[1] / np.log(2)
    print(f"{x}: {losses.mean():.3f} nats per token, {bits / n_bytes:.3f} bits per byte")

# %% [markdown]
# Fairer, but not fair. A Chinese character takes three bytes in UTF-8 and a Vietnamese letter up
# to three, where an English letter takes one. Only the total loss of *parallel* text, the same
# content in every language, compares like with like. (The decoded bytes also count the few
# characters that a window's edge cuts.) For our purposes the question does not arise: we compare
# a language with itself under a mask.
# ```{solution-end}
# ```
#
# ## What the numbers do and do not show
#
# - Where the gate's requirements hold, the numbers show that this model knows its world in part, in
#   every language, and that accuracy falls gradually under random damage: there is something to
#   measure a mask by.
# - Where the model reads no better than a copier, a reading score says how well it copies. Keep the
#   copier's score in mind when a reading score falls, or does not.
# - They do not say where a language is in the model, or that it is anywhere in particular. No
#   method has been run yet.
# - The intervals of accuracy and perplexity are over items and windows; those of the gate are
#   over random masks. None of them covers training: another seed would give another model with
#   other numbers.
# - Template text is easy. A perplexity this low, a world this small and a vocabulary this narrow
#   are far from natural language. What holds here may not hold for Llama-2-7B, and the other way
#   round.
# - Accuracies of different tasks are not comparable as measures of a *language*, as the last
#   section shows.
#
# Next: [Relevance](01_relevance), where a prediction is traced back to neurons.
