# %% [markdown]
# # Masked together: what do a criterion's sets do?
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** read a damage curve; say which criteria find sets that hurt one language
# more than the others; tell what held-out loss and accuracy each see of a mask; and say why a set
# of neurons is not the sum of its members.
#
# **It assumes** single ablations ([09](09_gold_standard)) and the criteria that are held against
# them ([09b](09b_criteria)).
#
# **It takes** twenty minutes to read; the computer needs a minute on the testbed, because what
# sets do to the loss, to tasks and to answers is shipped and read.
#
# **It covers** §3.4 of the paper {cite:p}`le2026crane`, where sets are masked, with sets of all
# sizes and of other criteria.
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

from IPython.display import display

from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show import calibration_page, criteria_pages, figures
from crane_lab.show import table_exercises as exercises
from crane_lab.store import write_table
from crane_lab.study import (
    calibration,
    criteria,
    damage,
    summaries,
)
from crane_lab.texts.languages import language_names

settings = Settings.of(globals())
pipeline = Pipeline(settings)
results = Path(run_dir) / "results"
names = language_names(settings.languages)

# %% [markdown]
# The effects of single neurons and the criteria are those of notebooks 09 and 09b. In figures with
# many curves some criteria are in colour, among them CRANE's default score: the contrast of
# kurtosis under the default objective.

# %%
texts, others = damage.held_out(pipeline, n_necessity, n_damage)
folder = results if recompute_necessity else Path(necessity_data)
gold = damage.gold_standard(
    pipeline,
    texts,
    folder,
    recompute_necessity,
)
necessity = gold.necessity
scores = criteria.criteria(pipeline)
logit = criteria.OBJECTIVES["next_token"]
crane = f"kurtosis ({logit}), contrast"
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
# ## Damage curves
#
# The neurons are masked together, first the best few of each criterion, then more and more
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
against = {"reference": crane, "seed": settings.seed}
agreed = criteria.rank_agreement(scores, necessity, "zero", **against)
agreed = agreed.assign(set_to="zero")
found = criteria.precision(scores, necessity, budgets, level=fdr)
ranked = criteria.ranking(agreed, found, damaged, size)
write_table(ranked, results / "criteria_ranking.csv")
display(
    criteria_pages.damage_in_words(damaged, scores, names, size, crane),
    figures.folded(
        "Criterion by criterion",
        criteria_pages.damage_table(damaged, names, size),
    ),
)

# %% [markdown]
# ## Which read-out decides?
#
# The paper judges masks by accuracy, this page by held-out loss. Here the same masks go through
# both, and through open answers: the first neurons by the contrast of the signed mean, by CRANE's
# score and in random order, in growing numbers. A dot of the figure below is a mask and a
# language's text or task.

# %% tags=["shipped"]
compared = ("signed mean, contrast", crane, "random order")
masks = calibration.masks_of(
    orders,
    compared,
    [n for n in budgets if n >= size // 4],
    pipeline.shape,
)
readouts = calibration.kept_readouts(
    pipeline,
    masks,
    {size},
    folder,
    recompute_necessity,
)
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
# ```{exercise-start} A late rise · medium, 10 minutes
# :label: exercise-late-rise
# ```
# A criterion's first 8 to 64 neurons do next to nothing to any language, and with its first 256 the
# masked language loses far more than the others. Somebody concludes that the criterion finds the
# language's neurons, if only enough are taken. Name two other readings, and say which numbers
# would tell them apart. And here: how many times the median ratio of random order is that of the
# criteria, at the largest budget?

# %% tags=["shipped"]
my_times = ...  # by the column median of ratios

exercises.beside_random_sets(my_times, ratios)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# Where in the order may the needed neurons lie? And does a neuron show its effect if another one
# can take over? `ratios` has a row for each kind of set and budget.
# ```
#
# ```{solution-start} exercise-late-rise
# :class: dropdown
# ```
# The first neurons may be of no use, and the needed ones may come late in the order: then they
# were found no better than by others, and the share of selective neurons among its first
# ([09b](09b_criteria)) is low. Or the neurons stand in for each other, so that nothing is lost
# until most are gone: then the set does more than its neurons do one by one, and its ratio in *Is a
# set the sum of its neurons?* is far above one. In both cases random sets of 256 have to stand
# beside it:

# %% tags=["shipped"]
at_most = ratios[ratios["budget"] == ratios["budget"].max()]
median = at_most.set_index("kind")["median"]
chosen, at_random = median.reindex(["criteria", "random order"])
print(f"{chosen / at_random:.2f} times")

# %% [markdown]
# ```{solution-end}
# ```

# %% [markdown]
# ## What the numbers do and do not show
#
# Of notebooks 09 to 09c:

# %% tags=["shipped"]
counts = summaries.significant_counts(necessity, fdr)
criteria_pages.criteria_conclusions(
    counts,
    agreed,
    damaged,
    names,
    size,
    crane,
)

# %% [markdown]
# - The testbed has 2,048 neurons and three languages with nothing but a small world in common. That
#   a criterion fails or succeeds here says how it can behave, not how it behaves on Llama-2-7B.
# - Nothing was tuned on these results: the criteria are those of the other notebooks with their
#   default settings, and the texts that single effects were measured on are not those that sets
#   were masked on.
#
# Next: [verdicts](10_verdicts), where each claim is held against all that was found so far.
