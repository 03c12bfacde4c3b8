"""Single neurons that a reader looks up, on a page without a server (notebooks 09 and 18c).

Distributions, effects, sets and the texts of highest relevance are on the page, as data, from which
`book/_static/neuron_view.js` shows a neuron at a time. Without scripts there are a table of the
first neurons of every list, and one neuron's texts as a picture.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from bokeh.models import BasicTicker
from IPython.display import HTML
from markupsafe import Markup
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from crane_lab.show import explorable, figures
from crane_lab.show.foreign import as_data, marked_up, markup
from crane_lab.show.style import palette, picture
from crane_lab.show.tokens import readable_tokens
from crane_lab.study.known_neurons import KnownNeurons, Texts
from crane_lab.study.neuron_cards import Cards
from crane_lab.texts.visible import visible

#: Bars of a histogram.
BARS = 25
#: Neurons of every list in the table that stands there without scripts.
IN_TABLE = 3
#: Largest number that heights of bars and relevance of tokens are rounded to.
LEVELS = 127


def texts_of(cards: Cards, tokenizer: PreTrainedTokenizerBase) -> Texts:
    """The windows of highest relevance in pieces that can be read."""
    found: dict[str, dict[int, tuple[list[str], list[int]]]] = {}
    for x, ids in cards.windows.items():
        read = {w: readable_tokens(tokenizer, ids[w]) for w in cards.tops[x].unique().tolist()}
        found[x] = {
            w: (pieces, counts.astype(int).tolist()) for w, (pieces, counts) in read.items()
        }
    return found


def neuron_view(known: KnownNeurons, names: Mapping[str, str]) -> HTML:
    """Fields to look up a neuron, and what is known of it.

    `names`: language -> its name, of those of the cards. Raises ValueError for lists without a
    neuron that is in the cards.
    """
    cards = known.cards
    there = {int(place): k for k, place in enumerate(cards.neurons)}
    lists = {
        f"{what}, {names[x]}" if x else what: [there[n] for n in own if n in there]
        for (what, x), own in known.lists.items()
    }
    lists = {name: own for name, own in lists.items() if own}
    if not lists:
        raise ValueError("no neuron to show: none of the lists has one that was read")
    languages, n = list(names), len(cards.neurons)
    colours = palette(languages)
    texts = _Texts(cards, known.texts)
    histograms = _histograms(cards, languages)
    data = as_data(
        {
            "names": [visible(name) for name in names.values()],
            "codes": [visible(x) for x in languages],
            "width": cards.size[1],
            "neurons": cards.neurons.tolist() if n < cards.size[0] * cards.size[1] else n,
            "lists": [[visible(name), own] for name, own in lists.items()],
            "bars": BARS,
            "windows": [len(cards.values[x]) for x in languages],
            "ends": explorable.in_single_precision(histograms.ends),
            "heights": [_bytes(own) for own in histograms.heights],
            "kurtosis": [explorable.in_single_precision(known.kurtosis[x]) for x in languages],
            "necessity": [explorable.in_single_precision(known.needed[x]) for x in languages],
            "reach": [explorable.in_single_precision(known.reach[x]) for x in languages],
            "sets": [
                [name, [_bits(own[x]) for x in languages]] for name, own in known.inside.items()
            ],
            **texts.data(languages),
            "drawings": explorable.as_items(
                _histogram(visible(names[x]), colours[x], len(cards.values[x])) for x in languages
            ),
        }
    )
    first = next(iter(lists.values()))[0]
    return marked_up(
        markup(
            '<div class="explorable neuron-view">'
            '<div class="explorable-fields" role="group" aria-label="Which neuron, and which '
            'texts" hidden></div>{alone}'
            '<div class="neuron-shown">{drawings}</div>'
            '<p class="explorable-key">Relevance of {windows} windows per language, in logits; '
            "kurtosis is that of all windows that sets are selected on. {weight}</p>"
            '<script type="application/json">{data}</script></div>',
            alone=explorable.alone(
                f"The first neurons of every list; with scripts, each of {n:,} neurons can be "
                "looked up here.",
                _table(known, lists, names),
                _picture(cards, first, names, texts),
            ),
            drawings=explorable.places(f"Relevance in {visible(name)}" for name in names.values()),
            windows=len(cards.values[languages[0]]),
            weight=explorable.weight(data),
            data=data,
        )
    )


def _bytes(values: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(values, np.uint8).tobytes()).decode()


def _bits(inside: Tensor) -> str:
    return _bytes(np.packbits(inside.numpy(), bitorder="little"))


# --- distributions --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Histograms:
    """`ends` of the bars, (neurons, 2), and by language `heights`, (neurons, BARS), to `LEVELS`."""

    ends: Tensor
    heights: list[NDArray[np.uint8]]


def _bar_counts(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.int64]:
    """How many values lie in each of `BARS` equal parts from `low` to `high`."""
    return np.histogram(values, BARS, (low, max(high, low + 1e-9)))[0]


def _histograms(cards: Cards, languages: Sequence[str]) -> _Histograms:
    """Heights are logarithms of one more than the number of windows, so that tails can be seen."""
    low = torch.stack([cards.values[x].amin(0) for x in languages]).amin(0).clamp(max=0)
    high = torch.stack([cards.values[x].amax(0) for x in languages]).amax(0).clamp(min=0)
    heights = []
    for x in languages:
        values = cards.values[x].double().numpy()
        count = np.stack(
            [_bar_counts(values[:, k], float(low[k]), float(high[k])) for k in range(len(low))]
        )
        most = np.log1p(len(values))
        heights.append(np.rint(LEVELS * np.log1p(count) / most).astype(np.uint8))
    return _Histograms(torch.stack([low, high], 1), heights)


def _histogram(name: str, colour: str, windows: int) -> explorable.Drawing:
    """Bars of how many windows have which relevance, on a logarithmic scale that has a 0."""
    made = explorable.drawing(
        "relevance, logits", "windows", high=210, title=name,
        x_range=explorable.moving("relevance"), y_range=(0, 1.05 * LEVELS),
    )  # fmt: skip
    counts = [0, *(10**i for i in range(4) if 10**i < windows / 2), windows]
    most = np.log1p(windows)
    explorable.ticks(made.yaxis[0], {float(LEVELS * np.log1p(n) / most): str(n) for n in counts})
    made.xaxis.ticker = BasicTicker(desired_num_ticks=4)
    bars = explorable.source("bars", "left", "right", "top")
    made.quad("left", "right", "top", 0, source=bars, color=colour, line_color=None)
    made.add_layout(explorable.span("zero", "height"))
    return made


# --- texts ----------------------------------------------------------------------------------------


class _Texts:
    """Windows as pieces that can be read, each distinct piece once, and relevance by piece."""

    def __init__(self, cards: Cards, texts: Texts) -> None:
        self.cards = cards
        self.pieces: dict[str, int] = {}
        #: language -> window -> its pieces, and at which token each begins.
        self.windows: dict[str, dict[int, tuple[list[int], NDArray[np.int64]]]] = {}
        for x, windows in texts.items():
            own: dict[int, tuple[list[int], NDArray[np.int64]]] = {}
            for window in sorted(windows):
                read, counts = windows[window]
                shown = [visible(piece) for piece in read]
                begins = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
                own[window] = [self.pieces.setdefault(p, len(self.pieces)) for p in shown], begins
            self.windows[x] = own
        self.read = list(self.pieces)

    def of(self, x: str, k: int, top: int) -> tuple[list[str], NDArray[np.float64]]:
        """The pieces of a neuron's text, and its relevance at each of them, in logits."""
        codes, begins = self.windows[x][int(self.cards.tops[x][k, top])]
        values = self.cards.tokens[x][k, top].double().numpy()
        return [self.read[code] for code in codes], np.add.reduceat(values, begins)

    def data(self, languages: Sequence[str]) -> dict[str, Any]:
        """`pieces`; windows as places in them; which are a neuron's, and its relevance there."""
        n, tops = len(self.cards.neurons), self.cards.tops[languages[0]].shape[1]
        found: dict[str, Any] = {"pieces": self.read, "tops": tops, "texts": []}
        for x in languages:
            number = {window: i for i, window in enumerate(self.windows[x])}
            which, sums, parts = [], [], []
            for k in range(n):
                for top in range(tops):
                    which.append(number[int(self.cards.tops[x][k, top])])
                    values = self.of(x, k, top)[1]
                    sums.append(values.sum())
                    parts.append(_levels(values))
            found["texts"].append(
                {
                    "windows": [
                        _base64(np.array(codes, "<u2")) for codes, _ in self.windows[x].values()
                    ],
                    "which": _base64(np.array(which, "<u2")),
                    "sums": _base64(np.array(sums, "<f4")),
                    "levels": _base64(np.concatenate(parts)),
                }
            )
        return found


def _levels(values: NDArray[np.float64]) -> NDArray[np.int8]:
    """Relevance of a text's pieces in whole parts of its largest, from `-LEVELS` to `LEVELS`."""
    most = np.abs(values).max(initial=0) or 1.0
    return np.rint(LEVELS * values / most).astype(np.int8)


def _base64(values: NDArray[Any]) -> str:
    return base64.b64encode(values.tobytes()).decode()


# --- without scripts ------------------------------------------------------------------------------


def _table(known: KnownNeurons, lists: Mapping[str, list[int]], names: Mapping[str, str]) -> Markup:
    """The first neurons of every list: kurtosis, necessity and sets, in every language."""
    cards = known.cards
    cell = partial(markup, "<td>{text}</td>")
    rows = []
    for name, own in lists.items():
        for k in own[:IN_TABLE]:
            layer, unit = divmod(int(cards.neurons[k]), cards.size[1])
            inside = [
                f"{method}: {names[x]}"
                for method, of in known.inside.items()
                for x in names
                if bool(of[x][k])
            ]
            cells = [cell(text=f"{layer}.{unit}")]
            for x in names:
                value, half = float(known.needed[x][k]), float(known.reach[x][k])
                cells.append(cell(text=f"{float(known.kurtosis[x][k]):.1f}"))
                cells.append(cell(text=f"{_signed(1000 * value)}\u00a0±\u00a0{1000 * half:.1f}"))
            cells.append(cell(text="; ".join(inside) or "none"))
            head = markup('<th scope="row">{name}</th>', name=name)
            rows.append(markup("<tr>{cells}</tr>", cells=head + Markup("").join(cells)))
    heads = ["list", "layer.neuron"]
    for name in names.values():
        heads += [f"kurtosis, {name}", f"necessity, {name}"]
    return markup(
        '<div class="explorable-rows"><table class="dataframe"><caption>Necessity in thousandths '
        "of a nat per token, with 95 % over texts</caption><thead><tr>{heads}</tr></thead><tbody>"
        "{rows}</tbody></table></div>",
        heads=Markup("").join(
            markup('<th scope="col">{name}</th>', name=x) for x in [*heads, "in sets"]
        ),
        rows=Markup("").join(rows),
    )


def _signed(value: float) -> str:
    """A number with its sign and one decimal, as the script writes it."""
    return f"{value:+z.1f}".replace("-", "−")


def _picture(cards: Cards, k: int, names: Mapping[str, str], texts: _Texts) -> Markup:
    layer, unit = divmod(int(cards.neurons[k]), cards.size[1])
    figure = figures.token_heatmap({name: texts.of(x, k, 0) for x, name in names.items()})
    return picture(
        figure,
        alt=f"Relevance of neuron {layer}.{unit} at every token of the text of each language in "
        "which it is largest in size: orange where it speaks for the next token, purple where "
        "against.",
    )
