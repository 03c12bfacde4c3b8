# %% [markdown]
# # Verdicts
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** say, claim by claim, what the paper's own tables support and what the same
# claim comes to on our testbed and on a real model, Gemma 3 270M.
#
# **It assumes** the tables of notebooks [04](04_table1) to [06b](06b_chat_answers) and the audit of
# the published ones ([notebook 07](07_audit)).
#
# **It takes** ten minutes to read; the computer needs some seconds, since everything was computed
# in the notebooks before.
# :::

# %% tags=["parameters", "hide-input"]
chat_model = "data/testbed/chat"  # folder or name of its chat model; None: there is none
real_data = "data/gemma"  # folder with the shipped results on a real model
choices_data = "data/testbed"  # folder with the shipped results of the sweep over choices
null_data = "data/testbed"  # folder with what random masks do, as it is shipped
n_null = 0  # random masks of every set whose null is not shipped
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %%
from pathlib import Path

import pandas as pd
from IPython.display import display
from scipy.stats import binom

from crane_lab import audit
from crane_lab.audit import gather
from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show import crane_exercises as exercises
from crane_lab.show import verdict_pages
from crane_lab.store import write_table
from crane_lab.study import choices
from crane_lab.study.nulls import Nulls

settings = Settings.of(globals())
base = Pipeline(settings)
chat = base.on_chat(chat_model) if chat_model else None
random = [of and Nulls.of(of, null_data, n_null) for of in (base, chat)]

# %% [markdown]
# ## How a verdict comes about
#
# Each claim is put in our words, with the section it stands in, and with the criterion by which we
# count it as fulfilled. One function applies it to every column. The **paper's evidence** is its
# printed tables, taken as they are printed. A **model's evidence** is our Tables 1 to 4, where LAPE
# stands at CRANE's own number of neurons; brackets are 95 % intervals over items. Where a claim is
# about random masks, a set is held against its null, masks with as many neurons in every layer. One
# random mask for each language is printed: it can contradict a claim, and is too few to bear one
# out. A claim *holds* only if all comparisons it needs come out that way beyond items and masks,
# *does not* hold if so many come out the other way round that it cannot, and is open otherwise
# (*cannot tell*), with what is lacking. All verdicts are computed; nothing here is typed in.
#
# One claim, that results are robust to the threshold, needs masks at other thresholds than the
# default's: it is tested on the shipped sweep of [notebook 08](08_choices), if that was made with
# the model and the texts of this run.
#
# A claim that fails on the testbed fails on a small model with a narrow world, and Gemma 3 270M is
# a small model, too. That refutes nothing about Llama-2-7B, as a claim that holds there confirms
# nothing about it. Gemma's evidence is that of the profile `gemma` (`make book PROFILE=gemma`); no
# chat model of it is to be had here, so what is claimed about chat models cannot be told.

# %% tags=["nulls", "published", "shipped"]
swept, made_with = choices.read(choices_data)
differing = choices.differing_inputs(base, made_with)
sweep = None if differing else swept["choices"]
ours = gather.our_outcomes(base, chat, *random, sweep)
claims = audit.claims_table()
page = gather.beside(claims, ours, settings.label)
write_table(page, Path(run_dir) / "results" / "verdicts.csv")
shipped = Path(real_data) / "verdicts.csv"
if settings.label == "testbed" and shipped.is_file():
    page = gather.with_shipped(page, pd.read_csv(shipped))
display(verdict_pages.counts(page))
verdict_pages.at_a_glance(page)

# %% [markdown]
# ## Claim by claim
#
# For every claim the criterion comes first, so that you can judge it before you see what came of
# it, which opens with a click. Look at the evidence more than at the verdict: a claim that misses
# by one comparison of twelve and one that misses by all of them both read "does not", and the
# numbers tell them apart.

# %% tags=["nulls", "published", "shipped"]
display(*verdict_pages.claim_by_claim(page))

# %% [markdown]
# ## Exercise
#
# ```{exercise-start} A weaker claim · medium, 15 minutes
# :label: exercise-weaker-claim
# ```
# Many claims fail because they are worded for *every* language and table. Take the paper's central
# one, that a language suffers most, in relation to where it started, when its own neurons are
# masked, and weaken it to "in most cases". Does it hold then, in the paper's tables and in ours?
# And which method does it hold for? First ask what chance would do: if each of CRANE's printed
# masks hit any of the three languages hardest, how likely would so many hit their own?

# %% tags=["published"]
printed = audit.definition(audit.published())
# `relative` is "yes" where a mask hits its own language hardest
my_chance = ...

exercises.as_many_by_chance(my_chance, printed)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# Count CRANE's rows in `printed`, and those with "yes". As many *or more* out of so many, each with
# chance one in three: `scipy.stats.binom.sf(k - 1, n, 1 / 3)`.
# ```
#
# ```{solution-start} exercise-weaker-claim
# :class: dropdown
# ```

# %% tags=["nulls", "published", "shipped"]
counted = gather.most_cases(ours.verdicts, printed)
verdict_pages.most_cases_table(counted)

# %% [markdown]
# Compare CRANE's rows with those of the random masks, where there are any: a mask that hurts
# everything will hurt *some* language most, and in one case of three that is the masked one. By
# chance alone, then, as many or more of the printed masks:

# %% tags=["published"]
own = printed.loc[printed["method"] == "CRANE", "relative"]
k, n = (own == "yes").sum(), len(own)
print(f"{k} of {n}: {binom.sf(k - 1, n, 1 / 3):.2f}")

# %% [markdown]
# ```{solution-end}
# ```

# %% [markdown]
# ## What to make of it
#
# - We wrote the criteria knowing the tables. Read them, and judge them as well.
# - "Does not" is said of a claim as it is worded, often for *every* language or table. A claim that
#   fails in one of twelve cases is listed as failing; its evidence says in how many.
# - The strongest results on the testbed are differences between methods at equal budgets on one
#   model. Whether they carry over is a question for other models: [notebook 18](18_real_model) asks
#   it of one, and the notebooks' parameters are there for more.
#
# Next: [a real model](18_real_model), because a testbed of our own making could flatter a method or
# be unfair to it.
