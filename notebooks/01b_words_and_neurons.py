# %% [markdown]
# # Relevance of words and of neurons
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** read a token heatmap; explain what a neuron's relevance is, and what it is
# not; and say what the rules, the reading of "neuron" and the objective change.
#
# **It assumes** relevance and its rules ([notebook 01](01_relevance)).
#
# **It takes** twenty minutes to read; the computer needs about a minute.
#
# **It covers** §3.1, §3.2 and lines 1 to 9 of Algorithm 1 of the paper {cite:p}`le2026crane`.
# :::

# %% [markdown]
# ## Parameters
#
# Relevance is computed on `n_checked` windows of each language, of `window` tokens each, and
# explains the `objective`, to which we come near the end. [How to rerun](../book/rerun) shows how
# to change them.

# %% tags=["parameters", "hide-input"]
model = "data/testbed/base"  # checkpoint to examine: a folder, or a name on the hub
languages = ["en", "zh", "vi"]  # languages by code, in the order of all tables
window = 64  # tokens per window of text
objective = "next_token"  # what is explained: next_token, next_token_logprob or last_max
n_checked = 100  # windows per language on which relevance is checked
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %%
import dataclasses
from pathlib import Path

import pandas as pd
from IPython.display import display

from crane_core import attribution, masking
from crane_core.attribution import neuron_relevance, objective_values
from crane_core.selection import NeuronSet
from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show import relevance_pages
from crane_lab.store import write_table
from crane_lab.study import relevance as study

settings = Settings.of(globals())
settings = dataclasses.replace(settings, n_samples=n_checked)
pipeline = Pipeline(settings)
net, tokenizer = pipeline.model, pipeline.tokenizer
windows, batch_size = pipeline.windows, settings.batch_size
results = Path(run_dir) / "results"

# %% [markdown]
# ## On the model: which words did it look at?
#
# The relevance of a token is the sum over its embedding's dimensions. First a fact: we explain the
# logit of the first token of the answer, given the question. Orange tokens spoke for that answer,
# purple ones against it. `<s>` opens every text, and ⏎ stands for a new line.

# %%
FACTS = {
    "en": (
        "Question: What is the capital of Vietnam?\nAnswer:",
        " Hanoi",
    ),
    "zh": ("问题：越南的首都是哪里？\n回答：", "河内"),
    "vi": ("Câu hỏi: Thủ đô của Việt Nam là gì?\nTrả lời:", " Hà Nội"),
}
facts = {}
for lang in [x for x in languages if x in FACTS]:
    facts[lang] = study.explained(net, tokenizer, *FACTS[lang])
display(*relevance_pages.heatmap(tokenizer, facts, "Questions"))

# %% [markdown]
# Now a story that the model has never seen, with a question about it: in each language the first
# item of the reading task that asks for a thing in a story of two people. To answer, the model
# has to find the right person's sentence. What is explained is the token by which the right
# option parts from the wrong ones. Does the heatmap show that the model looked in the right
# place?

# %%
questions = study.reading_questions(languages, settings.tasks)
stories = {}
for lang, question in questions.items():
    stories[lang] = study.explained(net, tokenizer, *question)
display(*relevance_pages.heatmap(tokenizer, stories, "Stories"))

# %% [markdown]
# Look at the rank in the headings before you read anything into the colours. A heatmap explains the
# logit of the word that we asked about, whether or not the model would have said that word.
#
# ## From tokens to neurons
#
# Relevance passes the MLPs' neurons on its way to the input, and there CRANE reads it: activation
# × gradient of each of the units that `down_proj` reads, added up over the tokens of a text. One
# text gives one number per neuron. Here is one window in one language, by layer.
#
# The table below sums up each layer. The figure below puts its neurons in order of |relevance|,
# largest first, and adds them up: the steeper a curve starts, the fewer neurons have most of the
# layer's relevance.

# %%
first = languages[0]
sample = windows[first][:1]
relevance = neuron_relevance(net, sample, objective=objective)[0]
output = objective_values(net, sample, objective=objective).item()
relevance_pages.layers_table(relevance, output, first)

# %%
relevance_pages.coverage_figure(relevance)

# %% [markdown]
# The layers' sums do not add up to the output, nor should they: relevance that reaches the
# residual stream goes on to earlier layers *and* into this layer's MLP. Each layer's sum is the
# part of the output that passes through its MLP.
#
# ### Two readings of "neuron"
#
# §3.1 of the paper calls each column of the linear projections a neuron; earlier work means a
# unit of the intermediate layer ([the choice](choice-neuron)). The library scores both: site
# `intermediate`, and site `projections` with the outputs of `gate_proj`, `up_proj` and
# `down_proj`. How different are they? The rules let us predict it. The uniform rule gives half of
# unit $i$'s relevance to its gate and half to its up value, and the identity rule passes the
# gate's half through SiLU unchanged. So gate and up outputs must have *half the intermediate
# unit's relevance each*, and, since kurtosis ignores scale, the same kurtosis.

# %%
kurtosis, apart = study.at_both_sites(
    net,
    windows[first],
    objective,
    batch_size,
)
display(
    relevance_pages.sites_table(kurtosis, n_checked, first),
    relevance_pages.sites_words(apart),
)

# %% [markdown]
# ### What the rules change
#
# Is all this needed, or would the plain gradient do? For every window and layer, the correlation
# over the layer's neurons between relevance under AttnLRP and under the plain gradient; and,
# since CRANE goes on with kurtosis, the rank correlation between the neurons' kurtosis under the
# one and under the other.

# %%
by_layer, agreement = study.rules_against_gradient(
    net,
    windows,
    objective,
    batch_size,
)
write_table(by_layer, results / "attnlrp_against_gradient.csv")
display(
    relevance_pages.rules_table(by_layer, n_checked),
    relevance_pages.rules_words(by_layer, agreement),
)

# %% [markdown]
# ### What is being explained
#
# The paper speaks of a language-conditioned objective and gives no formula. The library has three
# ([the choice](choice-objective)): the sum of the true next tokens' logits (`next_token`, the
# default), the sum of their log-probabilities, and the largest logit at the last position. How
# much does the choice matter for one window?

# %%
objectives = study.by_objective(net, sample)
display(
    relevance_pages.objectives_table(
        objectives,
        relevance.numel(),
        first,
    ),
    relevance_pages.objectives_words(objectives),
)

# %% [markdown]
# The same window's *tokens* under each objective. The first two add up over all positions; the last
# one explains a single prediction, at the end of the window.

# %%
heat = {
    name: attribution.token_relevance(net, sample, objective=name)[0]
    for name in attribution.OBJECTIVES
}
relevance_pages.objectives_heatmap(tokenizer, sample[0], heat)

# %% [markdown]
# ## Exercises
#
# ```{exercise-start} Relevance is not removal · medium, 20 minutes
# :label: exercise-removal
# ```
# A neuron's relevance is its share of the output. Is it also what the output loses when the
# neuron is masked? Take the ten neurons with the largest relevance (by absolute value) for our
# window, mask each of them alone with `masking.masked`, and compare.
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# `relevance` has a row for each layer, so `divmod` makes layer and neuron of a flat index.
# `NeuronSet.from_pairs` makes a set of one neuron, and `objective_values` gives the output.
# ```
#
# ```{solution-start} exercise-removal
# :class: dropdown
# ```

# %%
width, rows = relevance.shape[1], []
for index in relevance.flatten().abs().topk(10).indices.tolist():
    pair = divmod(index, width)
    alone = NeuronSet.from_pairs([pair], pipeline.shape)
    with masking.masked(net, alone):
        left = objective_values(net, sample, objective=objective)
    rows.append((*pair, relevance[pair].item(), output - left.item()))
columns = ["layer", "neuron", "relevance", "lost when masked"]
removal = pd.DataFrame(rows, columns=columns)
display(
    relevance_pages.removal_table(removal, first),
    relevance_pages.removal_words(removal),
)

# %% [markdown]
# ```{solution-end}
# ```

# %% [markdown]
# ## What the numbers do and do not show
#
# - A heatmap of one sentence is an illustration. We took the first item of its kind and did not
#   look for pretty ones, but three sentences are three sentences.
# - A large share is not proof that a neuron is needed (see the exercise), and nothing in this
#   notebook is about *languages* yet: we have one number per neuron and text.
#
# Next: [from relevance to kurtosis](02_kurtosis), where many texts turn these numbers into a
# score per neuron and language.
