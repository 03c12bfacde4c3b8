"""What a reader of notebook 03 can select neurons by: scores under many choices, single effects."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from crane_core.concentration import STATISTICS
from crane_core.selection import NORMALISATIONS, normalise
from crane_lab.pipeline import Pipeline
from crane_lab.stages.keys import weights_of
from crane_lab.study.damage import FILES
from crane_lab.study.necessity import Necessity

#: statistic -> normalisation -> language -> scores (layers, neurons), large ones wanted.
Selectable = dict[str, dict[str, dict[str, Tensor]]]


def selectable_scores(pipeline: Pipeline, most: int) -> Selectable:
    """Scores of intermediate neurons by every statistic that needs no further pass over the texts.

    The settings' own statistic and normalisation come first. At most `most` numbers in all: where
    they would be more there are fewer statistics, then fewer normalisations, then nothing.
    """
    s = pipeline.settings
    layers, width = pipeline.shape["intermediate"]
    size = layers * width * len(s.languages)
    normalisations = list(dict.fromkeys([s.normalisation, *NORMALISATIONS]))[: most // size]
    if not normalisations:
        return {}
    sorts = not STATISTICS[s.statistic].one_pass  # samples are kept, for all that sort
    possible = (
        name
        for name, statistic in STATISTICS.items()
        if (statistic.one_pass or sorts) and statistic.least <= s.n_samples
    )
    names = list(dict.fromkeys([s.statistic, *possible]))
    found: Selectable = {}
    for name in names[: max(1, most // (size * len(normalisations)))]:
        values = pipeline.statistic("intermediate", name)
        found[name] = {
            how: {x: normalise(STATISTICS[name].sign * _one(v), how) for x, v in values.items()}
            for how in normalisations
        }
    return found


def _one(scores: object) -> Tensor:
    assert isinstance(scores, Tensor)  # of the site intermediate
    return scores


def shipped_effects(pipeline: Pipeline, folder: str | Path) -> dict[str, Tensor]:
    """What setting each neuron to zero alone adds to each language's loss, as it is shipped.

    Nats per token, (layers, neurons), by language; empty if there is no file in the folder, or it
    belongs to another model or lacks a language.
    """
    file = Path(folder) / FILES[0]
    if not file.is_file():
        return {}
    found, languages = Necessity.load(file), pipeline.settings.languages
    if found.source.get("model") != weights_of(pipeline.model):
        return {}
    if not set(languages) <= set(found.languages):
        return {}
    return {x: found.necessity(x).value for x in languages}
