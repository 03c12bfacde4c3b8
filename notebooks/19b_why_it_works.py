# %% [markdown]
# # Why it works, and what it is good for
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** say what sets of neurons do together that they do not do one by one, how
# far every criterion is from what a search can reach, and what masks of such sets do to answers.
#
# **It assumes** the candidates and the confirmation of [notebook 19](19_better_criterion).
#
# **It takes** twenty minutes to read; the computer needs some seconds.
#
# **It covers** nothing of the paper. What is here was looked at after the choice, except *Sign,
# size or concentration?*, which has figures that were explored; and on the testbed alone, except
# that and the ceiling.
# :::

# %% tags=["parameters", "hide-input"]
criterion_data = "data/criterion"  # folder with what candidates for a criterion do
real_data = "data/gemma"  # folder with the shipped results on a real model
languages = ["en", "zh", "vi"]  # languages by code, in the order of all tables
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %% tags=["hide-input"]
from pathlib import Path

import pandas as pd
from IPython.display import display

from crane_lab.show import anatomy_pages, figures, merit_pages
from crane_lab.show import later_exercises as exercises
from crane_lab.store import write_table
from crane_lab.study import anatomy, ceiling, exploration, uses
from crane_lab.study.candidates import CRANE, Candidate
from crane_lab.texts.languages import language_names

names = language_names(languages)
results = Path(run_dir) / "results"
results.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## Sets taken apart
#
# On the testbed every neuron has been ablated alone ([notebook 09](09_gold_standard)), so sets can
# be taken apart. Beside the candidates stand sets of the neurons with the largest measured effects,
# a greedy search that looks at whole sets, and three orders that were tried after the plan had been
# set down. Two prune overlaps of mean |relevance| without a contrast: `overlaps pruned` at once,
# leaving out every neuron that comes earlier in another language's order; `taken in turns`
# greedily, each language taking the first of its order that is still there (rows that are alike say
# that it makes no difference). `first-order loss` is what a neuron's zero does to the loss to first
# order, the mean of activation × gradient of the log-probability.

# %% tags=["shipped"]
apart = anatomy.read_anatomy(criterion_data)
share = 0.02
parts = anatomy.parts_of(apart[anatomy.SETS], share)
write_table(parts, results / "criterion_parts.csv")
display(
    anatomy_pages.parts_in_words(parts),
    figures.folded(
        "Set by set",
        anatomy_pages.sets_apart_table(parts, share, len(languages)),
    ),
    anatomy_pages.ceiling_figure(apart[anatomy.SETS], names),
)

# %% [markdown]
# The division by the sum over languages does what it is for: of the neurons that shares take,
# hardly any is much needed elsewhere. It pays with neurons that matter less to their own language.
#
# ## A ceiling on Gemma
#
# Gemma has too many neurons to ablate them all. Of a sample, the first ones of several criteria
# and some drawn at random, single ablations are known ([notebook 18c](18c_real_criteria)). The
# most selective of each language are the shortlist on which the greedy search builds its sets, by
# what they do together on a few windows. Both are held against the criteria on other windows. The
# criteria choose among all neurons, the search among a few that were known already: what it finds
# can be reached, and better sets may exist.

# %% tags=["shipped"]
damaged = pd.read_csv(Path(real_data) / "criteria_damage.csv")
searched = ceiling.read_ceiling(criterion_data)
write_table(searched, results / "criterion_ceiling.csv")
at = ceiling.at_the_largest(searched, damaged)
display(
    anatomy_pages.ceiling_in_words(at),
    anatomy_pages.real_ceiling_figure(searched, damaged, names),
    figures.folded("All of them", anatomy_pages.ceiling_table(at)),
)

# %% [markdown]
# ## Sign, size or concentration?
#
# A neuron can push the right token up in some texts and down in others. The signed mean lets the
# two cancel, the mean of sizes adds them up; kurtosis keeps neither, only how far the total is
# concentrated in few texts. Only sizes can be shared out among languages, since a signed sum can be
# zero; so the relative contrast has no signed form. As a difference all three exist:

# %% tags=["shipped"]
there = Path(criterion_data) / "gemma"
explored = {
    place: exploration.read_exploration(folder)[exploration.MERITS]
    for place, folder in (
        ("testbed", criterion_data),
        ("Gemma 3 270M", there),
    )
}
merit_pages.sign_or_size_table(
    explored,
    {
        "signed mean": Candidate("signed_mean", "difference"),
        "mean of sizes": Candidate("mean_abs", "difference"),
        "kurtosis": CRANE,
    },
)

# %% [markdown]
# ## Relevance, gradients, and ablations
#
# Relevance is activation × gradient under rules that keep it from exploding. Does it foresee what
# zeroing a neuron does to the loss? Beside it, on the same windows, are plain gradients, and
# integrated gradients, which add up what happens on the way from zero to the activation. Each is
# taken as the signed mean over texts or as the mean of its size, and of the true token's logit or
# of its log-probability, which is what the loss is made of.

# %% tags=["shipped"]
estimated = apart[anatomy.ESTIMATES]
write_table(estimated, results / "criterion_estimates.csv")
display(
    anatomy_pages.estimates_figure(estimated),
    anatomy_pages.estimates_in_words(estimated),
)

# %% [markdown]
# To first order, activation × gradient of the log-probability *is* what an ablation does to the
# loss. What makes good sets is another question: a single ablation does not see neurons that stand
# in for each other.
#
# ## How many windows?
#
# Sets of the same size from fewer windows of text. Bands are from the least to the most of three
# draws.

# %% tags=["shipped"]
needed = anatomy.by_windows(apart[anatomy.NEEDED])
write_table(needed, results / "criterion_windows.csv")
display(*anatomy_pages.windows_figures(needed))

# %% [markdown]
# A few extreme texts decide a kurtosis, so other texts give other neurons; a mean settles soon.
#
# ## What the sets are good for
#
# The same sets masked on the testbed, and on the chat model that was tuned from it, read out as in
# Tables 1 to 4 of the paper:

# %% tags=["shipped"]
used = uses.read_uses(criterion_data)
write_table(used, results / "criterion_uses.csv")
summary = uses.uses_summary(used)
changed = uses.fidelity_changes(used, languages)
display(
    anatomy_pages.uses_figure(used, names),
    anatomy_pages.uses_table(summary, share, len(languages)),
    anatomy_pages.uses_in_words(summary, len(languages)),
    figures.folded(
        "Which language answers come in",
        anatomy_pages.fidelity_table(changed),
    ),
)

# %% [markdown]
# A large merit does not make tasks suffer more than under random masks. LangSpec-F1 is a ratio, so
# that a mask which costs next to nothing can have a large one by luck: on tasks random masks show
# how large. Graded answers tell sets apart more clearly, in the chat model as well, although the
# sets were found in the base model. So few random masks certify no single set. In the mean few
# answers change their language.
#
# On a real model both candidates' sets are steered, to make it answer in another language
# ([notebook 16](16_steering)), and switched off language by language
# ([notebook 17](17_fallback)); what tuning does to the relative contrast's stands in
# [notebook 14b](14b_lsn_verdicts).
#
# ## Limits
#
# - All single ablations, windows and integrated gradients are of the testbed, a single training.
# - The search on Gemma sees a sample; a ceiling over all neurons may be higher.
# - Nineteen random masks give no p below a twentieth, nine none below a tenth.
#
# ## Exercise
#
# ```{exercise-start} Neurons that stand in for each other · medium, 10 minutes
# :label: exercise-together-alone
# ```
# Two neurons stand in for each other: without one the other does its work, without both a language
# loses a nat. What does each do alone, what do they do together, and which of a criterion by single
# effects and a search by whole sets can find them? And of what the greedy search's sets cost their
# own language: which share is not in the sum of their neurons' single effects?

# %% tags=["shipped"]
my_share = ...  # by the columns own and predicted of parts

exercises.only_together(my_share, parts)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# A single effect is what changes while all other neurons still work. In `parts`, `predicted` is the
# sum of single effects and `own` what the whole set does.
# ```
#
# ```{solution-start} exercise-together-alone
# :class: dropdown
# ```
# Each alone does nothing, both together a nat. Single effects rank them last. A search that takes
# one neuron at a time misses them too, unless something makes it take the first; one that tries
# pairs finds them.

# %% tags=["shipped"]
searched_sets = parts[parts["criterion"] == "greedy search"].iloc[0]
print(f"{1 - searched_sets['predicted'] / searched_sets['own']:.0%}")

# %% [markdown]
# ```{solution-end}
# ```
#
# Next: [what was set down](../book/set_down) before the confirmation, or back to
# [what came of it](19_better_criterion).
