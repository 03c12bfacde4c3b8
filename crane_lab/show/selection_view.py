"""Sets of neurons under settings that a reader chooses, on a page without a server (notebook 03).

Scores and single effects are on the page, as data; `book/_static/selection_view.js` selects from
them as `crane_core.selection.select` does. Without scripts there are Figure 3 and a table of the
sets under the run's own settings.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence

from bokeh.models import BasicTicker, HoverTool
from bokeh.transform import dodge
from IPython.display import HTML, Markdown
from markupsafe import Markup
from torch import Tensor

from crane_core.concentration import STATISTICS
from crane_core.selection import NeuronSet, select
from crane_lab.settings import Settings
from crane_lab.show import explorable, figures
from crane_lab.show.foreign import as_data, marked_up, markup, prose
from crane_lab.show.style import INK, QUIET, minus, palette, picture
from crane_lab.study.selectable import Selectable
from crane_lab.texts.languages import language_names
from crane_lab.texts.visible import visible

#: Numbers that a page takes: 1.6 MB of single precision in base64, beside Bokeh's 1.3.
MOST = 300_000
#: Bars that have their number above them; of more they would lie on each other.
_WITH_NUMBERS = 16
#: Rules that the script knows: those of normalised scores.
RULES = ("contrast", "threshold", "top")
#: Up to here the axes of the scatter are linear, as in Figure 3, and logarithmic beyond.
LINEAR = 3
_TICKS = (-100, -30, -10, -3, -1, 0, 1, 3, 10, 30, 100, 300, 1000)


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
                    how: [explorable.in_single_precision(by[x]) for x in languages]
                    for how, by in found.items()
                }
                for name, found in scores.items()
            },
            "effects": [explorable.in_single_precision(effects[x]) for x in languages]
            if effects
            else None,
            "first": first,
            "rules": RULES,
            "linear": LINEAR,
            "drawings": explorable.as_items(
                [_scatter(), _bars(list(names.values()), colours, layers)]
            ),
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
            "hidden></div>{alone}"
            '<p class="explorable-said" aria-live="polite" aria-atomic="true"></p>{drawings}'
            '<div class="explorable-rows"><table class="dataframe"><caption>{caption}</caption>'
            "<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
            '<p class="explorable-key">{rounded} {weight}</p>'
            '<script type="application/json">{data}</script></div>',
            alone=explorable.alone(
                "One of many settings; with scripts, others can be chosen here.", figure
            ),
            drawings=explorable.places(_ALTS),
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
            weight=explorable.weight(data, figure),
            data=data,
        )
    )


_ALTS = (
    "Every neuron by its score for the target language, to the right, and the largest score of "
    "another language, upwards; chosen neurons are coloured.",
    "Bars of the number of chosen neurons in every layer, by language; the table has the numbers.",
)


def _squeeze(value: float) -> float:
    """Where a score lies on an axis of the scatter."""
    size = abs(value)
    return value if size <= LINEAR else math.copysign(LINEAR * (1 + math.log(size / LINEAR)), value)


def _scatter() -> explorable.Drawing:
    """The scatter of Figure 3 for all layers together."""
    both = explorable.moving("both")
    made = explorable.drawing(
        "score", "largest of another language", high=340, x_range=both, y_range=both
    )
    made.xaxis.name = "axis"
    for axis in made.axis:
        explorable.ticks(axis, {_squeeze(tick): minus(str(tick)) for tick in _TICKS})
    columns = ("x", "y", "neuron", "own", "others")
    every = explorable.source("all", *columns)
    chosen = explorable.source("chosen", *columns, "colour")
    made.scatter("x", "y", source=every, size=3, color=QUIET, alpha=0.55)
    made.scatter("x", "y", source=chosen, size=6, color="colour")
    said = [("neuron", "@neuron"), ("score", "@own{0.00}"), ("others", "@others{0.00}")]
    made.add_tools(HoverTool(tooltips=said, limit=3))
    made.add_layout(explorable.span("own", "height"))
    made.add_layout(explorable.span("others", "width"))
    return made


def _bars(names: Sequence[str], colours: Mapping[str, str], layers: int) -> explorable.Drawing:
    """How many neurons of every layer are chosen, a bar per language."""
    counts = explorable.moving("counts")
    made = explorable.drawing(
        "layer", "neurons chosen", high=340, x_range=(-0.5, layers - 0.5), y_range=counts
    )
    thick = 0.8 / len(names)
    for i, (name, colour) in enumerate(zip(names, colours.values(), strict=True)):
        own = explorable.source(f"language {i}", "layer", "top", "count")
        place = dodge("layer", (i + 0.5) * thick - 0.4)
        made.vbar(place, thick * 0.9, "top", source=own, color=colour, legend_label=name)
        if layers * len(names) <= _WITH_NUMBERS:
            made.text(
                place, "top", "count", source=own, text_align="center", text_baseline="bottom",
                text_font_size="12px", text_color=INK, y_offset=-2,
            )  # fmt: skip
    made.xgrid.grid_line_color = None
    made.xaxis.ticker = list(range(0, layers, math.ceil(layers / 12)))
    made.add_layout(made.legend[0], "above")
    made.yaxis.ticker = BasicTicker(min_interval=1)
    made.legend.orientation, made.legend.ncols = "horizontal", 4
    made.legend.border_line_color = made.legend.background_fill_color = None
    return made


def _signed(value: float) -> str:
    return f"{value:+z.3f}".replace("-", "−")


def _cells(
    neurons: NeuronSet, x: str, effects: Mapping[str, Tensor], names: Mapping[str, str]
) -> list[str]:
    counts = neurons.counts("intermediate")
    cells = [
        f"{len(neurons):,}",
        ", ".join(map(str, counts.tolist())),
        "1.00" if counts.any() else "–",
    ]
    if effects and not len(neurons):
        cells += ["–"] * 3
    elif effects:
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
