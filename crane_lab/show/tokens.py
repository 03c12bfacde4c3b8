"""Tokens: as readable strings, on a ground of their relevance, and as what comes next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import PlaceHolderLayoutEngine
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from crane_lab.show.style import NOTE, PAPER, SIGNED, ink_on, palette, panels, styled


def readable_tokens(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int] | Tensor, values: ArrayLike | None = None
) -> tuple[list[str], np.ndarray[Any, Any]]:
    """Tokens as readable strings, for labels and for `token_heatmap`.

    A byte-level tokenizer may cut a character in two; tokens that only together make a character
    become one piece.

    Parameters
    ----------
    ids : token ids (tokens,).
    values : one number per token, added up within a piece; by default 1, so that a piece gets its
        number of tokens.

    Returns the pieces and their values. Raises ValueError if tokens and values differ in number.
    """
    tokens = [int(token) for token in ids]
    numbers = np.ones(len(tokens)) if values is None else np.asarray(values, dtype=np.float64)
    if numbers.shape != (len(tokens),):
        raise ValueError(f"{len(tokens)} tokens, but values {numbers.shape}: one each is needed")
    pieces: list[str] = []
    sums: list[float] = []
    start = 0
    for end in range(1, len(tokens) + 1):
        piece = tokenizer.decode(tokens[start:end], clean_up_tokenization_spaces=False)
        if "\ufffd" in piece and end < len(tokens):
            continue  # half a character
        pieces.append(piece)
        sums.append(float(numbers[start:end].sum()))
        start = end
    return pieces, np.array(sums)


@styled
def token_heatmap(
    texts: Mapping[str, tuple[Sequence[str], ArrayLike]],
    label: str = "relevance (share of the text's largest)",
    width: float = 8.4,
) -> Figure:
    """Texts with each token on a ground of its signed relevance, wrapped to the figure's width.

    Parameters
    ----------
    texts : heading, such as a language -> (tokens as readable strings, relevance of each in any
        unit). Colours are relative to the largest absolute value of each text.
    width : of the figure in inches.

    Raises ValueError if tokens and relevance differ in number.
    """
    size, line = 10.5, 0.30
    left, right = 0.15, width - 0.15
    norm = Normalize(-1, 1)
    colours = mpl.colormaps[SIGNED]
    # Placed on a first canvas, because the height follows from where the lines break.
    ruler = FigureCanvasAgg(Figure(dpi=100)).get_renderer()
    properties = font_manager.FontProperties(size=size)
    boxes: list[tuple[float, float, float, str, float]] = []
    headings: list[tuple[float, str]] = []
    y = 0.1
    for heading, (tokens, relevance) in texts.items():
        values = np.asarray(relevance, dtype=np.float64)
        if values.shape != (len(tokens),):
            raise ValueError(f"{heading!r} has {len(tokens)} tokens, relevance {values.shape}")
        headings.append((y, heading))
        y += line
        x = left
        for token, value in zip(tokens, values / (np.abs(values).max() or 1.0), strict=True):
            shown = token.replace("\n", "⏎")
            # A space at either end has no ink of its own, so it is measured as a letter.
            inked = shown.replace(" ", "n")
            pixels = ruler.get_text_width_height_descent(inked, properties, ismath=False)[0]
            extent = pixels / 100 + 0.06
            if x > left and x + extent > right:
                x, y = left, y + line
            boxes.append((x, y, extent, shown, float(value)))
            x += extent
        y += line + 0.12
    height = y + 0.75
    figure = Figure(figsize=(width, height), layout=PlaceHolderLayoutEngine(False, False))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    for y, heading in headings:
        axes.text(left, y + line / 2, heading, va="center", color=NOTE)
    for x, y, extent, shown, value in boxes:
        colour = colours(norm(value))
        axes.add_patch(
            Rectangle((x, y + 0.02), extent, line - 0.04, facecolor=colour, ec=PAPER, lw=0.8)
        )
        axes.text(
            x + extent / 2, y + line / 2, shown, ha="center", va="center", fontsize=size,
            color=ink_on(colour),
        )  # fmt: skip
    scale = figure.add_axes((0.3, 0.42 / height, 0.4, 0.1 / height))
    mappable = mpl.cm.ScalarMappable(norm, SIGNED)
    figure.colorbar(mappable, cax=scale, orientation="horizontal", label=label)
    return figure


@styled
def next_token_bars(
    before: Mapping[str, float],
    after: Mapping[str, float],
    labels: tuple[str, str] = ("unmasked", "masked"),
    title: str = "",
) -> Figure:
    """Probabilities of some next tokens before and after a mask, as paired horizontal bars.

    `before` and `after` map a readable token to its probability; tokens of either are shown, one
    that is missing in one of them as 0.
    """
    tokens = list(dict.fromkeys([*before, *after]))
    frame = pd.DataFrame(
        [
            {"token": token, "of": label, "probability": values.get(token, 0.0)}
            for label, values in zip(labels, (before, after), strict=True)
            for token in tokens
        ]
    )
    figure, (axes,) = panels(1, (6.0, 0.38 * len(tokens)), (0, 0.9))
    sns.barplot(
        frame, x="probability", y="token", hue="of", palette=palette(labels), saturation=1,
        errorbar=None, ax=axes,
    )  # fmt: skip
    axes.set_yticks(range(len(tokens)), tokens)
    axes.set(xlabel="probability of the next token", ylabel="", title=title)
    axes.legend(loc="lower right")
    return figure
