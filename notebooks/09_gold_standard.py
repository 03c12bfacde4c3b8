# %% [markdown]
# # Neurons one by one: which does a language need?
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** say what it means that one neuron is *necessary* for a language and
# *selective* for it, how many of the testbed's are, and how far such numbers can be trusted; and
# look up any neuron.
#
# **It assumes** relevance and kurtosis ([01](01_relevance), [02](02_kurtosis)) and masking
# ([03b](03b_masking)).
#
# **It takes** twenty minutes to read; the computer needs two minutes on the testbed, as the
# effects of all single ablations are shipped and read.
#
# **It covers** §3.1 and §3.4 of the paper {cite:p}`le2026crane`: "specific" means that the model
# *needs* a neuron, which the paper tests on whole sets only.
# :::

# %% tags=["parameters", "hide-input"]
necessity_data = "data/testbed"  # folder with the shipped effects of single ablations
recompute_necessity = False  # ablate every neuron again instead of reading the shipped effects
n_necessity = 128  # held-out windows per language that single neurons are ablated on
n_damage = 64  # further held-out windows per language that whole sets are masked on
fdr = 0.05  # false-discovery rate at which a neuron counts as necessary or selective
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %%
from pathlib import Path

import pandas as pd
from IPython.display import display

from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show import exercises, figures, necessity_pages
from crane_lab.show.neuron_view import neuron_view, texts_of
from crane_lab.store import write_table
from crane_lab.study import (
    criteria,
    damage,
    known_neurons,
    neuron_cards,
    summaries,
)
from crane_lab.texts.languages import language_names

settings = Settings.of(globals())
pipeline = Pipeline(settings)
results = Path(run_dir) / "results"
names = language_names(settings.languages)
shape = pipeline.shape["intermediate"]

# %% [markdown]
# ## One neuron at a time
#
# Single ablations are a *first-order* reference: they say what a neuron does alone, and a set may
# do more or less than its neurons together. On [sets](09c_sets) a criterion beats the order of
# measured effects for that reason, so they are no gold standard for sets.
#
# CRANE masks a set of neurons it has chosen, so its evaluation can say whether *that set* matters.
# It cannot say which neurons the method missed. The testbed is small enough to try them all: each
# intermediate neuron is set to a constant, alone, at every token, and the mean next-token loss of
# held-out text is measured again in every language.
#
# $$
# \mathrm{necessity}_\ell(i) = L_\ell(\text{without } i) - L_\ell, \qquad
# \mathrm{selectivity}_\ell(i) = \mathrm{necessity}_\ell(i)
#   - \max_{m \ne \ell} \mathrm{necessity}_m(i)
# $$
#
# Both are in nats per token. {term}`Necessity` asks how much the language loses,
# {term}`selectivity` how much more than any other language. The constant is zero, as in §3.4, or
# the neuron's mean activation over the texts of all languages together that criteria are computed
# on: a neuron that is always at 0.3 is not "off" at zero.
#
# Nothing is approximated. An ablation in layer $l$ changes that layer's output by
# $(v - a_i)\,W_\text{down}[:, i]$ and leaves everything before it as it was, so only the layers
# after $l$ are run again, from the stored residual stream, for many pairs of neuron and text at a
# time (`crane_lab.study.necessity`; the tests hold it against masking one neuron and running the
# whole model).
#
# Three bodies of text, none of them seen in training, share no document: criteria are computed on
# the attribution corpus, single effects are measured on the first windows of the
# perplexity corpus, and damage by whole sets on later windows of it. A criterion that does well
# on the next pages therefore does so on texts it has not seen.

# %% tags=["shipped"]
texts, _ = damage.held_out(pipeline, n_necessity, n_damage)
if recompute_necessity:
    necessity = damage.ablations(pipeline, texts)
else:
    gold = damage.gold_standard(pipeline, texts, necessity_data)
    necessity = gold.necessity
necessity_pages.measured(
    necessity,
    names,
    settings.window,
    recompute_necessity,
)

# %% [markdown]
# ## Most neurons hardly matter
#
# The increases, sorted. A negative one means that the language is predicted *better* without the
# neuron.

# %% tags=["shipped"]
spread = summaries.spread(necessity)
write_table(spread, results / "necessity_spread.csv")
necessity_pages.spread_table(spread)

# %% [markdown]
# Now each neuron as a point: what its ablation does to this language, against the most that it does
# to another. Neurons on the diagonal are needed by two languages alike; selective ones lie above
# it, and what lies below matters more to another language. A cloud along the diagonal means that
# most of what a neuron does, it does to more than one language.

# %% tags=["shipped"]
necessity_pages.clouds(necessity, names)

# %% [markdown]
# ## How many are necessary, how many selective?
#
# Each effect has a standard error over texts (a text is a window; neighbouring windows can share a
# document, which makes the errors a little too small). A neuron counts as *necessary* for a
# language if its increase is above zero in a one-sided t test, and as *selective* if its increase
# is above zero and above that of *every* other language, all of it at once. With two thousand
# neurons tested, Benjamini and Hochberg's procedure keeps the {term}`false discovery rate`: of the
# neurons named, at most this share is expected to be named by chance.

# %% tags=["shipped"]
counts = summaries.significant_counts(necessity, fdr)
write_table(counts, results / "necessity_significant.csv")
display(necessity_pages.significant(counts, fdr, shape))
necessity_pages.selective_by_layer(necessity, names, fdr)

# %% [markdown]
# How far can these numbers be trusted? The effects of single neurons are small, and measured on a
# limited number of texts. So the texts are divided into two halves, and neurons are ranked by each.
# Where the two rankings hardly agree, most of the order is noise, and no criterion should be
# expected to agree with it either. The last line asks the same of the constant: whether zero and
# the mean put the same neurons first.

# %% tags=["shipped"]
trust = criteria.split_half(necessity)
write_table(trust, results / "necessity_reliability.csv")
display(necessity_pages.effects_reliability(trust))
necessity_pages.zero_against_mean_in_words(necessity, names)

# %% [markdown]
# ## Look at them yourself
#
# Numbers of whole rankings hide what a neuron does. Choose one from a list, or type its layer and
# number, and see in which texts it is relevant, and at which words. Three things to try: read the
# neurons that a language needs most, and say what they have in common; do the same for the first of
# CRANE's list, and look at how many windows make their kurtosis; and look for a neuron that is
# relevant in one language and needed in another.

# %% tags=["shipped"]
scores = criteria.criteria(pipeline)
logit = criteria.OBJECTIVES["next_token"]
lists = neuron_cards.neuron_lists(
    scores,
    necessity,
    {
        "CRANE's score": f"kurtosis ({logit}), contrast",
        "LAPE's order": "LAPE",
        "the relative contrast": criteria.RELATIVE,
    },
    settings.seed,
)
cards = neuron_cards.neuron_cards(
    pipeline,
    neuron_cards.neurons_to_read(lists, shape),
)
known = known_neurons.known_of(
    cards,
    texts_of(cards, pipeline.tokenizer),
    pipeline.kurtosis("intermediate"),
    necessity,
    neuron_cards.sets_of_methods(pipeline, scores),
    lists,
)
neuron_view(known, names)

# %% [markdown]
# The texts show where a neuron was relevant. They do not define what it does: relevance is of what
# the model predicted *there*, and the texts are few.

# %% [markdown]
# ## Exercises
#
# ```{exercise-start} Zero or mean · easy, 15 minutes
# :label: exercise-zero-or-mean
# ```
# Setting a neuron to its mean removes what it *says* and keeps its usual contribution. For which
# share of the neurons that are significantly necessary in a language at zero is that also so at the
# mean? What would the neurons that are necessary at zero only be doing?

# %% tags=["shipped"]
my_shares = dict.fromkeys(necessity.languages, ...)  # a share for each

exercises.share_at_both(my_shares, necessity, fdr)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# `necessity.significant(x, "necessity", "zero", fdr)` has True for each neuron that is necessary in
# language `x` at zero. Two such masks are combined with `&` and counted with `.sum()`.
# ```
#
# ```{solution-start} exercise-zero-or-mean
# :class: dropdown
# ```

# %% tags=["shipped"]
rows = []
for x in necessity.languages:
    hits = {}
    for v in necessity.values:
        hits[v] = necessity.significant(x, "necessity", v, fdr)
    row = {"language": x}
    row |= {f"necessary at {v}": int(h.sum()) for v, h in hits.items()}
    if len(hits) == 2:
        both = int((hits["zero"] & hits["mean"]).sum())
        row["at both"] = both
        row["share of zero's"] = both / max(int(hits["zero"].sum()), 1)
    rows.append(row)
figures.table(
    pd.DataFrame(rows),
    "Necessary neurons by what they are set to",
    {"share of zero's": "{:.0%}"},
)

# %% [markdown]
# A neuron that is needed at zero and not at its mean acts as a constant: the rest of the model
# counts on its usual level, a bias, not on what it says about this text.
# ```{solution-end}
# ```

# %% [markdown]
# ## What the numbers do and do not show
#
# - Single ablations are a reference for *single* neurons on *next-token loss*. A neuron with a twin
#   that takes over shows no effect alone and would show one together with it; the figure on
#   [additivity](09c_sets) says how much of that there is.
# - Loss on plain text is not accuracy on a benchmark, which is what the paper measures. It is the
#   more sensitive of the two, and every language has the same measure.
#
# Next: [criteria against single ablations](09b_criteria), because a method cannot try all neurons
# of a large model, and has to foresee which are needed.
