# %% [markdown]
# # Table 1: what each mask costs each language
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** read Table 1 and Figure 4, ours and the published ones; say what
# LangSpec-F1 rewards and what it cannot see; and tell a mask that hits one language from a mask
# that merely hurts.
#
# **It assumes** sets of neurons and how they are masked ([notebooks 03](03_selecting)
# and [03b](03b_masking)), and [Equations 3 to 5](method).
#
# **It takes** half an hour to read; the computer needs about five minutes on the testbed, nearly
# all of it for evaluating every mask on six tasks and on held-out text.
#
# **It covers** §3.4, §3.5, §4.2, §4.3 and §5.2 of the paper {cite:p}`le2026crane`, Table 1 and
# Figure 4.
# :::

# %% tags=["parameters", "hide-input"]
model = "data/testbed/base"  # checkpoint to examine: a folder, or a name on the hub
languages = ["en", "zh", "vi"]  # languages by code, in the order of all tables
tasks = "data/testbed/tasks"  # folder with the benchmarks: lm-eval YAML files and their items
random_seeds = [0, 1, 2, 3, 4]  # one random mask per seed, as control
n_perplexity = 200  # windows per language that perplexity is measured on
null_data = "data/testbed"  # folder with what random masks do, as it is shipped
n_null = 0  # random masks of every set whose null is not shipped
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %% tags=["hide-input"]
import json
from functools import partial
from pathlib import Path

from IPython.display import display

from crane_core import metrics
from crane_lab import audit
from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show import (
    exercises,
    figures,
    readouts,
    table1_page,
    table_pages,
)
from crane_lab.stages import comparisons
from crane_lab.store import write_table
from crane_lab.store.files import write_text
from crane_lab.study.evaluated_masks import EvaluatedMasks
from crane_lab.study.nulls import Nulls
from crane_lab.texts.languages import language_names

settings = Settings.of(globals())
pipeline = Pipeline(settings)
paper = pipeline.main_tasks
results = Path(run_dir) / "results"
names = language_names(settings.languages)

# %% [markdown]
# ## The rows: which neurons, and how many
#
# Table 1 has one row per method and language. For every language a method proposes a set of
# neurons; the row says what the scores are when that set outputs zero.
#
# - **CRANE**: the sets of notebook 03.
# - **Random**: as many neurons as CRANE's set has in each layer, drawn at random, once per seed.
#   What such a mask costs is what masking costs by itself.
# - **LAPE**, with the constants it was released with {cite:p}`tang2024lape`.
# - **{term}`LAPE matched`**: LAPE's own order, cut or extended to CRANE's number of neurons.
#
# The last two are not the same comparison. §4.2 speaks of identical budgets, but LAPE's constants
# decide how many neurons it takes: one percent of all, shared out among the languages as it falls.
# A method that masks fewer neurons does less damage, and nothing about *which* neurons it chose
# follows from that. So n stands in every row, and the row to hold against
# CRANE's is LAPE matched ([choice](choice-budget)).

# %%
masks = EvaluatedMasks(pipeline)
one_each = comparisons.one_of_each(masks.rows)
changes = [pipeline.logit_change(row.intervention) for row in one_each]
display(
    table1_page.sizes_in_words(one_each, names),
    figures.folded(
        "Every mask: neurons by layer, and the check",
        table1_page.masks_table(one_each, changes, pipeline.shape),
    ),
)

# %% [markdown]
# The last column of the table above is a check, not a result. Before any mask is evaluated the
# pipeline runs one text per language with it and without, and takes the largest change of any
# logit. A hook that sits on the wrong module changes nothing, and every table after it would say,
# wrongly, that the mask does no harm. So a mask that selects neurons and changes no logit is an
# error.
#
# Where texts and items come from, with their licences and checksums, is kept beside the results.

# %% tags=["hide-input"]
provenance = json.dumps(
    pipeline.provenance(),
    ensure_ascii=False,
    indent=1,
    sort_keys=True,
)
write_text(results / "provenance.json", provenance + "\n")

# %% [markdown]
# ## Evaluating every mask
#
# One pass through all tasks and all held-out text for the unmasked model and for every mask. Every
# outcome is kept in the store and written to `items_table1.parquet`: before and after are *paired*,
# item by item, and intervals for their difference need the pairs. The same masks are read in other
# ways on the pages after this one: on other tasks and under the other reading of what a neuron is
# ([04b](04b_confound)), by held-out loss and free answers ([04c](04c_answers)),
# and with other numbers of neurons ([04d](04d_drops_and_budgets)).

# %%
evaluated = masks.evaluated
seeds = evaluated.seeds(paper)
write_table(masks.items, results / "items_table1.parquet")
write_table(seeds, results / "table1_seeds.csv")
table1_page.evaluations(evaluated, settings.n_perplexity)

# %% [markdown]
# ## Table 1
#
# The paper gives each language one benchmark: MMLU to English {cite:p}`hendrycks2021mmlu`, C-Eval
# to Chinese {cite:p}`huang2023ceval`, Belebele to Vietnamese {cite:p}`bandarkar2023belebele`. The
# testbed's counterparts are `knowledge_en`, `knowledge_zh` and `reading_vi`; real models are asked
# what comes next in a text (`continuation`), in every language alike. Accuracy is the share
# of items whose right option has the largest probability; chance is 0.25. The row *Org* is the
# unmasked model. The scores of a random row are means over seeds, and its LangSpec-F1 is computed
# from those means.

# %% tags=["nulls"]
table1 = evaluated.table(paper)
write_table(table1, results / "table1.csv")
random = Nulls.of(pipeline, null_data, n_null)
verdicts = masks.verdicts(table1, paper, random)
write_table(verdicts, results / "table1_verdicts.csv")
asked = ", ".join(paper[x] for x in names)
display(
    table_pages.results_table(
        table1,
        names,
        f"Table 1, ours: accuracy on {asked} and LangSpec-F1",
        n_seeds=len(settings.random_seeds),
    ),
    figures.folded(
        "Every set beside random masks of its size and layers",
        table_pages.beside_nulls(verdicts),
    ),
)

# %% [markdown]
# And this is the table as the paper prints it; Figure 4 below has both.

# %% tags=["published"]
published = audit.read_scores("1")
figures.folded(
    "Table 1, as printed",
    table_pages.printed_table("1", published),
)

# %% [markdown]
# Compare the *patterns* of the two tables, not their numbers: the models, the tasks and the number
# of neurons differ.
#
# ## Figure 4
#
# The same as drops, Δ = Org − masked. The outlined cell of each row is the language the mask is
# made for. A mask that does what CRANE is after has its darkest orange in the outlined cell and
# next to nothing beside it.

# %% tags=["published"]
title = f"Ours, {settings.label}"
display(
    table_pages.drops_figure(table1, names, title, paper),
    figures.folded(
        "The printed ones",
        table_pages.published_drops("1", published),
    ),
)

# %% [markdown]
# The bars at the right of the figure above sum a row up as LangSpec-F1, with its interval. A long
# bar needs two things: a drop in the outlined cell that is large for where that language started,
# and no drop beside it that comes close. A row that is orange throughout has a bar, too, if its
# outlined cell lost much: how selective a mask is stands in the cells, and only partly in the bar.

# %% [markdown]
# ## What LangSpec-F1 cannot see
#
# Before reading anything into a LangSpec-F1 of, say, 0.1, look at what a mask without any purpose
# gets. Equations 3 to 5 count a gain as a drop of zero. So the noise of a mask that does nothing in
# particular never averages out: whenever the target happens to lose an item or two, the score is
# positive, and it cannot be negative when the target happens to gain. **The null value of
# LangSpec-F1 is not zero**, and it grows with what a mask of that size costs anyway.

# %%
title = "LangSpec-F1 of random masks of CRANE's size"
display(
    table_pages.random_strip(table1, seeds, names, title),
    table1_page.random_in_words(seeds),
)

# %%
org = table1.loc[0, settings.languages].astype(float).to_dict()
chance = dict.fromkeys(org, 0.25)  # four options, guessed
score = partial(
    metrics.langspec_f1,
    how=settings.f1_others,
    relative=settings.f1_drop == "relative",
)
at_chance = {x: score(org, chance, x).f1 for x in org}
table1_page.all_at_chance(at_chance, names)

# %% [markdown]
# The random dots have CRANE's number of neurons in every layer. LAPE's sets have other numbers, in
# other layers, so each set is held against random masks of *its own* size in every layer: its
# **null**. The table folded under Table 1 says what LangSpec-F1 these masks have, and how many of
# them the set exceeds.
#
# Drops to move with sliders, random masks beside them, are on [a page of their
# own](04d_drops_and_budgets).
#
# ## Did the masks do what they are for?
#
# §3.1 asks for a larger degradation on the masked language than on the others, *relative* to where
# each language started; Equation 3 takes *absolute* drops. Both are checked here, each with a 95 %
# interval from the paired outcomes of single items. The interval is about the items under *this*
# mask; another mask of the kind would give other outcomes. So "clearly" needs two things: that the
# interval of the difference excludes zero against every other language, and that the difference is
# larger than random masks make it, at a false-discovery rate of 5 % over the rows.

# %% tags=["nulls"]
display(
    table_pages.by_method(verdicts, "In short:"),
    table_pages.mask_table(verdicts, names),
    table_pages.mask_by_mask(verdicts, names),
)

# %% [markdown]
# How many neurons Table 1 masks is decided by CRANE's threshold. Whether another number would tell
# another story is asked in [04d](04d_drops_and_budgets).

# %% [markdown]
# ## Exercises
#
# ```{exercise-start} Do the choices in Equation 3 decide the ranking? · medium, 20 minutes
# :label: exercise-choices
# ```
# Equation 3 compares absolute drops and takes the *maximum* over the other languages. Public code
# has used the mean and the sum, and §3.1 speaks of relative drops ([choice](choice-metric)).
# Recompute LangSpec-F1 of the published Table 1 and of ours under all of these with
# `metrics.langspec_f1(original, masked, target, how=…, relative=…)`. Does the best method of any
# language change?


# %%
def mean_relative_f1(original, masked, target):
    """F1 of relative drops, with the mean of the other languages' drops."""
    ...


exercises.mean_and_relative(mean_relative_f1)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# Write the function with `metrics.langspec_f1`, or with Equations 3 to 5 by yourself: a drop counts
# as 0 where a score went up. A row of `published` or of `table1` has the scores that it takes.
# ```
#
# ```{solution-start} exercise-choices
# :class: dropdown
# ```

# %% tags=["published"]
f1 = metrics.langspec_f1
readings = {
    "max (Eq. 3)": f1,
    "mean": partial(f1, how="mean"),
    "sum": partial(f1, how="sum"),
    "max, relative": partial(f1, relative=True),
}
compare = partial(comparisons.f1_readings, readings=readings)
read = {
    "ours": compare(table1, names),
    "published (Llama-2-7B)": compare(published, audit.LANGUAGES),
}
caption = "LangSpec-F1 under four readings of Eq. 3"
display(
    table_pages.readings_table(read, caption),
    table_pages.best_by_reading(read, names),
)

# %% [markdown]
# ```{solution-end}
# ```

# %% [markdown]
# ## What the numbers do and do not show

# %% tags=["nulls", "published"]
table_pages.bullets(
    readouts.at_equal_budgets(verdicts, names, published),
    "The intervals are over items, and the range of the random rows "
    "over masks. Neither covers the choice of texts that the neurons "
    "were selected on, nor another training run of the model.",
)

# %% [markdown]
# - A drop says that the model did worse without these neurons, at zero, all at once. It does not
#   say that they *store* a language; a neuron whose output is merely expected by others is missed
#   as much. Zero is not the absence of a signal either ([choice](choice-mask)).
# - The testbed is one small model with a narrow world. Agreement with the paper here is no
#   replication of it, and disagreement no refutation.
# - The paper prints no intervals, no number of neurons and one number for its random rows. How far
#   its figures lie from chance cannot be worked out from the table.
#
# Next: [language or task?](04b_confound), because the paper's table asks each language something
# else, and an effect on one may be one on the other.
