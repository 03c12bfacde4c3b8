"""The figures show what they are given, in one style, with glyphs for all three languages."""

import io
import warnings
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from crane_core.selection import NeuronSet, normalise, select
from crane_lab import audit
from crane_lab.show import figures, style

PUBLISHED = Path(__file__).resolve().parents[2] / "data" / "published"
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
    """The bars in `axes`, without the entries of its legend, which have no extent at all."""
    found = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    return [patch for patch in found if patch.get_width() or patch.get_height()]


def values(axes):
    """What the heatmap in `axes` shows."""
    return np.asarray(axes.collections[0].get_array(), dtype=float)


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def lines_in(axes):
    """The lines in `axes`, without the entries of its legend, which hold no points."""
    return [line for line in axes.lines if len(line.get_ydata())]


def points(axes):
    """Colour -> places of the points in `axes`, in their order."""
    found: dict[str, list[tuple[float, float]]] = {}
    for cloud in axes.collections:
        if isinstance(cloud, PathCollection):
            places = np.ma.getdata(cloud.get_offsets())
            colours = np.broadcast_to(cloud.get_facecolor(), (len(places), 4))
            for place, colour in zip(places.tolist(), colours, strict=True):
                found.setdefault(mpl.colors.to_hex(colour), []).append(tuple(place))
    return found


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


def audit_figures():
    tables = audit.published()
    noise = audit.noise_table(tables)
    return {
        "recomputed": figures.recomputed(audit.recompute(tables)),
        "noise": figures.noise_ranges(noise[noise["number"] == "2"]),
        "iso": figures.iso_f1({"đã": audit.f1_variants(tables)}),
        "null": figures.null_curves({"10 %": ([70, 900], [0.1, 0.05], [0.2, 0.1])}, {"đã": 70}),
        "even": figures.even_damage_curves(
            [0.0, 0.5, 1.0], {"đã": {"en": [0, 0.3, 0.6]}}, {"đã": {"en": 0.2}}
        ),
    }


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
        "strip": figures.f1_strip({"河": [0.1, 0.2]}, {"CRANE": {"河": 0.3}}),
        "stacked": figures.stacked_bars({"đã": ratios.loc[["en"]] / 3}),
        "scatter": figures.scatter({"en": ([1, 2], [3, 40])}, "x", "y"),
        "network": figures.network([{"x": (1, 3)}, {"y": (6, -5)}], [[[-2]]]),
    } | audit_figures()


@pytest.mark.filterwarnings("error")
def test_every_figure_is_opaque_and_leaves_matplotlib_as_it_was(scores):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = dict(mpl.rcParams)
    for name, figure in every_figure(scores).items():
        data = figures.png(figure)
        pixels = mpl.image.imread(io.BytesIO(data))
        assert pixels[0, 0, :3] == pytest.approx(mpl.colors.to_rgb(style.PAPER), abs=0.01)
        assert pixels.shape[2] == 3 or (pixels[..., 3] == 1).all(), name
        assert pixels.std() > 0.02, f"{name} is blank"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == []


def test_the_same_figure_gives_the_same_bytes(scores):
    table = pd.read_csv(PUBLISHED / "table1.csv")
    for draw in (
        figures.fig2_intuition,
        lambda: figures.fig3_contrast(scores, "zh"),
        lambda: figures.fig4_heatmap(table),
        lambda: figures.f1_strip({"en": [0.1, 0.1, 0.2]}, {"CRANE": {"en": 0.4}}),
        lambda: figures.curves({"en": ([0, 1], [2, 1], [1, 0], [3, 2])}, "tokens", "nats"),
        lambda: figures.dot_ranges({"Jaccard": dots()}),
        lambda: figures.layer_counts(sets()),
    ):
        drawn = []
        for seed in (0, 1):  # of what seaborn would draw jitter and intervals from
            np.random.seed(seed)  # noqa: NPY002
            drawn.append(figures.png(draw()))
        assert drawn[0] == drawn[1]


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
        found = points(axes)
        rest, chosen = (np.array(found[c]) for c in (style.QUIET, style.LANGUAGES["zh"]))
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
    by_row = sorted(rectangles(bars), key=lambda bar: bar.get_y())
    assert [bar.get_width() for bar in by_row] == table.langspec_f1.tolist()[1:]
    outlined = [(int(p.get_x()), int(p.get_y())) for p in rectangles(heat)]
    assert [x for x, _ in outlined] == [0, 2, 1] * 3
    assert "CRANE · vi  (n = 1,234)" in texts(figure) and "C-Eval (zh)" in texts(figure)
    assert [type(shown) for shown in bars.collections] == [LineCollection]  # the intervals
    assert bars.get_xlim()[1] > 0.9
    # Zero lies in the middle of the colours, whatever the drops are.
    assert np.asarray(heat.collections[0].norm(np.zeros(1)), dtype=float) == pytest.approx(0.5)


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
    signed = mpl.colormaps[style.SIGNED]
    assert np.allclose(figure.axes[0].collections[0].get_facecolor(), [signed(0.5), signed(1.0)])
    scale = [t.get_text() for t in figure.axes[1].get_yticklabels()]
    assert scale == ["0.125", "0.354", "1", "2.83", "8"]
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
    assert boxes[0].get_facecolor() == mpl.colormaps[style.SIGNED](0.25)
    assert boxes[-1].get_facecolor() == mpl.colormaps[style.SIGNED](1.0)
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
    first, second, chance = lines_in(axes)
    assert first.get_color() == second.get_color() == style.LANGUAGES["en"]
    assert first.get_linestyle() != second.get_linestyle()  # told apart without colour
    assert chance.get_ydata() == [0.25, 0.25] and len(axes.collections) == 1


def test_fig6_shows_base_and_chat_under_the_language_s_own_masks():
    table = pd.read_csv(PUBLISHED / "table3.csv").fillna({"mask_language": ""})
    figure = figures.fig6_transfer(table, ["en", "zh", "vi"], floor=0.25)
    vietnamese = figure.axes[2]
    base, chat = (x.get_ydata() for x in lines_in(vietnamese) if x.get_linestyle() == "None")
    own = table[(table["mask_language"] == "vi") | (table["method"] == "Org")]
    assert list(base) == pytest.approx(own["base_vi"].tolist())
    assert list(chat) == pytest.approx(own["chat_vi"].tolist())
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


def test_curves_over_several_panels_share_names_and_axes() -> None:
    lines: dict[str, dict[str, Any]] = {
        "English": {"CRANE": ([8, 16], [0.1, 0.5], [0.0, 0.4], [0.2, 0.6])},
        "Chinese": {"LAPE": ([8, 16], [0.0, 0.1])},
    }
    lines["English"]["else"] = ([8, 16], [0.0, -0.5])
    figure: Any = figures.curves(
        lines, "neurons", "nats", level=0.0, level_label="", highlighted=["CRANE", "LAPE"],
        xscale="log", yscale="symlog", marks={"English": {"CRANE": 0.25}}, mark_label="limit",
    )  # fmt: skip
    left: Any
    right: Any
    left, right = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["English", "Chinese"]
    assert [t.get_text() for t in right.get_legend().get_texts()] == [
        "CRANE", "LAPE", "other criteria", "limit",
    ]  # fmt: skip
    assert left.get_legend() is None
    assert [t.get_text() for t in left.get_xticklabels()] == ["8", "16"]
    assert left.get_ylim()[0] < -0.5 and left.get_ylim()[1] > 0.6
    drawn = {(x.get_color(), x.get_linestyle(), *x.get_ydata()) for x in lines_in(left)}
    method = style.METHODS["CRANE"]
    assert (method, "-", 0.1, 0.5) in drawn and (style.FAINT, "-", 0.0, -0.5) in drawn
    assert (method, ":", 0.25, 0.25) in drawn and (style.INK, "--", 0.0, 0.0) in drawn
    assert len(left.collections) == 1 and not right.collections  # the one band that is given


def test_curves_on_a_logarithmic_axis_have_ticks_where_values_are() -> None:
    axes: Any = figures.curves(
        {"median": ([30, 200, 3200], [4, 50, 700])}, "n", "kurtosis", xscale="log", yscale="log"
    ).axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["30", "200", "3,200"]
    assert "100" in [t.get_text() for t in axes.get_yticklabels()]


def test_dots_lie_in_their_rows_with_their_ranges():
    plain = dots()[["row", "series", "value"]]
    figure = figures.dot_ranges({"a": dots(), "b": plain}, zero=["b"], reference_label="random")
    first, second = figure.axes
    assert [t.get_text() for t in first.get_yticklabels()] == ["zero", "mean"]
    assert [axes.get_xlabel() for axes in figure.axes] == ["a", "b"]
    ranges = [c for c in first.collections if isinstance(c, LineCollection)]
    assert ranges[0].get_segments()[0][:, 0].tolist() == [0.4, 0.6]
    en, zh = (points(second)[style.LANGUAGES[x]] for x in ("en", "zh"))
    assert en == [pytest.approx((0.5, -0.17))]  # above zh in a row; NaN is left out
    assert zh == [pytest.approx((0.7, 0.17))]
    assert [list(line.get_xdata()) for line in lines_in(second)] == [[0, 0]]
    assert not lines_in(first)
    assert points(first)[style.INK][0] == pytest.approx((0.1, -0.17))  # what is to be expected
    legend = [t.get_text() for t in figure.legends[0].get_texts()]
    assert legend == ["en", "zh", "random"]
    named = figures.dot_ranges({"b": plain}, order=["mean", "zero"], names={"en": "English"})
    assert [t.get_text() for t in named.legends[0].get_texts()] == ["English", "zh"]
    assert [t.get_text() for t in named.axes[0].get_yticklabels()] == ["mean", "zero"]
    assert points(named.axes[0])[style.LANGUAGES["zh"]] == [pytest.approx((0.7, 1.17))]


def test_f1_strip_shows_every_mask_once() -> None:
    figure = figures.f1_strip(
        {"en": [0.1, 0.2, 0.0], "zh": []}, {"CRANE": {"en": 0.4}, "LAPE": {"en": 0.1, "zh": 0.3}}
    )
    axes: Any = figure.axes[0]
    random, crane, lape = (points(axes)[style.METHODS[x]] for x in ("Random", "CRANE", "LAPE"))
    assert [x for x, _ in random] == [0.1, 0.2, 0.0]
    assert [x for x, _ in crane] == [0.4] and [x for x, _ in lape] == [0.1, 0.3]
    assert [round(y) for _, y in lape] == [0, 1]  # each in its row, and in a lane of its own
    assert len({round(y, 6) for _, y in random + crane + lape}) == 4
    assert [label.get_text() for label in axes.get_yticklabels()] == ["en", "zh"]
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["random mask", "CRANE", "LAPE"]


def test_stacked_bars_fill_each_row() -> None:
    shares = pd.DataFrame({"gold": [0.7, 0.2], "other": [0.3, 0.8]}, index=["Org", "CRANE · zh"])
    figure = figures.stacked_bars({"问": shares, "hỏi": shares})
    for axes in figure.axes:
        boxes = [bar.get_extents().transformed(axes.transData.inverted()) for bar in axes.patches]
        assert [box.x0 for box in boxes] == pytest.approx([0, 0, 0.7, 0.2])
        assert [box.x1 for box in boxes] == pytest.approx([0.7, 0.2, 1, 1])
    with pytest.raises(ValueError, match="panel 'b' has other rows"):
        figures.stacked_bars({"a": shares, "b": shares.iloc[:1]})


def test_two_heatmaps_can_share_their_colours() -> None:
    table = pd.DataFrame(
        {"method": ["Org", "CRANE"], "mask_language": ["", "en"], "en": [0.8, 0.79], "zh": 0.4}
        | {"langspec_f1": [np.nan, 0.1]}
    )
    own, shared = (figures.fig4_heatmap(table, ["en", "zh"], reach=x) for x in (None, 0.2))
    assert own.axes[0].collections[0].norm.vmax == pytest.approx(0.01)
    assert shared.axes[0].collections[0].norm.vmax == 0.2


def test_correlations_are_on_a_scale_from_minus_one_to_one():
    matrix = pd.DataFrame([[1.0, -0.4], [-0.4, 1.0]], index=["a", "b"], columns=["a", "b"])
    axes = figures.correlation_heatmap(matrix).axes[0]
    assert values(axes) == pytest.approx(matrix.to_numpy())
    assert axes.collections[0].get_clim() == (-1, 1)
    with pytest.raises(ValueError, match="outside -1 to 1"):
        figures.correlation_heatmap(matrix * 2)


# --- the audit ----------------------------------------------------------------------------------


def test_the_audit_s_figures_show_its_tables() -> None:
    tables = audit.published()
    checked = audit.recompute(tables)
    axes: Any = figures.recomputed(checked).axes[0]
    wrong = checked["verdict"] != "agrees"
    assert len(points(axes)[style.INK]) == int((~wrong).sum())
    assert [x for x, _ in points(axes)[style.SERIES[2]]] == checked["difference"][wrong].tolist()
    assert len(axes.texts) == int(wrong.sum()) and "follows" in axes.texts[0].get_text()

    noise = audit.noise_table(tables)
    noise = noise[noise["number"] == "1"]
    axes = figures.noise_ranges(noise).axes[0]
    bars = {(round(bar.get_x(), 9), round(bar.get_width(), 9)) for bar in axes.patches}
    row = noise.iloc[4]
    assert (round(row["z_low"], 9), round(row["z_high"] - row["z_low"], 9)) in bars
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["en", "zh", "vi"]

    variants = audit.f1_variants(tables)
    axes = figures.iso_f1({"all": variants}).axes[0]
    own = variants[variants["method"] == "CRANE"]
    np.testing.assert_allclose(points(axes)[style.METHODS["CRANE"]], own[["recall", "precision"]])

    figure: Any = figures.even_damage_curves(
        [0, 1], {"one": {"vi": [0, 0.6]}}, {"one": {"vi": 0.2}}
    )
    lines = {(x.get_color(), *x.get_ydata()) for x in lines_in(figure.axes[0])}
    assert lines == {(style.LANGUAGES["vi"], 0, 0.6), (style.LANGUAGES["vi"], 0.2, 0.2)}
    axes = figures.null_curves({"2 %": ([70, 900], [0.1, 0.05], [0.2, 0.1])}, {"here": 70}).axes[0]
    assert {tuple(x.get_ydata()) for x in axes.lines} >= {(0.1, 0.05), (0.2, 0.1)}
    assert axes.get_xscale() == "log" and axes.texts[0].get_text().strip() == "here"
