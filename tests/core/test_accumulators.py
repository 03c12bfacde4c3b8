"""Accumulators: what each keeps of a stream, merging, and the one pass that feeds all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from crane_core.accumulators import (
    NEURON_VALUES,
    ActivationMeans,
    ActiveCounts,
    LayerValues,
    Reader,
    Reservoir,
    TokenSample,
    collect,
    one_pass,
)
from crane_core.attribution import neuron_relevance
from crane_core.concentration import Collected
from crane_core.models import mlp_sites, shape
from crane_core.moments import StreamingMoments

Batch = tuple[Tensor, Tensor]
SHAPE = (3, 48)  # of `tiny_llama`


def merged(model: Any, batches: Iterable[Batch], reader: Reader) -> Any:
    found = reader.make()
    for ids, mask in batches:
        found.merge(one_pass(model, ids, mask, {"one": reader})["one"])
    return found


def counted(
    model: Any, batches: Iterable[Batch], threshold: float | Tensor = 0.0
) -> tuple[Tensor, int]:
    found = merged(model, batches, Reader("act_fn", lambda: ActiveCounts(SHAPE, threshold)))
    return found.over, found.tokens


def recorded_activations(model: Any, input_ids: Tensor, mask: Tensor) -> Tensor:
    """act_fn's output on real tokens, (tokens, layers, neurons), from each MLP's own input."""
    seen, handles = [], []
    for site in mlp_sites(model):
        handles.append(
            site.mlp.register_forward_hook(
                lambda _m, inputs, _o, site=site: seen.append(
                    torch.nn.functional.silu(site.gate_proj(inputs[0]))
                )
            )
        )
    with torch.no_grad():
        model(input_ids, attention_mask=mask)
    for handle in handles:
        handle.remove()
    return torch.stack([layer[mask.bool()] for layer in seen], dim=1)


def test_activation_counts_see_real_tokens_only(tiny_llama, tiny_batch):
    ids, mask = tiny_batch
    expected = recorded_activations(tiny_llama, ids, mask)
    counts, tokens = counted(tiny_llama, [(ids[:3], mask[:3]), (ids[3:], mask[3:])])
    assert tokens == int(mask.sum()) == len(expected)
    assert counts.dtype == torch.long
    assert torch.equal(counts, (expected > 0).sum(dim=0))
    assert 0 < counts.double().mean() < tokens
    bars = expected.median(dim=0).values
    over, _ = counted(tiny_llama, [(ids, mask)], threshold=bars)
    assert torch.equal(over, (expected > bars).sum(dim=0))


def test_padding_does_not_change_the_counts(tiny_llama, tiny_batch):
    ids, mask = tiny_batch
    one_by_one = [
        (row[None, : int(m.sum())], m[None, : int(m.sum())])
        for row, m in zip(ids, mask, strict=True)
    ]
    batched, tokens = counted(tiny_llama, [tiny_batch])
    single, same = counted(tiny_llama, one_by_one)
    assert tokens == same
    assert torch.equal(batched, single)


def test_activations_leave_no_hooks_and_reject_nonsense(tiny_llama, tiny_batch):
    ids, mask = tiny_batch
    with pytest.raises(ValueError, match="corpus is empty"):
        counted(tiny_llama, [])
    with pytest.raises(ValueError, match="corpus is empty"):
        counted(tiny_llama, [(ids, torch.zeros_like(mask))])
    with pytest.raises(ValueError, match=r"\(3, 48\)"):
        counted(tiny_llama, [tiny_batch], threshold=torch.zeros(48))

    def broken():
        yield tiny_batch
        raise RuntimeError("disk gone")

    with pytest.raises(RuntimeError, match="disk gone"):
        counted(tiny_llama, broken())
    assert not any(site.act_fn._forward_hooks for site in mlp_sites(tiny_llama))


# --- each of them ---------------------------------------------------------------------------------

#: More than the longest stream below has: beyond its room a sample in pieces is another draw.
ROOM = 60

#: name -> a new accumulator, with room for every stream.
KINDS: dict[str, Any] = {
    "moments": lambda: StreamingMoments((2, 3)),
    "collected": lambda: Collected((2, 3), ROOM),
    "reservoir": lambda: Reservoir(ROOM),
    "counts": lambda: ActiveCounts((1, 4)),
    "means": lambda: ActivationMeans((1, 4)),
    "tokens": lambda: TokenSample((1, 4), ROOM),
}
OF_TOKENS = {"counts", "means", "tokens"}


def batches(kind: str, sizes: Sequence[int]) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    if kind in OF_TOKENS:
        return [LayerValues(0, torch.randn(n, 4, generator=generator)) for n in sizes]
    return [torch.randn(n, 2, 3, generator=generator) for n in sizes]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=6), st.integers(1, 5))
def test_a_stream_in_pieces_is_the_stream(kind: str, sizes: list[int], cut: int) -> None:
    stream = batches(kind, sizes)
    whole, first, second = KINDS[kind](), KINDS[kind](), KINDS[kind]()
    for batch in stream:
        whole.update(batch)
    for batch in stream[:cut]:
        first.update(batch)
    for batch in stream[cut:]:
        second.update(batch)
    kept = {name: tensor.clone() for name, tensor in second.state().items()}
    restored = type(first).from_state(first.state())
    restored.merge(type(second).from_state(kept))
    left, right = whole.state(), restored.state()
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        torch.testing.assert_close(tensor, right[name], rtol=1e-9, atol=1e-9)
    for name, tensor in second.state().items():
        assert torch.equal(tensor, kept[name])  # what was merged stays as it was


def test_counts_of_another_threshold_do_not_merge() -> None:
    with pytest.raises(ValueError, match="another threshold"):
        ActiveCounts(SHAPE).merge(ActiveCounts(SHAPE, 1.0))


def test_means_are_means(tiny_llama: Any, tiny_batch: Batch) -> None:
    ids, mask = tiny_batch
    expected = recorded_activations(tiny_llama, ids, mask).double().mean(0)
    found = merged(tiny_llama, [tiny_batch], Reader("act_fn", lambda: ActivationMeans(SHAPE)))
    torch.testing.assert_close(found.mean(), expected)


# --- samples --------------------------------------------------------------------------------------


def test_a_reservoir_is_a_uniform_sample() -> None:
    """Every row of a stream in uneven pieces is kept equally often, in pairs too."""
    kept = np.zeros(20)
    for seed in range(2000):
        first, second = Reservoir(5, seed), Reservoir(5, seed)
        for part in torch.arange(12).split(5):
            first.update(part)
        second.update(torch.arange(12, 20))
        first.merge(second)
        rows = first.rows.tolist()
        assert len(set(rows)) == 5 and first.count == 20
        kept[rows] += 1
    # Expected 500 each, with a standard deviation of 19.
    assert np.abs(kept - 500).max() < 5 * 19


def test_a_reservoir_keeps_everything_that_fits_in_order() -> None:
    found = Reservoir(20)
    for part in torch.arange(20).split(7):
        found.update(part)
    assert found.rows.tolist() == list(range(20))
    same = [Reservoir(4, 1), Reservoir(4, 1)]
    for one in same:
        one.update(torch.arange(100))
    assert torch.equal(same[0].rows, same[1].rows)
    with pytest.raises(ValueError, match="capacity is 0"):
        Reservoir(0)
    with pytest.raises(ValueError, match="no rows"):
        Reservoir(3).quantiles([0.5])
    for wrong in (1.5, -0.1, float("nan")):
        with pytest.raises(ValueError, match=f"quantile is {wrong}: expected 0 to 1"):
            found.quantiles([0.5, wrong])


def test_quantiles_are_those_of_the_stream() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(20_000, 3, generator=generator)
    found = TokenSample((2, 3), 1000)
    for part in values.split(700):
        for layer in range(2):
            found.update(LayerValues(layer, part * (layer + 1)))
    assert found.tokens == 20_000
    q = found.quantiles([0.1, 0.5, 0.9])
    exact = values.double().quantile(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64), dim=0)
    # The rank of a quantile is off by about 1 %, its value by that over the density there.
    assert (q[:, 0] - exact).abs().max() < 0.2
    torch.testing.assert_close(q[:, 1], 2 * q[:, 0])  # the same tokens in every layer
    few = TokenSample((1, 3), 1000)
    few.update(LayerValues(0, values[:500]))
    torch.testing.assert_close(
        few.quantiles([0.25])[0, 0], values[:500].double().quantile(0.25, dim=0)
    )


def test_values_that_masks_can_set() -> None:
    means, sample = ActivationMeans((1, 2)), TokenSample((1, 2))
    for one in (means, sample):
        one.update(LayerValues(0, torch.arange(22.0).view(11, 2)))
    values = {name: of(means, sample)[0, 0].item() for name, of in NEURON_VALUES.items()}
    assert values == {"mean": 10.0, "p10": 2.0, "p90": 18.0}


# --- one pass -------------------------------------------------------------------------------------


def everything() -> dict[str, Reader]:
    sizes = dict.fromkeys(("intermediate", "gate", "up"), SHAPE) | {"down": (3, 32)}
    found = {point: Reader(point, partial(Collected, size, 8)) for point, size in sizes.items()}
    found["even"] = Reader("intermediate", lambda: StreamingMoments(SHAPE), 0, 2)
    found["active"] = Reader("act_fn", lambda: ActiveCounts(SHAPE))
    found["means"] = Reader("unit", lambda: ActivationMeans(SHAPE))
    found["tokens"] = Reader("unit", lambda: TokenSample(SHAPE, 20))
    return found


def test_one_pass_gives_each_reader_what_it_would_have_alone(tiny_llama: Any) -> None:
    ids = torch.randint(3, 64, (12, 10), generator=torch.Generator().manual_seed(0))
    assert dict(shape(tiny_llama)) == {
        "intermediate": SHAPE, "gate": SHAPE, "up": SHAPE, "down": (3, 32)
    }  # fmt: skip
    parts = ids.split(5)
    together = collect(tiny_llama, parts, everything())
    for name, reader in everything().items():
        alone = collect(tiny_llama, parts, {name: reader})[name].state()
        for part, tensor in together[name].state().items():
            assert torch.equal(tensor, alone[part]), (name, part)
    moments = StreamingMoments(SHAPE)
    for part in parts:
        moments.update(neuron_relevance(tiny_llama, part))
    kurtosis = together["intermediate"].moments.kurtosis()
    assert torch.equal(kurtosis, moments.kurtosis())


def test_one_pass_leaves_out_what_opens_a_sample(tiny_llama: Any) -> None:
    ids = torch.arange(1, 13).view(2, 6)
    readers = {
        "seen": Reader("act_fn", lambda: ActiveCounts(SHAPE)),
        "r": Reader("intermediate", lambda: Collected(SHAPE, 0)),
    }
    found = one_pass(tiny_llama, ids, None, readers, opening=1)
    assert found["seen"].tokens == 10
    assert torch.equal(found["r"], neuron_relevance(tiny_llama, ids, opening=1))
    every = recorded_activations(tiny_llama, ids, torch.ones_like(ids)).unflatten(0, (2, 6))
    assert torch.equal(found["seen"].over, (every[:, 1:] > 0).sum((0, 1)))


def test_one_pass_runs_the_model_once(
    tiny_llama: Any, tiny_batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_pass(tiny_llama, *tiny_batch, everything())  # a new model is tried first
    calls = []
    forward = type(tiny_llama.model).forward

    def counted_forward(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        return forward(*arguments, **options)

    monkeypatch.setattr(type(tiny_llama.model), "forward", counted_forward)
    one_pass(tiny_llama, *tiny_batch, everything())
    assert len(calls) == 1


def test_bad_readings_are_refused(tiny_llama: Any) -> None:
    with pytest.raises(ValueError, match="unknown reading 'gates'"):
        Reader("gates", lambda: ActiveCounts(SHAPE))
    with pytest.raises(ValueError, match="no batch"):
        collect(tiny_llama, [], everything())
