"""The book's figures and tables, by one name each: `from crane_lab.show import figures`.

What a function draws with and where it is: `style` (theme, palettes, `show`), `drawn` (Figures 1
and 5), `distributions` (Figures 2 and 3), `heatmaps` (Figure 4), `intervals` (Figure 6), `curves`,
`tokens`, `tables`. `folded` shows some of them behind a click.
"""

from crane_lab.show.curves import curves, even_damage_curves, null_curves
from crane_lab.show.distributions import (
    fig2_intuition,
    fig3_contrast,
    iso_f1,
    layer_counts,
    margin_histogram,
    scatter,
    stacked_bars,
)
from crane_lab.show.drawn import fig1_overview, fig5_transfer, network
from crane_lab.show.foreign import folded
from crane_lab.show.heatmaps import (
    correlation_heatmap,
    fig4_heatmap,
    matrix_heatmap,
    overlap_heatmap,
    shares_grid,
    shares_heatmap,
)
from crane_lab.show.intervals import (
    dot_ranges,
    f1_strip,
    fig6_transfer,
    noise_ranges,
    recomputed,
)
from crane_lab.show.style import palette, png, show, style
from crane_lab.show.tables import table
from crane_lab.show.tokens import next_token_bars, readable_tokens, token_heatmap

__all__ = [
    "correlation_heatmap",
    "curves",
    "dot_ranges",
    "even_damage_curves",
    "f1_strip",
    "fig1_overview",
    "fig2_intuition",
    "fig3_contrast",
    "fig4_heatmap",
    "fig5_transfer",
    "fig6_transfer",
    "folded",
    "iso_f1",
    "layer_counts",
    "margin_histogram",
    "matrix_heatmap",
    "network",
    "next_token_bars",
    "noise_ranges",
    "null_curves",
    "overlap_heatmap",
    "palette",
    "png",
    "readable_tokens",
    "recomputed",
    "scatter",
    "shares_grid",
    "shares_heatmap",
    "show",
    "stacked_bars",
    "style",
    "table",
    "token_heatmap",
]
