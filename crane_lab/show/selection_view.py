"""Sets of neurons under settings that a reader chooses, on a page without a server (notebook 03).

Scores and single effects are on the page, as data; `book/_static/selection_view.js` selects from
them as `crane_core.selection.select` does. Without scripts there are Figure 3 and a table of the
sets under the run's own settings.
"""

from __future__ import annotations

import base64
import warnings
from collections.abc import Mapping

from IPython.display import HTML, Markdown
from markupsafe import Markup
from torch import Tensor

from crane_core.concentration import STATISTICS
from crane_core.selection import NeuronSet, select
from crane_lab.settings import Settings
from crane_lab.show import figures
from crane_lab.show.foreign import as_data, marked_up, markup, prose
from crane_lab.show.style import palette, picture
from crane_lab.study.selectable import Selectable
from crane_lab.texts.languages import language_names
from crane_lab.texts.visible import visible

#: Numbers that a page takes: 2.5 MB of single precision in base64.
MOST = 468_000
#: Rules that the script knows: those of normalised scores.
RULES = ("contrast", "threshold", "top")


def selection_view(
    scores: Selectable,
    effects: Mapping[str, Tensor],
    sets: Mapping[str, NeuronSet],
    settings: Settings,
) -> HTML | Markdown:
    """Controls for how neurons are selected, and what becomes of the sets.

    Parameters
    ----------
    scores : what can be selected by, of `selectable.selectable_scores` (at most `MOST` numbers).
    effects : language -> what each neuron alone adds to its loss (layers, neurons); may be empty.
    sets : the run's own sets, which all others are compared with.
    settings : how they were selected; what is chosen at first.

    A sentence for a model that is too large for a page, or a rule that is none of `RULES`.
    """
    if not scores:
        return prose("This model has too many neurons for their scores to be put on a page.")
    if settings.rule not in RULES:
        return prose("This view knows the paper's rules, and this run has another.")
    languages = list(sets)
    names = {x: visible(name) for x, name in language_names(languages).items()}
    layers, width = next(iter(sets.values())).shape["intermediate"]
    first = {
        "target": 0,
        "statistic": settings.statistic,
        "normalisation": settings.normalisation,
        "rule": settings.rule,
        "threshold": settings.threshold,
        "budget": settings.budget,
    }
    colours = palette(languages)
    data = as_data(
        {
            "names": list(names.values()),
            "colours": [colours[x] for x in languages],
            "layers": layers,
            "width": width,
            "statistics": [[name, STATISTICS[name].label] for name in scores],
            "normalisations": list(next(iter(scores.values()))),
            "scores": {
                name: {
                    how: [in_single_precision(by[x]) for x in languages]
                    for how, by in found.items()
                }
                for name, found in scores.items()
            },
            "effects": [in_single_precision(effects[x]) for x in languages] if effects else None,
            "first": first,
        }
    )
    own = scores[settings.statistic][settings.normalisation]
    target = languages[0]
    figure = picture(
        figures.fig3_contrast(own, target, settings.threshold),
        alt=f"Figure 3: every neuron's score for {names[target]} against the largest score of "
        f"another language, a panel per layer; {len(sets[target])} neurons are chosen in all.",
    )
    heads = ["language", "neurons", "by layer", "Jaccard with this run's set"]
    if effects:
        heads += ["cost to its own language", "as many at random", "largest cost to another"]
    # "dataframe" is what the theme knows: in dark mode it lights the ground of all other outputs.
    return marked_up(
        markup(
            '<div class="explorable selection-view">'
            '<div class="explorable-fields" role="group" aria-label="How neurons are selected" '
            "hidden></div>"
            '<div class="explorable-alone"><p>One of many settings; with scripts, others can be '
            "chosen here.</p>{figure}</div>"
            '<p class="explorable-said" aria-live="polite" aria-atomic="true"></p>'
            '<div class="explorable-rows"><table class="dataframe"><caption>{caption}</caption>'
            "<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
            '<p class="explorable-key">{rounded} This view has {size:.2f} MB of data.</p>'
            '<script type="application/json">{data}</script></div>',
            figure=figure,
            caption="Sets of every language under these settings"
            + ("; costs are sums of single effects, in nats per token" if effects else ""),
            heads=Markup("").join(markup('<th scope="col">{name}</th>', name=x) for x in heads),
            rows=Markup("").join(
                markup(
                    '<tr><th scope="row">{name}</th>{cells}</tr>',
                    name=names[x],
                    cells=Markup("").join(
                        markup("<td>{cell}</td>", cell=cell)
                        for cell in _cells(neurons, x, effects, names)
                    ),
                )
                for x, neurons in sets.items()
            ),
            rounded=_rounded(own, sets, settings),
            size=len((data + figure).encode()) / 1e6,
            data=data,
        )
    )


def in_single_precision(values: Tensor) -> str:
    """Numbers in single precision and base64, as a script reads them."""
    return base64.b64encode(values.float().numpy().astype("<f4").tobytes()).decode()


def _signed(value: float) -> str:
    return f"{value:+z.3f}".replace("-", "−")


def _cells(
    neurons: NeuronSet, x: str, effects: Mapping[str, Tensor], names: Mapping[str, str]
) -> list[str]:
    counts = neurons.counts("intermediate")
    cells = [
        str(len(neurons)),
        ", ".join(map(str, counts.tolist())),
        "1.00" if counts.any() else "–",
    ]
    if effects:
        mask = neurons.mask("intermediate")
        sums = {y: float(values[mask].sum()) for y, values in effects.items()}
        other = max((y for y in sums if y != x), key=sums.__getitem__)
        random = float((counts * effects[x].mean(dim=1)).sum())
        cells += [_signed(sums[x]), _signed(random), f"{_signed(sums[other])} ({names[other]})"]
    return cells


def _rounded(
    scores: Mapping[str, Tensor], sets: Mapping[str, NeuronSet], settings: Settings
) -> str:
    """What rounding scores does to the run's own sets."""
    single = {x: values.float().double() for x, values in scores.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an empty set is a result here
        moved = 0
        for x, neurons in sets.items():
            again = select(single, x, settings.rule, settings.threshold, settings.budget)
            moved += int((again.mask("intermediate") ^ neurons.mask("intermediate")).sum())
    return "Scores are rounded to single precision" + (
        f", which moves {moved} neurons of the run's own sets."
        if moved
        else "; the run's own sets are the same by them."
    )
