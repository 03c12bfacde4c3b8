# %% [markdown]
# # Neurons one by one: which are needed, and which criterion finds them?
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** say what it means that one neuron is *necessary* for a language and
# *selective* for it, and how many of the testbed's are; rank criteria such as CRANE's by how well
# they find those neurons; read a damage curve; and say why a set of neurons is not the sum of its
# members.
#
# **It assumes** relevance and kurtosis ([01](01_relevance), [02](02_kurtosis)) and masking
# ([03](03_selecting_and_masking)).
#
# **It takes** half an hour to read; the computer needs two or three minutes on the testbed, because
# the effects of all single ablations are shipped and read.
#
# **It covers** §3.1 and §3.4 of the paper {cite:p}`le2026crane`: "specific" means that the model
# *needs* a neuron, which the paper tests on whole sets only.
# :::

# %% tags=["parameters", "hide-input"]
necessity_data = "data/testbed"  # folder with the shipped effects of single ablations
recompute_necessity = False  # ablate every neuron again instead of reading the shipped effects
n_necessity = 128  # held-out windows per language that single neurons are ablated on
n_damage = 64  # further held-out windows per language that whole sets are masked on
budgets = [8, 16, 32, 64, 128, 256]  # sizes of the sets in damage curves
fdr = 0.05  # false-discovery rate at which a neuron counts as necessary or selective
random_seeds = [0, 1, 2, 3, 4]  # one random mask per seed, as control
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %%
from pathlib import Path

import pandas as pd
from IPython.display import display

from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show import (
    calibration_page,
    criteria_pages,
    exercises,
    figures,
    necessity_pages,
)
from crane_lab.show.neuron_view import Known, neuron_view
from crane_lab.store import write_table
from crane_lab.study import (
    calibration,
    criteria,
    damage,
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
# do more or less than its neurons together. Further down a criterion beats the order of measured
# effects for that reason, so they are no gold standard for sets.
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
# below therefore does so on texts it has not seen.

# %% tags=["shipped"]
texts, others = damage.held_out(pipeline, n_necessity, n_damage)
folder = results if recompute_necessity else Path(necessity_data)
gold = damage.gold_standard(
    pipeline,
    texts,
    folder,
    recompute_necessity,
)
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
# ### Do they rank neurons as their effects do?
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
criteria_pages.correlations(agreed, trust, names)

# %%
display(criteria_pages.correlations_table(agreed, crane))
criteria_pages.correlations_in_words(agreed, crane)

# %% [markdown]
# A rank correlation weighs all neurons alike, also the many that hardly matter. What a method does
# with its ranking is to take the top of it.
#
# ### Are the neurons that they would take selective?

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
#
# ### Look at them yourself
#
# Numbers of whole rankings hide what a neuron does. Choose one from a list, or type its layer and
# number, and see in which texts it is relevant, and at which words. Three things to try: read the
# neurons that a language needs most, and say what they have in common; do the same for the first of
# CRANE's list, and look at how many windows make their kurtosis; and look for a neuron that is
# relevant in one language and needed in another.

# %% tags=["shipped"]
lists = neuron_cards.neuron_lists(
    scores,
    necessity,
    {
        "CRANE's score": crane,
        "LAPE's order": "LAPE",
        "the relative contrast": criteria.RELATIVE,
    },
    settings.seed,
)
cards = neuron_cards.neuron_cards(
    pipeline,
    neuron_cards.neurons_to_read(lists, shape),
)
known = Known(
    pipeline.kurtosis("intermediate"),
    necessity,
    neuron_cards.sets_of_methods(pipeline, scores),
    lists,
)
neuron_view(cards, known, names, pipeline.tokenizer)

# %% [markdown]
# The texts show where a neuron was relevant. They do not define what it does: relevance is of what
# the model predicted *there*, and the texts are few.
#
# ## Damage curves
#
# Now the neurons are masked together, first the best few of each criterion, then more and more
# (a {term}`damage curve`), *on texts that ranked none of them*. What a language-specific set should
# do: raise its own language's loss, and leave the others' alone. Beside the criteria stand
#
# - **random order**, the floor: one order per seed, the same neurons for all languages;
# - **single effects**, the reference: neurons in the order of their measured selectivity;
# - **greedy search**, the best known set: built up in rounds from a shortlist (the neurons most
#   selective alone, and the first by the contrast of mean |relevance|), taking in each round those
#   that add most to the set's own selectivity as it then is. Many are taken per round, on a quarter
#   of the texts, so a better set may well exist.

# %%
orders = damage.orders_of(pipeline, scores, gold, random_seeds)

# %%
damaged = damage.damage(
    orders,
    budgets,
    pipeline.model,
    others,
    known=gold.sets,
    store=pipeline.store,
)
write_table(damaged, results / "criteria_damage.csv")
if recompute_necessity:
    known = damage.known_sets(damaged)
    write_table(known, results / damage.FILES[2])

# %% [markdown]
# The first figure shows the lead: what the masked language loses beyond the language that loses
# most besides. Zero is a mask that hurts two languages alike, and below it the mask hurts another
# language more than its own. The second shows the masked language's loss alone. A criterion that
# rises in the second and not in the first finds neurons that matter, but to every language. The
# vertical axes are linear up to a tenth of a nat and logarithmic beyond.

# %% tags=["shipped"]
size = 128 if 128 in budgets else budgets[-1]
for column in ("difference", "own"):
    figure = criteria_pages.damage_curves(
        damaged,
        names,
        size,
        column,
        highlighted,
    )
    display(figure)

# %% [markdown]
# The same at one size. For a criterion to have found language-specific neurons, its set must hurt
# its own language more than any other *clearly*, and more than random sets of that size do.

# %% tags=["shipped"]
at_zero = agreed[agreed["set_to"] == "zero"]
ranked = criteria.ranking(at_zero, found, damaged, size)
write_table(ranked, results / "criteria_ranking.csv")
display(criteria_pages.damage_table(damaged, names, size))
criteria_pages.damage_in_words(damaged, scores, names, size, crane)

# %% [markdown]
# ## Which read-out decides?
#
# The paper judges masks by accuracy, this page by held-out loss. Here the same masks go through
# both, and through open answers: the first neurons by the contrast of the signed mean, by CRANE's
# score and in random order, in growing numbers. A dot is a mask and a language's text or task.

# %% tags=["shipped"]
compared = ("signed mean, contrast", crane, "random order")
masks = calibration.masks_of(
    orders,
    compared,
    [n for n in budgets if n >= size // 4],
    pipeline.shape,
)
readouts = calibration.readouts(pipeline, masks, graded={size})
write_table(readouts, results / "calibration.csv")
display(
    calibration_page.loss_and_accuracy(readouts, names),
    calibration_page.by_class(readouts),
    calibration_page.in_words(readouts, compared[0], size, names),
)

# %% [markdown]
# So the two agree where a mask does much, and part where it does little: an item has to change
# sides before accuracy moves, and with some hundred items a few points are noise. That is why
# verdicts about masks rest on held-out loss in this book, and LangSpec-F1 stands beside it because
# it is the measure of the paper.
#
# Reading tasks are the exception to look at: most of an answer can be copied from the passage by
# attention, which no mask of MLP neurons touches ([notebook 00b](00b_gate)).

# %% [markdown]
# ## Is a set the sum of its neurons?
#
# A ranking treats neurons one by one. That is enough only if effects add up. For every set above,
# here is what masking it did, divided by the sum of what its neurons did alone (on the other
# texts). At one the set is the sum of its neurons. Above one they can stand in for each other, so
# that the damage comes only when all are gone; below one they have a part in the same thing, which
# is lost with the first of them already. Sets whose sum is next to nothing are left out.

# %% tags=["shipped"]
added = damage.predicted(damaged, orders, necessity)
keys = ["criterion", "language", "seed", "budget"]
numbers = ["own", "own_se", "predicted", "ratio"]
file = results / "necessity_additivity.csv"
write_table(added[keys + numbers], file)

# %% tags=["shipped"]
ratios = summaries.additivity(added, list(scores))
display(criteria_pages.additivity_figure(ratios))
criteria_pages.additivity_in_words(ratios, added)

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
#
# ```{exercise-start} A criterion of your own · hard, 30 minutes
# :label: exercise-own-criterion
# ```
# Write a criterion that needs no gradient: for example how much more often a neuron's activation is
# positive in one language than in the others. Put it beside the others and place it in the ranking.
# ```{exercise-end}
# ```
#
# ```{solution-start} exercise-own-criterion
# :class: dropdown
# ```

# %% tags=["shipped"]
active, n = pipeline.activation_counts()
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

# %% tags=["shipped"]
criteria_pages.criteria_conclusions(
    counts,
    agreed,
    damaged,
    names,
    size,
    crane,
)

# %% [markdown]
# - Single ablations are a reference for *single* neurons on *next-token loss*. A neuron with a twin
#   that takes over shows no effect alone and would show one together with it; the figure on
#   additivity says how much of that there is.
# - Loss on plain text is not accuracy on a benchmark, which is what the paper measures. It is the
#   more sensitive of the two, and every language has the same measure.
# - The testbed has 2,048 neurons and three languages with nothing but a small world in common. That
#   a criterion fails or succeeds here says how it can behave, not how it behaves on Llama-2-7B.
# - Nothing was tuned on these results: the criteria are those of the other notebooks with their
#   default settings, and the texts that single effects were measured on are not those that sets
#   were masked on.
#
# Next: [verdicts](10_verdicts), where each claim is held against all that was found so far.
