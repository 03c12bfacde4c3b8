# %% [markdown]
# # On a real model
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** say what a model that we did not train, Gemma 3 270M, can do on text and
# facts that we did not make up, and what kurtosis selects there, beside the testbed.
#
# **It assumes** the notebooks on the testbed up to [the verdicts](10_verdicts).
#
# **It takes** fifteen minutes to read; the computer needs some seconds after notebook 03, since
# results are read that are shipped with the book.
#
# **It covers** the first of three pages on Gemma: model, text and sets. What masks cost is in
# [18b](18b_real_masks); which criterion finds needed neurons, and all findings beside the
# testbed's, are in [18c](18c_real_criteria).
# :::
#
# You can run the notebooks on it yourself, on a laptop, and make the results that the three pages
# read:
#
# ```bash
# # fetches the model once; its terms are named first
# make gemma
# # runs notebooks 02 to 05, 07 and 10 to 17 on it: some two hours on two cores
# make book PROFILE=gemma
# # what the pages read: ten minutes; hours for single neurons and sets
# .venv/bin/python -m crane_lab.cli.ship --out runs/mine
# .venv/bin/python -m crane_lab.cli.real_model --out runs/mine
# make book NOTEBOOK=18 PARAMS="-p real_data runs/mine"   # so 18b and 18c
# ```

# %% tags=["parameters", "hide-input"]
real_data = "data/gemma"  # folder with the shipped results on a real model
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %%
from pathlib import Path

from IPython.display import display

from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show import kurtosis_pages, shipped_pages
from crane_lab.study import real_model, scores
from crane_lab.study.shipped import Shipped
from crane_lab.texts.languages import language_names

settings = Settings.of(globals())
here = Pipeline(settings)
there = Shipped.read(real_data)
results = Path(run_dir) / "results"
names = language_names(there.languages)
home, away = settings.label, "Gemma"

# %% [markdown]
# ## What model, what text
#
# The testbed has 2,048 neurons, 2.4 million parameters and a world of its own. Gemma 3 270M
# {cite:p}`gemma2025gemma3` is Google's smallest base model of its kind: 18 layers of 2,048 neurons
# and a vocabulary of 262,144 tokens, trained on many languages. What this project can fetch, from a
# package index, is a copy whose weights were rounded (llama.cpp's Q4_K_M, which at this width means
# five bits in most matrices, four, six or eight in others, and eight in the embedding); they are
# read back into float32 here. So it is this copy that everything below is about, not the original.
#
# The text is documentation: Debian's installation guide and handbook, GNOME's and LibreOffice's
# help, the Universal Declaration of Human Rights, in up to thirty languages
# (`data/texts/SOURCES.md` names sources and licences), of which three are used here. They are
# translations of each other. So **every language gets windows of the very same paragraphs**. The
# testbed's corpus has other people in every language, with Chinese or Vietnamese names, so that a
# neuron for a name could look like a neuron for a language; [notebook 02c](02c_figure3) makes
# parallel text of its world to tell the two apart.

# %% tags=["shipped"]
shipped_pages.settings_table(there.settings, names)

# %% [markdown]
# Every window opens with the token that opens a text, as Gemma has seen it in training. Is that a
# detail? Here are the same windows without it, and the same tokens predicted:

# %% tags=["shipped"]
opened = there.table("openings"), there.table("openings_relevance")
display(
    shipped_pages.openings_table(*opened),
    shipped_pages.openings_in_words(*opened),
)

# %% [markdown]
# (The testbed was trained on texts in a stream; its windows are cut from one.) The opening token is
# context alone: it is never predicted, and the neurons at its place are neither scored nor counted.
# A mask acts at its place as well, though: what it does there is in every loss of
# [18b](18b_real_masks), and in no criterion.
#
# *Held out* means here that no neuron was chosen on it; Gemma may well have been trained on it.
#
# ## What the model can do
#
# Before any method is tried: what can the model do, and what do masks without purpose do to it? Two
# kinds of tasks exist in each of them. `continuation`: which of four sentences comes next in a
# held-out paragraph; an option's score is its log-probability there, less what it has without any
# context, since some sentences are likelier than others anywhere. `facts`: cities, currencies,
# languages and scripts as the Unicode Consortium's locale data have them, scored by log-probability
# as it is. (Items of `continuation` and the held-out windows of losses come from the same
# paragraphs: two read-outs of one text.)

# %% tags=["shipped"]
gate = there.table("gate")
display(
    shipped_pages.tasks_gate_table(gate),
    shipped_pages.room_in_words(gate),
)

# %% [markdown]
# ## Kurtosis, and what it selects
#
# Figure 3 for Gemma: one panel per layer, one point per neuron, and in the shaded region what the
# rule selects. [Notebook 03](03_selecting) has the testbed's.

# %% tags=["shipped"]
normalised = there.normalised()
threshold = there.settings["threshold"]
selected = {
    home: scores.region_counts(
        here.normalised("intermediate"),
        settings.threshold,
    ),
    away: scores.region_counts(normalised, threshold),
}
display(
    *kurtosis_pages.target_against_rest(normalised, threshold),
    kurtosis_pages.regions_table(selected[away], threshold),
)

# %% [markdown]
# The last column of the table above is the one to look at: how many neurons the region would hold
# if their kurtosis in one language had nothing to do with that in the others.
#
# These languages say the same things. What does the method find where there is no language to tell
# apart? Each language's windows are divided into three parts by chance, the parts are called
# languages, and everything is done again.

# %% tags=["shipped"]
groups = there.table("kurtosis_groups")
display(
    kurtosis_pages.groups_table(groups),
    kurtosis_pages.groups_in_words(groups),
)

# %% [markdown]
# In which depth do the neurons lie? The dotted line is an even spread over the layers.

# %% tags=["shipped"]
ours = real_model.method_sets(here)
layers = {
    home: real_model.counts_by_layer(ours),
    away: there.table("layers"),
}
shipped_pages.depth_figure(layers, ("CRANE", "LAPE"))

# %% tags=["shipped"]
shared = {
    home: real_model.overlaps(ours),
    away: there.table("overlaps"),
}
display(
    shipped_pages.overlaps_table(shared, "LAPE"),
    shipped_pages.between_methods_table(shared),
)
there.keep(
    results,
    "openings",
    "openings_relevance",
    "gate",
    "kurtosis_groups",
    "layers",
    "overlaps",
)

# %% [markdown]
# (CRANE's sets of two languages share nothing: the contrast rule makes them disjoint.)
#
# ## Exercise
#
# ```{exercise} Parts of one language · easy, 5 minutes
# :label: exercise-parts
#
# A method is run on three parts of English, drawn by chance, and selects as many neurons for each
# part as it selects for a language when it is run on three languages. What does that say of its
# sets of languages, and what does it not?
# ```
#
# ```{dropdown} Hint
# Two sets can have as many neurons without having the same ones. What does counting them leave
# open, and what would answer it?
# ```
#
# ```{solution} exercise-parts
# :class: dropdown
#
# That the number of neurons is no sign of language: as many are found where there is no language
# to tell apart. It does not say that the sets of languages are useless. They could be other neurons
# than those of the parts, and needed ones: only masking tells.
# ```

# %% [markdown]
# ## What the numbers do and do not show
#
# - One small model whose weights were rounded, one body of text, three languages. It is a second
#   model, not a sample of models.
# - How many neurons a method selects, where they lie and what sets share is no effect on any
#   language.
#
# Next: [what masks cost on it](18b_real_masks), because a selected neuron need not be a needed one.
