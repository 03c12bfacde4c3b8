"""Statistics of relevance against scipy and plain formulas, and what becomes of odd streams."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from crane_core.concentration import STATISTICS, Collected, scores
from crane_core.concentration import compute as computed
from crane_core.selection import margins, normalise

pytestmark = pytest.mark.filterwarnings("ignore:kurtosis of")
Array = NDArray[np.float64]


def plain_gini(x: Array) -> float:
    size = np.abs(x)
    return float(np.abs(size[:, None] - size[None]).mean() / (2 * size.mean()))


def plain_hoyer(x: Array) -> float:
    root = np.sqrt(len(x))
    return float((root - np.abs(x).sum() / np.linalg.norm(x)) / (root - 1))


#: One neuron's relevance over texts -> the statistic, by the textbook.
PLAIN: dict[str, Callable[[Array], float]] = {
    "kurtosis": lambda x: float(scipy.stats.kurtosis(x, fisher=False)),
    "l_kurtosis": lambda x: float(scipy.stats.lmoment(x, order=4, standardize=True)),
    "variance": lambda x: float(np.var(x)),
    "mean_abs": lambda x: float(np.abs(x).mean()),
    "signed_mean": lambda x: float(x.mean()),
    "gini": plain_gini,
    "participation_ratio": lambda x: float((x**2).sum() ** 2 / (len(x) * (x**4).sum())),
    "hoyer": plain_hoyer,
}


def collect(batches: Iterable[Tensor], capacity: int = 1000, seed: int = 0) -> Collected:
    parts = list(batches)
    found = Collected(parts[0].shape[1:], capacity, seed)
    for part in parts:
        found.update(part)
    return found


def compute(name: str, stream: Collected | list[Tensor]) -> Tensor:
    return computed(name, stream if isinstance(stream, Collected) else collect(stream))


def column(*values: float) -> Tensor:
    """A stream of one neuron: (samples, 1, 1)."""
    return torch.tensor(values, dtype=torch.float64)[:, None, None]


def test_every_statistic_has_a_reference() -> None:
    assert list(PLAIN) == list(STATISTICS)
    assert next(iter(STATISTICS)) == "kurtosis"
    for statistic in STATISTICS.values():
        assert statistic.kind in ("shape", "size")
        assert statistic.sign in (-1, 1)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(4, 60),
    batch=st.integers(1, 20),
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    scale=st.sampled_from([1e-6, 1.0, 1e4]),
    shift=st.sampled_from([0.0, 0.5, -3.0]),
    heavy=st.booleans(),
)
def test_one_pass_equals_the_plain_formula(
    n: int,
    batch: int,
    seed: int,
    shape: tuple[int, int],
    scale: float,
    shift: float,
    heavy: bool,
) -> None:
    rng = np.random.default_rng(seed)
    draw = rng.standard_t(2, (n, *shape)) if heavy else rng.standard_normal((n, *shape))
    x = scale * (draw + shift)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stream = collect(torch.from_numpy(x).split(batch))
        found = {name: compute(name, stream).numpy() for name in STATISTICS}
    for name, values in found.items():
        expected = np.apply_along_axis(PLAIN[name], 0, x)
        np.testing.assert_allclose(values, expected, rtol=1e-7, atol=1e-12 * scale, err_msg=name)


@pytest.mark.parametrize("name", STATISTICS)
def test_a_statistic_of_shape_has_no_unit(name: str) -> None:
    x = torch.randn(40, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    once, scaled = compute(name, [x]), compute(name, [1000 * x])
    assert torch.allclose(once, scaled) == (STATISTICS[name].kind == "shape")


@pytest.mark.parametrize("name", [n for n, s in STATISTICS.items() if s.kind == "shape"])
def test_the_sign_says_which_end_is_concentrated(name: str) -> None:
    spread = column(*np.linspace(-1, 1, 50))
    peaked = column(*([0.01, -0.01] * 24 + [5.0, -5.0]))
    low, high = (float(compute(name, [x])) * STATISTICS[name].sign for x in (spread, peaked))
    assert low < high


def test_what_is_defined_for_a_constant_neuron_and_for_a_dead_one() -> None:
    found = {
        name: [float(compute(name, [column(*[value] * 9)])) for value in (0.3, 0.0)]
        for name in STATISTICS
    }
    nan = pytest.approx(float("nan"), nan_ok=True)
    assert found == {
        "kurtosis": [nan, nan],
        "l_kurtosis": [nan, nan],
        "variance": [pytest.approx(0), 0],
        "mean_abs": [pytest.approx(0.3), 0],
        "signed_mean": [pytest.approx(0.3), 0],
        "gini": [pytest.approx(0, abs=1e-12), nan],
        "participation_ratio": [pytest.approx(1), nan],
        "hoyer": [pytest.approx(0, abs=1e-12), nan],
    }


def test_one_text_with_all_the_relevance() -> None:
    x = column(*[0.0] * 9, 2.0)
    assert float(compute("hoyer", [x])) == pytest.approx(1)
    assert float(compute("participation_ratio", [x])) == pytest.approx(1 / 10)
    assert float(compute("gini", [x])) == pytest.approx(9 / 10)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_refused_and_changes_nothing(bad: float) -> None:
    stream = collect([column(1, 2, 3, 4, 6)])
    before = {name: compute(name, stream) for name in STATISTICS}
    with pytest.raises(ValueError, match="sample 6"):
        stream.update(column(1, bad))
    assert stream.count == 5
    for name in STATISTICS:
        assert torch.equal(compute(name, stream), before[name])


def test_too_few_samples_and_unknown_names_are_refused() -> None:
    three = collect([column(1, 2, 4)])
    for name in ("kurtosis", "l_kurtosis"):
        with pytest.raises(ValueError, match="needs at least 4 samples, got 3"):
            compute(name, three)
    assert float(compute("gini", three)) == pytest.approx(plain_gini(np.array([1.0, 2, 4])))
    with pytest.raises(ValueError, match="needs at least 2 samples"):
        compute("hoyer", [column(1)])
    with pytest.raises(ValueError, match="unknown statistic 'entropy'"):
        compute("entropy", three)
    with pytest.raises(ValueError, match="unknown statistic"):
        scores({"en": torch.zeros(1, 1)}, "entropy", "en", contrast=False)
    with pytest.raises(ValueError, match="none were kept"):
        compute("gini", collect([column(1, 2, 4)], capacity=0))
    with pytest.raises(ValueError, match="capacity is 2"):
        Collected((1, 1), capacity=2)


def test_memory_stays_bounded_and_the_sample_is_uniform() -> None:
    kept = torch.zeros(40)
    for seed in range(300):
        stream = collect(
            torch.arange(40, dtype=torch.float32)[:, None, None].split(7), capacity=10, seed=seed
        )
        assert stream.sample.shape == (10, 1, 1)
        kept[stream.sample.flatten().long()] += 1
    assert stream.count == 40
    # Each text is kept with probability 1/4: 75 of 300 times, standard deviation 7.5.
    assert kept.min() > 75 - 4.5 * 7.5
    assert kept.max() < 75 + 4.5 * 7.5
    assert float(compute("signed_mean", stream)) == 19.5  # what needs no sample is still exact


def test_the_same_batches_give_the_same_sample() -> None:
    x = torch.randn(50, 2, 2)
    one = collect(x.split(3), capacity=8, seed=3).sample
    assert torch.equal(one, collect(x.split(3), capacity=8, seed=3).sample)
    assert not torch.equal(one, collect(x.split(3), capacity=8, seed=4).sample)


def test_scores_turn_a_statistic_into_an_order() -> None:
    generator = torch.Generator().manual_seed(0)
    streams = {x: torch.randn(30, 2, 5, generator=generator) for x in ("en", "zh", "vi")}
    values = {x: compute("participation_ratio", [s]) for x, s in streams.items()}
    alone = scores(values, "participation_ratio", "zh", contrast=False)
    assert torch.equal(alone, normalise(-values["zh"]))
    normalised = {x: normalise(-v) for x, v in values.items()}
    own, others = margins(normalised, "zh")
    both = scores(values, "participation_ratio", "zh", contrast=True)
    assert torch.equal(both, own - others)
    assert torch.equal(both, alone - torch.maximum(normalised["en"], normalised["vi"]))
