"""Single ablations against the plain way of doing them, and the statistics made of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_tiny_llama
from safetensors.torch import load_file, save_file
from scipy.stats import ttest_1samp
from torch import Tensor
from transformers import LlamaForCausalLM

from crane_core import models
from crane_core.accumulators import ActivationMeans, Reader, collect
from crane_core.masking import masked
from crane_core.selection import NeuronSet
from crane_lab.engines.perplexity import perplexity
from crane_lab.store import Store
from crane_lab.study import necessity
from crane_lab.study.necessity import Estimate, Necessity, measure, single_effects
from crane_lab.texts import corpora, local

TESTBED = Path(models.__file__).resolve().parent.parent / "data" / "testbed"


def texts(seed: int, n: int = 10, tokens: int = 9) -> Tensor:
    return torch.randint(3, 64, (n, tokens), generator=torch.Generator().manual_seed(seed))


def plainly(
    model: LlamaForCausalLM, windows: Tensor, layer: int, neuron: int, value: Tensor | float = 0.0
) -> Tensor:
    """Mean loss of each text with one neuron masked, by a whole forward pass in float64."""
    shape = models.shape(model)
    constants = {"intermediate": torch.as_tensor(value).expand(shape["intermediate"])}
    with masked(model, NeuronSet.from_pairs([(layer, neuron)], shape), constants), torch.no_grad():
        logits = model(input_ids=windows).logits[:, :-1].double()
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), windows[:, 1:].flatten(), reduction="none"
    )
    return losses.view(len(windows), -1).mean(1)


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_effects_are_those_of_masking(
    tiny_llama: LlamaForCausalLM, batch_size: int, double: bool
) -> None:
    model = tiny_llama.double() if double else tiny_llama
    tolerance = 1e-11 if double else 1e-5
    windows = texts(0)
    other = torch.linspace(-1, 1, 48)
    for layer in range(3):
        neurons = [0, 7, 47]
        untouched, found = single_effects(model, windows, layer, neurons, [0.0, other], batch_size)
        assert untouched.shape == (10,) and found.shape == (2, 3, 10)
        with torch.no_grad():
            logits = model(input_ids=windows).logits[:, :-1].double()
        expected = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), windows[:, 1:], reduction="none"
        ).mean(1)
        torch.testing.assert_close(untouched, expected, rtol=tolerance, atol=0)
        for j, neuron in enumerate(neurons):
            constants: tuple[float | Tensor, ...] = (0.0, other)
            for v, value in enumerate(constants):
                expected = plainly(model, windows, layer, neuron, value)
                torch.testing.assert_close(found[v, j], expected, rtol=tolerance, atol=0)
                assert not torch.allclose(found[v, j], untouched, rtol=1e-4, atol=0)


def test_effects_on_top_of_a_mask(tiny_llama: LlamaForCausalLM) -> None:
    windows, shape = texts(0), models.shape(tiny_llama)
    with masked(tiny_llama, NeuronSet.from_pairs([(0, 1), (1, 2), (2, 3)], shape)):
        _, found = single_effects(tiny_llama, windows, 1, [5])
    both = NeuronSet.from_pairs([(0, 1), (1, 2), (2, 3), (1, 5)], shape)
    with masked(tiny_llama, both):
        expected = perplexity(tiny_llama, windows).losses.double()
    torch.testing.assert_close(found[0, 0], expected, rtol=1e-5, atol=0)


def test_long_texts_and_large_logits_take_the_general_way(
    make_llama: Callable[..., LlamaForCausalLM],
) -> None:
    model = make_llama(max_position_embeddings=256)
    windows = texts(0, 2, 200)  # beyond the short attention
    torch.testing.assert_close(
        single_effects(model, windows, 0, [3])[1][0, 0], plainly(model, windows, 0, 3),
        rtol=1e-5, atol=0,
    )  # fmt: skip
    with torch.no_grad():
        model.lm_head.weight *= 300  # exp would overflow
    untouched, found = single_effects(model, texts(0), 2, [3])
    expected = plainly(model, texts(0), 2, 3)
    torch.testing.assert_close(found[0, 0], expected, rtol=1e-5, atol=0)
    assert untouched.isfinite().all() and untouched.max() > 100


def test_the_model_is_left_alone(tiny_llama: LlamaForCausalLM) -> None:
    before = models.fingerprint(tiny_llama)
    single_effects(tiny_llama, texts(0), 1, [0])
    means(tiny_llama, {"en": texts(0)})
    assert models.fingerprint(tiny_llama) == before
    hooks = [m for m in tiny_llama.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert not hooks


def means(model: LlamaForCausalLM, windows: dict[str, Tensor], batch_size: int = 16) -> Tensor:
    """The neurons' means over the tokens of all texts, (layers, neurons)."""
    readers = {
        "means": Reader("unit", lambda: ActivationMeans(models.shape(model)["intermediate"]))
    }
    batches = [part for own in windows.values() for part in own.split(batch_size)]
    found: Tensor = collect(model, batches, readers)["means"].mean().float()
    return found


def test_mean_activations_pool_all_tokens(tiny_llama: LlamaForCausalLM) -> None:
    windows = {"en": texts(0), "zh": texts(1)}
    seen: list[Tensor] = []
    site = models.mlp_sites(tiny_llama)[1].down_proj
    handle = site.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        tiny_llama(input_ids=torch.cat(list(windows.values())))
    handle.remove()
    found = means(tiny_llama, windows, batch_size=3)
    assert found.shape == (3, 48) and found.dtype == torch.float32
    torch.testing.assert_close(found[1], seen[0].flatten(0, 1).mean(0))
    with pytest.raises(ValueError, match="no texts"):
        means(tiny_llama, {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"windows": torch.zeros(3, 1, dtype=torch.long)}, "t >= 2"),
        ({"layer": 3}, "3 layers of 48"),
        ({"neurons": [48]}, "3 layers of 48"),
        ({"batch_size": 0}, "at least 1"),
    ],
)
def test_wrong_arguments_are_refused(
    tiny_llama: LlamaForCausalLM, changes: dict[str, object], message: str
) -> None:
    given = {"windows": texts(0), "layer": 0, "neurons": [0], "batch_size": 4, **changes}
    with pytest.raises(ValueError, match=message):
        single_effects(
            tiny_llama,
            given["windows"],  # type: ignore[arg-type]
            given["layer"],  # type: ignore[arg-type]
            given["neurons"],  # type: ignore[arg-type]
            batch_size=given["batch_size"],  # type: ignore[arg-type]
        )


# ------------------------------------------------------------------------------------- the sweep

LANGUAGES = {"en": 0, "zh": 1, "vi": 2}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Necessity:
    return sweep(make_tiny_llama(), Store(tmp_path_factory.mktemp("store")))


def sweep(model: LlamaForCausalLM, store: Store) -> Necessity:
    windows = {x: texts(seed) for x, seed in LANGUAGES.items()}
    set_to = {"zero": torch.zeros(3, 48), "mean": means(model, windows)}
    return measure(model, windows, set_to, {"model": "tiny"}, store, batch_size=8)


def test_a_sweep_measures_every_neuron(tiny_llama: LlamaForCausalLM, swept: Necessity) -> None:
    found = swept
    assert found.values == ["zero", "mean"] and found.languages == list(LANGUAGES)
    assert found.n_texts == 10
    for value, x, layer, neuron in (("zero", "zh", 2, 47), ("mean", "vi", 0, 0)):
        windows = texts(LANGUAGES[x])
        constant = found.set_to[value][layer, neuron]
        before = perplexity(tiny_llama, windows).losses.double()
        increase = plainly(tiny_llama, windows, layer, neuron, float(constant)) - before
        estimate = found.necessity(x, value)
        assert estimate.value[layer, neuron] == pytest.approx(float(increase.mean()), abs=1e-6)
        error = float(increase.std() / 10**0.5)
        assert estimate.error[layer, neuron] == pytest.approx(error, rel=1e-3)
        folds = found.folds[value][x][:, layer, neuron]
        groups = np.array_split(increase.numpy(), necessity.FOLDS)
        np.testing.assert_allclose(folds, [g.mean() for g in groups], atol=1e-6)


def test_a_sweep_goes_on_where_it_stopped(
    tiny_llama: LlamaForCausalLM,
    swept: Necessity,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, calls = Store(tmp_path / "a"), 0
    real = necessity.single_effects

    def counted(*args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        nonlocal calls
        calls += 1
        if calls == 8:
            raise KeyboardInterrupt
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(necessity, "single_effects", counted)
    with pytest.raises(KeyboardInterrupt):
        sweep(tiny_llama, store)
    resumed = sweep(tiny_llama, store)
    assert calls == 8 + 2 * 3 * 3 - 7  # values x languages x layers, seven of them were kept
    for value in swept.values:
        for x in swept.languages:
            assert torch.equal(resumed.necessity(x, value).value, swept.necessity(x, value).value)
            assert torch.equal(resumed.folds[value][x], swept.folds[value][x])


def test_a_sweep_needs_texts_of_every_language(
    tiny_llama: LlamaForCausalLM, tmp_path: Path
) -> None:
    zero = {"zero": torch.zeros(3, 48)}
    for windows in ({"en": texts(0)}, {"en": texts(0), "zh": texts(1, 9)}):
        with pytest.raises(ValueError, match="same number"):
            measure(tiny_llama, windows, zero, {}, Store(tmp_path))
    with pytest.raises(ValueError, match=r"\(layers, neurons\) is \(3, 48\)"):
        measure(
            tiny_llama,
            {"en": texts(0), "zh": texts(1)},
            {"zero": torch.zeros(3, 47)},
            {},
            Store(tmp_path),
        )


def test_it_is_read_as_it_was_written(swept: Necessity, tmp_path: Path) -> None:
    found, path = swept, tmp_path / "n.safetensors"
    found.save(path)
    read = Necessity.load(path)
    assert (read.values, read.languages, read.n_texts) == (["zero", "mean"], list(LANGUAGES), 10)
    for value in found.values:
        assert torch.equal(read.set_to[value], found.set_to[value])
        for x in found.languages:
            assert torch.equal(
                read.necessity(x, value).value.float(), found.necessity(x, value).value.float()
            )
            assert torch.equal(read.folds[value][x].float(), found.folds[value][x].float())
    read.require_source({"model": "tiny"})
    with pytest.raises(ValueError, match=r"model: 'tiny' there, 'big' here.*recompute_necessity"):
        read.require_source({"model": "big"})
    again = tmp_path / "again.safetensors"
    read.save(again)
    assert again.read_bytes() == path.read_bytes()


def test_a_damaged_file_is_noticed(swept: Necessity, tmp_path: Path) -> None:
    path = tmp_path / "n.safetensors"
    with pytest.raises(FileNotFoundError, match="no single-ablation effects"):
        Necessity.load(path)
    swept.save(path)
    whole = path.read_bytes()
    altered = bytearray(whole)
    altered[-3] ^= 1
    path.write_bytes(altered)
    with pytest.raises(ValueError, match="altered"):
        Necessity.load(path)
    path.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="readable"):
        Necessity.load(path)
    save_file(load_file_bytes(whole, tmp_path), path, {"kind": "else"})
    with pytest.raises(ValueError, match="holds no"):
        Necessity.load(path)


def load_file_bytes(content: bytes, folder: Path) -> dict[str, Tensor]:
    (folder / "whole").write_bytes(content)
    return load_file(folder / "whole")


# ---------------------------------------------------------------------------------- the statistics


def made(effects: dict[str, list[float]], errors: dict[str, list[float]], n: int) -> Necessity:
    estimates = {
        x: Estimate(
            torch.tensor([effects[x]], dtype=torch.float64),
            torch.tensor([errors[x]], dtype=torch.float64),
        )
        for x in effects
    }
    folds = {x: e.value.repeat(2, 1, 1) for x, e in estimates.items()}
    return Necessity({"zero": estimates}, {"zero": folds}, {}, n, {})


def test_selectivity_is_against_the_worst_hit_other_language() -> None:
    found = made(
        {"en": [3.0, 1.0], "zh": [1.0, -2.0], "vi": [2.0, 4.0]},
        {"en": [0.3, 0.3], "zh": [9.0, 9.0], "vi": [0.4, 0.4]},
        50,
    )
    selectivity = found.selectivity("en")
    assert selectivity.value.tolist() == [[1.0, -3.0]]
    assert selectivity.error.tolist() == [[pytest.approx(0.5)] * 2]
    assert torch.equal(found.selectivity_folds("en")[1], selectivity.value)
    with pytest.raises(ValueError, match="'fr'"):
        found.selectivity("fr")
    with pytest.raises(ValueError, match="'mean'"):
        found.necessity("en", "mean")


def test_p_values_are_those_of_one_sided_t_tests() -> None:
    values = np.random.default_rng(0).normal(0.3, 1, 40)
    mean, error = values.mean(), values.std(ddof=1) / 40**0.5
    found = made({"en": [mean, 0.0], "zh": [0.0, 0.0]}, {"en": [error, 0.0], "zh": [0.0, 0.0]}, 40)
    expected = ttest_1samp(values, 0, alternative="greater").pvalue
    assert found.p_values("en", "necessity")[0, 0] == pytest.approx(expected)
    assert found.p_values("en", "selectivity")[0, 0] == pytest.approx(expected)
    assert found.p_values("en", "necessity")[0, 1] == 1  # nothing changes: no evidence
    with pytest.raises(ValueError, match="unknown kind"):
        found.p_values("en", "damage")


def test_a_selective_neuron_must_also_be_necessary() -> None:
    found = made(
        {"en": [0.0, 1.0], "zh": [-1.0, -1.0], "vi": [-1.0, 0.0]},
        {x: [0.01, 0.01] for x in ("en", "zh", "vi")},
        100,
    )
    assert found.significant("en", "selectivity").tolist() == [[False, True]]


def test_significance_controls_the_false_discovery_rate() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(size=2000)
    real = np.concatenate([noise[:1800], noise[1800:] + 8])
    zero = [0.0] * 2000
    found = made({"en": real.tolist(), "zh": zero}, {"en": [1.0] * 2000, "zh": zero}, 10**6)
    chosen = found.significant("en", "necessity", level=0.1)[0].numpy()
    assert chosen[1800:].mean() > 0.95
    assert chosen[:1800].sum() / chosen.sum() < 0.15
    nothing = made({"en": noise.tolist(), "zh": zero}, {"en": [1.0] * 2000, "zh": zero}, 10**6)
    assert nothing.significant("en", "necessity").sum() == 0
    with pytest.raises(ValueError, match="level"):
        found.significant("en", "necessity", level=1.0)


# --------------------------------------------------------------------------------- what is shipped


@pytest.mark.skipif(
    not (TESTBED / "necessity.safetensors").is_file(), reason="no shipped single-ablation effects"
)
def test_the_shipped_effects_are_those_of_the_testbed() -> None:
    found = Necessity.load(TESTBED / "necessity.safetensors")
    model, tokenizer = models.load(TESTBED / "base")
    corpus = TESTBED / "corpus" / "perplexity"
    found.require_source(
        {
            "model": models.fingerprint(model),
            "texts": local.corpus_digests(corpus, found.languages),
        }
    )
    rng = np.random.default_rng(0)
    for value in found.values:
        for x in found.languages:
            windows = corpora.read_windows(
                tokenizer, corpus, [x], found.n_texts, found.source["window"], found.source["seed"]
            )[x]
            layer, neuron = int(rng.integers(4)), int(rng.integers(512))
            constants = found.set_to[value][layer]
            untouched, effect = single_effects(model, windows, layer, [neuron], [constants])
            increase = effect[0, 0] - untouched
            estimate = found.necessity(x, value)
            assert float(increase.mean()) == pytest.approx(
                float(estimate.value[layer, neuron]), rel=1e-3, abs=1e-6
            )
            assert float(increase.std() / found.n_texts**0.5) == pytest.approx(
                float(estimate.error[layer, neuron]), rel=1e-2
            )
