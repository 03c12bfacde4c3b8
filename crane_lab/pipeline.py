"""The method from end to end, for the notebooks: every stage kept in the store.

Algorithm 1 in the order of the paper: relevance streams -> kurtosis -> normalised scores -> neuron
sets -> interventions -> scores. Each stage is computed by its own module; here stages are only put
together, keyed by what they depend on, so that a second run repeats nothing that still holds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from crane_core import baselines, models
from crane_core.attribution import neuron_relevance
from crane_core.masking import masked
from crane_core.moments import StreamingMoments
from crane_core.selection import NeuronSet, Scores, normalise, select
from crane_lab.engines import benchmarks, evaluation, generation
from crane_lab.engines.judging import PROMPT, Judge
from crane_lab.engines.llm_judge import LLMJudge
from crane_lab.memory import Memory
from crane_lab.stages import streams
from crane_lab.stages.outcomes import Evaluated, Intervention, Judged
from crane_lab.store import Store, source_digest
from crane_lab.store.files import canonical, digest_of
from crane_lab.texts import corpora
from crane_lab.texts.fidelity import fidelity

#: Which task stands for each language. "paper" mirrors MMLU / C-Eval / Belebele-vi; the other two
#: ask every language the same kind of question, which the paper's design does not.
TABLES: dict[str, dict[str, str]] = {
    "paper": {"en": "knowledge_en", "zh": "knowledge_zh", "vi": "reading_vi"},
    "knowledge": {"en": "knowledge_en", "zh": "knowledge_zh", "vi": "knowledge_vi"},
    "reading": {"en": "reading_en", "zh": "reading_zh", "vi": "reading_vi"},
}
#: The tables of each value of `benchmarks`.
TABLES_OF = {"testbed": TABLES, "harness": benchmarks.TABLES}


@dataclass(frozen=True)
class Settings:
    """What a run of the method depends on; the notebooks' parameters of the same names."""

    model: str = "data/testbed/base"
    dtype: str = "float32"
    device: str = "cpu"
    offline: bool = True
    languages: Sequence[str] = ("en", "zh", "vi")
    corpus: str = "data/testbed/corpus/attribution"
    perplexity_corpus: str = "data/testbed/corpus/perplexity"
    text_column: str = "text"
    max_document_tokens: int | None = None
    deduplicate: bool = True
    corpus_documents: int = 5000
    benchmarks: str = "testbed"
    num_fewshot: int | None = None
    benchmark_backend: str = "huggingface"
    benchmark_data: str | None = None
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
    task_tables: Sequence[str] | None = None  # None: all tables of the benchmarks
    chat: bool = False
    questions: str = "data/questions"
    n_questions: int | None = None
    engine: str = "huggingface"
    max_new_tokens: int = 96
    repetition_penalty: float = 1.1
    context: int | None = None
    tensor_parallel_size: int = 1
    judge: str = "rubric"
    judge_model: str = "gpt-4o"
    judge_endpoint: str | None = None
    judge_prompt: str | None = None

    @classmethod
    def of(cls, namespace: Mapping[str, Any]) -> Settings:
        """The settings found in a notebook's `globals()`; what it does not set is the default."""
        names = [f.name for f in dataclasses.fields(cls)]
        return cls(**{name: namespace[name] for name in names if name in namespace})


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
        for corpus in (self.corpus, self.perplexity_corpus):
            corpus.check(settings.languages)
        self.model, self.tokenizer = models.load(
            settings.model, settings.dtype, settings.device, local_files_only=settings.offline
        )
        self.shape = models.shape(self.model)
        self._memory = Memory()

    @cached_property
    def _model_key(self) -> str:
        return models.fingerprint(self.model)

    # -- Stage 1: relevance, and stage 2: its concentration ------------------------------------

    def _corpus(self, part: str) -> corpora.Corpus:
        s = self.settings
        source = s.corpus if part == "attribution" else s.perplexity_corpus
        split = source.startswith("hub:") or s.corpus == s.perplexity_corpus
        return corpora.Corpus(
            source,
            part if split else None,
            s.text_column,
            s.max_document_tokens,
            s.deduplicate,
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

    def provenance(self) -> dict[str, Any]:
        """Where texts and items come from, with licences and digests, as plain JSON."""
        languages = self.settings.languages
        return {
            "corpus": self.corpus.provenance(languages),
            "perplexity_corpus": self.perplexity_corpus.provenance(languages),
            "benchmarks": self.settings.benchmarks,
            "tasks": self.task_fingerprint,
        }

    def _batches(self, language: str) -> Iterator[tuple[Tensor, Tensor]]:
        for ids in self.windows[language].split(self.settings.batch_size):
            yield ids, torch.ones_like(ids)

    def _attribution_key(self, language: str) -> dict[str, Any]:
        s = self.settings
        return {
            "model": self._model_key,
            "corpus": self.corpus.fingerprint([language]),
            "n_samples": s.n_samples,
            "window": s.window,
            "seed": s.seed,
            "batch_size": s.batch_size,
        }

    def moments(self, language: str, site: str = "intermediate") -> dict[str, StreamingMoments]:
        """Moments of every neuron's relevance over one language's samples, by site.

        For `projections` the sites are `gate`, `up` and `down`. Processes that run this at the same
        time on one store share the work; see `streams.collect`.
        """
        s = self.settings

        def relevance(ids: Tensor) -> dict[str, Tensor]:
            found = neuron_relevance(
                self.model,
                ids,
                torch.ones_like(ids),
                s.objective,
                site,
                score=s.score,
                reduction=s.reduction,
            )
            return {site: found} if isinstance(found, Tensor) else found

        key = {
            **self._attribution_key(language),
            "objective": s.objective,
            "score": s.score,
            "reduction": s.reduction,
            "site": site,
            "code": source_digest(
                "crane_core.attribution",
                "crane_core.moments",
                "crane_lab.texts.corpora",
                "crane_lab.stages.streams",
            ),
        }
        return streams.collect(
            self.store,
            key,
            lambda: self.windows[language],
            (s.n_samples, s.batch_size),
            relevance,
            memory=self._memory,
            desc=f"relevance, {language}, {site}",
        )

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
                def count(ids: Tensor) -> tuple[Tensor, int]:
                    return baselines.activation_counts(self.model, [(ids, torch.ones_like(ids))])

                found = [
                    part
                    for ids, _ in self._batches(language)
                    for part in self._memory.run(count, ids, self.store.note)
                ]
                counts = torch.stack([counts for counts, _ in found]).sum(0)
                return {"over_zero": counts, "n": torch.tensor(sum(n for _, n in found))}

            key = {
                **self._attribution_key(language),
                "code": source_digest("crane_core.baselines", "crane_lab.texts.corpora"),
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
    def tables(self) -> dict[str, dict[str, str]]:
        """Which task stands for each language, by table: "paper" and parallel ones.

        Raises ValueError for unknown benchmarks.
        """
        name = self.settings.benchmarks
        if name not in TABLES_OF:
            raise ValueError(f"unknown benchmarks {name!r}: expected one of {list(TABLES_OF)}")
        return TABLES_OF[name]

    @cached_property
    def _task_names(self) -> list[str]:
        """The tasks of the settings' tables in the run's languages, each once."""
        languages, tables = self.settings.languages, self.tables
        names = []
        for kind in tables if self.settings.task_tables is None else self.settings.task_tables:
            if kind not in tables:
                raise ValueError(f"unknown table {kind!r}: expected one of {list(tables)}")
            for language in languages:
                if language not in tables[kind]:
                    raise ValueError(
                        f"no task for language {language!r}: there are tasks for "
                        f"{list(tables[kind])}"
                    )
            # In the table's order, so that the order of languages does not change what is stored.
            names += [name for language, name in tables[kind].items() if language in languages]
        return list(dict.fromkeys(names))

    @cached_property
    def _harness(self) -> benchmarks.Harness | None:
        """lm-eval's own benchmarks, if the settings ask for them."""
        s, names = self.settings, self._task_names
        if s.benchmarks == "harness":
            return benchmarks.load(names, s.num_fewshot, s.task_limit, s.benchmark_data)
        if s.num_fewshot:
            raise ValueError(
                f"num_fewshot is {s.num_fewshot}, but the testbed's tasks have no examples to "
                "show; leave it None, or set benchmarks to 'harness'"
            )
        return None

    @cached_property
    def task_fingerprint(self) -> dict[str, str]:
        """Digests of each task's definition and items, by task (a group's parts one by one)."""
        if self._harness is not None:
            return self._harness.fingerprint
        return evaluation.fingerprint(self._task_names, self.settings.tasks)

    @cached_property
    def prepared(self) -> evaluation.Prepared:
        """The tasks, built and tokenised once."""
        s = self.settings
        if self._harness is not None:
            return self._harness.prepare(self.model, self.tokenizer)
        tasks = evaluation.load_tasks(self._task_names, s.tasks, limit=s.task_limit)
        return evaluation.prepare(self.model, self.tokenizer, tasks)

    @cached_property
    def perplexity_windows(self) -> dict[str, Tensor]:
        """Token windows for held-out perplexity, `{language: (n_perplexity, window)}`."""
        s = self.settings
        return self.perplexity_corpus.windows(
            self.tokenizer, s.languages, s.n_perplexity, s.window, s.seed
        )

    def _under(self, neurons: NeuronSet | None) -> Any:
        return masked(self.model, NeuronSet.empty(self.shape) if neurons is None else neurons)

    @torch.no_grad()
    def logit_change(self, neurons: NeuronSet) -> float:
        """Largest absolute change of any logit that masking causes, on one text per language.

        Raises RuntimeError if a mask that is not empty changes nothing: it is not at work.
        """
        ids = torch.cat([w[:1] for w in self.perplexity_windows.values()]).to(self.model.device)
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
            "tasks": self.task_fingerprint,
            "limit": s.task_limit,
            "num_fewshot": s.num_fewshot,
            "backend": s.benchmark_backend,
            "neurons": "" if neurons is None else neurons.digest(),
            "code": source_digest(
                "crane_lab.engines.benchmarks",
                "crane_lab.engines.evaluation",
                "crane_core.masking",
            ),
        }

    def items(self, neurons: NeuronSet | None = None) -> pd.DataFrame:
        """Every item's outcome under a mask (None: unmasked); columns of `evaluation.evaluate`."""

        backend = self.settings.benchmark_backend
        if backend not in benchmarks.BACKENDS:
            raise ValueError(
                f"unknown benchmark_backend {backend!r}: expected one of {benchmarks.BACKENDS}"
            )

        def compute() -> pd.DataFrame:
            if neurons is not None:
                self.logit_change(neurons)
            if backend == "vllm":
                return benchmarks.evaluate_with_vllm(
                    self.model, self.prepared, neurons, self.store.root, **self._vllm_options
                )
            with self._under(neurons):
                return evaluation.evaluate(self.model, self.prepared, note=self.store.note)

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

    def _losses_key(self, neurons: NeuronSet | None) -> dict[str, Any]:
        s = self.settings
        return {
            "model": self._model_key,
            "corpus": self.perplexity_corpus.fingerprint(s.languages),
            "n": s.n_perplexity,
            "window": s.window,
            "seed": s.seed,
            "neurons": "" if neurons is None else neurons.digest(),
            "code": source_digest(
                "crane_lab.engines.evaluation",
                "crane_core.masking",
                "crane_lab.texts.corpora",
            ),
        }

    def _losses_now(self) -> dict[str, Tensor]:
        """`losses` of the model as it is now, with whatever mask is on it."""
        return {
            x: evaluation.perplexity(self.model, windows, note=self.store.note).losses
            for x, windows in self.perplexity_windows.items()
        }

    def losses(self, neurons: NeuronSet | None = None) -> dict[str, Tensor]:
        """Mean next-token loss of each held-out window under a mask: `{language: (windows,)}`."""

        def compute() -> dict[str, Tensor]:
            with self._under(neurons):
                return self._losses_now()

        return self.store.tensors("losses", self._losses_key(neurons), compute)

    def evaluated(self, interventions: Iterable[Intervention], losses: bool = True) -> Evaluated:
        """Items, and held-out losses if asked for, unmasked and under every intervention."""
        rows = list(interventions)

        def outcome(neurons: NeuronSet | None = None) -> tuple[pd.DataFrame, dict[str, Tensor]]:
            return self.items(neurons), self.losses(neurons) if losses else {}

        original = outcome()
        found = [outcome(row.neurons) for row in tqdm(rows, desc="evaluating masks", unit="mask")]
        return Evaluated(list(self.settings.languages), rows, original, found)

    # -- Stage 4, open-ended: answers and what the judge makes of them ---------------------------

    def on_chat(self, model: str, tables: Sequence[str] = ("paper",)) -> Pipeline:
        """The same settings on a chat model that shares this model's neurons (§5.4).

        `tables` are those whose tasks it is evaluated on.

        Raises ValueError if its MLPs have another shape, so that no neuron corresponds, and if its
        vocabulary is another one, so that it was not trained from this model.
        """
        settings = dataclasses.replace(self.settings, model=model, chat=True, task_tables=tables)
        other = Pipeline(settings, self.store)
        if other.shape != self.shape:
            raise ValueError(
                f"neurons of {self.settings.model} cannot be transferred to {model}: the (layers, "
                f"neurons) of the sites are {self.shape} there and {other.shape} here; give a base "
                "model and a chat model trained from it"
            )
        if difference := models.vocabulary_difference(self.tokenizer, other.tokenizer):
            raise ValueError(
                f"{model} has another vocabulary than {self.settings.model} ({difference}); give a "
                "base model and a chat model trained from it, each with its own tokenizer"
            )
        return other

    @cached_property
    def asked(self) -> pd.DataFrame:
        """The open questions: `task`, `language`, `id`, `cluster` (their number), `question`."""
        s = self.settings
        if s.n_questions is not None and s.n_questions < 1:
            raise ValueError(
                f"n_questions is {s.n_questions}: expected at least 1, or None for all"
            )
        rows = []
        for language, lines in generation.read_questions(s.questions, s.languages).items():
            n = min(len(lines), s.n_questions or len(lines))
            for number in (index * len(lines) // n for index in range(n)):
                name = f"{number:03d}"
                task = f"open_{language}"
                rows.append((task, language, f"{task}-{name}", name, lines[number]))
        return pd.DataFrame(rows, columns=["task", "language", "id", "cluster", "question"])

    @staticmethod
    def _digest(frame: pd.DataFrame) -> str:
        return digest_of(frame.to_json(orient="split", force_ascii=False))

    @cached_property
    def _prompts(self) -> list[list[int]]:
        return generation.prompts(self.tokenizer, list(self.asked["question"]), self.settings.chat)

    @property
    def _vllm_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"tensor_parallel_size": self.settings.tensor_parallel_size}
        if self.model.device.type == "cuda":  # where the model that is masked and explained stays
            options["gpu_memory_utilization"] = 0.6
        return options

    @cached_property
    def _engine(self) -> Any:
        s = self.settings
        decoding = generation.Decoding(
            max_new_tokens=s.max_new_tokens,
            repetition_penalty=s.repetition_penalty,
            context=s.context,
            stop=() if s.chat else generation.STOP,
        )
        if s.engine == "huggingface":
            return generation.HuggingFaceEngine(self.model, self.tokenizer, decoding)
        if s.engine == "vllm":
            from crane_lab.engines.vllm_engine import VLLMEngine

            return VLLMEngine(
                s.model, decoding, s.dtype, local_files_only=s.offline, **self._vllm_options
            )
        raise ValueError(f"unknown engine {s.engine!r}: expected 'huggingface' or 'vllm'")

    @cached_property
    def judge(self) -> Judge:
        """The judge of open-ended answers that the settings name."""
        s = self.settings
        if s.judge == "rubric":
            from crane_lab.testbed.rubric import Rubric

            return Rubric(s.languages)
        if s.judge == "llm":
            cache = Path(self.store.root) / "judge.sqlite"
            prompt = PROMPT
            if s.judge_prompt is not None:
                if not Path(s.judge_prompt).is_file():
                    raise FileNotFoundError(
                        f"judge_prompt is {s.judge_prompt!r}, but there is no such file; give one "
                        "with the judge's instructions, or None for those of "
                        "crane_lab.engines.judging"
                    )
                prompt = Path(s.judge_prompt).read_text("utf-8")
            return LLMJudge(s.judge_model, s.judge_endpoint, prompt, cache=cache)
        raise ValueError(f"unknown judge {s.judge!r}: expected 'rubric' or 'llm'")

    def said(self, neurons: NeuronSet | None = None) -> pd.DataFrame:
        """Answers to the open questions under a mask: `asked` with `text`, `finish`, `n_tokens`.

        `finish` is "stop", or "length" for an answer that was cut off.
        """
        s = self.settings

        def compute() -> pd.DataFrame:
            if neurons is not None:
                self.logit_change(neurons)
            answers = self._engine.generate(self._prompts, neurons)
            return self.asked.assign(
                text=[answer.text for answer in answers],
                finish=[answer.finish for answer in answers],
                n_tokens=[len(answer.tokens) for answer in answers],
            )

        key = {
            "model": self._model_key,
            "asked": self._digest(self.asked),
            "prompts": digest_of(canonical(self._prompts)),
            "engine": s.engine,
            "max_new_tokens": s.max_new_tokens,
            "repetition_penalty": s.repetition_penalty,
            "context": s.context,
            "neurons": "" if neurons is None else neurons.digest(),
            "code": source_digest(
                "crane_lab.engines.generation",
                "crane_lab.engines.vllm_engine",
                "crane_core.masking",
            ),
        }
        return self.store.table("said", key, compute)

    def graded(self, neurons: NeuronSet | None = None) -> pd.DataFrame:
        """`said` with the judge's columns (`score`, 1 to 10, NaN if it gave none) and fidelity's.

        `text_language` is the language of the answer among the run's languages ("" without
        letters), `in_language` whether that is the question's: a column beside the score, so that
        a fluent answer in the wrong language can be told from a good one.
        """
        answers = self.said(neurons)

        def compute() -> pd.DataFrame:
            scored = self.judge.score(answers)
            spoken = fidelity(
                answers["text"].to_list(),
                answers["language"].to_list(),
                list(self.settings.languages),
            )
            return scored.assign(
                text_language=spoken["text_language"].to_numpy(),
                in_language=spoken["in_language"].to_numpy(),
            )

        key = {
            "answers": self._digest(answers),
            "languages": list(self.settings.languages),
            "judge": self.judge.fingerprint(),
            "code": source_digest("crane_lab.engines.llm_judge", "crane_lab.testbed.rubric"),
        }
        return self.store.table("graded", key, compute)

    def judged(self, interventions: Iterable[Intervention]) -> Judged:
        """Judged answers of the unmasked model and under every intervention.

        All answers are generated before any is judged, and a judge that costs money says first
        what it will cost.
        """
        rows = list(interventions)
        masks = [None, *(row.neurons for row in rows)]
        said = [self.said(neurons) for neurons in tqdm(masks, desc="answering", unit="mask")]
        if isinstance(self.judge, LLMJudge):
            print(self.judge.estimate(pd.concat(said, ignore_index=True)))
        graded = [self.graded(neurons) for neurons in tqdm(masks, desc="judging", unit="mask")]
        return Judged(list(self.settings.languages), rows, graded[0], graded[1:])
