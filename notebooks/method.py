# %% [markdown]
# # The method at a glance
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** say what CRANE computes at each step, which equation that is, and which
# file does it.
#
# **It assumes** that you know what a Transformer and a gradient are.
#
# **It takes** fifteen minutes to read; the computer needs some seconds.
#
# **It covers** section 3 of the paper {cite:p}`le2026crane`; equations carry the paper's numbers.
# :::

# %% tags=["parameters", "hide-input"]
model = "data/testbed/base"  # checkpoint to examine: a folder, or a name on the hub
languages = ["en", "zh", "vi"]  # languages by code, in the order of all tables
corpus = "data/testbed/corpus/attribution"  # held-out text for attribution, one file per language
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %% [markdown]
# ## All of it, in a few lines
#
# Here is the whole method on the model that ships with this book, from texts to LangSpec-F1:
# windows of text, the relevance of every neuron, its kurtosis, a set of neurons for Chinese, and
# what switching that set off costs every language, measured as the share of next tokens that the
# model guesses right.

# %%
from pathlib import Path

import torch

import crane_core as crane
from crane_lab import audit
from crane_lab.show import crane_exercises as exercises

net, tokenizer = crane.load_model(model)
shape = crane.model_shape(net)["intermediate"]
windows, kurtosis = {}, {}
for x in languages:
    texts = Path(corpus, f"{x}.txt").read_text("utf-8").splitlines()
    windows[x] = crane.token_windows(tokenizer, texts, 500, 64, seed=0)
    stream = crane.StreamingMoments(shape)
    for batch in windows[x][:400].split(50):
        stream.update(crane.neuron_relevance(net, batch))
    kurtosis[x] = stream.kurtosis()
scores = {x: crane.normalise(k) for x, k in kurtosis.items()}
neurons = crane.select(scores, "zh")


@torch.no_grad()
def guessed(ids):
    best = net(ids).logits[:, :-1].argmax(-1)
    return (best == ids[:, 1:]).double().mean().item()


before = {x: guessed(w[400:]) for x, w in windows.items()}
with crane.masked(net, neurons):
    after = {x: guessed(w[400:]) for x, w in windows.items()}
found = crane.langspec_f1(before, after, "zh")
print(f"{len(neurons)} neurons; LangSpec-F1 {found.f1:.3f}")
print("drops", {x: round(drop, 4) for x, drop in found.drops.items()})

# %% [markdown]
# The last line says how many neurons were selected, what LangSpec-F1 (step 4 below) makes of
# masking them, and by how much each language's share fell. (Is it the Chinese share that fell most?
# Being selected for a language is no proof of being needed by it.) A few hundred windows are few,
# and guessing the next token is a crude score: the notebooks use more of both, put random sets of
# the same size beside this one, and give intervals. But no step is missing. What each of them does,
# and why, is the rest of this page.

# %% [markdown]
# ## The question, stated as a test
#
# Take languages $\mathcal{L}$, here English, Chinese and Vietnamese, and a model. We look for a
# set of neurons $\mathcal{N}_\ell$ for each language $\ell$ such that switching the set off hurts
# $\ell$ more than it hurts the other languages, compared at an equal number of neurons switched
# off. That is a definition by intervention: how the set was found does not enter it. The finding
# (steps 1 to 3) only proposes candidates; the masking (step 4) decides.
#
# Note what the test does *not* ask. The other languages may suffer too. The paper speaks of
# specialisation that is selective for a language without being exclusive to it.
#
# ## What a neuron is
#
# A Transformer layer has attention and an MLP. In Llama the MLP is gated
# {cite:p}`shazeer2020glu`; $h$ is the layer's input:
#
# $$
# z = \mathrm{SiLU}(W_{\text{gate}}\, h) \odot (W_{\text{up}}\, h), \qquad
# \text{output} = W_{\text{down}}\, z .
# $$
#
# Our default neuron is one entry $z_i$: the unit of the intermediate layer, which reads $h$
# through row $i$ of two matrices and writes into the residual stream through column $i$ of the
# third. Other readings are a parameter ([what a neuron is](choice-neuron)).
#
# ## Step 1: relevance
#
# Run the model on a text in language $\ell$ and choose a number $f_\ell(x)$ to explain; by
# default the logits that the model gives to the words that really come next, summed over
# positions. Layer-wise relevance propagation
# {cite:p}`bach2015lrp,arras2016relevant,arras2017recurrent` hands that number back through the
# network, layer by layer, so that the shares of one layer add up to those of the next:
#
# $$
# \sum R^{(l)} = \sum R^{(l-1)} . \tag{1}
# $$
#
# AttnLRP {cite:p}`achtibat2024attnlrp` gives the rules for Transformers. With them, the share of
# a neuron is its activation times the gradient that arrives there when each layer passes
# relevance backwards by its rule instead of by calculus. Summing a neuron's share over the tokens
# of a text gives one number per text and neuron.
#
# ## Step 2: kurtosis
#
# Over many texts a neuron's relevance has a distribution. A neuron that matters for a few texts
# very much and for most not at all has heavy tails, and kurtosis {cite:p}`decarlo1997kurtosis`
# measures that:
#
# $$
# \text{kurtosis}(R_n) = \frac{\mathbb{E}\!\left[(R_n - \mu)^4\right]}{\sigma^4} . \tag{2}
# $$
#
# A normal distribution has kurtosis 3. The value says nothing about how *large* relevance is:
# multiply it by a thousand and kurtosis stays the same. It is bounded by the number of texts
# {cite:p}`johnson1979bounds`, so that languages are only comparable with equally many of them.
# Kurtosis is then normalised within each layer, because deep and shallow layers differ in level.
#
# ## Step 3: selection
#
# A neuron is a candidate for language $\ell$ when its normalised kurtosis there is above a
# threshold (1 in the paper's Figure 3) and, under our default rule, not above it for any other
# language: the lower right corner of that figure.
#
# ## Step 4: masking
#
# Set the candidates' outputs to zero, leave everything else as it is, and evaluate all languages
# again. The drop for language $\ell$ is the score before minus the score after, and a gain counts
# as no drop: $\Delta_\ell = \max(\text{before} - \text{after},\, 0)$.
#
# Three numbers sum up a mask made for language $\ell$, where $S_\ell$ is the score before:
#
# $$
# \text{Precision} =
# \frac{\Delta_\ell}{\Delta_\ell + \max_{\ell' \neq \ell} \Delta_{\ell'} + \epsilon}
# \tag{3}
# $$
#
# $$
# \text{Recall} = \frac{\Delta_\ell}{S_\ell + \epsilon} \tag{4}
# $$
#
# $$
# \text{LangSpec-F1} = \frac{2 \cdot \text{Precision} \cdot \text{Recall}}
# {\text{Precision} + \text{Recall} + \epsilon} \tag{5}
# $$
#
# Precision asks whether the damage hit the right language, recall how much of the language's score
# it took. [Notebook 04d](04d_drops_and_budgets) has sliders to move the drops with and see all
# three follow. Two baselines say what a good value is: sets of the same size drawn at random, and
# LAPE {cite:p}`tang2024lape`, which selects by how often neurons fire.
#
# :::{admonition} One row by hand (published figures)
# :class: note
#
# In the paper's Table 1, masking the set that CRANE made for Vietnamese takes Belebele from
# 0.3722 to 0.2233, MMLU from 0.4579 to 0.3517 and C-Eval from 0.3470 to 0.2816. The drops are
# 0.1489 for Vietnamese, and 0.1062 and 0.0654 for the other two. So precision is $0.1489 /
# (0.1489 + 0.1062) = 0.584$, recall is $0.1489 / 0.3722 = 0.400$, and LangSpec-F1 is $2 \cdot
# 0.584 \cdot 0.400 / (0.584 + 0.400) = 0.475$. The paper prints 0.4747.
# :::
#
# ## Exercise
#
# ```{exercise-start} A harmless mask · easy, 5 minutes
# :label: exercise-harmless
# ```
# In the same table the set that LAPE made for Chinese leaves MMLU at 0.4589, C-Eval at 0.3410 and
# Belebele at 0.3778. What are precision, recall and LangSpec-F1? Which of the three tells you
# that this mask does next to nothing?

# %% tags=["published"]
my_precision, my_recall, my_f1 = ..., ..., ...

exercises.harmless_mask((my_precision, my_recall, my_f1), audit.published()["1"])

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# Scores before are those of the row above: 0.4579, 0.3470 and 0.3722. A score that rises has a drop
# of 0.
# ```
#
# ```{solution-start} exercise-harmless
# :class: dropdown
# ```
# C-Eval falls by $0.3470 - 0.3410 = 0.0060$. MMLU and Belebele rise, so their drops are 0.
# Precision is $0.0060 / 0.0060 = 1$: all damage there is fell on Chinese. Recall is $0.0060 /
# 0.3470 = 0.017$, and LangSpec-F1 is $2 \cdot 1 \cdot 0.017 / 1.017 = 0.034$ (the paper prints
# 0.0337, which the four digits of the scores allow).
#
# Recall tells you. Precision is blind to size: a mask that costs one question in one language and
# none elsewhere scores a perfect 1.
# ```{solution-end}
# ```

# %% [markdown]
# ## The algorithm, with the files
#
# Data flows one way, from top to bottom, and each step is one module or two.
#
# | step | paper | module of `crane_core` | in → out |
# | --- | --- | --- | --- |
# | load | §4.1 | `families`, `models` | name or path → model, tokenizer, its MLPs |
# | texts | Alg. 1, line 3 | `windows` | texts → equally many, equally long windows per language |
# | 1 relevance | §3.2, lines 1–9 | `attribution` | batch → relevance (samples, layers, neurons) |
# | one pass | lines 1–16 | `accumulators` | texts → all that is kept of them |
# | 2 kurtosis | Eq. 2, lines 10–16 | `moments` | stream of relevance → kurtosis (layers, neurons) |
# | other statistics | §3.3 | `concentration` | the same stream → another score (layers, neurons) |
# | 3 selection | §3.3, lines 17–20 | `neurons`, `selection` | scores → a `NeuronSet` per language |
# | baselines | §4.2 | `baselines` | counts → `NeuronSet` |
# | 4 masking | §3.4, line 23 | `interventions`, `masking` | model → intervened on, and back |
# | metric | §3.5, Eq. 3–5, line 25 | `metrics` | scores before and after → LangSpec-F1 |
#
# That is `crane_core`, and all of it; [its reference](../book/reference) lists every public name.
# Beside it `crane_lab` runs, measures and shows the method:
#
# | part of `crane_lab` | what is in it |
# | --- | --- |
# | `store` | results kept between runs, each under a key of everything it depends on |
# | `texts`, `testbed` | corpora; the made-up world, its text, tasks and rubric |
# | `engines` | benchmarks, perplexity, generated answers, judges |
# | `settings` | every parameter, once |
# | `stages`, `pipeline` | the steps put together, each result kept |
# | `study` | readings of the paper, criteria, single ablations, conservation |
# | `audit` | the paper's printed tables and claims, checked |
# | `show` | figures, tables and sentences of this book |
# | `runs`, `cli` | notebooks executed, the book built, the `crane` command |
#
# Relevance is never kept for all texts at once. `moments` takes it batch by batch and keeps five
# numbers per neuron, so memory does not grow with the number of texts.
#
# ## What to keep in mind
#
# - Heavy-tailed relevance is a *heuristic* for being needed. Nothing guarantees that a neuron
#   with high kurtosis matters, which is why step 4 exists.
# - Equation 1 holds exactly rule by rule for linear layers, norms and gated MLPs; softmax does
#   not conserve relevance, so end to end the shares add up to less or more than the output.
# - The paper's three benchmarks are different tests in different languages. A drop in C-Eval may
#   be a drop in Chinese or a drop in what C-Eval asks. The notebooks therefore also use one test
#   in all three languages.
#
# Next: [Meet the testbed](00_meet_the_testbed), the model that all of this is tried on.
