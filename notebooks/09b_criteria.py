# %% [markdown]
# # Which criterion finds the neurons that are needed?
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** hold a criterion such as CRANE's against the effects of single ablations:
# by the order of all neurons, and by the top of it, which is what a method takes.
#
# **It assumes** necessity and selectivity ([notebook 09](09_gold_standard)).
#
# **It takes** twenty minutes to read; the computer needs a minute on the testbed, because the
# effects of all single ablations are shipped and read.
#
# **It covers** §3.3 and §3.4 of the paper {cite:p}`le2026crane`: whether a high score means that
# the model needs a neuron.
# :::

# %% tags=["parameters", "hide-input"]
necessity_data = "data/testbed"  # folder with the shipped effects of single ablations
recompute_necessity = False  # ablate every neuron again instead of reading the shipped effects
n_necessity = 128  # held-out windows per language that single neurons are ablated on
n_damage = 64  # further held-out windows per language that whole sets are masked on
budgets = [8, 16, 32, 64, 128, 256]  # sizes of the sets in damage curves
fdr = 0.05  # false-discovery rate at which a neuron counts as necessary or selective
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %%
from pathlib import Path

import pandas as pd
from IPython.display import display

from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show import crane_exercises as exercises
from crane_lab.show import criteria_pages, figures
from crane_lab.store import write_table
from crane_lab.study import criteria, damage, summaries
from crane_lab.texts.languages import language_names

settings = Settings.of(globals())
pipeline = Pipeline(settings)
results = Path(run_dir) / "results"
names = language_names(settings.languages)

# %%
texts, _ = damage.held_out(pipeline, n_necessity, n_damage)
if recompute_necessity:
    necessity = damage.ablations(pipeline, texts)
else:
    gold = damage.gold_standard(pipeline, texts, necessity_data)
    necessity = gold.necessity

# %% [markdown]
# ## The criteria
#
# Every method that ranks neurons for a language is here reduced to its ranking, before any
# threshold. CRANE's normalised kurtosis for three objectives, the other statistics of
# [notebook 08b](08b_statistics) on the same relevance, activation times the *plain* gradient (the
# first-order estimate of what zeroing does, without LRP's rules), Act Prob 90p
# {cite:p}`mondal2025transfer` and LAPE {cite:p}`tang2024lape`. Each is taken alone and as a
# *contrast*, the language's score less the largest of another's; LAPE compares languages by itself.
#
# CRANE's other site needs no criterion of its own: AttnLRP's uniform rule gives the gate's and the
# up projection's output half of their neuron's relevance each, so both have its kurtosis.
#
# To add one, put it into the dictionary: a name, and for each language a tensor (layers, neurons)
# that is higher for a neuron more likely to be specific.

# %%
scores = criteria.criteria(pipeline)
logit = criteria.OBJECTIVES["next_token"]
crane = f"kurtosis ({logit}), contrast"

# %% [markdown]
# CRANE's default score is the contrast of kurtosis under the default objective, and the one that
# the others are compared with. In figures with many curves these are in colour:

# %%
highlighted = [
    crane,
    "mean |relevance|, contrast",
    "LAPE",
    "Act Prob 90p, contrast",
    "single effects",
    "greedy search",
    "random order",
]

# %% [markdown]
# ## Do they rank neurons as their effects do?
#
# Spearman's rank correlation over all neurons, with 95 % intervals from a {term}`bootstrap` over
# neurons and texts. Zero is what a random order gets; the ticks are as far as the noise in the
# effects lets anyone come.

# %% tags=["shipped"]
against = {"reference": crane, "seed": settings.seed}
tables = []
for v in necessity.values:
    table = criteria.rank_agreement(scores, necessity, v, **against)
    tables.append(table.assign(set_to=v))
agreed = pd.concat(tables, ignore_index=True)
write_table(agreed, results / "criteria_correlations.csv")
trust = criteria.split_half(necessity)
criteria_pages.correlations(agreed, trust, names)

# %%
display(criteria_pages.correlations_table(agreed, crane))
criteria_pages.correlations_in_words(agreed, crane)

# %% [markdown]
# A rank correlation weighs all neurons alike, also the many that hardly matter. What a method does
# with its ranking is to take the top of it.
#
# ## Are the neurons that they would take selective?

# %% tags=["shipped"]
found = criteria.precision(scores, necessity, budgets, level=fdr)
write_table(found, results / "criteria_precision.csv")
order = summaries.overall(agreed)["criterion"].to_list()
display(criteria_pages.precision_table(found, order))
criteria_pages.precision_curves(found, order, names, highlighted)

# %% [markdown]
# A curve that starts high and falls belongs to a criterion that puts selective neurons first. One
# that stays at the level of the random order picks neurons as if it knew nothing of selectivity,
# however well or badly it ranks the rest. (False discoveries are in all these shares, the random
# order's too.)

# %% [markdown]
# ## Exercises
#
# ```{exercise-start} A criterion of your own · hard, 30 minutes
# :label: exercise-own-criterion
# ```
# Write a criterion that needs no gradient: for example how much more often a neuron's activation is
# positive in one language than in any other. (`active` has how often it is, `n` at how many
# tokens.) Put it beside the others and place it in the ranking.

# %%
active, n = pipeline.activation_counts()
# (layers, neurons) each
my_scores = dict.fromkeys(settings.languages, ...)

exercises.rate_contrast(my_scores, active, n)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# First the rate of every language, `active[x] / n[x]`; then each less the largest of the others,
# which `criteria.contrasted` takes off. `criteria.rank_agreement` places a dictionary of criteria.
# ```
#
# ```{solution-start} exercise-own-criterion
# :class: dropdown
# ```

# %% tags=["shipped"]
rate = {x: active[x].double() / n[x] for x in settings.languages}
mine = {
    "rate of activity, contrast": criteria.contrasted(rate),
    crane: scores[crane],
}
own = criteria.rank_agreement(mine, necessity, **against)
signed = ("rho", "low", "high", "ahead", "ahead_low", "ahead_high")
figures.table(
    own[own["language"] == "all"].drop(columns="language"),
    "Rank correlations of a criterion of one line, mean over languages",
    dict.fromkeys(signed, "{:+.2f}"),
)

# %% [markdown]
# ```{solution-end}
# ```

# %% [markdown]
# ## What the numbers do and do not show
#
# - A rank correlation is as good as the effects that it is held against: the ticks say how far the
#   noise in them lets anyone come, and where they are low a low correlation says little.
# - Neurons are judged one by one here. What a set of them does is on the next page, and the order
#   of criteria may be another one there.
# - Nothing was tuned on these results: the criteria are those of the other notebooks with their
#   default settings, and the texts that single effects were measured on are not those that criteria
#   are computed on.
#
# Next: [sets of neurons](09c_sets), because methods mask many neurons together, and together they
# may do more or less than one by one.
