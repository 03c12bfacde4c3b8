# %% [markdown]
# # On a real model
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** say which of the testbed's findings hold on a model that we did not train,
# Gemma 3 270M, with text and facts that we did not make up, and which do not.
#
# **It assumes** the notebooks on the testbed up to [the verdicts](10_verdicts).
#
# **It takes** twenty minutes to read; the computer needs some seconds after notebooks 04c and 09c,
# since results are read that are shipped with the book.
# :::
#
# You can run the notebooks on it yourself, on a laptop, and make the results that this page
# reads:
#
# ```bash
# # fetches the model once; its terms are named first
# make gemma
# # runs notebooks 02 to 05, 07 and 10 to 14 on it: some two hours on two cores
# make book PROFILE=gemma
# # what this page reads: ten minutes; hours for single neurons and sets
# .venv/bin/python -m crane_lab.cli.ship --out runs/mine
# .venv/bin/python -m crane_lab.cli.real_model --out runs/mine
# make book NOTEBOOK=18 PARAMS="-p real_data runs/mine"
# ```

# %% tags=["parameters", "hide-input"]
real_data = "data/gemma"  # folder with the shipped results on a real model
null_data = "data/testbed"  # folder with what random masks do, as it is shipped
n_null = 0  # random masks of every set whose null is not shipped
necessity_data = "data/testbed"  # folder with the shipped effects of single ablations
n_necessity = 128  # held-out windows per language that single neurons are ablated on
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %%
from IPython.display import display

from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show import (
    kurtosis_pages,
    readouts,
    real_model_pages,
    shipped_pages,
    table1_page,
    table_pages,
)
from crane_lab.stages import comparisons
from crane_lab.study import real_model, scores
from crane_lab.study.nulls import Nulls
from crane_lab.study.shipped import Shipped
from crane_lab.texts.languages import language_names

settings = Settings.of(globals())
here = Pipeline(settings)
there = Shipped.read(real_data)
names = language_names(there.languages)
home, away = settings.label, "Gemma"
home_names = language_names(settings.languages)

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
# (`data/texts/SOURCES.md` names sources and licences), of which this page uses three. They are
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
# A mask acts at its place as well, though: what it does there is in every loss below, and in no
# criterion.
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
# as it is. (Items of `continuation` and the held-out windows below come from the same paragraphs:
# two read-outs of one text.)

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
# rule selects. [Notebook 03](03_selecting_and_masking) has the testbed's.

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
# The last column of the table is the one to look at: how many neurons the region would hold if
# their kurtosis in one language had nothing to do with that in the others.
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

# %% [markdown]
# (CRANE's sets of two languages share nothing: the contrast rule makes them disjoint.)
#
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
    table_pages.results_table(
        facts,
        names,
        "Table 1 on Gemma: accuracy in facts, and LangSpec-F1",
        n_seeds,
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
    table_pages.mask_by_mask(verdicts, names),
    table_pages.beside_nulls(verdicts),
    table_pages.beside_nulls(of_facts),
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
# The sensitive read-out. Rows are masks, columns the language of the text, and a cell is by how
# much a mask multiplies perplexity (the exponential of the loss); 1 is no change. First Gemma, then
# the testbed, which has more windows and more random masks.

# %% tags=["shipped"]
perplexities = there.table("perplexity")
unmasked = perplexities.iloc[0][there.languages].to_dict()
own = perplexities[perplexities["site"] == "intermediate"]
display(
    table1_page.loss_figure(losses, there.languages, away),
    table1_page.loss_table(losses, unmasked),
    table_pages.beside_nulls(losses, "difference", "own − most hit other"),
    table1_page.losses_by_method(losses, names),
    shipped_pages.below_random(own, names),
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
    table1_page.loss_table(at_home, unmasked_here),
    table1_page.losses_by_method(at_home, home_names),
    shipped_pages.below_random(here_losses, home_names),
)

# %% [markdown]
# ## Which criterion finds the neurons that are needed?
#
# [Notebook 09](09_gold_standard) ablates every neuron of the testbed, one at a time, and
# [09b](09b_criteria) holds each criterion against that. Gemma has 36,864 neurons and a vocabulary
# 85 times as large, so a sample has to do.

# %% tags=["shipped"]
causal, places = there.causal(), {}
if not causal:
    display(shipped_pages.no_causal_check())
if causal:
    effects = there.table("single_effects")
    display(
        real_model_pages.sampled_in_words(causal, names),
        real_model_pages.effects_summary(effects, names),
    )

# %% [markdown]
# Which neurons are these? Choose a criterion and a language, and see what its first neurons do when
# each is set to zero alone, beside those that were drawn at random.

# %% tags=["shipped"]
if causal:
    display(real_model_pages.effects_chosen(effects, names))

# %% [markdown]
# **Do criteria rank neurons as their effects do?** On the testbed over all neurons, on Gemma over
# those that were drawn at random, so that neither is a choice of any criterion's. Effects are
# measured on few texts there, so a lower correlation can be noise: the ticks are what a criterion
# without any error could reach.

# %% tags=["shipped"]
if causal:
    ranked = {
        home: real_model.agreement_of_all(
            here,
            necessity_data,
            n_necessity,
        ),
        away: (
            there.table("criteria_correlations"),
            there.table("effects_ceiling"),
        ),
    }
    crane = causal["sample"]["main_criteria"][0]
    places = real_model_pages.overall_places(ranked, crane)
    display(
        real_model_pages.correlations_beside(ranked, names),
        real_model_pages.correlations_beside_in_words(ranked, crane),
    )

# %% [markdown]
# **Are the first neurons of a criterion needed by their own language?** On Gemma, beside random
# ones.

# %% tags=["shipped"]
if causal:
    tops = there.table("criteria_precision")
    display(
        real_model_pages.tops_figure(tops, names),
        real_model_pages.tops_in_words(tops, names, crane),
    )

# %% [markdown]
# **And masked together?** The first neurons of each criterion, more and more of them, on held-out
# windows that chose none of them: what the masked language loses, then what the other language
# loses that is hit hardest.

# %%
if "damage" not in causal:
    display(shipped_pages.no_causal_check())
# %% tags=["shipped"]
if "damage" in causal:
    damaged = there.table("criteria_damage")
    highlighted = [*causal["sample"]["main_criteria"], "random order"]
    curves = [
        real_model_pages.damage_by_share(
            damaged,
            names,
            column,
            highlighted,
        )
        for column in ("own", "other")
    ]
    display(
        *curves,
        real_model_pages.damage_by_share_in_words(
            damaged,
            names,
            0.01,
            crane,
        ),
    )

# %% [markdown]
# ## Open-ended answers
#
# The packages that this project fetches from hold no chat model of Gemma 3 270M, so nothing here is
# about Tables 3 and 4. The base model answers open questions in each language, in some dozens of
# tokens, and the judge looks at the surface only: is the answer in the language of the question,
# and does it say more than one thing over and over? Whether it is true is not graded.

# %% tags=["shipped"]
table2 = there.table("table2")
n = there.settings["n_questions"]
spoken = there.table("table2_languages")
graded = there.table("table2_verdicts")
display(
    table_pages.grades_table("2", table2, names, n, "surface", n_seeds),
    table_pages.spoken_figure(spoken, names),
    table_pages.bullets(readouts.left_language(spoken, names)),
    table_pages.by_method(graded, "In short, by grades:"),
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
# of the two numbers is a fair comparison of methods?
# ```{exercise-end}
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

# %% tags=["nulls", "shipped"]
at_home_verdicts = comparisons.verdicts(
    evaluated.items(),
    evaluated.table(here.main_tasks),
    here.main_tasks,
    nulls=random.of_rows("tasks", evaluated.rows),
    reading=here.reading,
)
by_loss = {home: at_home, away: losses}
display(
    shipped_pages.findings_in_words(by_loss, names),
    shipped_pages.findings_table(
        selected,
        by_loss,
        {home: at_home_verdicts, away: verdicts},
        places,
    ),
)

# %% [markdown]
# - One small model whose weights were rounded, one body of text, three languages. It is a second
#   model, not a sample of models.
# - The testbed's Table 1 has another task for English and Chinese than for Vietnamese; Gemma's has
#   one for all. Held-out loss is the same read-out on both.
# - Losses are per token, and tokens of different languages hold differently much text: compare a
#   mask with its own unmasked model, and leads with those of other masks for the same language.
# - A loss is not an ability. What a mask adds to it may be spread over all words, or sit in a few.
# - Intervals are over items and windows under masks as they are. What others of the kind do, random
#   masks say, and the fewer they are the less can be decided.
#
# Next: [who are the language's neurons?](12_lsn_neurons), where a second paper means something else
# by them: not what is needed but what fires.
