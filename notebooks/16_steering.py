# %% [markdown]
# # Can neurons make a model answer in another language?
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** say what it means to add to, replace, scale and contrast a language's
# neurons; and hold a steered model against the untouched one and against random neurons.
#
# **It assumes** [notebook 15](15_languages), whose sets are used here.
#
# **It takes** twenty minutes to read; the computer needs some seconds.
#
# **It covers** *language forcing* of *Language Arithmetics* {cite:p}`gurgurov2025arithmetics`.
# :::
#
# Notebooks 12 to 14 asked whether setting a language's neurons helps a task, and saw little. The
# third paper asks for something more modest: ask in one language, steer with the neurons of
# another, and see in which the model answers. It reports that this works, best by *adding* to the
# neurons, and shows neither the untouched model beside it nor random neurons. Here are both.

# %% tags=["parameters", "hide-input"]
languages_data = "data/languages"  # folder with the shipped results on many languages
steering_questions = "data/steering/questions.yaml"  # short questions with answers
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %% tags=["hide-input"]
from pathlib import Path

from IPython.display import display

from crane_lab.show import later_exercises as exercises
from crane_lab.show import steering_pages as page
from crane_lab.store import write_table
from crane_lab.study import steering, steering_effects
from crane_lab.study.many_languages import (
    CRANE,
    LAPE,
    RELEVANCE,
    SIGNED,
)

results = Path(run_dir) / "results"
results.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## Questions and answers
#
# The model is Gemma 3 270M, as it was pretrained: it goes on with `Q: …`, a line break and `A:`.
# Every question has one plain answer, so that a right one can be recognised in any language. They
# are asked in eight languages (`data/steering`); here they are in the book's three.

# %%
asked = steering.read_steering_questions(
    steering.SteeringPlan().languages,
    steering_questions,
)
page.steering_questions_table({x: asked[x] for x in ("en", "zh", "vi")})

# %% [markdown]
# Let $h$ be what the activation functions put out, $A$ the neurons of the language that is wanted,
# and $\mu$ the mean of $h$ on text in it. Everything is done in all layers and at all positions:
#
# - **add**: $h_A \leftarrow h_A + \alpha \mu_A$;
# - **set** (*replacement*): $h_A \leftarrow \mu_A$;
# - **contrast** (*difference of means*): $h_A \leftarrow h_A + \mu_A - \bar\mu_A$; $\bar\mu$ is
#   the mean over the other languages;
# - **zero + add**: the neurons of the question's language outside $A$ are set to zero first;
# - **scale** (*multiplicative*): $h_A \leftarrow \alpha h_A$.
#
# The first version of the paper's code wrote, in place of the mean, how *often* the neuron is above
# zero; which of the two its tables used is not said. `crane_lab.cli.steer` runs all of these; what
# of them is shipped stands in the tables below.
#
# An answer counts as in a language if py3langid finds more evidence for it than for any other of
# the eight in its script; "Paris" alone is in none. (The table below says of how many it is sure,
# by a confidence of its own that is near 1 more often than it is right.) It counts as right if a
# right answer in the wanted language's words is in it. What it costs is measured by the loss of the
# answer under the untouched model, and by how much an answer repeats itself, since repetition
# lowers that loss.
#
# Random neurons stand beside the sets, as many in every layer, to which the very same numbers are
# written: they are pushed as hard. Every method and target has random neurons of its own: two draws
# where the mean is added once, one under some other setups, none under the rest; the table of
# random neurons below has those that were run.
#
# Sets are those of [notebook 15](15_languages): LAPE's, the relative contrast of mean |relevance|,
# the difference of signed mean relevance ([notebook 19](19_better_criterion)'s other candidate) and
# CRANE's. The first two are steered in all of these ways, with several strengths of adding, of the
# contrast and of scaling, and how often a neuron is above zero is added once in place of the mean;
# the others are steered by adding the mean once.
#
# ## Which language answers

# %% tags=["shipped"]
answers = steering.read_steering(languages_data)
table = steering.shipped_outcomes(
    languages_data,
    steering_questions,
)
write_table(table, results / "steering.csv")
central = ("add", "mean", 1.0)
page.forcing_figure(
    table,
    [LAPE, RELEVANCE, SIGNED, CRANE],
    central,
)

# %% [markdown]
# A row of the figure above is the language of the question, a column the one that is wanted. On the
# diagonal they are the same; what is off it is what steering is about.
#
# ## See for yourself
#
# Shares hide what the answers look like. Here are all of them. Choose a question, the language that
# it is asked in, and the one that is wanted; and, if all rows are too many, one method or one thing
# that is done. The first row is the model as it is. Random neurons stand below the set that they
# were drawn for. The last column says which language an answer counts as, how sure the identifier
# is of it, and whether it counts as right; *untold* means that the language cannot be told.

# %% tags=["shipped"]
page.answers_explorer(answers, asked)

# %% [markdown]
# ## How often, and at what price

# %% tags=["shipped"]
summary = steering_effects.steering_summary(table)
write_table(summary, results / "steering_summary.csv")
display(
    page.steering_in_words(summary),
    page.steering_table(summary),
    page.steering_random_table(summary),
)

# %% [markdown]
# ## Exercises
#
# ```{exercise-start} A broken model or another language · medium, 10 minutes
# :label: exercise-steering-control
# ```
# Somebody adds a large vector to random neurons and sees that many answers are no longer in the
# question's language. Does that show that the neurons carry another language? Which number in the
# tables above would tell? And of what LAPE's neurons gain when the mean is added once: which part
# do random neurons bring about as well?

# %% tags=["shipped"]
my_part = ...  # by the columns share and random of summary

exercises.share_by_random(my_part, summary)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# Some answers are in the wanted language although nothing was steered: the row `none`. What is
# gained is what comes on top of that, with a language's own neurons and with random ones.
# ```
#
# ```{solution-start} exercise-steering-control
# :class: dropdown
# ```
# No: a broken model answers in no language, and an identifier may call some of that anything. What
# would tell is the share in the *wanted* language, for every wanted language, beside that of the
# language's own neurons; and the loss, which says whether there is still language at all. The part:

# %% tags=["shipped"]
by_setup = summary.set_index(["method", "kind", "statistic", "strength"])
once = by_setup.loc[("LAPE", *central)]
before = summary.loc[summary["method"] == "none", "share"].item()
by_random, gain = once["random"] - before, once["share"] - before
print(f"{by_random:.3f} of {gain:.3f}: {by_random / gain:.1%}")

# %% [markdown]
# ```{solution-end}
# ```

# %% [markdown]
# Next: [what steering is good for](16b_steered_tasks), because an answer in the wanted language is
# worth little if the task is done worse.
