# %% [markdown]
# # Metric card: LangSpec-F1
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** name five things that LangSpec-F1 does which its formula does not
# advertise; read a value of it against masks that do nothing and masks that destroy everything; and
# say what has to stand beside it.
#
# **It assumes** [Equations 3 to 5](method) and the published tables ([the audit](07_audit)).
#
# **It takes** twenty minutes to read; the computer needs a few seconds.
#
# **It covers** the metric of the paper {cite:p}`le2026crane` (§3.5), on its Tables 1 to 4 and on
# simulated masks.
# :::
#
# What it is
# : One number for one mask: the harmonic mean of *precision*, the target's share of the target's
#   and the worst-hit other language's drop, and *recall*, the share of the target's score that is
#   gone. 0 to 1.
#
# What it is for
# : Ranking masks of **one size**, for **one language**, on **one set of tasks**. The sections below
#   say why each of the three matters.
#

# %% tags=["parameters", "hide-input"]
published = "data/published"  # folder with the paper's tables and claims
seed = 0  # seed of everything that is drawn at random, except training
n_simulated = 4000  # masks simulated for each point of a curve
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %%
from pathlib import Path

import numpy as np
from IPython.display import display

from crane_lab import audit
from crane_lab.show import crane_exercises as exercises
from crane_lab.show import metric_card as card
from crane_lab.store import write_table

tables = audit.published(published)
results = Path(run_dir) / "results"

# %% [markdown]
# ## Precision is cheap, recall is dear
#
# Lines of equal LangSpec-F1 in the plane of recall and precision, with the published rows. Along
# the left edge the lines crowd: a mask with little recall scores little, however selective. Far to
# the right they lie flat. Most rows have a recall below 0.4 and are ranked by it, that is, by how
# much damage they do at all.

# %% tags=["published"]
variants = audit.f1_variants(tables)
write_table(variants, results / "audit_variants.csv")
display(card.iso_figure(variants), card.ranked_by(variants))

# %% [markdown]
# ## A mask that does nothing scores more than zero
#
# Gains count as no drop. So if a mask flips a few answers at random, in either direction, its
# expected LangSpec-F1 is above zero, and more so the fewer questions there are. Simulated: three
# languages, each with an unmasked score of 0.4, and nothing but noise.

# %% tags=["published"]
grid = [70, 140, 300, 640, 1346, 3000, 14042]
nulls = audit.null_by_size(grid, n_masks=n_simulated, seed=seed)
write_table(nulls, results / "audit_null_masks.csv")
display(
    card.null_figure(nulls, tables["1"]),
    card.null_in_words(nulls, variants),
)

# %% [markdown]
# ## A mask that destroys everything scores well
#
# Suppose a mask takes the same share from every language, everything above guessing in the end. It
# prefers no language; a metric of selectivity should be indifferent to how much it takes. With
# $\Delta$ for the target's drop, $M$ for the largest other drop and $S$ for the target's score
# before, Equations 3 to 5 come to $2\,\Delta / (\Delta + M + S)$. So a mask that wiped out three
# equal scores would reach $2/3$.

# %% tags=["published"]
shares = np.linspace(0, 1, 41)
checked = audit.recompute(tables)
damage = audit.even_damage_by_language(tables["1"], shares)
floored = audit.even_damage_by_language(tables["1"], shares, True)
display(
    card.damage_figure(shares, damage, floored, variants),
    card.even_damage_in_words(damage, floored, checked),
)

# %% [markdown]
# The same curves give a fairer yardstick than zero: how much would a mask have to take from
# *everyone* to score what CRANE's row does? A row that no such mask reaches is selective by the
# metric's own measure.

# %% tags=["published"]
card.yardstick(shares, damage, variants)

# %% [markdown]
# ## Max, mean or sum; absolute or relative; from zero or from the floor
#
# What other readings of the formula would have made of the same rows. *Floor* counts accuracies
# from 0.25 and grades from 1, and what is below counts as there: then recall is the share of what
# could be lost, and 1 means that nothing is left. It is offered beside the paper's metric, not for
# it: it needs a floor that is known, and where a language starts close to it, a few questions move
# it far.

# %% tags=["published"]
leading = audit.leaders(variants, card.READINGS)
display(card.variants_table(variants), card.leaders_in_words(leading))

# %% [markdown]
# And how sure is a value? The items' outcomes are not published, so we draw from the two extreme
# pairings that have the printed counts, the most similar and the most opposed. The truth lies
# between.

# %% tags=["published"]
intervals = audit.interval_table(tables["1"], seed=seed)
write_table(intervals, results / "audit_intervals.csv")
masks = ("CRANE", "zh"), ("Random", "zh")
apart = audit.between(tables["1"], *masks, "zh")
n_items = tables["1"].items["zh"]
display(
    card.intervals_table(intervals),
    card.chinese_in_words(intervals, apart, n_items),
)

# %% [markdown]
# ## Exercises
#
# ```{exercise-start} A perfect score · medium, 10 minutes
# :label: exercise-perfect
# ```
# What must a mask do to reach a LangSpec-F1 of 1? And one that reaches 1 when scores are counted
# from their floor? What does the second get by the paper's metric, if it takes Chinese in Table 1
# to guessing and nothing from the others?

# %% tags=["published"]
# `tables["1"].original` has the scores before, `.floor` those of guessing
my_f1 = ...

exercises.down_to_guessing(my_f1, tables["1"])

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# Take Equations 3 to 5 one by one. Precision compares Chinese's drop with the largest other one,
# recall with the score that Chinese had.
# ```
#
# ```{solution-start} exercise-perfect
# :class: dropdown
# ```
# Precision and recall must both be 1: no other language loses anything, and the target's score is
# *zero*. On four options that takes a model which is reliably wrong, and on a scale from 1 to 10 it
# is impossible. Counted from the floor, it is enough to bring the target down to guessing. By the
# paper's metric that has precision 1 and as its recall the share of the score above guessing:

# %% tags=["published"]
before, floor = tables["1"].original["zh"], tables["1"].floor["zh"]
recall = (before - floor) / before
print(f"recall {recall:.3f}, LangSpec-F1 {2 * recall / (1 + recall):.3f}")

# %% [markdown]
# ```{solution-end}
# ```

# %% [markdown]
# ## What the numbers do and do not show
#
# - A LangSpec-F1 by itself says little: beside it belong the size of the mask, what random masks of
#   that size get, and the drops that it was made from.
# - That a mask without any effect scores more than zero is arithmetic, and holds for every model.
#   How much more depends on how many answers change, which is not printed; the curves show a few
#   cases.
# - The intervals are over questions, and between two extremes. They say nothing of other masks, of
#   other texts to find neurons on, or of another run of the judge.
# - Another reading of the formula is no correction of it. The paper's is one of several, and ranks
#   that change with the reading were never settled by the data.
#
# Next: [choices](08_choices), because the paper leaves much open, and results may depend on how
# that is filled in.
