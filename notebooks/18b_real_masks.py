# %% [markdown]
# # What masks cost a real model
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** read Table 1 on Gemma 3 270M, with one kind of task in every language, and
# say which masks cost the text of their own language most, on Gemma and on the testbed.
#
# **It assumes** the model, its tasks and its sets ([notebook 18](18_real_model)).
#
# **It takes** fifteen minutes to read; the computer needs some seconds after notebook 04c.
#
# **It covers** Table 1 and Figure 4 of the paper {cite:p}`le2026crane` on another model, and
# held-out loss.
# :::

# %% tags=["parameters", "hide-input"]
real_data = "data/gemma"  # folder with the shipped results on a real model
null_data = "data/testbed"  # folder with what random masks do, as it is shipped
n_null = 0  # random masks of every set whose null is not shipped
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %%
from pathlib import Path

from IPython.display import display

from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show import (
    figures,
    shipped_pages,
    table1_page,
    table_pages,
)
from crane_lab.show import later_exercises as exercises
from crane_lab.stages import comparisons
from crane_lab.study.nulls import Nulls
from crane_lab.study.shipped import Shipped
from crane_lab.texts.languages import language_names

settings = Settings.of(globals())
here = Pipeline(settings)
there = Shipped.read(real_data)
results = Path(run_dir) / "results"
names = language_names(there.languages)
home, away = settings.label, "Gemma"
home_names = language_names(settings.languages)

# %% [markdown]
# ## Table 1, with one kind of task in every language
#
# *Org* is the model without a mask. *LAPE* is LAPE's set as released, *LAPE matched* its order cut
# at CRANE's number of neurons, *Random* masks have as many neurons in every layer as CRANE's.

# %% tags=["shipped"]
table1, seeds = there.table("table1"), there.table("table1_seeds")
facts = there.table("table1_parallel_facts")
facts = facts[facts["site"] != "projections"]
n_seeds = len(there.settings["random_seeds"])
display(
    table_pages.results_table(
        table1,
        names,
        "Table 1 on Gemma: accuracy in continuation, and LangSpec-F1",
        n_seeds,
    ),
    figures.folded(
        "The same in facts",
        table_pages.results_table(
            facts,
            names,
            "Table 1 on Gemma: accuracy in facts, and LangSpec-F1",
            n_seeds,
        ),
    ),
)

# %% tags=["shipped"]
title = "LangSpec-F1 in continuation, random masks as dots"
display(
    table_pages.drops_figure(table1, names, "Continuation, Gemma"),
    table_pages.random_strip(table1, seeds, names, title),
)

# %% tags=["shipped"]
verdicts = there.table("table1_verdicts")
of_facts = there.table("table1_parallel_facts_verdicts")
display(
    table_pages.mask_table(verdicts, names),
    table_pages.mask_by_mask(verdicts, names),
    table_pages.beside_nulls(verdicts),
    figures.folded(
        "Random masks beside them, facts",
        table_pages.beside_nulls(of_facts),
    ),
    table_pages.by_method(verdicts, "In short, continuation:"),
    table_pages.by_method(of_facts, "In short, facts:"),
)

# %% [markdown]
# Read these sentences with their error. Intervals are over the items under one fixed mask, and a
# table has few items: "not clearly" means not told with so many. And a mask has to do more than
# random masks of its kind ([choice](choice-null)), of which there are few.

# %% tags=["shipped"]
losses = there.table("loss_verdicts")
shipped_pages.nulls_in_words(verdicts, losses)

# %% [markdown]
# ## Language by language: held-out loss
#
# The sensitive read-out. Rows of the figure below are masks, columns the language of the text, and
# a cell is by how much a mask multiplies perplexity (the exponential of the loss); 1 is no change.
# First Gemma, then the testbed, which has more windows and more random masks.

# %% tags=["shipped"]
perplexities = there.table("perplexity")
unmasked = perplexities.iloc[0][there.languages].to_dict()
own = perplexities[perplexities["site"] == "intermediate"]
display(
    table1_page.loss_figure(losses, there.languages, away),
    figures.folded(
        "In nats, and beside random masks",
        table1_page.loss_table(losses, unmasked),
        table_pages.beside_nulls(
            losses,
            "difference",
            "own − most hit other",
        ),
    ),
    table1_page.losses_by_method(losses, names),
    shipped_pages.below_random(own, names),
)
there.keep(
    results,
    "table1",
    "table1_seeds",
    "table1_verdicts",
    "table1_parallel_facts",
    "table1_parallel_facts_verdicts",
    "loss_verdicts",
    "perplexity",
)

# %% tags=["nulls"]
evaluated = here.evaluated(here.rows("intermediate"))
here_losses = evaluated.perplexities()
unmasked_here = here_losses.iloc[0][list(home_names)].to_dict()
random = Nulls.of(here, null_data, n_null)
at_home = comparisons.loss_changes(
    here_losses,
    settings.languages,
    nulls=random.of_rows("losses", evaluated.rows),
)
display(
    table1_page.loss_figure(at_home, settings.languages, home),
    figures.folded(
        "In nats",
        table1_page.loss_table(at_home, unmasked_here),
    ),
    table1_page.losses_by_method(at_home, home_names),
    shipped_pages.below_random(here_losses, home_names),
)

# %% [markdown]
# ## Exercise
#
# ```{exercise-start} Few neurons, many neurons · medium, 15 minutes
# :label: exercise-per-neuron
# ```
# The sets are of very different sizes (n in Table 1). So the matrix of losses may say more about
# size than about method. Compute for every mask what it adds to the loss of its own language per
# hundred neurons, and how many times as much as to the other language that it hits hardest. Which
# of the two numbers is a fair comparison of methods? Begin with CRANE's, per hundred neurons:

# %% tags=["shipped"]
my_cost = dict.fromkeys(names, ...)  # from the rows of losses

exercises.cost_per_hundred(my_cost, losses)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# In a row of `losses` the column with the code of a language has what the mask adds to its loss;
# `mask_language` is the masked one, `n_neurons` the size.
# ```
#
# ```{solution-start} exercise-per-neuron
# :class: dropdown
# ```

# %% tags=["shipped"]
shipped_pages.cost_table(losses)

# %% [markdown]
# Neither, quite. The loss per hundred neurons takes for granted that losses add up, and they need
# not: the first neurons of an order may cost the most, and a model that is lost cannot lose much
# more. The ratio does not depend on size as much, but says nothing where both parts are next to
# zero. The fair comparison is between masks of one size, which LAPE matched is for; of masks that
# also lie in the same layers as CRANE's there are only the random ones.
# ```{solution-end}
# ```

# %% [markdown]
# ## What the numbers do and do not show
#
# - The testbed's Table 1 has another task for English and Chinese than for Vietnamese; Gemma's has
#   one for all. Held-out loss is the same read-out on both.
# - Losses are per token, and tokens of different languages hold differently much text: compare a
#   mask with its own unmasked model, and leads with those of other masks for the same language.
# - A loss is not an ability. What a mask adds to it may be spread over all words, or sit in a few.
# - Intervals are over items and windows under masks as they are. What others of the kind do, random
#   masks say, and the fewer they are the less can be decided.
#
# Next: [which criterion finds needed neurons](18c_real_criteria), because masks of a few methods
# do not say what other neurons would do.
