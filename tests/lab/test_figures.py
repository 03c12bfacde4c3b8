"""The figures show what they are given, in one style, with glyphs for all three languages."""

import io
import re
import warnings
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from crane_core.selection import NeuronSet, normalise, select
from crane_lab.show import figures

PUBLISHED = Path(__file__).resolve().parents[2] / "data" / "published"
VIETNAMESE = (
    "aăâeêioôơuưyđ" + "àằầèềìòồờùừỳ" + "ảẳẩẻểỉỏổởủửỷ" + "ãẵẫẽễĩõỗỡũữỹ" + "áắấéếíóốớúứýạặậẹệịọộợụựỵ"
)
CHINESE = "越南的首都是河内，对吗？是的：“没错”。……《书》、（一）"


@pytest.fixture(scope="module")
def scores():
    generator = torch.Generator().manual_seed(0)
    kurtosis = torch.rand(3, 5, 60, generator=generator, dtype=torch.float64).exp() ** 3
    kurtosis[0, 2, 7] = torch.nan
    return {x: normalise(k) for x, k in zip(("en", "zh", "vi"), kurtosis, strict=True)}


def sets():
    shape = (4, 9)
    return {
        "en": NeuronSet.from_pairs([(0, 0), (0, 1), (3, 2)], shape),
        "zh": NeuronSet.from_pairs([(0, 1), (1, 5)], shape),
        "vi": NeuronSet.empty(shape),
    }


def rectangles(axes):
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


def values(axes):
    """What the heatmap in `axes` shows."""
    return np.asarray(axes.images[0].get_array(), dtype=float)


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def dots():
    return pd.DataFrame(
        {
            "row": ["zero", "zero", "mean"],
            "series": ["en", "zh", "en"],
            "value": [0.5, 0.7, np.nan],
            "low": [0.4, 0.7, np.nan],
            "high": [0.6, 0.9, np.nan],
            "reference": [0.1, np.nan, np.nan],
        }
    )


def every_figure(scores):
    table = pd.read_csv(PUBLISHED / "table1.csv")
    ratios = pd.DataFrame([[1.0, 2.0], [0.5, 16.0]], index=["en", "vi"], columns=["en", "vi"])
    return {
        "fig1": figures.fig1_overview(),
        "fig2": figures.fig2_intuition(),
        "fig3": figures.fig3_contrast(scores, "zh"),
        "fig4": figures.fig4_heatmap(table, title="đã công bố 已发表"),
        "fig5": figures.fig5_transfer(),
        "fig6": figures.fig6_transfer(pd.read_csv(PUBLISHED / "table3.csv"), ["en", "zh", "vi"]),
        "shares": figures.shares_heatmap({"đã": ratios.loc[["en"]] / 2}),
        "overlap": figures.overlap_heatmap(sets()),
        "layers": figures.layer_counts(sets()),
        "matrix": figures.matrix_heatmap(ratios),
        "margins": figures.margin_histogram({"reading_vi": [-1.0, 2.0, 3.0]}),
        "tokens": figures.token_heatmap({"zh": (list(CHINESE), np.arange(len(CHINESE)) - 9.0)}),
        "next": figures.next_token_bars({"河内": 0.6, "Hà Nội": 0.1}, {"$5$": 0.2}),
        "curves": figures.curves({"en": ([0, 1], [2, 1])}, "tokens", "nats", level=0.5),
        "dots": figures.dot_ranges({"Jaccard, đã": dots()}, zero=["Jaccard, đã"]),
        "correlations": figures.correlation_heatmap(ratios.loc[["en"], ["en"]] * -0.5),
    }


@pytest.mark.filterwarnings("error")
def test_every_figure_is_opaque_and_leaves_matplotlib_as_it_was(scores):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = dict(mpl.rcParams)
    for name, figure in every_figure(scores).items():
        data = figures.png(figure)
        pixels = mpl.image.imread(io.BytesIO(data))
        assert pixels[0, 0, :3] == pytest.approx(mpl.colors.to_rgb(figures.PAPER), abs=0.01)
        assert pixels.shape[2] == 3 or (pixels[..., 3] == 1).all(), name
        assert pixels.std() > 0.02, f"{name} is blank"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == []


def test_the_same_figure_gives_the_same_bytes(scores):
    for draw in (figures.fig2_intuition, lambda: figures.fig3_contrast(scores, "zh")):
        assert figures.png(draw()) == figures.png(draw())


def test_all_glyphs_exist():
    with mpl.rc_context(figures.style()):
        figure = Figure()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns about a glyph it lacks
        for text in (VIETNAMESE, VIETNAMESE.upper(), CHINESE, "Δℓ≤→−×·⏎"):
            with mpl.rc_context(figures.style()):
                figure.text(0.1, 0.5, text)
        figures.png(figure)
    with mpl.rc_context(figures.style()):
        figure.text(0.1, 0.1, "\U00013000")  # a hieroglyph: the check above can fail
    with pytest.warns(UserWarning, match="Glyph 77824"):
        figures.png(figure)


def test_style_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(figures, "find_spec", lambda _: None)
    with pytest.raises(FileNotFoundError, match="install the package mplfonts"):
        figures.style.__wrapped__()


def test_show_carries_the_alternative_text():
    page = figures.show(figures.fig1_overview(), 'Nine steps, "corpora" to <LangSpec-F1>').data
    assert 'alt="Nine steps, &quot;corpora&quot; to &lt;LangSpec-F1&gt;"' in page
    assert re.match(r'<img src="data:image/png;base64,iVBORw0KGgo', page)
    assert "http" not in page and "max-width:100%" in page
    for alt in ("", "  "):
        with pytest.raises(ValueError, match="alternative text"):
            figures.show(Figure(), alt)


@pytest.mark.parametrize("colours", [figures.SIGNED, "viridis"])
def test_text_on_every_ground_has_contrast(colours):
    def luminance(colour):
        c = np.array(mpl.colors.to_rgb(colour))
        c = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
        return c @ (0.2126, 0.7152, 0.0722)

    for value in np.linspace(0, 1, 101):
        ground = mpl.colormaps[colours](value)
        a, b = luminance(ground[:3]), luminance(figures._ink_on(ground))
        assert (max(a, b) + 0.05) / (min(a, b) + 0.05) > 3.6


def test_fig2_states_kurtosis_and_whether_it_is_schematic():
    assert any("Schematic" in text for text in texts(figures.fig2_intuition()))
    rng = np.random.default_rng(0)
    samples = {"en": rng.normal(size=500), "zh": rng.standard_t(2, size=500) * 1e-4}
    drawn = texts(figures.fig2_intuition(samples, "zh"))
    assert not any("Schematic" in text for text in drawn)
    for name, x in samples.items():
        expected = ((x - x.mean()) ** 4).mean() / x.var() ** 2
        assert f"{name}: kurtosis {expected:.1f}" in drawn
    with pytest.raises(ValueError, match="'vi'"):
        figures.fig2_intuition(samples, "vi")


@pytest.mark.parametrize("threshold", [1.0, 1.6])
def test_fig3_shows_the_contrast_selection_of_every_layer(scores, threshold):
    figure = figures.fig3_contrast(scores, "zh", threshold)
    neurons = select(scores, "zh", threshold=threshold)
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == [
        f"layer {layer}: {count} of 60" for layer, count in enumerate(neurons.counts().tolist())
    ]
    for layer, axes in enumerate(panels):
        rest, chosen = (np.asarray(points.get_offsets()) for points in axes.collections)
        assert len(chosen) == neurons.counts()[layer]
        assert len(rest) + len(chosen) == 60 - (layer == 2)
        (region,) = rectangles(axes)
        assert (region.get_x(), region.get_y() + region.get_height()) == (threshold, threshold)
        low, high = axes.get_xlim()
        assert low < min(rest.min(), 0) and high > max(chosen.max(initial=0), rest.max())
        assert len(axes.lines) == 2 and {line.is_dashed() for line in axes.lines} == {True}


def test_fig3_of_projection_scores(scores):
    projections = {x: {"gate": s, "down": s[:, :10]} for x, s in scores.items()}
    titles = [a.get_title() for a in figures.fig3_contrast(projections, "en", site="down").axes]
    assert all(title.endswith("of 10") for title in titles)
    with pytest.raises(ValueError, match="'gate', 'down'"):
        figures.fig3_contrast(projections, "en")
    with pytest.raises(ValueError, match="'fr'"):
        figures.fig3_contrast(scores, "fr")


def test_fig4_shows_drops_bars_and_the_masked_language():
    table = pd.read_csv(PUBLISHED / "table1.csv")
    table["n_neurons"] = [0, *[1234] * 9]
    table["langspec_f1_low"], table["langspec_f1_high"] = 0.0, 0.9
    figure = figures.fig4_heatmap(table, labels={"zh": "C-Eval (zh)"})
    heat, bars = figure.axes[:2]
    scores = table[["en", "zh", "vi"]].to_numpy()
    expected = scores[0] - scores[1:]
    np.testing.assert_allclose(values(heat), expected)
    cells = [t.get_text().replace("−", "-") for t in heat.texts]
    assert cells == [f"{value:.3f}" for value in expected.ravel()]
    assert [bar.get_width() for bar in rectangles(bars)] == table.langspec_f1.tolist()[1:]
    outlined = [(round(p.get_x()), round(p.get_y())) for p in rectangles(heat)]
    assert [x for x, _ in outlined] == [0, 2, 1] * 3
    assert "CRANE · vi  (n = 1,234)" in texts(figure) and "C-Eval (zh)" in texts(figure)
    assert len(bars.collections) == 1  # the intervals
    assert bars.get_xlim()[1] > 0.9
    # Zero lies in the middle of the colours, whatever the drops are.
    assert np.asarray(heat.images[0].norm(np.zeros(1)), dtype=float) == pytest.approx(0.5)


def test_fig4_of_other_tables():
    three = pd.read_csv(PUBLISHED / "table3.csv").rename(columns=lambda c: c.replace("chat_", ""))
    figure = figures.fig4_heatmap(three, languages=["en", "zh", "vi"])
    assert values(figure.axes[0]).shape == (6, 3)
    table = pd.read_csv(PUBLISHED / "table1.csv")
    with pytest.raises(ValueError, match=r"lacks \['fr'\]"):
        figures.fig4_heatmap(table, languages=["en", "fr"])
    with pytest.raises(ValueError, match=r"lacks .*langspec_f1"):
        figures.fig4_heatmap(table.drop(columns="langspec_f1"))
    with pytest.raises(ValueError, match="must start with the row Org"):
        figures.fig4_heatmap(table.iloc[1:])


def test_overlap_and_layers_count_the_sets():
    drawn = texts(figures.overlap_heatmap(sets()))
    # One shared neuron where 2 * 1 / 9 are expected in layer 0.
    assert drawn.count("1\n4.5 × chance") == 2
    assert {"3", "2", "0"} <= set(drawn)
    figure = figures.layer_counts(sets())
    axes = figure.axes[0]
    assert [bar.get_height() for bar in rectangles(axes)] == [2, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert {"en (3)", "zh (2)", "vi (0)"} <= set(texts(figure))


def test_matrix_is_coloured_around_one():
    ratios = pd.DataFrame([[1.0, 8.0]], index=["zh"], columns=["en", "zh"])
    figure = figures.matrix_heatmap(ratios)
    norm = figure.axes[0].images[0].norm
    assert np.allclose(np.asarray(norm(np.array([1.0, 8.0])), dtype=float), [0.5, 1.0])
    assert {"1.00", "8.00"} <= set(texts(figure))
    with pytest.raises(ValueError, match="not positive"):
        figures.matrix_heatmap(ratios - 1)


def test_margins_state_accuracy():
    items = {"knowledge_en": [-1.0, 1.0, 2.0, 3.0], "reading_zh": [-2.0, 1.0]}
    figure = figures.margin_histogram(items)
    assert {"knowledge_en: 75% right", "reading_zh: 50% right"} <= set(texts(figure))
    assert sum(bar.get_height() for bar in rectangles(figure.axes[0])) == 4


def test_tokens_wrap_and_keep_their_order():
    tokens = [f" word{i}" for i in range(30)] + ["$a$", "\n"]
    relevance = np.linspace(-2, 4, len(tokens))
    figure = figures.token_heatmap({"en": (tokens, relevance)}, width=5.0)
    axes = figure.axes[0]
    boxes = rectangles(axes)
    assert len(boxes) == len(tokens)
    assert [t.get_text() for t in axes.texts[1:]] == [*tokens[:-1], "⏎"]
    assert all(box.get_x() + box.get_width() <= 4.86 for box in boxes)
    assert len({round(box.get_y(), 3) for box in boxes}) >= 4
    # Relative to the largest: -2 of 4 is halfway to purple.
    assert boxes[0].get_facecolor() == mpl.colormaps[figures.SIGNED](0.25)
    assert boxes[-1].get_facecolor() == mpl.colormaps[figures.SIGNED](1.0)
    with pytest.raises(ValueError, match="'en' has 2 tokens"):
        figures.token_heatmap({"en": (["a", "b"], [1.0])})


def test_next_tokens_and_curves_show_their_values():
    axes = figures.next_token_bars({"a": 0.6, "b": 0.3}, {"b": 0.5, "c": 0.1}).axes[0]
    assert [bar.get_width() for bar in rectangles(axes)] == [0.6, 0.3, 0.0, 0.0, 0.5, 0.1]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["a", "b", "c"]
    lines: dict[str, Any] = {
        "knowledge_en": ([0, 1], [0.8, 0.5], [0.7, 0.4], [0.9, 0.6]),
        "reading_en": ([0, 1], [0.7, 0.5]),
    }
    axes = figures.curves(lines, "share masked", "accuracy", level=0.25).axes[0]
    first, second, chance = axes.lines
    assert first.get_color() == second.get_color() == figures.LANGUAGE_COLOURS["en"]
    assert first.get_linestyle() != second.get_linestyle()  # told apart without colour
    assert chance.get_ydata() == [0.25, 0.25] and len(axes.collections) == 1


def test_fig6_shows_base_and_chat_under_the_language_s_own_masks():
    table = pd.read_csv(PUBLISHED / "table3.csv").fillna({"mask_language": ""})
    figure = figures.fig6_transfer(table, ["en", "zh", "vi"], floor=0.25)
    vietnamese = figure.axes[2]
    base, chat = (
        np.asarray(points.get_offsets())[:, 1].tolist() for points in vietnamese.collections[:2]
    )
    own = table[(table["mask_language"] == "vi") | (table["method"] == "Org")]
    assert base == pytest.approx(own["base_vi"].tolist())
    assert chat == pytest.approx(own["chat_vi"].tolist())
    assert [t.get_text() for t in vietnamese.get_xticklabels()] == own["method"].tolist()
    with pytest.raises(ValueError, match="lacks base_fr, chat_fr"):
        figures.fig6_transfer(table, ["fr"])
    with pytest.raises(ValueError, match="not Org"):
        figures.fig6_transfer(table.iloc[1:], ["en"])


def test_shares_heatmap_refuses_what_is_no_share():
    shares = pd.DataFrame([[0.2, 0.8]], index=["CRANE"], columns=["en", "zh"])
    figure = figures.shares_heatmap({"a": shares, "b": shares})
    assert values(figure.axes[0]) == pytest.approx(shares.to_numpy())
    with pytest.raises(ValueError, match="'b' has values outside"):
        figures.shares_heatmap({"a": shares, "b": shares * 2})
    with pytest.raises(ValueError, match="'b' has other rows"):
        figures.shares_heatmap({"a": shares, "b": shares.set_axis(["LAPE"])})


def test_dots_and_budget_curves_show_every_row_and_curve() -> None:
    table = pd.DataFrame(
        [
            {"criterion": c, "language": x, "truth": t, "rho": 0.1 * i, "low": -0.1, "high": 0.5}
            for i, c in enumerate(("a", "b", "c"))
            for x in ("en", "zh")
            for t in ("necessity", "selectivity")
        ]
    )
    figure: Any = figures.dots(
        table, "rank correlation", order=["b", "a", "c"], names={"en": "English"},
        markers={"necessity": {"en": 0.8}}, marker_label="limit",
    )  # fmt: skip
    left: Any
    right: Any
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["b", "a", "c"]
    assert [t.get_text() for t in right.get_legend().get_texts()] == ["English", "zh", "limit"]
    dots = next(line for line in left.lines if line.get_label() == "English")
    assert dots.get_xdata().tolist() == pytest.approx([0.1, 0.0, 0.2])

    panels: dict[str, dict[str, Any]] = {
        "English": {"CRANE": ([8, 16], [0.1, 0.5], [0.0, 0.4], [0.2, 0.6])}
    }
    panels["English"]["else"] = ([8, 16], [0.0, -0.5])
    figure = figures.budget_curves(panels, "nats", highlighted=["CRANE"], scale="symlog")
    axes: Any = figure.axes[0]
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["CRANE", "other criteria"]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["8", "16"]
    assert axes.get_ylim()[0] < -0.5 and axes.get_ylim()[1] > 0.6


def test_dots_lie_in_their_rows_with_their_ranges():
    plain = dots()[["row", "series", "value"]]
    figure = figures.dot_ranges({"a": dots(), "b": plain}, zero=["b"], reference_label="random")
    first, second = figure.axes
    assert [t.get_text() for t in first.get_yticklabels()] == ["zero", "mean"]
    ranges = [c for c in first.collections if isinstance(c, LineCollection)]
    assert ranges[0].get_segments()[0][:, 0].tolist() == [0.4, 0.6]
    points = [np.asarray(c.get_offsets()) for c in second.collections]
    assert points[0][0].tolist() == pytest.approx([0.5, -0.17])  # en above zh in a row
    assert points[1][0].tolist() == pytest.approx([0.7, 0.17])
    assert np.asarray(second.lines[0].get_xdata())[0] == 0 and not first.lines
    legend = [t.get_text() for t in figure.legends[0].get_texts()]
    assert legend == ["en", "zh", "random"]
    assert [t.get_text() for t in figures.dot_ranges({"b": plain}).legends[0].get_texts()] == [
        "en",
        "zh",
    ]


def test_correlations_are_on_a_scale_from_minus_one_to_one():
    matrix = pd.DataFrame([[1.0, -0.4], [-0.4, 1.0]], index=["a", "b"], columns=["a", "b"])
    axes = figures.correlation_heatmap(matrix).axes[0]
    assert values(axes) == pytest.approx(matrix.to_numpy())
    assert axes.images[0].get_clim() == (-1, 1)
    with pytest.raises(ValueError, match="outside -1 to 1"):
        figures.correlation_heatmap(matrix * 2)
