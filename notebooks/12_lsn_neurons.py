# %% [markdown]
# # Who are the language's neurons?
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** compare four ways of finding a language's neurons, with each other and
# with chance; and say why one of them can hardly tell neurons apart.
#
# **It assumes** masks and their nulls ([notebook 03b](03b_masking) and
# [04](04_table1)).
#
# **It takes** twenty minutes to read; the computer needs about two minutes.
#
# **It covers** *Language-specific neurons do not facilitate cross-lingual transfer*
# {cite:p}`mondal2025transfer`: how its methods' neurons overlap, asked of the model at hand.
# :::
#
# CRANE asks which neurons a language *needs*. Before it others asked which neurons fire for one.
# The second paper that this book checks takes LAPE {cite:p}`tang2024lape`, proposes Activation
# Probability 90p beside it, sets the neurons to other values while a task is done, and finds no
# consistent gain in any language. It reports no interval, and no random set for its interventions;
# this page and those after it have both, for its neurons and for CRANE's.

# %% [markdown]
# ## Parameters

# %% tags=["parameters", "hide-input"]
model = "data/testbed/base"  # checkpoint to examine: a folder, or a name on the hub
languages = ["en", "zh", "vi"]  # languages by code, in the order of all tables
n_samples = 1000  # windows of text per language that relevance is taken on
seed = 0  # seed of everything that is drawn at random, except training
lape_file = None  # LAPE's released file of neurons of Llama-2-7B; None: not shown
real_data = "data/gemma"  # folder with the shipped results on a real model
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %% tags=["hide-input"]
from pathlib import Path

import pandas as pd
from IPython.display import display

from crane_core.neurons import NeuronSet
from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show import figures, lsn_pages
from crane_lab.store import write_table
from crane_lab.study import contenders, criteria

settings = Settings.of(globals())
pipeline = Pipeline(settings)
results = Path(run_dir) / "results"
results.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## Five sets for each language
#
# All of them are read from the same windows of text.
#
# - **LAPE**, as it is released: the hundredth of all neurons whose probability of being active
#   differs most between languages.
# - **LAPE matched**: its order, taken to as many neurons as CRANE has.
# - **CRANE**: kurtosis of relevance, high in one language and in no other.
# - **Act Prob 90p**: the neurons that most often exceed their own ninetieth percentile. How many
#   the paper does not say (its code takes an eighth of a per cent); here they are as many as
#   CRANE's.
# - **mean |relevance|**: how large relevance is in one language, less the largest other language's,
#   as a share of all; one of the criteria of [notebook 09b](09b_criteria).

# %%
sets = contenders.contenders(pipeline)
lsn_pages.sizes_table(contenders.layer_sizes(sets))

# %% [markdown]
# (The public code of LAPE comes with its sets for Llama-2-7B. Give the file as `lape_file` to see
# their sizes and what they share; it is not ours to ship.)

# %%
if lape_file:
    released = NeuronSet.from_lape_file(
        lape_file,
        shape=contenders.LLAMA_2_7B,
    )
    display(
        lsn_pages.sizes_table(
            contenders.layer_sizes({"released": released}),
        ),
        lsn_pages.languages_figure(
            released,
            "LAPE's released sets for Llama-2-7B",
        ),
    )

# %% [markdown]
# ### A score that is nearly the same for all
#
# By its definition, a neuron exceeds its own ninetieth percentile on a tenth of all tokens. So does
# the next neuron, and every other. What differs is an error of averaging: the public code takes the
# percentile in each batch and averages over batches, which misses the true one by a little.

# %%
rates = contenders.rates_above_own_90th(
    criteria.act_prob_90p_scores(pipeline),
)
write_table(rates, results / "lsn_rates.csv")
lsn_pages.rates_table(rates)

# %% [markdown]
# Whatever puts a neuron at the top of such a list, nothing in it compares languages.
#
# ### A language among which others?
#
# LAPE does compare languages, so its answer depends on which ones it is given. The paper has two
# choices, of seven and of ten languages, which share English alone; here each of the languages at
# hand is left out in turn. (On Gemma LAPE was given the paper's first choice as far as there is
# text: [notebook 15](15_languages).)

# %%
by_choice = contenders.lape_by_languages(pipeline)
write_table(by_choice, results / "lsn_lape_languages.csv")
display(
    lsn_pages.lape_languages_table(by_choice),
    lsn_pages.lape_languages_in_words(by_choice),
)

# %% [markdown]
# ### Do the methods agree?
#
# The paper finds LAPE and Act Prob 90p "largely disjoint". Random sets are largely disjoint as
# well, so the question is whether two methods share fewer neurons than chance gives, or more.

# %%
shared = contenders.shared_by_methods(sets)
write_table(shared, results / "lsn_shared.csv")
lsn_pages.methods_shared_table(shared)

# %% [markdown]
# And languages with each other? (CRANE's sets share nothing, by its rule.)

# %%
first, *others = (
    lsn_pages.languages_figure(sets[method], method)
    for method in ("LAPE", "LAPE matched", "Act Prob 90p")
)
display(first, figures.folded("The same for other sets", *others))

# %% [markdown]
# ## On a real model
#
# The same sets on Gemma 3 270M, from 600 windows of text a language. Act Prob 90p's score is no
# better there, and many neurons tie at the end of its list: which of them is the last of the
# Vietnamese ones, one of layer 3 or one of layer 17, differed between two machines. (Losses were
# taken and text was tuned with the former; tasks were done and learned with the latter, which is
# the one counted here.)

# %% tags=["shipped"]
real = Path(real_data)
display(
    lsn_pages.sizes_table(pd.read_csv(real / "lsn_sizes.csv")),
    lsn_pages.rates_table(pd.read_csv(real / "lsn_rates.csv")),
    lsn_pages.methods_shared_table(
        pd.read_csv(real / "lsn_shared.csv"),
    ),
)

# %% [markdown]
# ## Where the paper, its code and this book part
#
# The paper's text, the code that was published with it, and what these pages do are three things.
# What is a choice is a parameter here; what went wrong there unnoticed is done otherwise here, and
# tested.
#
# :::{dropdown} Point by point
#
# - **Percentiles**: taken in every batch of 2,048 tokens of a tenth of the windows, then averaged.
#   Here: over a sample of tokens drawn evenly from the whole stream; but Act Prob 90p's own as the
#   code has them, without which its score would be a tenth for all.
# - **Where they are taken**: before the activation function, and written after it. Here: both, side
#   by side ([12b](12b_lsn_values)).
# - **Size of Act Prob 90p**: not said; in the code an eighth of a per cent. Here: as many as
#   CRANE's.
# - **Perplexity under a set**: other random windows with and without it; rows and columns swapped
#   in a plot's labels. Here: the same windows, paired ([12b](12b_lsn_values)).
# - **Position that is classified**: the last one, a pad in all but the longest text of a batch.
#   Here: the last real token ([13b](13b_lsn_ours)).
# - **Items that are counted**: 5,008 of 5,010 (XNLI); too long ones dropped, so that languages
#   differ in size (XQuAD). Here: every item, as many in every language.
# - **An answer is right**: if its token ids are equal. Here: if its text is, normalised for the
#   language; F1 beside it. (English loses its articles, as in SQuAD; a classifier stays in the
#   others, so scores of two languages are not to be compared.)
# - **Tuned with a set**: of `gate_proj` alone, and in the released XNLI code that line is commented
#   out. Here: rows and columns of all three projections, or of the gate alone; bits are compared
#   ([14](14_lsn_tuning)).
# - **Random neurons, tuned**: in a table, not in the released code. Here: beside every method's set
#   of English and one target together, with as many in every layer.
# - **Random neurons, set to a value**: none. Here: beside every set, many at zero, a few at others.
# - **Precision of the weights**: four bits (NF4). Here: 32-bit floats; four bits are not tried.
# - **Trainings**: one of each. Here: five on the testbed, three on Gemma, unless a page says
#   otherwise.
# :::
#
# ## Exercises
#
# ```{exercise-start} A percentile over all languages · easy, 5 minutes
# :label: exercise-lsn-percentile
# ```
# A neuron's ninetieth percentile is taken over all tokens of one language. On what share of that
# language's tokens is it exceeded? Now take the percentile over equally many tokens of three
# languages together, for a neuron that is high in one of the three alone. On what share of the
# tokens of that language is it exceeded? Which of the two scores can tell languages apart?
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# Above a ninetieth percentile lies one token in ten of those that it was taken over. If all of them
# belong to one language of three, how many in ten are that of its own tokens?
# ```
#
# ```{solution} exercise-lsn-percentile
# :class: dropdown
#
# On a tenth, whatever the neuron does, so the first score says nothing. Over the three languages
# together the percentile is exceeded on a tenth of all tokens. If these all belong to one language,
# they are three tenths of its tokens, and none of the others': now the score compares languages. It
# still does not say whether the language needs the neuron.
# ```

# %% [markdown]
# Next: [the same sets at work](12b_lsn_values), because where neurons fire does not yet say what
# they do.
