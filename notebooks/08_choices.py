# %% [markdown]
# # Which choices matter
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** say which of the paper's open choices change the neurons that are found,
# which change what their masks do, and which change nothing; and judge a change by what a new draw
# of texts and a larger set would have done.
#
# **It assumes** kurtosis ([notebook 02](02_kurtosis)), selection ([03](03_selecting))
# and LangSpec-F1 ([04](04_table1)).
#
# **It takes** half an hour to read; the computer needs under a minute on the testbed,
# because the sweep's results are shipped and read.
#
# **It covers** what §3.2 to §3.4 and §4.3 of the paper {cite:p}`le2026crane` leave open, as listed
# in the chapter on [interpretation choices](../book/choices). The statistic has a page of its own
# ([08b](08b_statistics)).
# :::

# %% tags=["parameters", "hide-input"]
n_samples = 1000  # windows of text per language that relevance is taken on
window = 64  # tokens per window of text
seed = 0  # seed of everything that is drawn at random, except training
objective = "next_token"  # what is explained: next_token, next_token_logprob or last_max
score = "activation_x_gradient"  # what is stored per neuron and token
reduction = "sum"  # how a window's tokens become one value per neuron: sum or mean
normalisation = "zscore"  # scale within a layer: zscore, ratio, robust or global
rule = "contrast"  # contrast, threshold or top, or shares of all languages: relative
threshold = 1.0  # normalised score above which a neuron is a candidate
budget = None  # neurons to select per language; None: all above the threshold
choices_data = "data/testbed"  # folder with the shipped results of the sweep over choices
recompute_choices = False  # run the sweep with these parameters instead of reading its results
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %% tags=["hide-input"]
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import display

from crane_lab.settings import Settings
from crane_lab.show import choices_pages, figures
from crane_lab.show import table_exercises as exercises
from crane_lab.store import write_table
from crane_lab.study import choices, summaries

settings = Settings.of(globals())
probe = choices.probe(settings)
results = Path(run_dir) / "results"

# %% [markdown]
# ## Where the numbers come from
#
# The sweep takes every reading in turn, changes *one* choice and leaves the others at their
# default, and selects, masks and scores anew for all languages. All masks, whatever they were
# selected with, are scored on the same items (the tasks of Table 1) and the same held-out windows.
# That takes a quarter of an hour, so its results are shipped; the parameter `recompute_choices`
# computes them again, with the parameters of your run as the default around which things vary.
#
# A small case is computed here in any case: the sets that 30 windows per language give must be
# those of the shipped table, neuron for neuron. And because shipped results say nothing about
# another model or other texts, those that the sweep was made with are held against your run's
# first, by their digests.

# %% tags=["hide-input"]
if recompute_choices:
    tables, made_with = choices.run(settings)
else:
    tables, made_with = choices.read(choices_data)
for name in ("choices", "choices_random"):
    file = "choices_sweep" if name == "choices" else name
    write_table(tables[name], results / f"{file}.csv")

# %% tags=["shipped"]
sweep = choices.with_floor(
    tables["choices"],
    tables["choices_random"],
)
differing = choices.differing_inputs(probe, made_with)
again = None
if not differing:
    again = summaries.sets_again(settings, made_with, sweep)
choices_pages.origin(sweep, made_with, differing, again)

# %% [markdown]
# ## Four read-outs
#
# - **Neurons**: how many are selected, in percent of the number of intermediate neurons (for
#   projections too, of which there are more).
# - **{term}`Jaccard <Jaccard index>`** with the default's set: neurons in both over neurons in
#   either. The tick is what a random set with the same number of neurons in each layer would have.
# - **LangSpec-F1** ([Eq. 5](method)), with a 95 % interval over items. It grows with the number
#   of neurons for *any* mask ([notebook 04](04_table1)), so the tick is what random masks of the
#   same size get, interpolated between the sizes that were measured.
# - **Selectivity**: what the mask adds to the masked language's held-out loss, less what it adds to
#   the other language that comes closest, in nats per token, with a 95 % interval over windows.
#   Above zero the mask hurts its own language most. It needs no accuracy above chance, and gains
#   are not cut off.
#
# None of the four is *the* measure. A choice can change nearly every neuron and leave LangSpec-F1
# where it was, if one set of that size does as much as another; it can raise LangSpec-F1 by nothing
# but a larger set. Read them side by side, and each against its tick. The default itself:

# %% tags=["shipped"]
choices_pages.default_reading_table(sweep)

# %% [markdown]
# ## All choices at a glance
#
# Each row of the figure below is a choice. The dot is its reference value (the default, wherever
# the default has a say) and the line spans everything that its other values give. A long line means
# that the choice matters for that read-out; a line that crosses zero in the last panel, that the
# choice decides whether the mask hurts its own language most or another one.

# %% tags=["shipped"]
choices_pages.glance(sweep)

# %% [markdown]
# ### The three that matter most
#
# A rule, stated before looking: a choice matters as much as its *largest departure* of LangSpec-F1
# from the reference value, averaged over the languages. The yardstick is the row *windows drawn
# (seed)*, where nothing changes but which texts are used: what moves less than that cannot be told
# from a new draw. A largest departure grows with the number of values tried, so the mean departure
# stands beside it; and because larger masks score more whatever they hold, so does the departure of
# LangSpec-F1 *above random masks of the same size*, which tells choices that matter through the
# number of neurons from those that matter through which they are.

# %% tags=["shipped"]
summary = summaries.of_choices(sweep)
write_table(summary, results / "choices_summary.csv")
display(
    choices_pages.what_matters(sweep),
    figures.folded(
        "Every choice and its departures",
        choices_pages.departures_table(summary),
    ),
)

# %% [markdown]
# ## Choice by choice
#
# What each choice amounts to: the largest departure of LangSpec-F1, also in units of the yardstick,
# the value whose set overlaps least with the default's, and how often a mask clearly hurts its own
# language most, by held-out loss and its interval over windows. Below the table each choice opens
# with a click, with its cases and a figure of all values and languages: the reference is marked
# with a star, a line around a dot is its 95 % interval, and the tick is what random neurons have.

# %% tags=["shipped"]
display(
    choices_pages.choices_table(sweep),
    *choices_pages.each_choice(sweep),
)

# %% [markdown]
# What the values are, and what can be expected of them:
#
# Site
# : `projections` scores every output of the gate, up and down projections on its own
#   ([choice](choice-neuron)). Under AttnLRP's uniform rule gate output *i* and up output *i* each
#   carry half of the relevance of intermediate neuron *i*, whatever the text. Kurtosis knows no
#   scale, so all three have the same kurtosis and the same set is selected three times over;
#   masking it is one and the same intervention. What `projections` adds are outputs of `down_proj`,
#   dimensions of the residual stream. (Projections are compared as the intermediate neurons they
#   switch off, and the tick is random projections with the same counts.)
#
# Stored score
# : Row sums of the weight gradient are the other reading. They exist for projections only, so the
#   reference here is `projections` with activation × gradient ([choice](choice-relevance)). Random
#   masks were run with that reference's counts only.
#
# Sum or mean over tokens
# : All windows are equally long, so a mean is the sum divided by a constant, and kurtosis knows no
#   scale. Nothing can change; the row is here as a check of the whole chain. The choice would
#   matter with texts of unequal length (first exercise).
#
# Window length
# : A sum over more tokens is closer to a normal distribution, so kurtosis falls with length
#   ([choice](choice-corpus)); normalisation within a layer takes out the level but not what happens
#   to the order. The corpus allows 1,000 windows of up to 192 tokens. Masks are scored on the same
#   held-out windows throughout.
#
# Number of windows
# : With $n$ texts kurtosis cannot exceed about $n$ {cite:p}`johnson1979bounds`, and single texts
#   weigh more the fewer there are. The first $n$ windows of one order are used.
#
# Windows drawn
# : The yardstick: other documents, or the same in another order, everything else equal.
#
# Objective
# : What is being explained: the true next tokens' logits, their log-probabilities, or the largest
#   logit at the last position ([choice](choice-objective)).
#
# Normalisation
# : A threshold of 1 means something else on every scale, so the sizes of the sets change with it
#   ([choice](choice-normalisation)).
#
# Selection rule
# : `top` takes as many neurons as the default has for that language ([choice](choice-selection)).
#
# Threshold
# : Under `contrast` a threshold works on both sides: a low one lets more neurons in for the target
#   and keeps more out for the others. (§3.3 of the paper says that its findings are robust across a
#   reasonable range of thresholds; no table shows it.)
#
# Budget
# : Shares of all neurons under `top`, because `contrast` cannot fill a large budget. The reference
#   is `top` with as many neurons as the default ([choice](choice-budget)).
#
# Mask value
# : The default's sets throughout; a masked neuron puts out zero, or its own mean, 10th or 90th
#   percentile over the attribution windows of all languages together ([choice](choice-mask)).
#   Random masks were run with zero only.

# %% [markdown]
# ## Exercises
#
# ```{exercise-start} When the mean is not the sum · hard, 15 minutes
# :label: exercise-mean
# ```
# Let a neuron's relevance for each token be drawn from a normal distribution, independently.
# What is the kurtosis of the sum over a window's tokens, and of the mean, when all windows have 64
# tokens? And when half of them have 16 and half 112 tokens? Calculate first, then simulate.

# %%
my_equal = ...  # all windows with 64 tokens
my_sum, my_mean = ..., ...  # half of them with 16, half with 112

exercises.kurtosis_of_lengths((my_equal, my_sum, my_mean))

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# A sum of independent normal values is normal, with a variance that grows with their number. With
# two lengths the sums are a mixture of two normals, and so are the means: take second and fourth
# moments of the mixture.
# ```
#
# ```{solution-start} exercise-mean
# :class: dropdown
# ```

# %%
rng = np.random.default_rng(settings.seed)
rows = []
cases = {"all 64": [64, 64], "16 or 112": [16, 112]}
for name, lengths in cases.items():
    tokens = np.resize(lengths, 100_000)
    # A sum of that many standard normals:
    total = rng.standard_normal(len(tokens)) * np.sqrt(tokens)
    row = {"tokens": name}
    for how, v in {"sum": total, "mean": total / tokens}.items():
        row[how] = float(np.mean((v - v.mean()) ** 4) / v.var() ** 2)
    rows.append(row)
figures.table(
    pd.DataFrame(rows),
    "Kurtosis of simulated relevance",
    {"sum": "{:.2f}", "mean": "{:.2f}"},
)

# %% [markdown]
# With equal lengths both are normal: 3. With unequal ones both are mixtures of two normals, whose
# kurtosis is $3\,\mathbb{E}[v^2] / \mathbb{E}[v]^2$ with $v$ the variance: for sums $v$ is the
# length, which gives $3 (16^2 + 112^2)/2 / 64^2 = 4.69$; for means it is one over the length, which
# gives $3 \cdot 2\,(16^{-2} + 112^{-2}) / (16^{-1} + 112^{-1})^2 = 4.69$ too, the same for two
# lengths in equal parts. Either way kurtosis then measures how lengths vary, in every neuron and
# most in the language whose texts vary most. That is why all windows have one length.
# ```{solution-end}
# ```
#
# ```{exercise-start} Another rule, another ranking · medium, 20 minutes
# :label: exercise-ranking
# ```
# The ranking of choices above uses LangSpec-F1, its largest departure, and the mean over languages.
# Rank them by `choices.departures(sweep, measure)` for other measures, by `typical` instead of
# `largest`, and by the language that is moved most instead of the mean. Which of the three choices
# survive under every rule?

# %% tags=["shipped"]
my_choices = ...  # a set of names as in the column choice

exercises.first_under_all(my_choices, sweep)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# `choices.departures` gives `largest` and `typical` for each choice. Apply it to all of the sweep,
# and to the rows of one `mask_language` after the other.
# ```
#
# ```{solution-start} exercise-ranking
# :class: dropdown
# ```

# %% tags=["shipped"]
rankings = {}
for measure in ("langspec_f1", "langspec_f1_above", "selectivity"):
    found = choices.departures(sweep, measure).set_index("choice")
    by_language = [
        choices.departures(own, measure).set_index("choice")
        for _, own in sweep.groupby("mask_language", sort=False)
    ]
    largest = pd.DataFrame([own["largest"] for own in by_language])
    rankings[f"{measure}, largest"] = found["largest"]
    rankings[f"{measure}, mean"] = found["typical"]
    rankings[f"{measure}, most moved language"] = largest.max()
display(*choices_pages.under_rules(rankings))

# %% [markdown]
# ```{solution-end}
# ```

# %% [markdown]
# ## What the numbers do and do not show

# %% tags=["shipped"]
choices_pages.choices_conclusions(sweep)

# %% [markdown]
# - One choice is varied at a time. Two changes together may do what neither does alone, and the
#   best value found here was found on the very items it is scored on: this notebook recommends
#   none.
# - Intervals are over items and held-out windows. They do not contain the choice of attribution
#   windows (its size is the row *windows drawn*) or another training run of the model.
# - Everything here is one small model. Which choices matter on Llama-2-7B is an open question; what
#   holds anywhere is what follows from the definitions, such as that sum and mean cannot differ on
#   windows of one length and that gate and up share their kurtosis with the intermediate neuron.
#
# Next: [other statistics](08b_statistics), because kurtosis itself is a choice, and others can
# be tried on the same relevance.
