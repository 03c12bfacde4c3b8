# %% [markdown]
# # Training neurons of a real model, and the verdicts
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** say what training a language's neurons does on Gemma 3 270M, whether the
# base model's neurons keep their role, and of each claim of the second paper what its tables and
# our models have to say to it.
#
# **It assumes** [notebook 14](14_lsn_tuning), and the interventions of [13b](13b_lsn_ours) and
# [13c](13c_lsn_real).
#
# **It takes** twenty minutes to read; the computer needs a minute.
#
# **It covers** Tables 3, 7 and 8 of *Language-specific neurons do not facilitate cross-lingual
# transfer* {cite:p}`mondal2025transfer` on a pretrained model, and all claims of that paper.
# :::

# %% tags=["parameters", "hide-input"]
model = "data/testbed/base"  # checkpoint to examine: a folder, or a name on the hub
languages = ["en", "zh", "vi"]  # languages by code, in the order of all tables
n_samples = 1000  # windows of text per language that relevance is taken on
n_perplexity = 200  # windows per language that perplexity is measured on
seed = 0  # seed of everything that is drawn at random, except training
taught_data = "data/testbed"  # folder with the shipped results of trainings
null_data = "data/testbed"  # folder with what random masks do, as it is shipped
n_null = 0  # random masks of every set whose null is not shipped
real_data = "data/gemma"  # folder with the shipped results on a real model
published = "data/published"  # folder with the paper's tables and claims
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %%
from pathlib import Path

import pandas as pd
from IPython.display import display

from crane_lab.audit import lsn_claims, lsn_evidence
from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show import figures, taught_pages, verdict_pages
from crane_lab.show import later_exercises as exercises
from crane_lab.store import write_table
from crane_lab.study import (
    activations,
    contenders,
    taught,
    taught_effects,
    text_taught,
    tuned_transfer,
    value_losses,
)
from crane_lab.study.nulls import Nulls
from crane_lab.texts.languages import language_names

folder = Path(published) / "lsn"
results = Path(run_dir) / "results"
results.mkdir(parents=True, exist_ok=True)
settings = Settings.of(globals())
pipeline = Pipeline(settings)
names = language_names(settings.languages)

# %% [markdown]
# ## Tuned on the task, in English
#
# Gemma 3 270M, tuned on questions on a passage (qa) in English: attention and nothing else, all
# neurons, English's and a target's together, or random ones. A training takes it minutes, so there
# are fewer trainings, items and random sets. Changes are from attention alone.

# %% tags=["shipped"]
real, made_real = taught.shipped_tables("weights", real_data)
levels, plain, after, beside = {}, {}, {}, {}
for task, table in real.items():
    levels[task] = taught_effects.taught_levels(table)
    found = taught_effects.taught_effects(table)
    plain[task] = found[found["set_to"] == ""]
    after[task] = found[found["set_to"] != ""]
    beside[task] = taught_effects.taught_beside_random(table)
    file = f"lsn_effects_real_weights_{task}.csv"
    write_table(found, results / file)
display(
    taught_pages.made_in_words(
        made_real,
        "python -m crane_lab.cli.tune --profile gemma --parts weights",
    ),
    figures.folded(
        "How many answers are right",
        taught_pages.levels_table(levels, {}),
    ),
)
for x in languages[1:]:
    display(taught_pages.effects_figure(plain, names, x))
display(
    taught_pages.effects_counts_table(plain),
    taught_pages.beside_random_table(beside),
)

# %% [markdown]
# And set to a value after they were tuned, from the same tuned model untouched:

# %% tags=["shipped"]
for x in languages[1:]:
    display(taught_pages.effects_figure(after, names, x))
taught_pages.effects_counts_table(after)

# %% [markdown]
# ## Tuned on text, in the language itself
#
# As on [14](14_lsn_tuning), nothing but the chosen neurons is tuned, on stories in their language.
# There are fewer windows, trainings and questions, and one random set beside each, the same in
# every training: how far one random set is from the next is not known here. None of the
# few questions is answered to the word before, so none can be lost.

# %% tags=["shipped"]
text_there, made_there = text_taught.shipped_text(real_data)
by_text_there = text_taught.text_effects(text_there)
write_table(by_text_there, results / "lsn_effects_real_text.csv")
display(
    taught_pages.made_in_words(
        {"text": made_there},
        "python -m crane_lab.cli.tune --profile gemma --parts text",
    ),
    taught_pages.text_figure(by_text_there, names),
    taught_pages.text_in_words(by_text_there, names),
    figures.folded(
        "In numbers",
        taught_pages.text_table(by_text_there),
    ),
)

# %% [markdown]
# ## Do the base's neurons keep their role?
#
# CRANE finds neurons in a base model and masks them in its chat model
# ([notebook 06](06_transfer)). Of Gemma 3 270M there is no chat model to be had here. So the
# model tuned on the English questions takes its place: the base's neurons are masked in both, and
# beside them neurons that are found anew in the tuned one. (LAPE's as they are released and those
# of Act Prob 90p were left out.)

# %% tags=["shipped"]
kept = tuned_transfer.read_transfer(real_data)
role = tuned_transfer.transfer_summary(kept.table)
write_table(role, results / "lsn_tuned_transfer.csv")
display(
    taught_pages.tuned_levels_table(kept.levels),
    taught_pages.tuning_leaves_in_words(role, kept.shared),
    figures.folded(
        "Set by set",
        taught_pages.transfer_losses_table(role, kept.shared),
    ),
)

# %% [markdown]
# ## Verdicts
#
# What the paper claims, in our words, with the criterion by which we count it as fulfilled. One
# function applies it to each column: to the printed tables, where a change is certain if no choice
# of items explains it, and to our results, where it is certain beyond trainings and items, with
# p-values corrected over the rows of a table. Verdicts rest on LAPE, as it is released and with as
# many neurons as CRANE's sets, and Act Prob 90p (of what was tuned, on LAPE with as many: the sets
# as released were not); what CRANE's neurons and those of mean relevance do is said beside them.
# Results of another model or other sets than this run's are left out, and trainings are those of
# the folder `taught_data`. The last column is of the real model, with what was run on it.

# %% tags=["nulls", "published", "shipped", "hide-input"]
sets = contenders.contenders(pipeline)
interventions, made_before = taught.taught_tables(
    pipeline,
    "activations",
    taught_data,
)
tables, made = taught.taught_tables(pipeline, "weights", taught_data)
text, made_text = text_taught.read_text_taught(pipeline, taught_data)
by_text = text_taught.text_effects(text)
nulls = Nulls.of(pipeline, null_data, n_null)
losses = value_losses.perplexity_changes(
    pipeline,
    sets,
    activations.activation_values(pipeline),
    [None],
    nulls,
    null_data,
)
columns = {
    "paper": lsn_evidence.paper_evidence(folder),
    settings.label: lsn_evidence.model_evidence(
        settings.label,
        taught.of_this_run(interventions, made_before),
        taught.of_this_run(tables, made),
        taught.of_this_run(
            {"text": by_text},
            {"text": made_text},
        ).get("text"),
        contenders.shared_by_methods(sets),
        losses,
    ),
    "Gemma 3 270M": lsn_evidence.model_evidence(
        "Gemma 3 270M",
        taught.shipped_tables("activations", real_data)[0],
        real,
        by_text_there,
        shared=pd.read_csv(Path(real_data) / "lsn_shared.csv"),
        losses=pd.read_csv(Path(real_data) / "lsn_zero.csv"),
    ),
}
verdicts = lsn_claims.lsn_verdicts(columns, folder)
write_table(verdicts, results / "lsn_verdicts.csv")
display(
    verdict_pages.counts(verdicts),
    verdict_pages.at_a_glance(verdicts),
)

# %% tags=["nulls", "published", "shipped"]
display(*verdict_pages.claim_by_claim(verdicts))

# %% [markdown]
# A model of two million parameters with a narrow world does not speak for one of eight billion.
# What it can show is how much it takes to tell: several trainings, items in every language, random
# sets tuned in the same way.
#
# ## Exercise
#
# ```{exercise-start} A claim of no difference · hard, 15 minutes
# :label: exercise-lsn-equivalence
# ```
# "The same as random neurons" is a claim of no difference. With an interval of ±2 points around a
# difference of 0.3, what can be said? How many items would one training need before the choice of
# items alone leaves ±1 point, if one item in ten changes?

# %%
my_items = ...

exercises.items_for_a_point(my_items)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# An item that changes counts +1 or −1, one that does not counts 0: what is the standard deviation
# of that? Over √n it is the standard error of the mean, and an interval reaches 1.96 of them.
# ```
#
# ```{solution} exercise-lsn-equivalence
# :class: dropdown
#
# Neither that there is a difference nor that there is none: up to two points in either direction
# are left. If a tenth of the items change, by +1 or −1, a difference has a standard deviation of
# about √0.1 = 0.32 per item; 1.96 · 0.32 / √n = 0.01 gives some 3,800 items. And that is before
# another training is drawn.
# ```

# %% [markdown]
# Next: [neurons of many languages](15_languages), because with three languages kinship cannot be
# told from chance.
