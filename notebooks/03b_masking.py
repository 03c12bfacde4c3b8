# %% [markdown]
# # Masking neurons
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** switch a set off and on again, and check that it is off; and measure what
# that does to a sentence and to the loss on held-out text, beside random sets of its size.
#
# **It assumes** sets of neurons ([notebook 03](03_selecting)).
#
# **It takes** twenty minutes to read; the computer needs about two minutes.
#
# **It covers** §3.4 and line 23 of Algorithm 1 of the paper {cite:p}`le2026crane`.
# :::
#
# So far nothing has been *done* to the model. Here the candidates are taken away, which is the step
# that gives CRANE the word *causal* in its name.

# %% tags=["parameters", "hide-input"]
model = "data/testbed/base"  # checkpoint to examine: a folder, or a name on the hub
languages = ["en", "zh", "vi"]  # languages by code, in the order of all tables
n_samples = 1000  # windows of text per language that relevance is taken on
seed = 0  # seed of everything that is drawn at random, except training
normalisation = "zscore"  # scale within a layer: zscore, ratio, robust or global
rule = "contrast"  # contrast, threshold or top, or shares of all languages: relative
threshold = 1.0  # normalised score above which a neuron is a candidate
budget = None  # neurons to select per language; None: all above the threshold
random_seeds = [0, 1, 2, 3, 4]  # one random mask per seed, as control
n_perplexity = 200  # windows per language that perplexity is measured on
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %% tags=["hide-input"]
import tempfile
from pathlib import Path

import torch
from IPython.display import display

from crane_core import baselines, models
from crane_core.interventions import zero
from crane_core.masking import bake, masked
from crane_core.selection import NeuronSet
from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show import exercises, figures, selection_pages
from crane_lab.store import write_table
from crane_lab.study import effects

settings = Settings.of(globals())
pipeline = Pipeline(settings)
net, tokenizer = pipeline.model, pipeline.tokenizer
shape = pipeline.shape
sets = pipeline.neuron_sets()  # under the parameter `rule`
results = Path(run_dir) / "results"
results.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## Switching a set off
#
# §3.4: the outputs of the selected neurons are set to zero, everything else stays. `masked` does
# that inside a `with` block. Before any number is taken from a masked model, check that the mask is
# at work: it has to change logits.

# %%
for x, neurons in sets.items():
    # Refuses a mask that changes nothing.
    change = pipeline.logit_change(pipeline.masking(neurons))
    print(f"mask {x}: {len(neurons):,} neurons,", end=" ")
    print(f"largest change of any logit {change:.2f}")
    assert change > 0 or not len(neurons)

# %% [markdown]
# ### One sentence in every language
#
# The same sentence, broken off before its last word: a fact that the unmasked testbed knows in all
# three languages. Each is continued by the model as it is, under each language's mask, and under a
# random mask with as many neurons in each layer as the mask of the sentence's own language.

# %%
same_sentence = {
    "en": "The capital of India is",
    "zh": "印度的首都是",
    "vi": "Thủ đô của Ấn Độ là",
}
prompts, found = {}, {}
for x, held_out in pipeline.perplexity_windows.items():
    opening = tokenizer.decode(
        held_out[0][:12],  # for another language: how a text begins
        skip_special_tokens=True,
    )
    prompts[x] = same_sentence.get(x, opening)
    random = baselines.random_matched(sets[x], random_seeds[0])
    masks = {**sets, "random": random}
    found[x] = effects.continued(pipeline, prompts[x], masks)

display(*selection_pages.continued_tables(tokenizer, prompts, found))

# %% [markdown]
# (␣ is a space before a word, and a word may take several tokens. A number in angle brackets is a
# token that holds only some bytes of a character.)
#
# The same as bars: each sentence's next tokens without a mask and under the mask of its own
# language.

# %%
figures.folded(
    "Next tokens as bars",
    *selection_pages.next_tokens_figures(tokenizer, prompts, found),
)

# %% [markdown]
# One sentence is an anecdote. It shows what a mask *is*; what it does to a language takes many
# texts, below.
#
# ## What a mask is, checked
#
# **It leaves no trace.** After the block, also when an error ends it, the model is what it was, to
# the bit.

# %%
language = max(sets, key=lambda x: len(sets[x]))  # the largest set
neurons, prompt = sets[language], prompts[language]
before = effects.next_logits(net, tokenizer, prompt)
weights = models.fingerprint(net)
with masked(net, neurons):
    during = effects.next_logits(net, tokenizer, prompt)
try:
    with masked(net, neurons):
        raise KeyboardInterrupt
except KeyboardInterrupt:
    pass
after = effects.next_logits(net, tokenizer, prompt)
assert torch.equal(before, after)
assert models.fingerprint(net) == weights
change = (during - before).abs().max()
print(f"largest change under the mask {change:.3f}, after it 0")

# %% [markdown]
# **It can be baked in.** `bake` writes a plain checkpoint with the mask in its weights, which any
# engine can load.

# %%
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "masked"
    baked = bake(net, neurons, path, tokenizer)
    plain, _ = models.load(baked, settings.dtype, settings.device)
    again = effects.next_logits(plain, tokenizer, prompt)
difference = (again - during).abs().max().item()
print("masked against baked checkpoint:", end=" ")
print(f"largest difference of a logit {difference:.1g}")
assert torch.allclose(again, during, atol=1e-5)

# %% [markdown]
# **Gate, up and intermediate are one switch.** In a gated MLP intermediate neuron $i$ is
# $\mathrm{SiLU}(\text{gate}_i) \cdot \text{up}_i$. A zero on either side makes the product zero,
# since $\mathrm{SiLU}(0) = 0$. So zeroing gate output $i$, up output $i$ or intermediate neuron $i$
# is the same intervention, and the two sites of the paper's definition differ in what is *scored*,
# not in what a mask of theirs does.

# %%
mask = neurons.mask("intermediate")
changes = {}
together = "gate and up and intermediate"
for site in ("intermediate", "gate", "up", together):
    zeroed = dict.fromkeys(site.split(" and "), mask)
    with masked(net, NeuronSet(zeroed, shape)):
        now = effects.next_logits(net, tokenizer, prompt)
    assert torch.allclose(now, during, atol=1e-5)
    changes[site] = [
        (now - then).abs().max().item()  # of any logit
        for then in (before, during)
    ]
selection_pages.one_switch_table(changes, int(mask.sum()))

# %% [markdown]
# Outputs of `down_proj` are another matter: each is a dimension of the residual stream, to which
# *all* neurons of the layer write. The exercise masks some.
#
# ## What a mask does to a language
#
# Now with many texts. The read-out is the loss on held-out text, the mean negative log-probability
# of the next token, in {term}`nats <nat>`. It is more sensitive than accuracy and is never clipped.
# Beside CRANE's mask stand random ones with the same number of neurons in each layer, because
# switching off neurons may hurt whichever they are; the question is whether *these* neurons hurt
# *this* language more.
#
# A row of the table below is one mask and one language's text. Compare *change* with *their range*:
# a mask that stays inside the range of the random ones does no more to that language than any set
# of its size. Then compare the rows of one mask: only if its own language loses most has it found
# neurons *of* that language.

# %%
effect = effects.loss_effects(pipeline, sets, random_seeds)
write_table(effect, results / "mask_loss.csv")
judged = effects.judged(effect)
display(
    selection_pages.effects_table(
        effect,
        n_perplexity,
        len(random_seeds),
    ),
    selection_pages.effects_words(judged),
)

# %% [markdown]
# Intervals are over windows, paired: each window is compared with itself without the mask. The
# range of random masks is over sets, which is the variation that matters for the question whether a
# set is better than any other of its size.
#
# Notebook [04](04_table1) asks the same of task accuracy, as the paper does, and brings in LAPE.

# %% [markdown]
# ## Exercises
#
# ```{exercise-start} Mask the residual stream · hard, 20 minutes
# :label: exercise-down
# ```
# Take a random set of outputs of `down_proj` with as many entries in each layer as the largest set
# above (at most a quarter of the layer's outputs), and compare its effect on the held-out loss with
# that of random intermediate neurons. `NeuronSet({"down": mask}, pipeline.shape)` and
# `baselines.random_matched` are all you need.

# %%
my_set = ...  # a random set of outputs of down_proj

exercises.random_down_set(my_set, neurons)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# `neurons` is the largest set, `neurons.counts("intermediate")` has its number in each layer. Cut
# it at a quarter of the width in `shape["down"]`. First make any mask with these numbers, such as
# the first outputs of each layer, then let `random_matched` draw another one like it.
# ```

# %% [markdown]
# ```{solution-start} exercise-down
# :class: dropdown
# ```

# %%
depth, width = shape["down"]
wanted = neurons.counts("intermediate").clamp(max=width // 4)
mask = torch.arange(width).expand(depth, width) < wanted[:, None]
down = baselines.random_matched(NeuronSet({"down": mask}, shape), seed)
original, under_down = pipeline.losses(), pipeline.losses(zero(down))
at_random = effect[effect["mask_language"] == language]
selection_pages.down_table(
    {x: (under_down[x] - original[x]).mean().item() for x in languages},
    len(down),
    at_random.set_index("text_language")["random_mean"],
    len(neurons),
)

# %% [markdown]
# An intermediate neuron is one of many that write to the residual stream; an output of `down_proj`
# is what all of them write to one of its dimensions. That is why budgets of the two sites cannot be
# compared one to one.
# ```{solution-end}
# ```

# %% [markdown]
# ## What the numbers do and do not show

# %%
selection_pages.what_masks_show(judged, len(random_seeds))

# %% [markdown]
# Next: [Table 1](04_table1), where every set is switched off in turn and every language is asked
# what it lost.
