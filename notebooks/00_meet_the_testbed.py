# %% [markdown]
# # Meet the testbed
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** say what our small trilingual model has read, how it is built and what it
# is asked; tell why windows of equally many tokens hold unequal content; and read a perplexity
# with its interval.
#
# **It assumes** that you know what a token and a Transformer are. Other words are in the
# [glossary](../book/glossary).
#
# **It takes** a quarter of an hour to read; the computer needs about half a minute.
#
# **It covers** the experimental setting, §4.1 of the paper {cite:p}`le2026crane`, as far as a
# testbed can stand in for it, and Figure 1.
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
# Every notebook has one cell like the next, with the settings that its page talks about.
# [How to rerun](../book/rerun) shows how to change them, and the others.

# %% tags=["parameters", "hide-input"]
model = "data/testbed/base"  # checkpoint to examine: a folder, or a name on the hub
languages = ["en", "zh", "vi"]  # languages by code, in the order of all tables
testbed = "data/testbed"  # folder with the testbed's training log and the files of its gate
task_limit = None  # items per task, spread evenly over it; None takes all
n_perplexity = 200  # windows per language that perplexity is measured on
window = 64  # tokens per window of text
seed = 0  # seed of everything that is drawn at random, except training
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %%
import json
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import display

from crane_lab.engines.tasks import TASKS
from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show import crane_exercises as exercises
from crane_lab.show import testbed_pages
from crane_lab.store import write_table
from crane_lab.study import unmasked
from crane_lab.testbed import world

pipeline = Pipeline(Settings.of(globals()))
net, tokenizer = pipeline.model, pipeline.tokenizer
results, shipped = Path(run_dir) / "results", Path(testbed)

# %% [markdown]
# ## Figure 1: where the model comes in
#
# The whole method, drawn by us after §3. Everything in it happens to one model and to text in
# several languages; this notebook is about those two.

# %%
testbed_pages.overview()

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
testbed_pages.world_table(worlds)

# %% [markdown]
# A generator turns facts into documents: portraits, lessons, stories, dialogues, quizzes. Every
# relation has at least four phrasings per language, and some facts are told several times as
# often as others, so that the model knows some well, others hardly, and most of them somewhat.
# Here is one fresh document of each type; click on a type to see it. It is not a
# sentence-by-sentence translation: each language has its own phrasings and draws its own facts.

# %%
testbed_pages.documents(worlds, seed)

# %% [markdown]
# ## What the model reads: tokens
#
# The model reads token ids. Its tokenizer is byte-level BPE, trained on the same mixture, in
# which every Chinese character is a piece of its own before merging, as it is in Llama-2's
# vocabulary. Languages do not need equally many tokens to say the same thing. To see by how much
# they differ we need text that *does* say the same thing: the questions and answers about shared
# things.

# %%
same_content = unmasked.parallel_questions(worlds)
needed = unmasked.tokens_needed(tokenizer, same_content)
write_table(needed, results / "testbed_tokens.csv")
display(
    testbed_pages.tokens_table(needed),
    testbed_pages.cut_into_tokens(tokenizer, same_content),
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
testbed_pages.model_table(net)

# %% [markdown]
# A *neuron* in this book is, by default, one entry of an MLP's intermediate layer
# ([other readings](choice-neuron)). Those $\text{layers} \times \text{width}$ units are what CRANE
# chooses from.
#
# It was trained once, from a seed, on the mixture above, in which English has the largest share,
# as it has in Llama-2's. Each language's training loss:

# %% tags=["shipped"]
log = pd.read_csv(shipped / "training.csv")
recipe = json.loads((shipped / "recipe.json").read_text("utf-8"))
display(
    testbed_pages.training_curves(log, recipe),
    testbed_pages.training_words(log, recipe),
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
# answered by letter, and after 16 million tokens its answers by letter were still at chance,
# while the same model knew the facts when options were scored by their text. Answering
# by letter takes an extra step (find the option, then name its letter) that small models lack.
# Scoring the text measures the knowledge without it.
#
# Here is the first item of each task, exactly as the model gets it, with the four scores; click on
# a task to see it. How many are right is the subject of [the next page](00b_gate).

# %%
items = pipeline.items()
prepared = pipeline.prepared
asked = [task for task in TASKS if task in prepared.tasks]
testbed_pages.first_items(items, prepared.requests, asked)

# %% [markdown]
# ## A second read-out: perplexity
#
# An item's outcome is right or wrong, and a mask that makes the model less sure of an answer
# without changing it leaves no trace in accuracy. Perplexity, the exponential of the mean loss
# per token, on text that the model was not trained on sees such changes. The whole book reports
# it beside accuracy.
#
# The losses behind it are larger than those that training ended with, for reasons that can be
# named. Windows here are a third as long as a training sequence and may begin in mid-document, so
# that their first tokens have little to go by. And the stories are new, while the facts of the
# training text came up again and again until they were known by heart.

# %%
losses = pipeline.losses()
perplexity = unmasked.perplexity_by_language(losses, languages)
write_table(perplexity, results / "testbed_perplexity.csv")
testbed_pages.perplexity_table(perplexity, window)

# %% [markdown]
# ## Exercises
#
# ```{exercise-start} Fair to all languages · medium, 15 minutes
# :label: exercise-bits-per-byte
# ```
# Perplexity per token depends on how the tokenizer cuts a text. Bits per byte do not: they divide
# the total loss of a text by the number of its bytes. Compute them from `pipeline.losses()` and
# `pipeline.perplexity_windows`. Does the order of the languages change? Is this number fair?

# %%
my_bits = dict.fromkeys(languages, ...)  # bits per byte

exercises.bits_per_byte(my_bits, pipeline)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# A loss is the mean over a window's predicted tokens, in nats: all but the first, of which nothing
# is asked. `tokenizer.batch_decode` makes text of the same tokens, `.encode()` bytes of text.
# ```
#
# ```{solution-start} exercise-bits-per-byte
# :class: dropdown
# ```

# %%
for x in languages:
    losses = pipeline.losses()[x]
    # The first token of a window is not predicted.
    windows = pipeline.perplexity_windows[x][:, 1:]
    lines = tokenizer.batch_decode(windows, skip_special_tokens=True)
    n_bytes = sum(len(line.encode()) for line in lines)
    bits = losses.double().sum().item() * windows.shape[1] / np.log(2)
    print(f"{x}: {losses.mean():.3f} nats per token,", end=" ")
    print(f"{bits / n_bytes:.3f} bits per byte")

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
# - They do not say where a language is in the model, or that it is anywhere in particular. No
#   method has been run yet.
# - The intervals of perplexity are over windows. They do not cover training: another seed would
#   give another model with other numbers.
# - Template text is easy. A perplexity this low, a world this small and a vocabulary this narrow
#   are far from natural language. What holds here may not hold for Llama-2-7B, and the other way
#   round.
#
# Next: [the gate](00b_gate), which this model had to pass before any method was run on it.
