# %% [markdown]
# # Neurons of many languages
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** tell what languages share from what chance gives, test whether it follows
# their kinship, their script or the place they are spoken at, and say what is left of a language's
# neurons when its letters or its word order are taken away.
#
# **It assumes** masks and their nulls ([notebook 03b](03b_masking)); LAPE is explained
# in [notebook 12](12_lsn_neurons).
#
# **It takes** half an hour to read; the computer needs some seconds.
#
# **It covers** the first half of *Language Arithmetics* {cite:p}`gurgurov2025arithmetics`: where
# the neurons are, what script has to do with it, and what related languages share.
# :::
#
# Three languages are few. The third paper that this book checks takes twenty-one, and reads three
# things off LAPE's neurons {cite:p}`tang2024lape`: they cluster in late layers, languages in other
# scripts than Latin have more specialised ones, and related languages share theirs. It counts, and
# does not say what chance would give. We ask the same of Gemma 3 270M, a real multilingual model,
# for LAPE, for CRANE and for two contrasts of relevance.

# %% tags=["parameters", "hide-input"]
languages_data = "data/languages"  # folder with the shipped results on many languages
permutations = 4999  # permutations of languages in Mantel's test
seed = 0  # seed of everything that is drawn at random, except training
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %% tags=["hide-input"]
from pathlib import Path

import pandas as pd
from IPython.display import display

from crane_lab.show import exercises, figures
from crane_lab.show import languages_pages as page
from crane_lab.store import write_table
from crane_lab.study import language_profiles, many_languages
from crane_lab.study.relatedness import (
    distances_together,
    language_overlaps,
    mantel_tests,
)

results = Path(run_dir) / "results"
results.mkdir(parents=True, exist_ok=True)
folder = Path(languages_data)

# %% [markdown]
# ## Languages and their neurons
#
# The texts that come with this book (`data/texts`: manuals and documentation in Debian's packages)
# have enough for most of the paper's languages and some others; Afrikaans, Hindi, Maltese and
# Tibetan have too little. Every language has as many windows of as many tokens, cut from its text
# as it comes. Most of these manuals are translations of each other, so that some pairs of languages
# have nearly the same paragraphs and others none: part of what a pair shares may be its topics.

# %% tags=["shipped"]
sets, about = many_languages.read_sets(folder)
display(
    page.languages_made_in_words(about),
    figures.folded(
        "Language by language",
        page.languages_table(sets),
    ),
)

# %% [markdown]
# LAPE's sets depend on two choices: how many neurons are taken (the paper tries one to five per
# cent of all, and keeps two), and among which languages. The second paper compares seven of these
# languages ([notebook 12](12_lsn_neurons)). Of the ten of its other choice there is text for
# English alone here.

# %% tags=["shipped"]
choices = pd.read_csv(folder / many_languages.LAPE_CHOICES)
write_table(choices, results / "languages_lape.csv")
display(
    page.lape_choices_table(choices),
    figures.folded(
        "The second paper's seven languages",
        page.lape_seven_table(choices),
    ),
)

# %% [markdown]
# A contrast gives a neuron to one language at most: CRANE's rule asks for kurtosis that is high in
# one language and in no other, the relative contrast of mean |relevance| takes the largest other
# language off and keeps what is above zero, and so does the difference of the signed mean,
# [notebook 19](19_better_criterion)'s other candidate. Sets made like that share nothing. So
# CRANE's rule and mean |relevance| have a second version beside them that looks at the language
# alone, and overlaps are asked of those.
#
# ## Late layers?

# %% tags=["shipped"]
page.languages_depth_figure(sets)

# %% tags=["shipped"]
late = language_profiles.late_shares(sets)
write_table(late, results / "languages_late.csv")
page.late_table(late)

# %% [markdown]
# ## A language, or its script?
#
# The paper says that languages in other scripts than Latin are more specialised. One reading of
# that is that they have more neurons of their own:

# %% tags=["shipped"]
by_script = language_profiles.sizes_by_script(sets)
write_table(by_script, results / "languages_script.csv")
page.script_table(by_script)

# %% [markdown]
# Another way to ask is to take the script away. Romanised text has a language's words, in Latin
# letters; shuffled text has its words and letters, and not their order (of Chinese and Japanese,
# which write no spaces, the characters are shuffled). Each stands in for the language, the others
# stay as they are, and the set is found anew. How much is it the set of the language's own text? To
# hold that against, the first mark has the other half of the language's text: every second window,
# so that both halves have parts of the same documents. A method whose two halves share next to
# nothing can say nothing here.

# %% tags=["shipped"]
controls = pd.read_csv(folder / many_languages.CONTROLS)
write_table(controls, results / "languages_controls.csv")
display(
    page.controls_figure(controls),
    figures.folded("In numbers", page.controls_table(controls)),
)

# %% [markdown]
# (Chinese characters are romanised as Mandarin reads them, also in Japanese, and run together; and
# romanised text falls into other tokens and more of them. So what is lost is script, spelling and
# tokens together, and what is left is a lower bound of what is not script.)
#
# ## Do related languages share neurons?
#
# Large sets share more than small ones, and sets in the same layers more than sets in different
# ones. And a method draws all of its sets from the neurons that it finds specific at all: sets of
# even unrelated languages then share more than sets drawn from all neurons would. So every pair is
# held against random sets with as many neurons in every layer, drawn from the method's own.

# %% tags=["shipped", "hide-input"]
overlaps, known, drawn = {}, {}, []
for method in many_languages.SHARING:
    overlaps[method] = language_overlaps(sets[method])
    name = method.replace(" ", "_").replace("|", "").replace(",", "")
    write_table(
        overlaps[method],
        results / f"languages_overlaps_{name}.csv",
    )
    known[method] = [x for x, own in sets[method].items() if len(own)]
    figure = page.overlap_figure(
        overlaps[method],
        known[method],
        method,
    )
    drawn.append(figure)
display(
    drawn[0],
    figures.folded("The same for other sets", *drawn[1:]),
    page.overlaps_in_words(overlaps),
)

# %% [markdown]
# Is that kinship? Words are borrowed from neighbours, scripts are shared without kinship, and
# related languages are often neighbours with one script. Mantel's test {cite:p}`mantel1967` asks
# whether near languages share more, for five kinds of nearness (distances by URIEL
# {cite:p}`littell2017uriel`, under CC BY-SA, and whether scripts differ). Pairs of languages are
# not independent, so the test permutes languages, not pairs.

# %% tags=["shipped", "hide-input"]
mantel = {}
for method in many_languages.SHARING:
    mantel[method] = mantel_tests(
        overlaps[method],
        known[method],
        permutations=permutations,
        seed=seed,
    )
every = pd.concat(mantel, names=["method", None])
write_table(every.reset_index("method"), results / "languages_mantel.csv")
display(
    page.mantel_in_words(mantel),
    figures.folded("Test by test", page.mantel_table(mantel)),
)

# %% [markdown]
# The five kinds of nearness go together, so a correlation with one of them can be another's. All in
# one regression {cite:p}`dekker2007`, each is left with what the others do not explain:

# %% tags=["shipped", "hide-input"]
together = {}
for method in many_languages.SHARING:
    together[method] = distances_together(
        overlaps[method],
        known[method],
        permutations=permutations,
        seed=seed,
    )
every = pd.concat(together, names=["method", None])
file = "languages_distances_together.csv"
write_table(every.reset_index("method"), results / file)
display(
    page.together_in_words(together),
    figures.folded("In numbers", page.together_table(together)),
)

# %% [markdown]
# And what the neurons themselves make of the languages, as a tree:

# %% tags=["shipped"]
method = many_languages.LAPE
page.language_tree_figure(overlaps[method], known[method], method)

# %% [markdown]
# ## How much text does a set need?
#
# A set that other windows of the same language would not give says little about the language.

# %% tags=["shipped"]
stability = pd.read_csv(folder / many_languages.STABILITY)
write_table(stability, results / "languages_stability.csv")
display(
    page.stability_table(stability),
    page.stability_in_words(stability),
)

# %% [markdown]
# ## Exercise
#
# ```{exercise-start} What chance shares · easy, 10 minutes
# :label: exercise-languages-chance
# ```
# Two languages have 400 neurons each in one layer of 2,048, and share 80. Two others have 100 each
# in it and share 10. Which pair shares more than chance, and by how much? And if the method gives
# only 600 neurons of that layer to any language?

# %%
# Neurons that the first pair shares by chance, and the other
by_chance = ...
of_600 = ...  # the same if all neurons come from 600 of the layer

exercises.shared_by_chance(by_chance, of_600)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# A neuron of the first set is in the second one by chance with the share of the layer that the
# second set takes. How many neurons has the first set?
# ```
#
# ```{solution} exercise-languages-chance
# :class: dropdown
#
# By chance the first share 400 · 400 / 2,048 = 78, so 80 are nothing. The others share 100 · 100 /
# 2,048 = 4.9 by chance, and 10 are twice that. Drawn from 600, the first would share 267 and the
# others 16.7: then both pairs share less than the method's sets do by chance.
# ```

# %% [markdown]
# Next: [steering](16_steering), which asks whether these neurons can make a model answer in their
# language.
