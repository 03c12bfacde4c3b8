# %% [markdown]
# # What answers when languages are switched off?
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** tell a model that falls back to another language from one that breaks, and
# read what a model would say before its last layer.
#
# **It assumes** [notebook 16](16_steering).
#
# **It takes** a quarter of an hour to read; the computer needs some seconds.
#
# **It covers** the *fallback* experiment and the logit lens of *Language Arithmetics*
# {cite:p}`gurgurov2025arithmetics`.
# :::
#
# The third paper asks questions in English and sets the neurons of one language after another to
# zero. It reports that the model goes over to other languages in an order, a mechanism inside it.
# It does not show the row in which nothing is off, nor what random neurons do: taking away more and
# more neurons breaks any model, and a broken model may write anything.

# %% tags=["parameters", "hide-input"]
languages_data = "data/languages"  # folder with the shipped results on many languages
steering_questions = "data/steering/questions.yaml"  # short questions with answers
permutations = 4999  # permutations of languages in Mantel's test
seed = 0  # seed of everything that is drawn at random, except training
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %%
from pathlib import Path

import pandas as pd
from IPython.display import display

from crane_lab.audit import la_claims
from crane_lab.show import fallback_pages as page
from crane_lab.show import figures, verdict_pages
from crane_lab.show import later_exercises as exercises
from crane_lab.store import write_table
from crane_lab.study import fallback, fallback_effects, logit_lens

results = Path(run_dir) / "results"
results.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## One language after another
#
# The model is Gemma 3 270M. Questions are those of notebook 16, in English; py3langid says which of
# the languages an answer is in, if it can. Each step sets one language's neurons more to zero, in
# the paper's order as far as there is text. Random sets have as many neurons in every layer as are
# off at each step, and each is part of the next.

# %% tags=["shipped"]
table = fallback.read_fallback(
    languages_data,
    steering_questions,
)
write_table(table, results / "fallback.csv")
order = table["order"].iloc[0]
windows = fallback.windows_read(languages_data)
display(
    page.asked_in_words(table, windows),
    page.fallback_figure(table, order),
    page.fallback_in_words(table),
)

# %% [markdown]
# An answer counts as English if the identifier calls it that, whether it says anything or not. Here
# is what it looks like:

# %% tags=["shipped"]
figures.folded(
    "The first question's answers",
    page.first_answers_table(table, order),
)

# %% [markdown]
# Is there one step at which fewer answers stay in English than with random neurons? The last column
# of the table below says, corrected over all steps and methods.

# %% tags=["shipped"]
kept = fallback_effects.kept_language(table)
write_table(kept, results / "fallback_kept.csv")
figures.folded("Step by step", page.kept_language_table(kept))

# %% [markdown]
# And is it still a model? Its loss on text in every language, added to what it was:

# %% tags=["shipped"]
display(
    page.fallback_loss_figure(table, order),
    figures.folded(
        "Beside random sets, in numbers",
        page.fallback_random_table(table),
    ),
)

# %% [markdown]
# If the model had an order of languages to fall back on, then at each step the first of it that is
# still on would answer, whatever the order of taking away; and random neurons would not bring it
# about. In the list above, an order that was drawn stands beside the paper's.
#
# ## Through English?
#
# It is often said that a multilingual model thinks in English and translates at the end. The logit
# lens reads the stream after each layer as if it were the last: the final norm and the head are put
# on it. (After the last layer that is the model's own prediction.) How likely is the first token of
# a right answer, in the question's language and in English? English is likely anyway; so beside it
# stand the English answer to another question, and the right answer in a third language.

# %% tags=["shipped"]
lens = pd.read_csv(Path(languages_data) / logit_lens.FILE)
write_table(lens, results / "logit_lens.csv")
display(page.lens_figure(lens), page.lens_table_of(lens))

# %% [markdown]
# The lens is a rough glass: a layer need not write in the last one's terms, so a small probability
# says little. Questions whose answers begin with the same token in two of the columns are left out.

# %% [markdown]
# ## What the third paper claims
#
# Its abstract's claims, in our words, with the criterion by which we count each as fulfilled, for
# LAPE's neurons, which are the paper's. Its tables are not at hand here, so there is no column for
# them.

# %% tags=["shipped"]
evidence = la_claims.shipped_evidence(
    languages_data,
    steering_questions,
    permutations=permutations,
    seed=seed,
)
verdicts = la_claims.la_verdicts({"Gemma 3 270M": evidence})
write_table(verdicts, results / "la_verdicts.csv")
display(verdict_pages.at_a_glance(verdicts))

# %% tags=["shipped"]
display(*verdict_pages.claim_by_claim(verdicts))

# %% [markdown]
# ## Exercise
#
# ```{exercise-start} Two other explanations · medium, 10 minutes
# :label: exercise-fallback-control
# ```
# Suppose that after some steps most answers were called French. Name two explanations that have
# nothing to do with a mechanism for falling back, and what in this notebook would speak for or
# against each. And here: at which step do neurons of the signed mean keep fewest answers in
# English, compared with random sets, and how many fewer?

# %% tags=["shipped"]
my_answers = ...  # how many fewer, by the columns of kept

exercises.answers_lost_to_random(my_answers, kept)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# Ask what a broken model's answers are called, and what the order in which languages are taken away
# does by itself. `kept` has how many answers stayed in English, and `random_kept` the mean of
# random sets at the same step.
# ```
#
# ```{solution-start} exercise-fallback-control
# :class: dropdown
# ```
# The identifier must choose one of a few languages, and may call broken text in Latin letters
# French: then random sets would bring French as well, and the loss of French would have risen like
# the others'. Or French was simply taken away later than the others: then in another order another
# language would be left.

# %% tags=["shipped"]
of_mean = kept[kept["method"] == "signed mean"].set_index("step")
fewer = of_mean["random_kept"] - of_mean["kept"]
print(f"step {fewer.idxmax()}: {fewer.max():.1f} of {of_mean['asked'].max()}")

# %% [markdown]
# ```{solution-end}
# ```

# %% [markdown]
# Next: [a better criterion](19_better_criterion): which score finds the neurons that a language
# needs, a question that none of the three papers asks.
