# %% [markdown]
# # An audit of the published tables
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** check a printed LangSpec-F1 and say how exactly it can be checked; tell a
# possible score from an impossible one; say which printed differences must be more than noise, and
# which cannot be; and say which of the paper's claims its own tables bear out.
#
# **It assumes** [Equations 3 to 5](method) and Tables 1 to 4, which notebooks [04](04_table1) to
# [06b](06b_chat_answers) show beside our own.
#
# **It takes** half an hour to read; the computer needs a few seconds.
#
# **It covers** all four tables of the paper {cite:p}`le2026crane`, its definition (§3.1) and its
# claims about them.
# :::
#
# No model is run here. Everything is computed from the numbers in `data/published/`, so nothing
# here says what the truth about Llama-2-7B is: only what the printed numbers support. An error in a
# table is not a flaw of a method, and a claim without evidence may be true.

# %% tags=["parameters", "hide-input"]
published = "data/published"  # folder with the paper's tables and claims
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %% tags=["hide-input"]
from pathlib import Path

from IPython.display import display
from scipy import stats

from crane_lab import audit
from crane_lab.show import audit_pages as page
from crane_lab.show import figures
from crane_lab.show import table_exercises as exercises
from crane_lab.store import write_table

tables = audit.published(published)
results = Path(run_dir) / "results"

# %% [markdown]
# ## Does each LangSpec-F1 follow from its row?
#
# A printed 0.3722 stands for every number from 0.37215 to 0.37225. So a LangSpec-F1 recomputed from
# printed scores has an interval of its own, and only a printed value outside it is wrong. Two
# evaluations of Equations 3 to 5 give that interval exactly.
#
# ```{dropdown} Why two are enough
# Put the equations together, with $\Delta$ for the target's drop, $M$ for the largest other drop
# and $S$ for the target's score before, and forget $\epsilon$:
#
# $$
# \text{LangSpec-F1} = \frac{2\,\Delta}{\Delta + M + S} .
# $$
#
# This rises with $\Delta$ and falls with $M$; and since $\Delta = S - S'$, it rises with the
# target's score before masking and falls with the one after. For the other languages it is the
# reverse. A function that only rises or only falls in each input has its extremes at the corners of
# the box of possible inputs, so two evaluations give the *exact* interval. (The code does not drop
# $\epsilon$; the argument is the same.)
# ```

# %% tags=["published"]
checked = audit.recompute(tables)
write_table(checked, results / "audit_langspec_f1.csv")
display(
    page.recomputed_figure(checked),
    page.recomputed_in_words(checked),
    figures.folded(
        "The rows that do not follow",
        page.wrong_table(checked),
    ),
)

# %% [markdown]
# ## Is each score possible?
#
# The mean of $n$ whole numbers is a whole number divided by $n$. With enough decimals that is a
# strong condition: of all four-digit numbers between 0 and 1 only some 9 % can be an accuracy on
# 900 questions. Testing prints against it is called {term}`GRIM` {cite:p}`brown2017grim`, and
# where a print passes, it gives back the count of right answers.
#
# MMLU has 14,042 test questions, C-Eval's validation set 1,346, Belebele 900 per language; the
# evaluation harness {cite:p}`biderman2024lmeval` averages the first two over their subjects
# weighted by size, which is a plain mean over questions. Grades are whole numbers from 1 to 10 over
# 70 questions.

# %% tags=["published"]
cells = audit.grim_table(tables)
write_table(cells, results / "audit_grim.csv")
by_scale = audit.grim_summary(cells)
sizes = audit.benchmark_sizes(cells)
display(
    page.grim_in_words(cells, by_scale, sizes),
    figures.folded(
        "Scale by scale",
        page.grim_summary_table(by_scale),
    ),
)

# %% [markdown]
# The counts allow a sharper recomputation than the prints did.

# %% tags=["published"]
exact = audit.recompute_from_counts(tables)
write_table(exact, results / "audit_langspec_f1_from_counts.csv")
page.last_digits(exact, checked)

# %% [markdown]
# ## Table 2's random rows
#
# The three rows that do not follow are all random rows of Table 2. Their scores are fine. What of
# their LangSpec-F1? Recall needs only the masked language's two scores, so it is known; precision
# is at most 1. That bounds LangSpec-F1 whatever happened in the other languages:

# %% tags=["published"]
reach = audit.unreachable(tables["2"])
tried = audit.hypotheses(tables)
write_table(reach, results / "audit_random_rows.csv")
display(
    page.reach_table(reach),
    page.random_rows_in_words(reach, tried),
)

# %% [markdown]
# ## The paper's own definition, row by row
#
# §3.1 calls a set of neurons specific to a language if masking it degrades that language
# *relatively* more than the others. No metric is needed to check that. Equation 3 compares
# *absolute* drops instead, which is another question when scores start at 0.46, 0.35 and 0.37. Both
# are answered here; "open" would mean that rounding decides.

# %% tags=["published"]
meets = audit.definition(tables)
write_table(meets, results / "audit_definition.csv")
display(
    page.definition_in_words(meets),
    figures.folded(
        "The definition, row by row",
        page.definition_table(meets),
    ),
)

# %% [markdown]
# ## What could be noise?
#
# Scores before and after masking come from the same questions, so their difference must be judged
# by the questions that *changed*. How many did is not printed. But it is bounded. If $k$ questions
# were right before and $k'$ after, at least $|k - k'|$ changed, and at most $\min(k + k', 2n - k -
# k')$. {term}`McNemar's test` {cite:p}`mcnemar1947note` compares the net change with the number
# that changed: $z = |k - k'| / \sqrt{D}$. So $z$, and with it the p-value, has a smallest and a
# largest possible value. For grades the sum of squared changes takes the place of $D$ and is
# bounded by the scale.
#
# - **certain**: significant at 95 % even if as many answers changed as possible;
# - **cannot**: not significant even if only as many changed as had to (few changes need a larger
#   $z$ than 1.96, because the exact test counts them);
# - **either**: the unpublished outcomes decide.
#
# This is noise from the choice of questions alone. Another random mask, another corpus to find
# neurons on, or another run of the judge add to it. (Belebele asks several questions about one
# passage, which makes true intervals wider still.)

# %% tags=["published"]
noise = audit.noise_table(tables)
write_table(noise, results / "audit_noise.csv")
display(
    page.noise_figure(noise, "1"),
    page.noise_in_words(noise),
    figures.folded(
        "Table 2, and all tables counted",
        page.noise_figure(noise, "2"),
        page.noise_counts(noise),
    ),
)

# %% [markdown]
# ### At chance
#
# Guessing among four options gets a quarter right. A score that cannot be told from a quarter has
# nothing left to lose, and what else a mask might have taken is invisible.

# %% tags=["published"]
chance = audit.chance_table(tables)
write_table(chance, results / "audit_chance.csv")
display(
    page.chance_in_words(chance, checked),
    figures.folded(
        "The accuracies nearest to guessing",
        page.near_chance_table(chance),
    ),
)

# %% [markdown]
# ### Are the English and the Vietnamese mask two masks?
#
# If two sets of neurons belonged to two languages, masking one or the other should look different.
# The table compares, language by language, the scores under CRANE's English and Vietnamese masks.

# %% tags=["published"]
close = audit.closeness(tables)
write_table(close, results / "audit_closeness.csv")
display(
    page.closeness_in_words(close, tables["1"]),
    figures.folded(
        "Score by score",
        page.closeness_table(close),
    ),
)

# %% [markdown]
# ## The claims
#
# What the text says, in our words, held against the tables. A verdict is computed by the code from
# a criterion that stands beside it in `data/published/claims.yaml`. We wrote the criteria knowing
# the tables; judge them as well. "Cannot tell" means that the tables lack what the claim needs, not
# that it is false. [The verdicts](10_verdicts) hold the same claims against our models, too.

# %% tags=["published"]
claims = audit.claims_table(published)
write_table(claims, results / "audit_claims.csv")
display(
    page.claims_in_words(claims),
    figures.folded(
        "Claim by claim, with the evidence",
        page.claims_by_verdict(claims),
    ),
    page.claim_criteria(claims),
)

# %% [markdown]
# ## Exercises
#
# ```{exercise-start} Find the count · medium, 15 minutes
# :label: exercise-grim
# ```
# A colleague reports an accuracy of 0.2817 on Belebele, another 0.2233. Which of them made a
# mistake? And what can you say about 0.2817 on MMLU? Belebele has 900 questions, MMLU 14,042: of
# each of the three, how many numbers of right answers would be printed so?

# %%
# How many numbers of right answers: 0.2817 and 0.2233 on Belebele, 0.2817 on MMLU
my_counts = (..., ..., ...)

exercises.possible_counts(my_counts)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# An accuracy is a whole number of right answers over the number of questions. Which whole numbers
# come nearest, and are they near enough for four decimals?
# ```
#
# ```{solution-start} exercise-grim
# :class: dropdown
# ```

# %%
{
    f"{value} of {n:,}": audit.grim(value, n) or "impossible"
    for value, n in ((0.2817, 900), (0.2233, 900), (0.2817, 14042))
}

# %% [markdown]
# 0.2817 lies between 253/900 = 0.2811 and 254/900 = 0.2822. On MMLU every four-digit number is
# possible, so the test has nothing to say.
# ```{solution-end}
# ```
#
# ```{exercise-start} How many must change? · hard, 20 minutes
# :label: exercise-discordant
# ```
# Under its mask for Chinese, CRANE loses 21 of C-Eval's questions (467 to 446). The difference is
# significant at 95 % only if few enough answers changed. How few?

# %%
my_most = ...  # changed answers, at most

exercises.most_changed(my_most)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# Answers that changed went either way. If there were no effect, how would they fall, and which test
# is that? Count up from the fewest that can have changed.
# ```
#
# ```{solution-start} exercise-discordant
# :class: dropdown
# ```
# If $D$ answers changed, $(D+21)/2$ of them were lost and $(D-21)/2$ gained, and without an effect
# a change goes either way like a coin. So take the exact test of a coin, McNemar's:

# %%
lost = 467 - 446
significant = [
    d
    for d in range(lost, 1346, 2)  # d and the difference are odd together
    if stats.binomtest((d + lost) // 2, d).pvalue < 0.05
]
print(f"significant at 95 % with {lost} to {max(significant)} changed answers")

# %% [markdown]
# That is a small part of the 1,346 answers, and a mask may well change more of them. Whoever has
# the outcomes can simply count.
# ```{solution-end}
# ```

# %% [markdown]
# ## What the numbers do and do not show

# %% tags=["published"]
page.audit_in_short(cells, checked, reach, claims, meets, noise)

# %% [markdown]
# - Everything here is conditional on the tables as printed and on our transcription of them.
# - "Certain to exceed noise" is about the choice of questions, at 95 % for each comparison on its
#   own. With some 90 comparisons a few would pass that line by chance if nothing were there. The
#   figure shows by how much each passes, and several of the certain ones pass it only just.
# - That a claim does not hold for all three languages says nothing against the languages where it
#   does. Three languages are few.
# - What Table 1 looks like where every outcome, every budget and random masks are known is the
#   subject of notebook [04](04_table1).
#
# Next: [the metric card](07b_metric_card), because a LangSpec-F1 that follows from its row may
# still not mean what it seems to.
