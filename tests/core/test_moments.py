"""Moments against scipy, in every order and split (paper Eq. 2)."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import kurtosis as scipy_kurtosis

from crane_core.moments import FEW_SAMPLES, StreamingMoments

pytestmark = pytest.mark.filterwarnings("ignore:kurtosis of .* samples")


def collect(batches, shape):
    moments = StreamingMoments(shape)
    for batch in batches:
        moments.update(torch.as_tensor(batch))
    return moments


def reference(x):
    """Two passes in extended precision: near the limit of float64 scipy itself is not exact."""
    wide = x.astype(np.longdouble)
    centred = wide - wide.mean(axis=0)
    return ((centred**4).mean(axis=0) / (centred**2).mean(axis=0) ** 2).astype(np.float64)


@pytest.mark.parametrize("mean", [0.0, -3e3, 1e5])
@pytest.mark.parametrize("split", [1, 3, 7, 64, 500])
def test_equals_scipy_on_heavy_tails_with_large_means(mean, split):
    rng = np.random.default_rng(0)
    x = (rng.standard_t(2.5, size=(500, 3, 8)) + mean) * rng.lognormal(0, 2, size=(3, 8))
    moments = collect(np.array_split(x, split), (3, 8))
    assert moments.count == 500
    expected = scipy_kurtosis(x, axis=0, fisher=False)
    np.testing.assert_allclose(moments.kurtosis().numpy(), expected, rtol=1e-9)
    np.testing.assert_allclose(moments.mean().numpy(), x.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(moments.variance().numpy(), x.var(axis=0), rtol=1e-9)


def test_a_mean_of_a_billion_spreads_costs_no_digits():
    # Here scipy itself is right to 1e-7 only.
    rng = np.random.default_rng(1)
    x = rng.lognormal(0, 2, size=(400, 50)) + 1e9
    moments = collect(np.array_split(x, 13), (50,))
    np.testing.assert_allclose(moments.kurtosis().numpy(), reference(x), rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_low_precision_input_is_taken_at_its_value(dtype):
    x = (torch.randn(200, 5, generator=torch.Generator().manual_seed(0)) ** 3).to(dtype)
    moments = collect(x.split(17), (5,))
    expected = scipy_kurtosis(x.double().numpy(), axis=0, fisher=False)
    assert moments.kurtosis().dtype == torch.float64
    np.testing.assert_allclose(moments.kurtosis().numpy(), expected, rtol=1e-9)


samples = hnp.arrays(
    np.float64,
    st.tuples(st.integers(4, 30), st.just(3)),
    elements=st.floats(-1e6, 1e6, width=32),
)


@settings(max_examples=80, deadline=None)
@given(samples, st.data())
def test_merge_in_any_order_and_grouping(x, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(x)), max_size=4)))
    parts = [collect([part], (3,)) for part in np.split(x, cuts)]
    order = data.draw(st.permutations(range(len(parts))))
    # From the left, and from the right: every grouping of three or more is a mix of these.
    left, right = StreamingMoments((3,)), StreamingMoments((3,))
    for i in order:
        left.merge(parts[i])
    for i in reversed(order):
        fresh = StreamingMoments.from_state(parts[i].state())
        fresh.merge(right)
        right = fresh
    whole = collect([x], (3,))
    # The float64 noise in a spread near zero is beside the point here.
    wide = (whole.variance() > 1e-12 * (1 + whole.mean() ** 2)).numpy()
    for merged in (left, right):
        assert merged.count == len(x)
        assert torch.equal(merged.constant, whole.constant)
        for got in (merged, whole):
            np.testing.assert_allclose(
                got.kurtosis().numpy()[wide], reference(x[:, wide]), rtol=1e-9
            )


@settings(max_examples=60, deadline=None)
@given(st.floats(-1e30, 1e30), st.lists(st.integers(1, 9), min_size=2, max_size=5))
def test_a_constant_entry_is_found_whatever_its_value_and_the_batches(value, sizes):
    batches = [torch.full((n, 2), value, dtype=torch.float64) for n in sizes]
    for i, batch in enumerate(batches):
        batch[:, 1] = torch.arange(len(batch)) + i
    batches[0][0, 1] = -5.0
    moments = collect(batches, (2,))
    merged = collect(batches[:1], (2,))
    merged.merge(collect(batches[1:], (2,)))
    for m in (moments, merged):
        assert m.constant.tolist() == [True, False]
        assert m.n_constant == 1
        if m.count >= 4:
            assert m.kurtosis().isnan().tolist() == [True, False]


def test_a_spread_below_rounding_counts_as_constant_as_in_scipy():
    x = torch.full((40, 1), 1e17, dtype=torch.float64)
    x[0] += 16.0  # one unit in the last place
    moments = collect(x.split(9), (1,))
    assert moments.n_constant == 1
    with pytest.warns(RuntimeWarning):
        assert np.isnan(scipy_kurtosis(x.numpy(), fisher=False)).all()


def test_one_outlier_reaches_the_bound_of_the_sample_size():
    for n in (4, 10, 500):
        x = torch.zeros(n, 1)
        x[n // 2] = 7.0
        assert collect(x.split(3), (1,)).kurtosis().item() == pytest.approx(
            n - 2 + 1 / (n - 1), rel=1e-12
        )


@settings(max_examples=40, deadline=None)
@given(samples, st.floats(1e-6, 1e6), st.floats(-1e3, 1e3))
def test_kurtosis_ignores_scale_and_location(x, scale, offset):
    x = np.round(x)  # keeps the shifted values distinct
    moments, moved = collect([x], (3,)), collect([(x + offset) * scale], (3,))
    wide = (moments.variance() > 1e-3).numpy()
    np.testing.assert_allclose(
        moved.kurtosis().numpy()[wide], moments.kurtosis().numpy()[wide], rtol=1e-6
    )


def test_state_round_trip_continues_the_stream():
    x = torch.randn(60, 2, 3, generator=torch.Generator().manual_seed(3)).double()
    moments = collect([x[:25]], (2, 3))
    state = moments.state()
    moments.update(x[25:])
    resumed = StreamingMoments.from_state(state)
    assert resumed.count == 25
    resumed.update(x[25:])
    assert torch.equal(resumed.kurtosis(), moments.kurtosis())
    with pytest.raises(ValueError, match="m4"):
        StreamingMoments.from_state({k: v for k, v in state.items() if k != "m4"})


def test_an_empty_batch_changes_nothing():
    moments = collect([torch.ones(3, 2), torch.zeros(0, 2)], (2,))
    assert moments.count == 3
    moments.merge(StreamingMoments((2,)))
    assert moments.count == 3


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_bad_relevance_names_sample_layer_and_neuron_and_changes_nothing(bad):
    moments = collect([torch.randn(5, 2, 3)], (2, 3))
    before = moments.state()
    x = torch.randn(4, 2, 3)
    x[2, 1, 0] = bad
    with pytest.raises(ValueError, match=r"sample 7 .* layer 1, neuron 0"):
        moments.update(x)
    assert all(torch.equal(before[part], moments.state()[part]) for part in before)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_too_few_samples(n):
    moments = collect([torch.randn(n, 2)], (2,))
    with pytest.raises(ValueError, match=f"at least 4 samples, got {n}"):
        moments.kurtosis()


def test_few_samples_warn():
    x = torch.randn(FEW_SAMPLES, 2)
    with pytest.warns(UserWarning, match="standard error"):
        collect([x[:-1]], (2,)).kurtosis()


def test_wrong_input():
    moments = StreamingMoments((2, 3))
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        moments.update(torch.randn(4, 3, 2))
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        moments.update(torch.tensor(1.0))
    with pytest.raises(TypeError, match="int64"):
        moments.update(torch.ones(4, 2, 3, dtype=torch.long))
    with pytest.raises(TypeError, match="list"):
        moments.update([[1.0]])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cannot merge"):
        moments.merge(StreamingMoments((3, 2)))
    with pytest.raises(ValueError, match="rescale"):
        collect([torch.randn(9, 1).double() * 1e100], (1,)).kurtosis()
