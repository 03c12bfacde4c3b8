"""From texts to neuron sets (Algorithm 1 lines 1-20), every stage kept in the store."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any, Self, TypeVar

import pandas as pd
from torch import Tensor

from crane_core import models
from crane_core.accumulators import NEURON_VALUES, Reader
from crane_core.attribution import SITES
from crane_core.concentration import STATISTICS, compute
from crane_core.interventions import Intervention, SetTo, zero
from crane_core.selection import NeuronSet, Scores, normalise, select
from crane_core.windows import opening_tokens
from crane_lab.memory import Memory
from crane_lab.parameter import check_paths
from crane_lab.settings import OF_THE_METHOD, Settings
from crane_lab.stages import relevance, streams
from crane_lab.stages.keys import Loaded
from crane_lab.store import Store, source_digest
from crane_lab.texts import corpora

Result = TypeVar("Result")

#: Settings that decide which model is loaded, and how.
_OF_THE_MODEL = ("model", "dtype", "device", "offline")


class Identification:
    """Which neurons belong to a language, under one `Settings`.

    Parameters
    ----------
    settings, store : what to compute, and where it is kept (default: the runs' own store).
    loaded : the settings' model, if it is in memory already.

    Raises what the modules raise: ValueError for unknown languages, objectives, sites or rules,
    FileNotFoundError for missing files. Languages are checked at once, the rest when it is needed.
    """

    def __init__(
        self, settings: Settings, store: Store | None = None, loaded: Loaded | None = None
    ) -> None:
        self.settings, self.store = settings, store or Store()
        check_paths(OF_THE_METHOD, vars(settings))
        least = STATISTICS[settings.statistic].least
        if settings.n_samples < least:
            raise ValueError(
                f"n_samples is {settings.n_samples}, but statistic {settings.statistic!r} needs at "
                f"least {least} samples"
            )
        for corpus in (self.corpus, self.perplexity_corpus):
            corpus.check(settings.languages)
        self.loaded = loaded or Loaded.from_settings(settings)
        self.model, self.tokenizer = self.loaded.model, self.loaded.tokenizer
        models.check_length(self.model.config, settings.window)
        self.shape = models.shape(self.model)
        size = sum(math.prod(self.shape[point]) for point in SITES[settings.site])
        if settings.budget is not None and settings.budget > size:
            raise ValueError(
                f"budget {settings.budget} is larger than the {size} neurons of {settings.model}"
            )
        self._memory = Memory()

    def changed(self, **changes: Any) -> Self:
        """The same under other settings; the model stays in memory unless it is another one."""
        settings = dataclasses.replace(self.settings, **changes)
        same = all(getattr(settings, n) == getattr(self.settings, n) for n in _OF_THE_MODEL)
        return type(self)(settings, self.store, self.loaded if same else None)

    # -- texts -----------------------------------------------------------------------------------

    def _corpus(self, part: str) -> corpora.Corpus:
        s = self.settings
        source = s.corpus if part == "attribution" else s.perplexity_corpus
        split = source.startswith("hub:") or corpora.one_source(
            s.corpus, s.perplexity_corpus, s.languages
        )
        return corpora.Corpus(
            source,
            part if split else None,
            s.text_column,
            s.max_document_tokens,
            s.deduplicate,
            s.window_opening,
            s.parallel,
            s.corpus_documents,
            s.seed,
            self.store,
        )

    @cached_property
    def corpus(self) -> corpora.Corpus:
        """The texts that relevance is computed on.

        Documents of a hub dataset, and of one source given for both corpora, are divided between
        the two: none is in both.
        """
        return self._corpus("attribution")

    @cached_property
    def perplexity_corpus(self) -> corpora.Corpus:
        """The texts that perplexity is measured on."""
        return self._corpus("perplexity")

    @cached_property
    def windows(self) -> dict[str, Tensor]:
        """Token windows for attribution, `{language: (n_samples, window)}`."""
        s = self.settings
        return self.corpus.windows(self.tokenizer, s.languages, s.n_samples, s.window, s.seed)

    def token_counts(self) -> pd.DataFrame:
        """How much text each language's corpus has, in tokens too: `corpora.token_counts`."""
        texts = {x: self.corpus.texts(x) for x in self.settings.languages}
        return corpora.token_counts(self.tokenizer, texts)

    # -- Stage 1: relevance, and stage 2: its concentration ------------------------------------

    def windows_key(self, language: str) -> dict[str, Any]:
        """What one language's windows, and what is read from them, depend on besides code."""
        s = self.settings
        return {
            "model": self.loaded.key,
            "corpus": self.corpus.fingerprint([language]),
            "n_samples": s.n_samples,
            "window": s.window,
            "seed": s.seed,
            "batch_size": s.batch_size,
            **self.windows_cut,
        }

    @property
    def windows_cut(self) -> dict[str, Any]:
        """How windows are cut, for keys: those of parallel texts depend on all languages."""
        s = self.settings
        others = self.corpus.fingerprint(sorted(s.languages)) if s.parallel else None
        return {"opening": s.window_opening, "parallel": others}

    @property
    def how(self) -> dict[str, Any]:
        """How relevance is taken, as `neuron_relevance` names it."""
        s = self.settings
        opening = len(opening_tokens(self.tokenizer, s.window_opening))
        return {
            "objective": s.objective,
            "score": s.score,
            "reduction": s.reduction,
            "opening": opening,
        }

    def relevance_key(self, language: str) -> dict[str, Any]:
        """`windows_key`, and what relevance depends on."""
        s = self.settings
        return {
            **self.windows_key(language),
            "objective": s.objective,
            "score": s.score,
            "reduction": s.reduction,
        }

    def collect(
        self,
        language: str,
        readers: Mapping[str, Reader],
        stage: str = streams.STAGE,
        rules: str = "attnlrp",
        **more: Any,
    ) -> dict[str, Any]:
        """What `readers` keep of one language's windows, in one pass; see `streams.collect`.

        `more` belongs to the key: what distinguishes readers of the same names. Processes that run
        this at the same time on one store share the work.
        """
        s = self.settings
        kept_by = {type(reader.make()).__module__ for reader in readers.values()}
        key = {
            **self.relevance_key(language),
            **more,
            "rules": rules,
            "code": source_digest(relevance.__name__, corpora.__name__, *kept_by),
        }
        return streams.collect(
            self.store,
            key,
            lambda: self.windows[language],
            (s.n_samples, s.batch_size),
            readers,
            relevance.reading(self.model, self.how, readers, rules),
            stage=stage,
            memory=self._memory,
            desc=f"{stage}, {language}",
        )

    def by_language(self, of: Callable[[str], Result]) -> dict[str, Result]:
        """What a function of a language gives for each of them.

        Those that other processes are at come last (`Store.together`).
        """
        languages = self.settings.languages
        found = self.store.together([partial(of, x) for x in languages])
        return dict(zip(languages, found, strict=True))

    def collected(self, language: str) -> dict[str, Any]:
        """Everything that identifies one language's neurons: `relevance.readers`, by name."""
        statistic = STATISTICS[self.settings.statistic]
        return self.collect(
            language,
            relevance.readers(self.shape, self.settings),
            samples_kept=not statistic.one_pass,
        )

    def statistic(self, site: str | None = None, name: str | None = None) -> dict[str, Scores]:
        """A statistic of each neuron's relevance: `{language: (layers, neurons)}`.

        The settings' site and statistic by default. For `projections` each language has a dict of
        such tensors, one for each of `SITES`' names.
        """
        site = self._site(site)

        def of(language: str) -> Scores:
            collected = self.collected(language)
            if missing := [point for point in SITES[site] if point not in collected]:
                raise ValueError(
                    f"score {self.settings.score!r} is defined for projections only, so site "
                    f"{site!r} has none at {missing[0]!r}; set site to 'projections'"
                )
            values = {
                point: compute(name or self.settings.statistic, collected[point])
                for point in SITES[site]
            }
            return values if site == "projections" else values[site]

        return self.by_language(of)

    def kurtosis(self, site: str | None = None) -> dict[str, Scores]:
        """Kurtosis (Eq. 2) of each neuron per language: `statistic`, whatever the settings'."""
        return self.statistic(site, "kurtosis")

    def normalised(self, site: str | None = None) -> dict[str, Scores]:
        """The statistic within each layer (Algorithm 1 line 15), so that large means wanted."""
        how, sign = self.settings.normalisation, STATISTICS[self.settings.statistic].sign
        return {x: normalise(_times(sign, v), how) for x, v in self.statistic(site).items()}

    # -- Stage 3: candidate neurons --------------------------------------------------------------

    def _site(self, site: str | None) -> str:
        site = site or self.settings.site
        if site not in SITES:
            raise ValueError(f"unknown site {site!r}: expected one of {', '.join(SITES)}")
        return site

    def neuron_sets(
        self,
        site: str | None = None,
        rule: str | None = None,
        budgets: Mapping[str, int] | None = None,
    ) -> dict[str, NeuronSet]:
        """CRANE's set of each language, under the settings' site and rule or others.

        `budgets` : language -> number of neurons, instead of the settings' one for all.
        """
        s, rule = self.settings, rule or self.settings.rule
        # A share of an amount says the same in every layer: there is no scale to be put on.
        scores = self.statistic(site) if rule == "relative" else self.normalised(site)
        return {
            x: select(
                scores,
                x,
                rule,
                s.threshold,
                s.budget if budgets is None else budgets[x],
                shape=self.shape,
            )
            for x in s.languages
        }

    def activation_counts(self) -> tuple[dict[str, Tensor], dict[str, int]]:
        """LAPE's input: tokens on which each neuron is active, and tokens seen, per language.

        Counted on the very windows that relevance is computed on, in the same pass.
        """
        found = self.by_language(lambda x: self.collected(x)["active"])
        return {x: c.over for x, c in found.items()}, {x: c.tokens for x, c in found.items()}

    # -- Stage 4: what is done to them -------------------------------------------------------------

    @cached_property
    def neuron_values(self) -> dict[str, Tensor]:
        """What masks can set neurons to, by `NEURON_VALUES`' names, float32 (layers, neurons).

        Of what `down_proj` reads, over the attribution windows of all languages together; the
        quantiles are those of a uniform sample of tokens.
        """
        readers = relevance.value_readers(self.shape, self.settings)
        n = relevance.QUANTILE_TOKENS
        every = self.by_language(lambda x: self.collect(x, readers, "neuron-values", tokens=n))
        pooled: dict[str, Any] = {}
        for found in every.values():
            for name, accumulator in found.items():
                if name in pooled:
                    pooled[name].merge(accumulator)
                else:
                    pooled[name] = accumulator
        return {
            name: of(pooled["means"], pooled["sample"]).float()
            for name, of in NEURON_VALUES.items()
        }

    def masking(self, neurons: NeuronSet, value: str | None = None) -> Intervention:
        """What masking `neurons` is under the settings' mask value, or another of `MASK_VALUES`.

        Raises ValueError for other sites than intermediate unless the value is zero.
        """
        value = value or self.settings.mask_value
        if value == "zero" or not len(neurons):
            return zero(neurons)
        if set(neurons.sites) != {"intermediate"}:
            raise ValueError(f"mask value {value!r} is known for intermediate neurons only")
        if value not in NEURON_VALUES:
            raise ValueError(
                f"unknown mask value {value!r}: expected one of {('zero', *NEURON_VALUES)}"
            )
        return Intervention(SetTo(neurons, {"intermediate": self.neuron_values[value]}))


def _times(sign: int, values: Scores) -> Scores:
    if isinstance(values, Tensor):
        return sign * values
    return {site: sign * tensor for site, tensor in values.items()}
