"""Sets of neurons (the set N_l of §3.1): made, combined, compared, kept in files.

A `NeuronSet` is what selection and the baselines return and what interventions take. `overlap`
compares two sets with chance.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from scipy.stats import hypergeom
from torch import Tensor

from crane_core.files import replacing

SITES = ("intermediate", "gate", "up", "down")
#: The order of the seven languages in the files released by LAPE (Tang et al., 2024).
LAPE_LANGUAGES = ("en", "zh", "fr", "es", "vi", "id", "ja")

#: The entry of a saved file's metadata.
_KIND = "crane_core.NeuronSet"

Shape = Mapping[str, Sequence[int]]


def listed(names: Iterable[str]) -> str:
    """Names as they stand in a message: quoted, with commas between them."""
    return ", ".join(repr(name) for name in names)


def as_shape(
    shape: Shape | Sequence[int], site: str = "intermediate"
) -> dict[str, tuple[int, int]]:
    """A checked shape, sites in canonical order; a plain (layers, width) stands for one `site`."""
    given: dict[str, Sequence[int]]
    given = dict(shape) if isinstance(shape, Mapping) else {site: tuple(shape)}
    if unknown := [name for name in given if name not in SITES]:
        raise ValueError(f"unknown site {listed(unknown)}: expected one of {listed(SITES)}")
    for name, size in given.items():
        if not (_whole(size, 2) and min(size) > 0 and size[0] * size[1] < 2**31):
            raise ValueError(
                f"shape of site {name!r} is {size!r}: expected two positive whole numbers, "
                f"(layers, width), of less than 2**31 neurons"
            )
    return {name: (int(given[name][0]), int(given[name][1])) for name in SITES if name in given}


def _whole(numbers: Any, count: int) -> bool:
    """Whether these are `count` whole numbers; 1.0 and True are none."""
    sized = isinstance(numbers, Sequence) and len(numbers) == count
    return sized and all(isinstance(n, Integral) and not isinstance(n, bool) for n in numbers)


def check_compatible(a: Shape, b: Shape, doing: str) -> None:
    """Raise unless the sites known on both sides have equal sizes, at least one of them shared."""
    shared = [site for site in a if site in b]
    if not shared:
        raise ValueError(f"cannot {doing}: one has sites {listed(a)}, the other {listed(b)}")
    for site in shared:
        if tuple(a[site]) != tuple(b[site]):
            raise ValueError(
                f"cannot {doing}: site {site!r} has (layers, width) {tuple(a[site])} in one "
                f"and {tuple(b[site])} in the other; they belong to different models"
            )


class NeuronSet:
    """An immutable set of MLP neurons of a model of one shape (paper: the set N_l of §3.1).

    A neuron is one entry of a site: `intermediate` (inputs of `down_proj`), or an output of the
    `gate`, `up` or `down` projection.

    Parameters
    ----------
    masks : site -> bool tensor (layers, width), True for a neuron that belongs to the set.
        Sites not given are empty.
    shape : site -> (layers, width) of the model, as `crane_core.models.shape` returns it; by
        default only the sites of `masks` are known. A plain (layers, width) stands for the
        intermediate site.

    Sets are compared, hashed and combined with `==`, `&`, `|` and `-`. Iterating yields sorted
    (layer, neuron) pairs, or (site, layer, neuron) triples once a projection site has neurons.

    Raises
    ------
    ValueError : unknown site, or a mask whose size is not the site's.
    TypeError : a mask that is no bool tensor.
    """

    __slots__ = ("_masks", "_shape")
    _masks: dict[str, Tensor]
    _shape: dict[str, tuple[int, int]]

    def __init__(self, masks: Mapping[str, Tensor], shape: Shape | Sequence[int] | None = None):
        for site, mask in masks.items():
            if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
                found = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
                raise TypeError(f"mask of site {site!r} is {found}: expected a bool tensor")
        known = as_shape({s: tuple(m.shape) for s, m in masks.items()} if shape is None else shape)
        if missing := [site for site in masks if site not in known]:
            raise ValueError(
                f"mask given for site {listed(missing)}, but the shape knows {listed(known)}"
            )
        full = {}
        for site, size in known.items():
            mask = masks.get(site, torch.zeros(size, dtype=torch.bool))
            if tuple(mask.shape) != size:
                raise ValueError(
                    f"mask of site {site!r} has size {tuple(mask.shape)}, "
                    f"but the model's (layers, width) there is {size}"
                )
            full[site] = mask.detach().to("cpu", copy=True).contiguous()
        object.__setattr__(self, "_masks", full)
        object.__setattr__(self, "_shape", known)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a NeuronSet is immutable; build a new one")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a NeuronSet is immutable; build a new one")

    def __reduce__(self) -> tuple[Any, ...]:
        return NeuronSet, (self._masks, self._shape)

    @classmethod
    def empty(cls, shape: Shape | Sequence[int]) -> NeuronSet:
        """The set without neurons of a model of this shape."""
        return cls({}, shape)

    @classmethod
    def from_pairs(
        cls,
        pairs: Iterable[Sequence[int]],
        shape: Shape | Sequence[int],
        site: str = "intermediate",
    ) -> NeuronSet:
        """The set of the given (layer, neuron) pairs of one site; repeated pairs count once.

        Raises ValueError for what is no pair of whole numbers, a pair outside the model, or a site
        that the shape does not know.
        """
        known = as_shape(shape, site)
        if site not in known:
            raise ValueError(f"site {site!r} is not in the shape, which knows {listed(known)}")
        given = [tuple(p.tolist()) if hasattr(p, "tolist") else p for p in pairs]
        if wrong := [pair for pair in given if not _whole(pair, 2)]:
            raise ValueError(f"{wrong[0]!r} is no neuron: expected two whole numbers")
        index = torch.tensor(given, dtype=torch.long).reshape(-1, 2)
        outside = ((index < 0) | (index >= torch.tensor(known[site]))).any(dim=1)
        if outside.any():
            pair = tuple(index[outside][0].tolist())
            raise ValueError(
                f"neuron {pair} lies outside site {site!r}, which has {known[site][0]} layers "
                f"of {known[site][1]} neurons"
            )
        return cls.from_flat(index[:, 0] * known[site][1] + index[:, 1], known, site)

    @classmethod
    def from_flat(
        cls,
        indices: Tensor | Sequence[int],
        shape: Shape | Sequence[int],
        site: str = "intermediate",
    ) -> NeuronSet:
        """The set of neurons given by their places in one site's flattened (layers, width).

        Neuron j of layer i stands at i * width + j; repeated indices count once. An order of all
        neurons, best first, cut off after n, gives the best n.

        Raises ValueError for no whole number, an index outside the model, or a site that the shape
        does not know.
        """
        known = as_shape(shape, site)
        if site not in known:
            raise ValueError(f"site {site!r} is not in the shape, which knows {listed(known)}")
        layers, width = known[site]
        index = torch.as_tensor(indices, device="cpu").reshape(-1)
        if len(index) and (index.is_floating_point() or index.dtype == torch.bool):
            raise ValueError(f"indices are {index.dtype}: expected whole numbers")
        outside = (index < 0) | (index >= layers * width)
        if outside.any():
            raise ValueError(
                f"index {int(index[outside][0])} lies outside site {site!r}, which has "
                f"{layers * width} neurons"
            )
        mask = torch.zeros(layers * width, dtype=torch.bool)
        mask[index.long()] = True
        return cls({site: mask.reshape(layers, width)}, known)

    @property
    def shape(self) -> Mapping[str, tuple[int, int]]:
        """Known sites and their (layers, width), read-only."""
        return MappingProxyType(self._shape)

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that hold at least one neuron, in canonical order."""
        return tuple(site for site, mask in self._masks.items() if mask.any())

    @property
    def masks(self) -> dict[str, Tensor]:
        """Copies of the masks, site -> bool tensor (layers, width), one for each known site."""
        return {site: mask.clone() for site, mask in self._masks.items()}

    def mask(self, site: str = "intermediate") -> Tensor:
        """A copy of one site's bool mask (layers, width)."""
        return self._of(site).clone()

    def pairs(self, site: str = "intermediate") -> list[tuple[int, int]]:
        """Sorted (layer, neuron) pairs of one site."""
        return [(layer, neuron) for layer, neuron in self._of(site).nonzero().tolist()]

    def counts(self, site: str | None = None) -> Tensor:
        """Number of neurons per layer, int64 (layers,): of one site, or of all sites together."""
        if site is not None:
            return self._of(site).sum(dim=1)
        return torch.stack([mask.sum(dim=1) for mask in self._masks.values()]).sum(dim=0)

    def digest(self) -> str:
        """Short hex digest of the shape and the neurons."""
        sha = hashlib.sha256(json.dumps(self._shape).encode())
        for mask in self._masks.values():
            sha.update(mask.numpy().tobytes())
        return sha.hexdigest()[:16]

    def require_shape(self, shape: Shape) -> None:
        """Raise ValueError unless the set fits a model of this shape (sites known to both)."""
        check_compatible(self._shape, as_shape(shape), "use this neuron set with this model")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the set to a safetensors file, replacing it in one step."""
        # One entry only: safetensors writes several in any order.
        metadata = {_KIND: json.dumps(self._shape)}
        with replacing(path) as temporary:
            save_file(self._masks, temporary, metadata=metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> NeuronSet:
        """Read a set written by `save`.

        Raises FileNotFoundError, or ValueError if the file is damaged or holds something else.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"no neuron file at {path}")
        try:
            with safe_open(os.fspath(path), framework="pt") as file:
                metadata = file.metadata() or {}
                names = file.keys()  # the handle itself is not iterable
                masks = {site: file.get_tensor(site) for site in names}
        except SafetensorError as error:
            raise ValueError(f"{path} is no readable safetensors file: {error}") from error
        until = metadata.get("shape") if metadata.get("kind") == _KIND else None  # until 0.1
        if (shape := metadata.get(_KIND) or until) is None:
            raise ValueError(f"{path} holds no neuron set: write one with NeuronSet.save")
        try:
            return cls(masks, json.loads(shape))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path} holds no neuron set that fits its shape: {error}") from error

    @classmethod
    def from_lape_file(
        cls,
        path: str | os.PathLike[str],
        languages: int | Sequence[str] = LAPE_LANGUAGES,
        *,
        shape: Shape | Sequence[int],
    ) -> Any:
        """Read neurons in LAPE's format, a list [language][layer] of LongTensors of indices.

        `languages` are the codes of the file's languages in their order (then a dict of all sets is
        returned), or the index of one language (then its set); `shape` is the model's, which the
        format does not record. No code in the file is run.

        Raises FileNotFoundError, or ValueError for another format, another number of languages or
        layers, or an index that lies outside the model.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"no neuron file at {path}")
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for a file it cannot read
            raise ValueError(
                f"{path} is no file that torch.load can read safely: {error}"
            ) from error
        lists = isinstance(content, list) and all(isinstance(layers, list) for layers in content)
        rows = [row for layers in content for row in layers] if lists else [None]
        if not all(isinstance(row, Tensor) and row.dtype == torch.long for row in rows):
            raise ValueError(f"{path} is not in LAPE's format: [language][layer] of LongTensor")
        if isinstance(languages, int) and not 0 <= languages < len(content):
            raise ValueError(f"language index {languages}: {path} holds {len(content)} languages")
        chosen = range(len(content)) if isinstance(languages, int) else languages
        if len(chosen) != len(content):
            raise ValueError(f"{path} holds {len(content)} languages, but {len(chosen)} were named")
        depth, found = as_shape(shape)["intermediate"][0], {}
        for language, layers in zip(chosen, content, strict=True):
            if len(layers) != depth:
                raise ValueError(f"{path} holds {len(layers)} layers, but the model has {depth}")
            pairs = ((i, j) for i, row in enumerate(layers) for j in row.reshape(-1).tolist())
            found[language] = cls.from_pairs(pairs, shape)
        return found[languages] if isinstance(languages, int) else found

    def to_lape_file(self, path: str | os.PathLike[str]) -> None:
        """Write this set as the only language of a file in LAPE's format.

        The format knows intermediate neurons only: ValueError for neurons at another site.
        """
        if others := sorted({*self.sites} - {"intermediate"}):
            raise ValueError(f"LAPE's format holds intermediate neurons only, not {listed(others)}")
        with replacing(path) as draft:
            torch.save([[row.nonzero()[:, 0] for row in self.mask()]], draft)

    def _of(self, site: str) -> Tensor:
        if site not in self._masks:
            raise ValueError(f"site {site!r} is not in this set, which knows {listed(self._masks)}")
        return self._masks[site]

    def _combine(
        self, other: NeuronSet, operation: Callable[[Tensor, Tensor], Tensor]
    ) -> NeuronSet:
        check_compatible(self._shape, other._shape, "combine these neuron sets")
        shape = {**self._shape, **other._shape}
        a, b = NeuronSet(self._masks, shape)._masks, NeuronSet(other._masks, shape)._masks
        return NeuronSet({site: operation(a[site], b[site]) for site in shape}, shape)

    def __and__(self, other: NeuronSet) -> NeuronSet:
        return self._combine(other, torch.logical_and)

    def __or__(self, other: NeuronSet) -> NeuronSet:
        return self._combine(other, torch.logical_or)

    def __sub__(self, other: NeuronSet) -> NeuronSet:
        return self._combine(other, lambda a, b: a & ~b)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NeuronSet):
            return NotImplemented
        return self._shape == other._shape and all(
            torch.equal(mask, other._masks[site]) for site, mask in self._masks.items()
        )

    def __hash__(self) -> int:
        return hash(self.digest())

    def __len__(self) -> int:
        return sum(int(mask.sum()) for mask in self._masks.values())

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        if set(self.sites) <= {"intermediate"}:
            yield from self.pairs() if "intermediate" in self._masks else ()
        else:
            for site in self.sites:
                yield from ((site, *pair) for pair in self.pairs(site))

    def __repr__(self) -> str:
        parts = [
            f"{site}: {int(self._masks[site].sum())} of {layers} x {width}"
            for site, (layers, width) in self._shape.items()
        ]
        return f"NeuronSet({', '.join(parts)})"


@dataclass(frozen=True)
class Overlap:
    """How much two sets share, beside what chance would give (`overlap`).

    Attributes
    ----------
    shared : neurons in both sets.
    jaccard : shared / neurons in either; NaN if both sets are empty.
    expected : mean shared neurons of two sets of these sizes drawn at random from each site.
    expected_within_layers : the same with each set's count per layer kept, as random masks do.
    p_value : chance of at least `shared` under the first of the two, hypergeometric; NaN when
        the sets lie in more than one site.
    """

    shared: int
    jaccard: float
    expected: float
    expected_within_layers: float
    p_value: float


def jaccard(a: NeuronSet, b: NeuronSet) -> float:
    """Neurons in both sets / neurons in either; NaN if both are empty."""
    union = len(a | b)
    return len(a & b) / union if union else float("nan")


def overlap(a: NeuronSet, b: NeuronSet) -> Overlap:
    """Compare the overlap of two sets of one model with that of random sets of the same size.

    Raises ValueError if the sets belong to models of different shapes.
    """
    shared = len(a & b)
    expected = within = 0.0
    sites = [site for site in a.shape if site in b.shape]
    for site in sites:
        in_a, in_b = a.counts(site).double(), b.counts(site).double()
        layers, width = a.shape[site]
        expected += float(in_a.sum() * in_b.sum()) / (layers * width)
        within += float((in_a * in_b).sum()) / width
    p_value = float("nan")
    used = [site for site in sites if site in {*a.sites, *b.sites}]
    if len(used) == 1:
        layers, width = a.shape[used[0]]
        p_value = float(hypergeom.sf(shared - 1, layers * width, len(a), len(b)))
    return Overlap(shared, jaccard(a, b), expected, within, p_value)
