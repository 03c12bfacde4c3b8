"""The CRANE method (arXiv 2601.04664), one module per step, and nothing else.

A reader of the paper's §3 finds each step here; data flow from top to bottom.

=================== ================ ===================================================
Module              Paper            What it does
=================== ================ ===================================================
`families`          §4.1             where each family of models keeps its MLPs and norms
`gguf`              §4.1             a file of llama.cpp becomes a plain model
`models`            §4.1             a name or path becomes a model and its tokenizer
`windows`           Alg. 1, line 3   texts become token windows of equal length
`attribution`       §3.2, lines 1-9  a batch becomes relevance (samples, layers, neurons)
`accumulators`      Alg. 1           one pass over the texts feeds whatever is kept of them
`moments`           Eq. 2            a stream of relevance becomes one kurtosis a neuron
`concentration`     Eq. 2            the other statistics of the same samples
`neurons`           §3.1             sets of neurons: combined, compared, kept in files
`selection`         §3.3, lines      the languages' scores become one set a language
                    10-20
`baselines`         §4.2             sets of the same size by other means
`interventions`     §3.4             neurons set, raised or scaled while a model runs
`masking`           §3.4             a model with a set of neurons switched off, and back
`metrics`           §3.5, Eq. 3-5    scores before and after become LangSpec-F1
=================== ================ ===================================================

`kernels` has faster linear layers, `files` writes whole files or none. Public names can be imported
from here.
"""

from importlib import import_module
from re import findall
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crane_core.accumulators import (
        Accumulator,
        ActivationMeans,
        ActiveCounts,
        Reader,
        Reservoir,
        TokenSample,
        collect,
        one_pass,
    )
    from crane_core.attribution import attnlrp, neuron_relevance, token_relevance
    from crane_core.baselines import (
        act_prob_90p,
        lape,
        lape_matched,
        random_matched,
    )
    from crane_core.concentration import STATISTICS, Collected, compute
    from crane_core.families import FAMILIES, Family, mlp_sites
    from crane_core.families import shape as model_shape
    from crane_core.interventions import (
        UNTOUCHED,
        Add,
        Intervention,
        Scale,
        SetTo,
        intervened,
        zero,
    )
    from crane_core.masking import bake, masked
    from crane_core.metrics import Interval, LangSpecF1, langspec_f1, langspec_f1_interval
    from crane_core.models import load as load_model
    from crane_core.moments import StreamingMoments
    from crane_core.neurons import NeuronSet, Overlap, jaccard, overlap
    from crane_core.selection import SelectionWarning, contrast_of, margins, normalise, select
    from crane_core.windows import token_windows

__all__ = [
    "FAMILIES",
    "STATISTICS",
    "UNTOUCHED",
    "Accumulator",
    "ActivationMeans",
    "ActiveCounts",
    "Add",
    "Collected",
    "Family",
    "Interval",
    "Intervention",
    "LangSpecF1",
    "NeuronSet",
    "Overlap",
    "Reader",
    "Reservoir",
    "Scale",
    "SelectionWarning",
    "SetTo",
    "StreamingMoments",
    "TokenSample",
    "act_prob_90p",
    "attnlrp",
    "bake",
    "collect",
    "compute",
    "contrast_of",
    "intervened",
    "jaccard",
    "langspec_f1",
    "langspec_f1_interval",
    "lape",
    "lape_matched",
    "load_model",
    "margins",
    "masked",
    "mlp_sites",
    "model_shape",
    "neuron_relevance",
    "normalise",
    "one_pass",
    "overlap",
    "random_matched",
    "select",
    "token_relevance",
    "token_windows",
    "zero",
]

_MODULES = findall(r"`(\w+)`", __doc__)
_RENAMED = {"load_model": ("models", "load"), "model_shape": ("families", "shape")}


def __getattr__(name: str) -> Any:
    """Load what is asked for when it is asked for: torch and transformers take seconds."""
    if name in _MODULES:
        return import_module(f"crane_core.{name}")
    if name in __all__:
        module, own = _RENAMED.get(name, ("", name))
        for other in [module] if module else _MODULES:
            if hasattr(found := import_module(f"crane_core.{other}"), own):
                return getattr(found, own)
    raise AttributeError(f"module 'crane_core' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
