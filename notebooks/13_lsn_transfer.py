# %% [markdown]
# # Does setting a language's neurons help a task?
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** say which of some two hundred printed changes must be more than the
# choice of items, and find a claim that a paper's own table speaks against.
#
# **It assumes** [notebook 12b](12b_lsn_values); what noise can do to printed scores is explained in
# [the audit](07_audit).
#
# **It takes** twenty minutes to read; the computer needs some seconds.
#
# **It covers** Tables 1, 2 and 4 to 6 of *Language-specific neurons do not facilitate cross-lingual
# transfer* {cite:p}`mondal2025transfer`. An experiment like it follows, on our model in
# [13b](13b_lsn_ours) and on Gemma 3 270M in [13c](13c_lsn_real).
# :::
#
# The paper fine-tunes two models, a Llama and Mistral Nemo, on a task in English, and asks it in
# other languages: XNLI (does a sentence follow from another?) and XQuAD (find the answer in a
# passage). While the model answers, the language's neurons are set to a value: their mean, an upper
# percentile, which is to *activate* them, or zero or a lower percentile, which is to *deactivate*
# them. Here are the paper's numbers (`data/published/lsn`).

# %% tags=["parameters", "hide-input"]
published = "data/published"  # folder with the paper's tables and claims
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %%
from pathlib import Path

from IPython.display import display

from crane_lab.audit import lsn
from crane_lab.show import exercises
from crane_lab.show import lsn_tables_page as page
from crane_lab.store import write_table

folder = Path(published) / "lsn"
results = Path(run_dir) / "results"
results.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## The printed tables
#
# ### Which changes are more than noise?
#
# A printed score says how many of XNLI's items were right. It does not say how many of them
# changed under an intervention: if nine more are wrong, perhaps nine changed, perhaps a thousand
# did. McNemar's test {cite:p}`mcnemar1947note` depends on that, so its p-value has a least and a
# most. Only where even the most is small can an intervention be told from the choice of items. XNLI
# has thousands of items per language. Of XQuAD, by the paper's code, a fifth is asked, without
# items that are too long, so that languages differ; a change counts as certain here if it is for
# the smallest and for the largest number of items that there can be.

# %% tags=["published"]
xnli = lsn.lsn_changes(lsn.lsn_table("4", folder))
xquad = lsn.lsn_changes(lsn.lsn_table("5", folder))
write_table(xnli, results / "lsn_published_xnli.csv")
write_table(xquad, results / "lsn_published_xquad.csv")
display(
    page.lsn_changes_figure(xnli, "points of accuracy"),
    page.lsn_counts_table(lsn.lsn_counts(xnli), "XNLI"),
)

# %% tags=["published"]
display(
    page.lsn_changes_figure(xquad, "points of exact match"),
    page.lsn_counts_table(lsn.lsn_counts(xquad), "XQuAD"),
)

# %% [markdown]
# ### Do interventions help?
#
# The paper's title says no.

# %% tags=["published"]
page.lsn_improves_in_words([xnli, xquad])

# %% [markdown]
# ### "Deactivation of Zero Does not Degrade Performance Significantly"
#
# So the paper heads a paragraph, and argues that neurons set to zero are not deactivated: far lower
# percentiles lead to a clear drop in XQuAD's scores, and zero to none like it. Its own table:

# %% tags=["published"]
page.lsn_zero_in_words(xquad, "points")

# %% [markdown]
# ### Where those percentiles come from
#
# They are printed, too. SiLU, the activation function of both models, takes any number and never
# puts out less than a certain one.

# %% tags=["published"]
page.lsn_statistics_table(lsn.lsn_before_act_fn(folder))

# %% [markdown]
# So what was written to the output of SiLU was read at its input. P5, P10 and P25, printed as means
# over all neurons, lie below anything that SiLU puts out, in every language, and in Mistral even
# the mean does. What the chosen neurons were set to is not printed; how many of them could have had
# such values differs much by method and model ([12b](12b_lsn_values)). Where values that a neuron
# cannot have harm more than zero does, that is no sign that zero fails to deactivate.
#
# ### Slips
#
# Where the tables disagree with each other:

# %% tags=["published"]
page.lsn_slips_list(lsn.lsn_slips(folder))

# %% [markdown]
# None of this shows that the paper's conclusion is wrong. It shows what would be needed to know:
# the items' outcomes, several trainings, random sets with as many neurons in every layer, and
# values read where they are written. All of that can be had on a small model.

# %% [markdown]
# ## Exercise
#
# ```{exercise-start} Chance in printed percentages · medium, 15 minutes
# :label: exercise-lsn-noise
# ```
# Of 238 answers 134 were right before and 144 after, which is printed as 56 and 61 %. Could it be
# chance? Find the fewest items that can have changed, and the p-value if it was those. Then let
# fifty more have changed, half of them in each direction.

# %%
my_fewest = ...  # items that have changed, at least
my_p = ...  # the p-value of a sign test, two-sided
my_p_of_more = ...  # the same with fifty more changes

exercises.counted_changes(my_fewest, my_p, my_p_of_more)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# A sign test asks how likely such a surplus of changes for the better is if each change goes either
# way like the toss of a coin, and doubles that for a surplus of changes for the worse.
# `scipy.stats.binomtest(better, changed).pvalue` computes it.
# ```
#
# ```{solution} exercise-lsn-noise
# :class: dropdown
#
# At least 10 items changed, all for the better, and a sign test on 10 of 10 has p = 0.002. With
# fifty more it is 35 of 60: p = 0.25. Both fit the printed numbers, so the table cannot tell.
# ```

# %% [markdown]
# Next: [the experiment on our model](13b_lsn_ours), with the trainings, items and random sets that
# printed tables do not have.
