"""The method from end to end, for the notebooks: every stage kept in the store.

Algorithm 1 in the order of the paper: relevance streams -> kurtosis -> normalised scores -> neuron
sets -> interventions -> scores. Each stage is computed by its own module; here stages are only put
together, keyed by what they depend on, so that a second run repeats nothing that still holds.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from . import baselines, corpora, evaluation, metrics, models
from .attribution import neuron_relevance
from .masking import masked
from .moments import StreamingMoments
from .runs import Store, source_digest
from .selection import NeuronSet, Scores, normalise, select

#: Which task stands for each language. "paper" mirrors MMLU / C-Eval / Belebele-vi; the other two
#: ask every language the same kind of question, which the paper's design does not.
TABLES: dict[str, dict[str, str]] = {
    "paper": {"en": "knowledge_en", "zh": "knowledge_zh", "vi": "reading_vi"},
    "knowledge": {"en": "knowledge_en", "zh": "knowledge_zh", "vi": "knowledge_vi"},
    "reading": {"en": "reading_en", "zh": "reading_zh", "vi": "reading_vi"},
}


@dataclass(frozen=True)
class Settings:
    """What a run of the method depends on; the notebooks' parameters of the same names."""

    model: str = "data/testbed/base"
    languages: Sequence[str] = ("en", "zh", "vi")
    corpus: str = "data/testbed/corpus/attribution"
    perplexity_corpus: str = "data/testbed/corpus/perplexity"
    tasks: str = "data/testbed/tasks"
    n_samples: int = 1000
    window: int = 64
    batch_size: int = 50
    seed: int = 0
    objective: str = "next_token"
    score: str = "activation_x_gradient"
    reduction: str = "sum"
    normalisation: str = "zscore"
    rule: str = "contrast"
    threshold: float = 1.0
    budget: int | None = None
    random_seeds: Sequence[int] = (0, 1, 2, 3, 4)
    n_perplexity: int = 200
    task_limit: int | None = None

    @classmethod
    def of(cls, namespace: Mapping[str, Any]) -> Settings:
        """The settings found in a notebook's `globals()`; what it does not set is the default."""
        names = [f.name for f in dataclasses.fields(cls)]
        return cls(**{name: namespace[name] for name in names if name in namespace})


@dataclass(frozen=True)
class Intervention:
    """A set of neurons to mask, and the row of a table it belongs to.

    `seed` is None except for random sets.
    """

    method: str
    language: str
    neurons: NeuronSet = field(hash=False)
    seed: int | None = None


class Pipeline:
    """The stages of Algorithm 1 under one `Settings`.

    Raises what the modules raise: ValueError for unknown languages, objectives, sites or rules,
    FileNotFoundError for missing files. Languages are checked at once, the rest when it is needed.
    """

    def __init__(self, settings: Settings, store: Store | None = None) -> None:
        self.settings, self.store = settings, store or Store()
        if len(set(settings.languages)) < 2:
            raise ValueError(
                f"languages is {list(settings.languages)}: CRANE contrasts languages, so it needs "
                "at least two different ones"
            )
        for folder in (settings.corpus, settings.perplexity_corpus):
            for language in settings.languages:
                corpora.corpus_file(folder, language)
        self.model, self.tokenizer = models.load(settings.model)
        self.shape = models.shape(self.model)

    @cached_property
    def _model_key(self) -> str:
        return models.fingerprint(self.model)

    # -- Stage 1: relevance, and stage 2: its concentration ------------------------------------

    @cached_property
    def windows(self) -> dict[str, Tensor]:
        """Token windows for attribution, `{language: (n_samples, window)}`."""
        s = self.settings
        return corpora.read_windows(
            self.tokenizer, s.corpus, s.languages, s.n_samples, s.window, s.seed
        )

    def _batches(self, language: str) -> Iterator[tuple[Tensor, Tensor]]:
        for ids in self.windows[language].split(self.settings.batch_size):
            yield ids, torch.ones_like(ids)

    def _attribution_key(self, language: str) -> dict[str, Any]:
        s = self.settings
        return {
            "model": self._model_key,
            "corpus": corpora.fingerprint(s.corpus, [language]),
            "n_samples": s.n_samples,
            "window": s.window,
            "seed": s.seed,
            "batch_size": s.batch_size,
        }

    def moments(self, language: str, site: str = "intermediate") -> dict[str, StreamingMoments]:
        """Moments of every neuron's relevance over one language's samples, by site.

        For `projections` the sites are `gate`, `up` and `down`.
        """
        s = self.settings
        sites = ("gate", "up", "down") if site == "projections" else (site,)

        def compute() -> dict[str, Tensor]:
            streams: dict[str, StreamingMoments] = {}
            batches = tqdm(
                self._batches(language),
                total=-(-s.n_samples // s.batch_size),
                desc=f"relevance, {language}, {site}",
                unit="batch",
            )
            for ids, mask in batches:
                found = neuron_relevance(
                    self.model,
                    ids,
                    mask,
                    s.objective,
                    site,
                    score=s.score,
                    reduction=s.reduction,
                )
                by_site = {site: found} if isinstance(found, Tensor) else found
                for name, relevance in by_site.items():
                    stream = streams.setdefault(name, StreamingMoments(relevance.shape[1:]))
                    stream.update(relevance)
            return {
                f"{name}.{part}": tensor
                for name, stream in streams.items()
                for part, tensor in stream.state().items()
            }

        key = {
            **self._attribution_key(language),
            "objective": s.objective,
            "score": s.score,
            "reduction": s.reduction,
            "site": site,
            "code": source_digest("attribution", "kernels", "models", "moments", "corpora"),
        }
        state = self.store.tensors("moments", key, compute)
        return {
            name: StreamingMoments.from_state(
                {k.split(".", 1)[1]: v for k, v in state.items() if k.startswith(f"{name}.")}
            )
            for name in sites
        }

    def kurtosis(self, site: str = "intermediate") -> dict[str, Scores]:
        """Kurtosis (Eq. 2) of each neuron per language: `{language: (layers, neurons)}`.

        For `projections` each language has a dict of such tensors.
        """
        found: dict[str, Scores] = {}
        for language in self.settings.languages:
            values = {name: m.kurtosis() for name, m in self.moments(language, site).items()}
            found[language] = values if site == "projections" else values[site]
        return found

    def normalised(self, site: str = "intermediate") -> dict[str, Scores]:
        """Kurtosis normalised within each layer (Algorithm 1 line 15)."""
        how = self.settings.normalisation
        return {x: normalise(values, how) for x, values in self.kurtosis(site).items()}

    # -- Stage 3: candidate neurons --------------------------------------------------------------

    def neuron_sets(
        self, site: str = "intermediate", rule: str | None = None
    ) -> dict[str, NeuronSet]:
        """CRANE's set of each language, under the settings' rule or another."""
        s, normalised = self.settings, self.normalised(site)
        return {
            language: select(
                normalised, language, rule or s.rule, s.threshold, s.budget, shape=self.shape
            )
            for language in s.languages
        }

    def activation_counts(self) -> tuple[dict[str, Tensor], dict[str, int]]:
        """LAPE's input: tokens on which each neuron is active, and tokens seen, per language.

        Counted on the very windows that relevance is computed on.
        """
        over_zero, n = {}, {}
        for language in self.settings.languages:

            def compute(language: str = language) -> dict[str, Tensor]:
                counts, tokens = baselines.activation_counts(self.model, self._batches(language))
                return {"over_zero": counts, "n": torch.tensor(tokens)}

            key = {
                **self._attribution_key(language),
                "code": source_digest("baselines", "models", "corpora"),
            }
            found = self.store.tensors("activations", key, compute)
            over_zero[language], n[language] = found["over_zero"], int(found["n"])
        return over_zero, n

    def interventions(self, site: str = "intermediate") -> list[Intervention]:
        """The rows of Table 1: CRANE, its random controls and, for `intermediate`, LAPE.

        LAPE counts intermediate neurons; it comes as released and taken to CRANE's count.
        """
        crane = self.neuron_sets(site)
        rows = []
        if site == "intermediate":
            counts, n = self.activation_counts()
            matched = {language: len(neurons) for language, neurons in crane.items()}
            lape = baselines.lape(counts, n, shape=self.shape)
            lape_matched = baselines.lape_matched(counts, n, matched, shape=self.shape)
            rows += [Intervention("LAPE", x, neurons) for x, neurons in lape.items()]
            rows += [
                Intervention("LAPE matched", x, neurons) for x, neurons in lape_matched.items()
            ]
        rows += [Intervention("CRANE", x, neurons) for x, neurons in crane.items()]
        rows += [
            Intervention("Random", x, baselines.random_matched(neurons, seed), seed)
            for x, neurons in crane.items()
            for seed in self.settings.random_seeds
        ]
        return rows

    # -- Stage 4: intervention -------------------------------------------------------------------

    @cached_property
    def _task_names(self) -> list[str]:
        """The tasks of all tables in the run's languages, each once."""
        languages = self.settings.languages
        names = []
        for table in TABLES.values():
            for language in languages:
                if language not in table:
                    raise ValueError(
                        f"no task for language {language!r}: there are tasks for {list(table)}"
                    )
            # In the table's order, so that the order of languages does not change what is stored.
            names += [name for language, name in table.items() if language in languages]
        return list(dict.fromkeys(names))

    @cached_property
    def prepared(self) -> evaluation.Prepared:
        """The tasks, built and tokenised once."""
        s = self.settings
        tasks = evaluation.load_tasks(self._task_names, s.tasks, limit=s.task_limit)
        return evaluation.prepare(self.model, self.tokenizer, tasks)

    @cached_property
    def perplexity_windows(self) -> dict[str, Tensor]:
        """Token windows for held-out perplexity, `{language: (n_perplexity, window)}`."""
        s = self.settings
        return corpora.read_windows(
            self.tokenizer, s.perplexity_corpus, s.languages, s.n_perplexity, s.window, s.seed
        )

    def _under(self, neurons: NeuronSet | None) -> Any:
        return masked(self.model, NeuronSet.empty(self.shape) if neurons is None else neurons)

    @torch.no_grad()
    def logit_change(self, neurons: NeuronSet) -> float:
        """Largest absolute change of any logit that masking causes, on one text per language.

        Raises RuntimeError if a mask that is not empty changes nothing: it is not at work.
        """
        ids = torch.cat([w[:1] for w in self.perplexity_windows.values()])
        before = self.model(input_ids=ids, use_cache=False).logits
        with self._under(neurons):
            after = self.model(input_ids=ids, use_cache=False).logits
        change = float((after - before).abs().max())
        if len(neurons) and change == 0:
            raise RuntimeError(
                f"masking {len(neurons)} neurons changed no logit: the mask is not at work"
            )
        return change

    def _items_key(self, neurons: NeuronSet | None) -> dict[str, Any]:
        s = self.settings
        return {
            "model": self._model_key,
            "tasks": evaluation.fingerprint(self._task_names, s.tasks),
            "limit": s.task_limit,
            "neurons": "" if neurons is None else neurons.digest(),
            "code": source_digest("evaluation", "kernels", "masking", "models"),
        }

    def items(self, neurons: NeuronSet | None = None) -> pd.DataFrame:
        """Every item's outcome under a mask (None: unmasked); columns of `evaluation.evaluate`."""

        def compute() -> pd.DataFrame:
            if neurons is not None:
                self.logit_change(neurons)
            with self._under(neurons):
                return evaluation.evaluate(self.model, self.prepared)

        return self.store.table("items", self._items_key(neurons), compute)

    def answers(
        self, neurons: NeuronSet | None = None, n_items: int = 50, max_new_tokens: int = 12
    ) -> pd.DataFrame:
        """What the model goes on to say under a mask; columns of `evaluation.answer_instead`.

        `n_items` of every task, spread evenly over it.
        """

        def compute() -> pd.DataFrame:
            with self._under(neurons):
                return evaluation.answer_instead(
                    self.model, self.tokenizer, self.prepared, n_items, max_new_tokens
                )

        key = {**self._items_key(neurons), "n_items": n_items, "max_new_tokens": max_new_tokens}
        return self.store.table("answers", key, compute)

    def losses(self, neurons: NeuronSet | None = None) -> dict[str, Tensor]:
        """Mean next-token loss of each held-out window under a mask: `{language: (windows,)}`."""
        s = self.settings

        def compute() -> dict[str, Tensor]:
            with self._under(neurons):
                return {
                    x: evaluation.perplexity(self.model, windows).losses
                    for x, windows in self.perplexity_windows.items()
                }

        key = {
            "model": self._model_key,
            "corpus": corpora.fingerprint(s.perplexity_corpus, s.languages),
            "n": s.n_perplexity,
            "window": s.window,
            "seed": s.seed,
            "neurons": "" if neurons is None else neurons.digest(),
            "code": source_digest("evaluation", "kernels", "masking", "models", "corpora"),
        }
        return self.store.tensors("losses", key, compute)

    def evaluated(self, interventions: Iterable[Intervention]) -> Evaluated:
        """Items and held-out losses of the unmasked model and under every intervention."""
        rows = list(interventions)
        original = self.items(), self.losses()
        found = [
            (self.items(row.neurons), self.losses(row.neurons))
            for row in tqdm(rows, desc="evaluating masks", unit="mask")
        ]
        return Evaluated(list(self.settings.languages), rows, original, found)


Outcome = tuple[pd.DataFrame, dict[str, Tensor]]


@dataclass(frozen=True)
class Evaluated:
    """Outcomes under interventions, and the tables made of them."""

    languages: list[str]
    interventions: list[Intervention]
    original: Outcome
    outcomes: list[Outcome]

    def _correct(self, items: pd.DataFrame, tasks: Mapping[str, str]) -> dict[str, np.ndarray]:
        return {
            x: items.loc[items["task"] == tasks[x], "correct"].to_numpy(dtype=float)
            for x in self.languages
        }

    def table(self, tasks: Mapping[str, str], n_boot: int = 2000) -> pd.DataFrame:
        """A table like the paper's Table 1: scores per language and LangSpec-F1 for each row.

        `tasks` says which task stands for each language (one of `TABLES`). Random rows are means
        over seeds, with LangSpec-F1 computed from those means. `langspec_f1_low` and `_high`: 95 %
        intervals, for single masks by paired bootstrap over items, for random ones the range over
        seeds. `relative_<language>` are relative drops. An empty set is a row with `n_neurons` 0.
        """
        before = self._correct(self.original[0], tasks)
        rows = [
            {
                "method": "Org",
                "mask_language": "",
                "n_neurons": 0,
                **{x: values.mean() for x, values in before.items()},
                "langspec_f1": np.nan,
            }
        ]
        seeds = self.seeds(tasks)
        seen = set()
        for row, (items, _) in zip(self.interventions, self.outcomes, strict=True):
            if (row.method, row.language) in seen:
                continue
            seen.add((row.method, row.language))
            if row.seed is None:
                after = self._correct(items, tasks)
                interval = metrics.langspec_f1_interval(before, after, row.language, n_boot)
                means, low, high = (
                    {x: float(v.mean()) for x, v in after.items()},
                    interval.low,
                    interval.high,
                )
            else:
                own = seeds[(seeds.method == row.method) & (seeds.mask_language == row.language)]
                means = {x: float(own[x].mean()) for x in self.languages}
                low, high = float(own.langspec_f1.min()), float(own.langspec_f1.max())
            start = {x: float(v.mean()) for x, v in before.items()}
            found = metrics.langspec_f1(start, means, row.language)
            if not len(row.neurons):
                warnings.warn(f"{row.method} selects no neuron for {row.language}", stacklevel=2)
            rows.append(
                {
                    "method": row.method,
                    "mask_language": row.language,
                    "n_neurons": len(row.neurons),
                    **means,
                    "langspec_f1": found.f1,
                    "langspec_f1_low": low,
                    "langspec_f1_high": high,
                    **{f"relative_{x}": found.relative_drops[x] for x in self.languages},
                }
            )
        return pd.DataFrame(rows)

    def seeds(self, tasks: Mapping[str, str]) -> pd.DataFrame:
        """One row per random mask: which, its seed and size, scores, LangSpec-F1."""
        before = {x: float(v.mean()) for x, v in self._correct(self.original[0], tasks).items()}
        rows = []
        for row, (items, _) in zip(self.interventions, self.outcomes, strict=True):
            if row.seed is None:
                continue
            after = {x: float(v.mean()) for x, v in self._correct(items, tasks).items()}
            rows.append(
                {
                    "method": row.method,
                    "mask_language": row.language,
                    "seed": row.seed,
                    "n_neurons": len(row.neurons),
                    **after,
                    "langspec_f1": metrics.langspec_f1(before, after, row.language).f1,
                }
            )
        return pd.DataFrame(rows)

    def items(self) -> pd.DataFrame:
        """Every item under every mask, for paired intervals: `evaluate`'s columns and the mask."""
        tables = [self.original[0].assign(method="Org", mask_language="", seed=-1)]
        for row, (items, _) in zip(self.interventions, self.outcomes, strict=True):
            seed = -1 if row.seed is None else row.seed
            tables.append(items.assign(method=row.method, mask_language=row.language, seed=seed))
        return pd.concat(tables, ignore_index=True)

    def perplexities(self) -> pd.DataFrame:
        """Held-out perplexity per language under every mask.

        `<language>` is the perplexity; `<language>_change` the mean change in loss (nats per token)
        against the unmasked model, `<language>_se` its standard error over windows, paired.
        """
        start = {x: self.original[1][x].double().numpy() for x in self.languages}
        rows = [
            {
                "method": "Org",
                "mask_language": "",
                "seed": -1,
                "n_neurons": 0,
                **{x: float(np.exp(losses.mean())) for x, losses in start.items()},
            }
        ]
        for row, (_, losses) in zip(self.interventions, self.outcomes, strict=True):
            line: dict[str, Any] = {
                "method": row.method,
                "mask_language": row.language,
                "seed": -1 if row.seed is None else row.seed,
                "n_neurons": len(row.neurons),
            }
            for x in self.languages:
                after = losses[x].double().numpy()
                change = after - start[x]
                line[x] = float(np.exp(after.mean()))
                line[f"{x}_change"] = float(change.mean())
                spread = change.std(ddof=1) if len(change) > 1 else np.nan
                line[f"{x}_se"] = float(spread / np.sqrt(len(change)))
            rows.append(line)
        return pd.DataFrame(rows)
