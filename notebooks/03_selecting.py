# %% [markdown]
# # Selecting neurons
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** turn kurtosis into a set of neurons for each language; compare sets with
# each other, with chance and with LAPE's; and say what follows from the rule alone.
#
# **It assumes** normalised kurtosis ([notebook 02](02_kurtosis)).
#
# **It takes** twenty minutes to read; the computer needs about a minute.
#
# **It covers** §3.3, the baselines of §4.2, and lines 17 to 20 of Algorithm 1 of the paper
# {cite:p}`le2026crane`.
# :::

# %% [markdown]
# ## Parameters
#
# `rule`, `threshold` and `budget` decide what is selected. [How to rerun](../book/rerun) shows how
# to change them.

# %% tags=["parameters", "hide-input"]
model = "data/testbed/base"  # checkpoint to examine: a folder, or a name on the hub
languages = ["en", "zh", "vi"]  # languages by code, in the order of all tables
n_samples = 1000  # windows of text per language that relevance is taken on
seed = 0  # seed of everything that is drawn at random, except training
normalisation = "zscore"  # scale within a layer: zscore, ratio, robust or global
rule = "contrast"  # contrast, threshold or top, or shares of all languages: relative
threshold = 1.0  # normalised score above which a neuron is a candidate
budget = None  # neurons to select per language; None: all above the threshold
necessity_data = "data/testbed"  # folder with the shipped effects of single ablations
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %% tags=["hide-input"]
import warnings
from pathlib import Path

from IPython.display import display

from crane_core import baselines
from crane_core.selection import NeuronSet, select
from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show import figures, selection_pages
from crane_lab.show.selection_view import MOST, selection_view
from crane_lab.store import write_table
from crane_lab.study import real_model, selectable

settings = Settings.of(globals())
pipeline = Pipeline(settings)
shape = pipeline.shape
results = Path(run_dir) / "results"
results.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## One set per language
#
# Line 19 of Algorithm 1 selects by a threshold on the normalised score or by rank. Together with
# Figure 3 that leaves three readings ([choice](choice-selection)):
#
# - `contrast`: above the threshold for the target, and at or below it for every other language. The
#   default.
# - `threshold`: above the threshold for the target, whatever the others do.
# - `top`: the highest scores of the target, as many as a budget allows.
#
# (A fourth rule, `relative`, is not the paper's: [notebook 19](19_better_criterion) has it.)

# %%
normalised = pipeline.normalised()
sets = pipeline.neuron_sets()  # under the parameter `rule`
for x, neurons in sets.items():
    first = list(neurons)[:4]
    print(f"{x}: {len(neurons)} neurons,", end=" ")
    print(f"the first (layer, neuron) are {first}")

# %% [markdown]
# A `NeuronSet` is immutable and knows the shape of the model it belongs to. Sets can be combined
# with `&`, `|` and `-`, counted, iterated as (layer, neuron) pairs, and saved. Here are the three
# rules side by side, `top` with as many neurons as the sets above have. (An empty set is a result
# here, so its warning is switched off.)

# %%
budgets = {x: len(neurons) for x, neurons in sets.items()}
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    by_rule = {
        "contrast": pipeline.neuron_sets(rule="contrast"),
        "threshold": pipeline.neuron_sets(rule="threshold"),
        "top": {},
    }
    for x, n in budgets.items():
        by_rule["top"][x] = select(
            normalised,
            x,
            "top",
            budget=n,
            shape=shape,
        )
selection_pages.rule_table(by_rule, threshold)

# %% [markdown]
# Under `contrast` no neuron can be in two sets: to be in the set of one language it must be above
# the threshold there, and that keeps it out of all others. Nothing about the model follows from
# such disjoint sets. Questions about *shared* neurons need `threshold` or `top`.
#
# ### Where they lie

# %%
selection_pages.layers_figure(sets, rule)

# %% [markdown]
# By default scores are normalised within each layer, so every layer has high ones. How the bars
# differ between layers says something about the shape of the layers' distributions; it does not say
# in which layers a language "lives".
#
# ### The other site
#
# §3.1 of the paper calls each *column of the linear projection matrices* a neuron. Read literally,
# every output of `gate_proj`, `up_proj` and `down_proj` gets a score of its own
# ([choice](choice-neuron)).

# %%
projections = pipeline.neuron_sets("projections")
display(
    figures.folded(
        "Projection by projection",
        selection_pages.projections_table(projections, rule),
    ),
    selection_pages.projections_words(projections, sets),
)

# %% [markdown]
# ### When a selection is not what you want
#
# A selection that is legal but rarely meant is returned with a warning; one that makes no sense is
# refused.


# %%
def attempt(**how):
    """Select for the first language and print what `select` says."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            found = select(normalised, languages[0], shape=shape, **how)
        except ValueError as error:
            print(f"refused: {error}")
            return
    for warning in said:
        print(f"warning: {warning.message}")
    print(f"selected: {len(found):,}")


total = normalised[languages[0]].numel()
attempt(threshold=1000.0)
attempt(rule="threshold", threshold=-1000.0)
attempt(budget=total // 2)
attempt(rule="top", budget=total + 1)

# %% [markdown]
# ## Do languages share neurons?
#
# Under `threshold` the sets may overlap. Two sets drawn at random share a few neurons as well, so
# each cell compares with chance: random sets with the same number of neurons in each layer.
#
# Read a cell as *found, against expected*: the diagonal holds the sizes of the sets, the others
# what two of them share.

# %%
shared = by_rule["threshold"]
display(
    selection_pages.shared_figure(shared),
    figures.folded(
        "The same as a table",
        selection_pages.shared_table(shared),
    ),
    selection_pages.shared_words(shared),
)

# %% [markdown]
# A shared neuron here is one whose relevance has heavy tails in both languages. Whether both
# languages *need* it is, again, another question.
#
# ## Does LAPE find the same neurons?
#
# LAPE {cite:p}`tang2024lape` asks how *often* a neuron is active in each language and takes those
# whose activity is most unevenly spread over languages. As released it takes one percent of all
# neurons and shares them out; for a comparison at equal budgets we also take it to CRANE's count by
# its own order. (Published, for Llama-2-7B: 95 English, 583 Chinese and 836 Vietnamese neurons of
# 352,256.)

# %%
counts, tokens = pipeline.activation_counts()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # languages without a neuron
    lape = baselines.lape(counts, tokens, shape=shape)
matched = baselines.lape_matched(counts, tokens, budgets, shape=shape)
display(
    selection_pages.lape_table(
        {"LAPE as released": lape, "LAPE matched": matched},
        sets,
        rule,
    ),
    selection_pages.lape_words(matched, sets),
)
every = {**by_rule, "LAPE": lape, "LAPE matched": matched}
write_table(real_model.counts_by_layer(every), results / "selected_layers.csv")
write_table(real_model.overlaps(every), results / "selected_overlaps.csv")

# %% [markdown]
# ## Keeping a set
#
# Sets are saved as safetensors, with the model's shape. A set made for another shape is refused
# where it is used.

# %%
for x, neurons in sets.items():
    path = results / f"neurons_{x}.safetensors"
    neurons.save(path)
    assert NeuronSet.load(path) == neurons
    print(f"{path.name}: {len(NeuronSet.load(path))} neurons")

other_model = NeuronSet.from_pairs([(0, 7)], shape=(2, 8))
try:
    other_model.require_shape(shape)
except ValueError as error:
    print(f"\nrefused: {error}")

# %% [markdown]
# ## Select for yourself
#
# A set is a choice of five: a statistic, a normalisation, a rule, a threshold and a budget. Here
# they can be changed, beginning with this run's. The first drawing is Figure 3, all layers in one:
# a neuron lies further right the higher its score for the target language, and further up the
# higher its largest score for another.
#
# What masking a set costs is not measured anew for every choice. Instead the effects of its neurons
# are added up, each measured by setting that neuron alone to zero ([09](09_gold_standard)), beside
# the average of random sets with as many neurons in every layer. Together neurons do more or less
# than the sum, as notebook 09c shows, and a sum has no interval here: it is a guide to what to
# measure, and no measurement.

# %% tags=["shipped"]
selection_view(
    selectable.selectable_scores(pipeline, MOST),
    selectable.shipped_effects(pipeline, necessity_data),
    sets,
    settings,
)

# %% [markdown]
# Try `threshold` instead of `contrast`: the sets can only grow, by neurons that are high for
# another language, too. Do other languages pay for them? Try mean |relevance| with `top` and the
# budget that kurtosis has used: does the sum of single effects rise? And move the threshold: how
# much of a set stays is what the Jaccard index says.
#
# ## Exercises
#
# ```{exercise-start} Blind by construction · medium, 10 minutes
# :label: exercise-disjoint
# ```
# Suppose two languages depend on exactly the same neurons, and the kurtosis of every neuron is the
# same in both. What does `contrast` select for either? Could Table 1 then ever show that the two
# depend on each other? And why can LAPE's sets overlap, although LAPE, too, looks for neurons that
# tell languages apart?
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# Write down the condition that a neuron has to meet for the one language, and that for the other.
# Then look for a neuron that meets both.
# ```
#
# ```{solution-start} exercise-disjoint
# :class: dropdown
# ```
# Nothing at all: a neuron above the threshold in one language is above it in the other, and is kept
# out of both sets. What languages share is invisible under this rule, so a table made with it can
# speak about selectivity but not about sharing.
#
# LAPE first chooses neurons whose activity is unevenly spread over *all* languages and then gives
# each to every language in which it is active often enough. A neuron active in two of three
# languages is unevenly spread, and goes to both.
# ```{solution-end}
# ```

# %% [markdown]
# ## What the numbers do and do not show
#
# - A set is not a unique object. Its size follows from the rule, the threshold and the
#   normalisation, and [notebook 02b](02b_trust) shows how much of it changes with the windows
#   drawn.
# - The overlap between languages, and with LAPE, describes the *selections*. It is no statement
#   about what languages have in common inside the model.
#
# Next: [masking](03b_masking), because so far nothing was done to the model, and the name CRANE has
# the word *causal* in it.
