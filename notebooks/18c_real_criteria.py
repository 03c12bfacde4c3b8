# %% [markdown]
# # Which criterion finds what a real model needs?
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** say which of the testbed's findings hold on Gemma 3 270M and which do not:
# how criteria go with single ablations, what their first neurons do when they are masked together,
# and what becomes of free answers.
#
# **It assumes** [masks on Gemma](18b_real_masks), and single neurons
# ([notebook 09](09_gold_standard)).
#
# **It takes** fifteen minutes to read; the computer needs some seconds after notebooks 04c and 09.
#
# **It covers** Table 2 of the paper {cite:p}`le2026crane` on another model, and single neurons,
# which the paper does not look at.
# :::

# %% tags=["parameters", "hide-input"]
real_data = "data/gemma"  # folder with the shipped results on a real model
null_data = "data/testbed"  # folder with what random masks do, as it is shipped
n_null = 0  # random masks of every set whose null is not shipped
necessity_data = "data/testbed"  # folder with the shipped effects of single ablations
n_necessity = 128  # held-out windows per language that single neurons are ablated on
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %% tags=["hide-input"]
from pathlib import Path

from IPython.display import display

from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show import (
    figures,
    readouts,
    real_model_pages,
    shipped_pages,
    table_pages,
)
from crane_lab.show import later_exercises as exercises
from crane_lab.show.neuron_view import neuron_view
from crane_lab.stages import comparisons
from crane_lab.study import real_model, scores
from crane_lab.study.known_neurons import KnownNeurons
from crane_lab.study.nulls import Nulls
from crane_lab.study.shipped import Shipped
from crane_lab.texts.languages import language_names

settings = Settings.of(globals())
here = Pipeline(settings)
there = Shipped.read(real_data)
results = Path(run_dir) / "results"
names = language_names(there.languages)
home, away = settings.label, "Gemma"

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
        figures.folded(
            "What single ablations do",
            real_model_pages.effects_summary(effects, names),
        ),
    )

# %% [markdown]
# Which neurons are these? Look one up, as on [notebook 09](09_gold_standard): the first of a list,
# or any other of those that are kept. What you see is what Gemma read. *Necessity* is what setting
# the neuron to zero alone adds to the loss.

# %% tags=["shipped"]
if causal:
    display(neuron_view(KnownNeurons.load(real_data), names))

# %% [markdown]
# And all that were ablated, criterion by criterion:

# %% tags=["shipped"]
if causal:
    display(
        figures.folded(
            "What a criterion's first neurons do, each alone",
            real_model_pages.effects_chosen(effects, names),
        )
    )

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
    there.keep(
        results,
        "single_effects",
        "criteria_correlations",
        "effects_ceiling",
        "criteria_precision",
    )
    tops = there.table("criteria_precision")
    display(
        real_model_pages.tops_figure(tops, names),
        real_model_pages.tops_in_words(tops, names, crane),
    )

# %% [markdown]
# **And masked together?** The first neurons of each criterion, more and more of them, on held-out
# windows that chose none of them: what the masked language loses.

# %%
if "damage" not in causal:
    display(shipped_pages.no_causal_check())
# %% tags=["shipped"]
if "damage" in causal:
    there.keep(results, "criteria_damage")
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
        curves[0],
        figures.folded(
            "What the other language loses that is hit hardest",
            curves[1],
        ),
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
there.keep(results, "table2", "table2_languages", "table2_verdicts")
table2 = there.table("table2")
n = there.settings["n_questions"]
n_seeds = len(there.settings["random_seeds"])
spoken = there.table("table2_languages")
graded = there.table("table2_verdicts")
display(
    table_pages.spoken_figure(spoken, names),
    figures.folded(
        "Table 2 on Gemma: grades",
        table_pages.grades_table(
            "2",
            table2,
            names,
            n,
            "surface",
            n_seeds,
        ),
    ),
    table_pages.bullets(readouts.left_language(spoken, names)),
    table_pages.by_method(graded, "In short, by grades:"),
)

# %% [markdown]
# ## Exercise
#
# ```{exercise-start} Far from the ceiling · easy, 5 minutes
# :label: exercise-far-from-the-ceiling
# ```
# On one model a criterion correlates with measured effects at $0.45$, and a criterion without any
# error could reach $0.9$. On another the two are $0.3$ and $0.5$. On which does the criterion
# foresee what ablations do better?

# %%
# What the correlations would be without noise
my_first, my_second = ..., ...

exercises.without_their_noise((my_first, my_second))

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# A criterion without any error reaches the ceiling and would correlate at 1 if there were no noise.
# By which factor, then, has noise lowered every correlation?
# ```
#
# ```{solution} exercise-far-from-the-ceiling
# :class: dropdown
#
# Noise in what is measured lowers every correlation by the same factor, the ceiling. Without it the
# first would be $0.45 / 0.9 = 0.5$ and the second $0.3 / 0.5 = 0.6$: better on the second, if the
# ceilings were known. They are estimates, and so are the correlations: without intervals no order
# is told.
# ```

# %% [markdown]
# ## What the numbers do and do not show
#
# What [notebook 18](18_real_model) selects, what [18b](18b_real_masks) masks, and what is above, on
# both models:

# %% tags=["nulls", "shipped", "hide-input"]
threshold = there.settings["threshold"]
selected = {
    home: scores.region_counts(
        here.normalised("intermediate"),
        settings.threshold,
    ),
    away: scores.region_counts(there.normalised(), threshold),
}
evaluated = here.evaluated(here.rows("intermediate"))
random = Nulls.of(here, null_data, n_null)
at_home = comparisons.loss_changes(
    evaluated.perplexities(),
    settings.languages,
    nulls=random.of_rows("losses", evaluated.rows),
)
at_home_verdicts = comparisons.verdicts(
    evaluated.items(),
    evaluated.table(here.main_tasks),
    here.main_tasks,
    nulls=random.of_rows("tasks", evaluated.rows),
    reading=here.reading,
)
verdicts = there.table("table1_verdicts")
by_loss = {home: at_home, away: there.table("loss_verdicts")}
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
# - Of Gemma's neurons a sample was ablated. What the others do alone is not known.
# - The surface of an answer says in which language it is and whether it goes round in circles, and
#   nothing of whether it is true.
#
# Next: [who are the language's neurons?](12_lsn_neurons), where a second paper means something else
# by them: not what is needed but what fires.
