# %% [markdown]
# # Does training a language's neurons help?
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** train some neurons of a model and no others, and see that it is so; and
# hold tuned sets against random ones that were tuned likewise.
#
# **It assumes** [notebook 13b](13b_lsn_ours), whose tasks and intervals are used here.
#
# **It takes** twenty minutes to read; the computer needs a minute.
#
# **It covers** Tables 3, 7 and 8 of *Language-specific neurons do not facilitate cross-lingual
# transfer* {cite:p}`mondal2025transfer`, and what a later paper holds against it
# {cite:p}`gurgurov2025sparse`; on our model. Gemma and the verdicts are in
# [14b](14b_lsn_verdicts).
# :::
#
# Setting neurons to a value is crude. Perhaps a language is helped by *training* its neurons: then
# the model finds the values itself. The paper tunes attention and, of the MLPs, only the neurons of
# English, of the target, or of both, on the task in English. It sees no gain, and random neurons do
# the same.

# %% tags=["parameters", "hide-input"]
model = "data/testbed/base"  # checkpoint to examine: a folder, or a name on the hub
languages = ["en", "zh", "vi"]  # languages by code, in the order of all tables
n_samples = 1000  # windows of text per language that relevance is taken on
seed = 0  # seed of everything that is drawn at random, except training
taught_data = "data/testbed"  # folder with the shipped results of trainings
recompute_taught = False  # train every set again instead of reading the shipped results
n_trainings = 5  # trainings of each set, if they are run again
published = "data/published"  # folder with the paper's tables and claims
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %%
from pathlib import Path

from IPython.display import display

from crane_lab.audit import lsn
from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show import figures, lsn_tables_page, taught_pages
from crane_lab.show import later_exercises as exercises
from crane_lab.store import write_table
from crane_lab.study import (
    contenders,
    taught,
    taught_effects,
    text_taught,
    tuned,
)
from crane_lab.texts.languages import language_names
from crane_lab.tuning.training import TuningRecipe

folder = Path(published) / "lsn"
results = Path(run_dir) / "results"
results.mkdir(parents=True, exist_ok=True)
settings = Settings.of(globals())
pipeline = Pipeline(settings)
names = language_names(settings.languages)
sets = contenders.contenders(pipeline)
data = results if recompute_taught else taught_data
trainings = n_trainings if recompute_taught else None

# %% [markdown]
# ## What is printed

# %% tags=["published"]
lsn_tables_page.lsn_tuning_in_words(
    lsn.lsn_changes(lsn.lsn_table("4", folder)),
    lsn.lsn_table("7", folder),
    lsn.lsn_table("8", folder),
)

# %% [markdown]
# ## Some neurons and no others
#
# LoRA {cite:p}`hu2022lora` leaves a weight $W$ as it is and learns $B A$ beside it, with few rows
# in $A$ and columns in $B$. Neuron $i$ owns row $i$ of `gate_proj` and `up_proj`, and column $i$ of
# `down_proj`. So rows of $B$, and for `down_proj` columns of $A$, are kept at zero for every neuron
# that was not chosen; then $B A$ is zero there, exactly. (The public code does this to `gate_proj`
# alone; `--tuned-parts gate` of the command named below does, too. All else of a training is an
# option there.) A short training, computed for this page, shows it bit by bit:

# %%
short = TuningRecipe(items=48, epochs=1)
target = languages[1]
changed = tuned.changed_weights(
    pipeline,
    sets["CRANE"][target],
    short,
)
write_table(changed, results / "lsn_changed_weights.csv")
taught_pages.changed_weights_table(changed)

# %% [markdown]
# ## Tuned on the task, in English
#
# Attention is always tuned. Beside it: nothing else, the neurons of English, of a target, of both,
# those of random sets with as many neurons in every layer as English's and the first target's
# together, or all. Changes are from attention alone, with the same seed: the same order of items
# and the same first head, while LoRA's first values differ with what is tuned. In a language at its
# floor ([notebook 13b](13b_lsn_ours)) the question is whether neurons bring any transfer at all.
# LAPE's sets are those with as many neurons as CRANE's. Those that it finds as it is released, a
# handful, are tuned when trainings are run again; the shipped results do not have them.

# %% tags=["shipped"]
tables, made = taught.taught_tables(
    pipeline,
    "weights",
    data,
    trainings,
)
taught_pages.made_in_words(
    made,
    "python -m crane_lab.cli.tune --parts weights",
)

# %% tags=["shipped"]
effects = {}
for task, table in tables.items():
    found = taught_effects.taught_effects(table)
    write_table(found, results / f"lsn_effects_weights_{task}.csv")
    effects[task] = found
plain = {}
for task, found in effects.items():
    plain[task] = found[found["set_to"] == ""]
for x in languages:
    display(taught_pages.effects_figure(plain, names, x))

# %% tags=["shipped"]
taught_pages.effects_counts_table(plain)

# %% [markdown]
# And against random sets that were tuned likewise:

# %% tags=["shipped"]
beside = {}
for task, table in tables.items():
    beside[task] = taught_effects.taught_beside_random(table)
    write_table(beside[task], results / f"lsn_beside_weights_{task}.csv")
taught_pages.beside_random_table(beside)

# %% [markdown]
# ### Set to a value after they were tuned
#
# A neuron that was tuned might do more when it is set. The change is from the same tuned model,
# untouched; the target's neurons are set where they were tuned, alone or with English's.

# %% tags=["shipped"]
after = {}
for task, found in effects.items():
    after[task] = found[found["set_to"] != ""]
taught_pages.effects_counts_table(after)

# %% [markdown]
# ## Tuned on text, in the language itself
#
# A later paper {cite:p}`gurgurov2025sparse` tunes a language's neurons on plain text *in that
# language* and reports a gain. That is another question, so it is asked separately: now nothing but
# the chosen neurons is tuned, on stories that the model never saw. How far does the loss on other
# such stories fall, in that language and in the others? Ticks are random sets of the same size in
# every layer, tuned likewise. And what becomes of the questions of notebook 13b, which plain
# stories do not practise?

# %% tags=["shipped"]
text, made_text = text_taught.read_text_taught(
    pipeline,
    data,
    trainings,
)
by_text = text_taught.text_effects(text)
write_table(by_text, results / "lsn_effects_text.csv")
display(
    taught_pages.made_in_words(
        {"text": made_text},
        "python -m crane_lab.cli.tune --parts text",
    ),
    taught_pages.text_figure(by_text, names),
    taught_pages.text_in_words(by_text, names),
    figures.folded("In numbers", taught_pages.text_table(by_text)),
)

# %% [markdown]
# ## Exercise
#
# ```{exercise-start} What a chosen neuron can learn · medium, 10 minutes
# :label: exercise-lsn-rows
# ```
# In `gate_proj` LoRA of rank $r$ learns $B A$, and row $i$ of $B$ is kept at zero unless neuron $i$
# was chosen. How many numbers of $B$ are free if $k$ neurons are chosen, and how many were in the
# short training above, all layers together? In how many directions can the weights of one chosen
# neuron move, and can two chosen neurons move in different ones?

# %%
chosen = sets["CRANE"][target]
my_free = ...  # numbers of B in gate_proj; `short` has the rank

exercises.free_of_b(my_free, chosen, short.rank, pipeline.shape)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# $B$ has a row for each neuron and a column for each of the $r$ rows of $A$. What is added to the
# weights of neuron $i$ is row $i$ of $B$ times $A$.
# ```
#
# ```{solution} exercise-lsn-rows
# :class: dropdown
#
# $k \cdot r$: a row of $r$ numbers for each, so `len(chosen) * short.rank`. What is added to the
# neuron's weights is its row of $B$ times $A$, a sum of the $r$ rows of $A$: so within a space of
# at most $r$ directions, which are learned, too, but shared by all chosen neurons of the layer.
# Within it each moves as it likes.
# ```
#
# Next: [the same on Gemma, and the verdicts](14b_lsn_verdicts), because what holds on our model may
# not hold on one that was pretrained on many languages.
