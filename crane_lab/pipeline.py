"""The method from end to end, for the notebooks: every stage kept in the store.

Algorithm 1 in the order of the paper: relevance streams -> kurtosis -> normalised scores -> neuron
sets (`stages.identification`) -> interventions -> scores. Each stage is computed by its own module;
here stages are only put together, keyed by what they depend on, so that a second run repeats
nothing that still holds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor
from tqdm import tqdm

from crane_core.interventions import UNTOUCHED, Intervention
from crane_lab.engines import benchmarks, generation, multiple_choice
from crane_lab.engines.judging import PROMPT, Judge
from crane_lab.engines.llm_judge import LLMJudge
from crane_lab.engines.surface_judge import SurfaceJudge
from crane_lab.engines.tasks import MULTILINGUAL, load_tasks, tasks_digests
from crane_lab.engines.vllm_engine import VLLMEngine
from crane_lab.stages import answering, grading, losses, methods, scoring
from crane_lab.stages.identification import Identification, Result
from crane_lab.stages.outcomes import Evaluated, Judged, Reading, Row
from crane_lab.store import source_digest
from crane_lab.store.files import canonical, digest_of
from crane_lab.store.machine import version
from crane_lab.testbed.rubric import Rubric
from crane_lab.texts import corpora, plain
from crane_lab.texts.vocabularies import vocabulary_difference

#: Which task stands for each language of the testbed. "paper" mirrors MMLU / C-Eval / Belebele-vi;
#: the other two ask every language the same kind of question, which the paper's design does not.
TABLES: dict[str, dict[str, str]] = {
    "paper": {"en": "knowledge_en", "zh": "knowledge_zh", "vi": "reading_vi"},
    "knowledge": {"en": "knowledge_en", "zh": "knowledge_zh", "vi": "knowledge_vi"},
    "reading": {"en": "reading_en", "zh": "reading_zh", "vi": "reading_vi"},
}
#: The tables of each value of `benchmarks`; the first is that of Tables 1 and 3.
TABLES_OF = {
    "testbed": TABLES,
    "harness": benchmarks.TABLES,
    "multilingual": {
        kind: {x: f"{kind}_{x}" for x in MULTILINGUAL} for kind in ("continuation", "facts")
    },
}


def main_table(benchmarks: str) -> str:
    """The name of the table that Tables 1 and 3 are made of, by a value of `benchmarks`."""
    return next(iter(TABLES_OF[benchmarks]))


class Pipeline(Identification):
    """The stages of Algorithm 1 under one `Settings`, and what neurons' masking does.

    Parameters and errors as for `Identification`.
    """

    def provenance(self) -> dict[str, Any]:
        """Where texts and items come from, with licences and digests, as plain JSON."""
        languages = self.settings.languages
        return {
            "corpus": self.corpus.provenance(languages),
            "perplexity_corpus": self.perplexity_corpus.provenance(languages),
            "benchmarks": self.settings.benchmarks,
            "tasks": self.task_fingerprint,
        }

    def rows(self, site: str | None = None) -> list[Row]:
        """The rows of Table 1: every method of `methods.METHODS`, and random controls."""
        return methods.rows(self, site)

    @property
    def reading(self) -> Reading:
        """How the settings read LangSpec-F1."""
        return Reading(self.settings.f1_others, self.settings.f1_drop == "relative")

    # -- Stage 4: intervention -------------------------------------------------------------------

    @cached_property
    def tables(self) -> dict[str, dict[str, str]]:
        """Which task stands for each language, by table: that of Table 1 and parallel ones."""
        return TABLES_OF[self.settings.benchmarks]

    @property
    def main_table(self) -> str:
        """The name of the table that Tables 1 and 3 are made of."""
        return main_table(self.settings.benchmarks)

    @property
    def main_tasks(self) -> dict[str, str]:
        """The task that stands for each of the run's languages in Tables 1 and 3."""
        tasks, languages = self.tables[self.main_table], self.settings.languages
        return {x: task for x, task in tasks.items() if x in languages}

    @cached_property
    def task_names(self) -> list[str]:
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
        s, names = self.settings, self.task_names
        if s.benchmarks == "harness":
            return benchmarks.load(names, s.num_fewshot, s.task_limit, s.benchmark_data)
        return None

    @cached_property
    def task_fingerprint(self) -> dict[str, str]:
        """Digests of each task's definition and items, by task (a group's parts one by one)."""
        if self._harness is not None:
            return self._harness.fingerprint
        return tasks_digests(self.task_names, self.settings.tasks)

    @cached_property
    def prepared(self) -> multiple_choice.Prepared:
        """The tasks, built and tokenised once."""
        s = self.settings
        if self._harness is not None:
            return self._harness.prepare(self.model, self.tokenizer)
        tasks = load_tasks(self.task_names, s.tasks, limit=s.task_limit)
        return multiple_choice.prepare(self.model, self.tokenizer, tasks)

    @cached_property
    def perplexity_windows(self) -> dict[str, Tensor]:
        """Token windows for held-out perplexity, `{language: (n_perplexity, window)}`."""
        s = self.settings
        try:
            return self.perplexity_corpus.windows(
                self.tokenizer, s.languages, s.n_perplexity, s.window, s.seed
            )
        except ValueError as error:
            said = str(error).replace("n_samples", "n_perplexity")
            raise ValueError(f"perplexity_corpus: {said}") from error

    def logit_change(self, intervention: Intervention) -> float:
        """Largest absolute change of any logit by an intervention, on one text per language.

        Raises RuntimeError if one that touches neurons changes nothing: it is not at work.
        """
        return losses.logit_change(self.model, list(self.perplexity_windows.values()), intervention)

    def _checked(self, intervention: Intervention) -> None:
        # What touches generated positions only shows nowhere in a text that is given.
        everywhere = all(step.positions == "all" for step in intervention.steps)
        if intervention.steps and everywhere:
            self.logit_change(intervention)

    def _items_key(self, intervention: Intervention) -> dict[str, Any]:
        s = self.settings
        # lm-eval's own tasks, and vLLM, are prepared and run by a module of their own.
        others = s.benchmarks == "harness" or s.benchmark_backend != "huggingface"
        code = [scoring.__name__, *([benchmarks.__name__] if others else [])]
        return {
            "model": self.loaded.key,
            "tasks": self.task_fingerprint,
            "limit": s.task_limit,
            "num_fewshot": s.num_fewshot,
            "backend": s.benchmark_backend,
            "intervention": intervention.digest(),
            "code": source_digest(*code),
        }

    def items(self, intervention: Intervention = UNTOUCHED) -> pd.DataFrame:
        """Every item's outcome under an intervention; columns of `multiple_choice.evaluate`."""
        backend = self.settings.benchmark_backend

        def compute() -> pd.DataFrame:
            self._checked(intervention)
            if backend == "vllm":
                return benchmarks.evaluate_with_vllm(
                    self.model,
                    self.prepared,
                    intervention.as_masking,
                    self.store.root,
                    **self._vllm_options,
                )
            return scoring.items(self.model, self.prepared, intervention, self.store.note)

        return self.store.table("items", self._items_key(intervention), compute)

    def answers(
        self, intervention: Intervention = UNTOUCHED, n_items: int = 50, max_new_tokens: int = 12
    ) -> pd.DataFrame:
        """What the model goes on to say under an intervention; see `answers.answer_instead`.

        `n_items` of every task, spread evenly over it.
        """

        def compute() -> pd.DataFrame:
            return scoring.said_instead(
                self.model, self.tokenizer, self.prepared, intervention, n_items, max_new_tokens
            )

        key = self._items_key(intervention) | {"model": self.loaded.generation_key}
        del key["backend"]  # what is said is always Hugging Face's
        key |= {"n_items": n_items, "max_new_tokens": max_new_tokens}
        return self.store.table("answers", key, compute)

    def losses(self, intervention: Intervention = UNTOUCHED) -> dict[str, Tensor]:
        """Mean next-token loss of each held-out window: `{language: (windows,)}`."""
        s = self.settings
        key = {
            "model": self.loaded.key,
            "corpus": self.perplexity_corpus.fingerprint(s.languages),
            "n": s.n_perplexity,
            "window": s.window,
            "seed": s.seed,
            "cut": self.windows_cut,
            "intervention": intervention.digest(),
            "code": source_digest(losses.__name__, corpora.__name__),
        }

        def compute() -> dict[str, Tensor]:
            return losses.held_out_losses(
                self.model, self.perplexity_windows, intervention, self.store.note
            )

        return self.store.tensors("losses", key, compute)

    def evaluated(self, rows: Iterable[Row], losses: bool = True) -> Evaluated:
        """Items, and held-out losses if asked for, untouched and under every intervention."""
        rows = list(rows)

        def outcome(intervention: Intervention) -> tuple[pd.DataFrame, dict[str, Tensor]]:
            return self.items(intervention), self.losses(intervention) if losses else {}

        wanted = [UNTOUCHED, *(row.intervention for row in rows)]
        original, *found = self._for_each(outcome, wanted, "evaluating masks")
        return Evaluated(list(self.settings.languages), rows, original, found, self.reading)

    def _for_each(
        self, of: Callable[[Intervention], Result], wanted: Sequence[Intervention], desc: str
    ) -> list[Result]:
        bar = tqdm(wanted, desc=desc, unit="mask")
        return self.store.together(partial(of, one) for one in bar)

    # -- Stage 4, open-ended: answers and what the judge makes of them ---------------------------

    def on_chat(self, model: str, tables: Sequence[str] | None = None) -> Pipeline:
        """The same settings on a chat model that shares this model's neurons (§5.4).

        `tables` are those whose tasks it is evaluated on; None for that of Table 3.

        Raises ValueError if its MLPs have another shape, so that no neuron corresponds, and if its
        vocabulary is another one, so that it was not trained from this model.
        """
        tables = (self.main_table,) if tables is None else tables
        other = self.changed(model=model, chat=True, task_tables=tables)
        self.require_same_neurons(other)
        return other

    def require_same_neurons(self, other: Identification) -> None:
        """Raise ValueError unless neurons of this model can be those of the other."""
        model, own = other.settings.model, self.settings.model
        if other.shape != self.shape:
            raise ValueError(
                f"neurons of {own} cannot be transferred to {model}: the (layers, neurons) of the "
                f"sites are {self.shape} there and {other.shape} here; give a base model and a "
                "chat model trained from it"
            )
        if difference := vocabulary_difference(self.tokenizer, other.tokenizer):
            raise ValueError(
                f"{model} has another vocabulary than {own} ({difference}); give a base model and "
                "a chat model trained from it, each with its own tokenizer"
            )

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
    def prompts(self) -> list[list[int]]:
        """Token ids of one prompt per question of `asked`.

        Raises ValueError for a question that leaves no room for an answer.
        """
        asked, s = self.asked, self.settings
        found = generation.prompts(self.tokenizer, list(asked["question"]), s.chat)
        positions = self.model.config.get_text_config().max_position_embeddings
        room = generation.context_length(self._decoding, positions)
        for row, ids in zip(asked.itertuples(), found, strict=True):
            if len(ids) >= room:
                path = generation.question_file(s.questions, str(row.language))
                raise ValueError(
                    f"{path}, line {int(str(row.cluster)) + 1}: the question makes a prompt of "
                    f"{len(ids)} tokens, which leaves no room for an answer in {room}; shorten it, "
                    "or raise context, if the model has the positions"
                )
        return found

    @property
    def _vllm_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"tensor_parallel_size": self.settings.tensor_parallel_size}
        if self.model.device.type == "cuda":  # where the model that is masked and explained stays
            options["gpu_memory_utilization"] = 0.6
        return options

    @cached_property
    def _decoding(self) -> generation.Decoding:
        s = self.settings
        return generation.Decoding(
            max_new_tokens=s.max_new_tokens,
            repetition_penalty=s.repetition_penalty,
            context=s.context,
            stop=() if s.chat else generation.STOP,
        )

    @cached_property
    def _engine(self) -> Any:
        s = self.settings
        if s.engine == "huggingface":
            return generation.HuggingFaceEngine(self.model, self.tokenizer, self._decoding)
        return VLLMEngine(
            s.model,
            self._decoding,
            s.dtype,
            local_files_only=s.offline,
            longest_prompt=max(map(len, self.prompts)),
            **self._vllm_options,
        )

    @cached_property
    def judge(self) -> Judge:
        """The judge of open-ended answers that the settings name."""
        s = self.settings
        if s.judge == "rubric":
            return Rubric(s.languages)
        if s.judge == "surface":
            return SurfaceJudge(s.languages)
        cache = Path(self.store.root) / "judge.sqlite"
        prompt = PROMPT
        if s.judge_prompt is not None:
            path = Path(os.path.expanduser(s.judge_prompt))
            if not path.is_file():
                raise FileNotFoundError(
                    f"judge_prompt is {s.judge_prompt!r}, but there is no such file; give one "
                    "with the judge's instructions, or None for those of "
                    "crane_lab.engines.judging"
                )
            prompt = plain.whole_text(path)
        return LLMJudge(
            s.judge_model,
            s.judge_endpoint,
            prompt,
            cache=cache,
            concurrency=s.judge_concurrency,
            timeout=s.judge_timeout,
            retries=s.judge_retries,
            max_tokens=s.judge_max_tokens,
            temperature=s.judge_temperature,
            seed=s.judge_seed,
            requests_per_minute=s.judge_requests_per_minute,
        )

    def said(self, intervention: Intervention = UNTOUCHED) -> pd.DataFrame:
        """Answers to the open questions: `asked` with `text`, `finish`, `n_tokens`.

        `finish` is "stop", "length" for an answer that was cut off, or "thinking" for one that was
        within the model's thoughts.
        """

        def compute() -> pd.DataFrame:
            self._checked(intervention)
            return answering.said(self._engine, self.asked, self.prompts, intervention)

        return self.store.table("said", self._said_key(intervention), compute)

    @property
    def said_with(self) -> dict[str, Any]:
        """What answers depend on beside the intervention."""
        s = self.settings
        return {
            "model": self.loaded.generation_key,
            "asked": self._digest(self.asked),
            "prompts": digest_of(canonical(self.prompts)),
            "engine": s.engine,
            "max_new_tokens": s.max_new_tokens,
            "repetition_penalty": s.repetition_penalty,
            "context": s.context,
            "stop": [] if s.chat else list(generation.STOP),
        }

    def _said_key(self, intervention: Intervention) -> dict[str, Any]:
        return {
            **self.said_with,
            "intervention": intervention.digest(),
            "code": source_digest(answering.__name__),
        }

    def graded(self, intervention: Intervention = UNTOUCHED) -> pd.DataFrame:
        """`said` with the judge's columns (`score`, 1 to 10, NaN if it gave none) and fidelity's.

        `text_language` is the language of the answer among the run's languages ("" without
        letters), `in_language` whether that is the question's: a column beside the score, so that
        a fluent answer in the wrong language can be told from a good one.
        """
        answers, languages = self.said(intervention), list(self.settings.languages)
        key = {
            "answers": self._digest(answers),
            "languages": languages,
            "judge": self.judge.fingerprint(),
            "identifier": version("py3langid"),
            "code": source_digest(grading.__name__, type(self.judge).__module__),
        }
        return self.store.table(
            "graded", key, lambda: grading.graded(self.judge, answers, languages)
        )

    def judged(self, rows: Iterable[Row]) -> Judged:
        """Judged answers of the untouched model and under every intervention.

        All answers are generated before any is judged, and a judge that costs money says first
        what it will cost. Before hours of generating it grades one made-up answer.
        """
        rows = list(rows)
        wanted = [UNTOUCHED, *(row.intervention for row in rows)]
        if isinstance(self.judge, LLMJudge) and not all(
            self.store.has("said", self._said_key(one)) for one in wanted
        ):
            self.judge.try_out()
        said = self._for_each(self.said, wanted, "answering")
        if isinstance(self.judge, LLMJudge):
            print(self.judge.estimate(pd.concat(said, ignore_index=True)))
        graded = self._for_each(self.graded, wanted, "judging")
        return Judged(list(self.settings.languages), rows, graded[0], graded[1:], self.reading)
