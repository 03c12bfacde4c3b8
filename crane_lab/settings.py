"""Every parameter of the book, once: name, default, type, help and choices.

`Settings` are what the method and its evaluation depend on, `PageSettings` what single pages do
besides. A notebook's parameter cell names those that its page talks about, word for word as they
stand here; any other can be given to it all the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from crane_lab.parameter import NOT_EMPTY, Must, Parameter, at_least, in_range, matching
from crane_lab.store.sources import OWN

# What the method knows by name, as its modules have it. Not imported: torch and transformers take
# seconds, and to name a run or to see how it stands needs neither.
OBJECTIVES, REDUCTIONS, SCORES, SITES = (
    OWN.choices("crane_core.attribution", name)
    for name in ("OBJECTIVES", "REDUCTIONS", "SCORES", "SITES")
)
STATISTICS = OWN.choices("crane_core.concentration", "STATISTICS")
AMOUNTS = OWN.choices("crane_core.concentration", "AMOUNTS")
AGGREGATES = OWN.choices("crane_core.metrics", "AGGREGATES")
DTYPES = OWN.choices("crane_core.models", "DTYPES")
NORMALISATIONS = OWN.choices("crane_core.selection", "NORMALISATIONS")
RULES = OWN.choices("crane_core.selection", "RULES")
OPENINGS = OWN.choices("crane_core.windows", "OPENINGS")
#: What a masked neuron can put out instead of its own value.
MASK_VALUES = OWN.choices("crane_core.accumulators", "NEURON_VALUES", "zero")
#: How a drop enters LangSpec-F1: as Eq. 3 has it, or as §3.1 and §3.4 word it.
DROPS = ("absolute", "relative")
#: What can score lm-evaluation-harness' benchmarks, and what can generate answers.
ENGINES = ("huggingface", "vllm")
#: Where the multiple-choice items come from.
BENCHMARKS = ("testbed", "harness", "multilingual")
#: Who can grade answers.
JUDGES = ("rubric", "surface", "llm")

_POSITIVE, _SEED = at_least(1), in_range(0, 2**32 - 1)
_ABOVE_0 = Must("a number above 0", lambda value: value > 0)
_SHARE = Must("a number between 0 and 1, neither included", lambda value: 0 < value < 1)
_SAMPLES = at_least(4)  # what kurtosis takes
_LANGUAGE = matching(r"[A-Za-z][A-Za-z0-9]*([_-][A-Za-z0-9]+)*", "a code such as en or zh-Hant")
_DEVICE = matching(r"cpu|auto|cuda(:\d+)?", "cpu, cuda, cuda:<number> or auto")
_ADDRESS = matching(r"https?://\S+", "an address such as http://localhost:8000/v1")


def _setting(
    default: Any,
    about: str,
    choices: tuple[Any, ...] = (),
    must: Must | None = None,
    path: str = "",
) -> Any:
    metadata = {"help": about, "choices": choices, "must": must, "path": path}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """What a run of the method depends on; the notebooks' parameters of the same names.

    Raises TypeError for a value of another type, and ValueError for one that is out of range, that
    is none of the choices, or that does not go together with another.
    """

    model: str = _setting(
        "data/testbed/base", "checkpoint to examine: a folder, or a name on the hub"
    )
    dtype: str = _setting("float32", "type of the weights: float32, bfloat16 or float16", DTYPES)
    device: str = _setting(
        "cpu", "where the model runs: cpu, cuda, or auto for a GPU if any", must=_DEVICE
    )
    offline: bool = _setting(True, "False: weights, corpora and benchmarks may come from the hub")
    languages: Sequence[str] = _setting(
        ("en", "zh", "vi"), "languages by code, in the order of all tables", must=_LANGUAGE
    )
    corpus: str = _setting(
        "data/testbed/corpus/attribution", "held-out text for attribution, one file per language"
    )
    perplexity_corpus: str = _setting(
        "data/testbed/corpus/perplexity", "held-out text for perplexity, one file each"
    )
    text_column: str = _setting("text", "column of JSON lines or Parquet that holds the documents")
    max_document_tokens: int | None = _setting(
        None, "tokens a document is cut to; None: it is not cut", must=_POSITIVE
    )
    deduplicate: bool = _setting(True, "leave out documents that have occurred before")
    corpus_documents: int = _setting(
        5000, "documents per language that are taken from a corpus on the hub", must=_POSITIVE
    )
    n_samples: int = _setting(
        1000, "windows of text per language that relevance is taken on", must=_POSITIVE
    )
    window: int = _setting(64, "tokens per window of text", must=at_least(2))
    window_opening: str = _setting(
        "stream",
        "bos: each window opens with the beginning-of-sequence token; stream: documents do",
        OPENINGS,
    )
    parallel: bool = _setting(
        False, "cut windows from the same paragraphs in every language, if the corpus has them"
    )
    batch_size: int = _setting(50, "windows that go through the model at a time", must=_POSITIVE)
    seed: int = _setting(
        0, "seed of everything that is drawn at random, except training", must=_SEED
    )
    site: str = _setting("intermediate", "which neurons are scored and masked", SITES)
    objective: str = _setting(
        "next_token", "what is explained: next_token, next_token_logprob or last_max", OBJECTIVES
    )
    score: str = _setting("activation_x_gradient", "what is stored per neuron and token", SCORES)
    reduction: str = _setting(
        "sum", "how a window's tokens become one value per neuron: sum or mean", REDUCTIONS
    )
    statistic: str = _setting(
        "kurtosis", "what a neuron's relevance over texts is summed up by", STATISTICS
    )
    normalisation: str = _setting(
        "zscore", "scale within a layer: zscore, ratio, robust or global", NORMALISATIONS
    )
    rule: str = _setting(
        "contrast", "contrast, threshold or top, or shares of all languages: relative", RULES
    )
    threshold: float = _setting(1.0, "normalised score above which a neuron is a candidate")
    budget: int | None = _setting(
        None, "neurons to select per language; None: all above the threshold", must=at_least(0)
    )
    random_seeds: Sequence[int] = _setting(
        (0, 1, 2, 3, 4), "one random mask per seed, as control", must=_SEED
    )
    mask_value: str = _setting(
        "zero", "what a masked neuron puts out: zero, or its mean, p10 or p90", MASK_VALUES
    )
    f1_others: str = _setting(
        "max", "how the other languages' drops enter LangSpec-F1: max, mean or sum", AGGREGATES
    )
    f1_drop: str = _setting(
        "absolute", "drops in LangSpec-F1: absolute, or relative to the score", DROPS
    )
    benchmarks: str = _setting(
        "testbed",
        "testbed; harness: lm-eval's MMLU, C-Eval and Belebele; multilingual: those of data/tasks",
        BENCHMARKS,
    )
    num_fewshot: int | None = _setting(
        None, "examples before each question; None: what the definition says", must=at_least(0)
    )
    benchmark_backend: str = _setting(
        "huggingface", "what scores the harness's benchmarks: huggingface or vllm", ENGINES
    )
    benchmark_data: str | None = _setting(
        None, "folder with copies of the harness's data sets; None: the hub's cache", path="folder"
    )
    tasks: str = _setting(
        "data/testbed/tasks",
        "folder with the benchmarks: lm-eval YAML files and their items",
        path="folder",
    )
    n_perplexity: int = _setting(
        200, "windows per language that perplexity is measured on", must=_POSITIVE
    )
    task_limit: int | None = _setting(
        None, "items per task, spread evenly over it; None takes all", must=_POSITIVE
    )
    task_tables: Sequence[str] | None = _setting(
        None, "tables of tasks to evaluate, such as paper or reading; None: all"
    )
    chat: bool = _setting(False, "the model is a chat model: questions go through its template")
    questions: str = _setting(
        "data/questions", "folder with <language>.txt, one open question per line", path="folder"
    )
    n_questions: int | None = _setting(None, "questions per language; None: all", must=_POSITIVE)
    engine: str = _setting("huggingface", "what generates answers: huggingface or vllm", ENGINES)
    max_new_tokens: int = _setting(96, "tokens of an answer at most", must=_POSITIVE)
    repetition_penalty: float = _setting(
        1.1,
        "makes tokens that were used already less likely; 1: no penalty",
        must=_ABOVE_0,
    )
    context: int | None = _setting(
        None,
        "tokens of question and answer together; None: the model's positions",
        must=at_least(2),
    )
    tensor_parallel_size: int = _setting(
        1, "GPUs that vLLM divides the model among", must=_POSITIVE
    )
    judge: str = _setting(
        "rubric", "who grades answers: rubric (testbed only), surface or llm", JUDGES
    )
    judge_model: str = _setting("gpt-4o", "name of the judging model, for judge llm")
    judge_endpoint: str | None = _setting(
        None, "address of an OpenAI-compatible service; None: OpenAI's", must=_ADDRESS
    )
    judge_prompt: str | None = _setting(
        None, "file with the judge's instructions; None: ours", path="file"
    )
    judge_max_tokens: int | None = _setting(
        200, "tokens of a verdict, thoughts included; None: the service's bound", must=_POSITIVE
    )
    judge_temperature: float | None = _setting(
        0.0,
        "temperature of the judge; None: not sent, as for models that reject it",
        must=in_range(0, 2),
    )
    judge_seed: int | None = _setting(
        0, "seed that the judge is sent; None: none", must=at_least(0)
    )
    judge_requests_per_minute: float | None = _setting(
        None, "calls to the judge per minute at most; None: no bound", must=_ABOVE_0
    )
    judge_concurrency: int = _setting(4, "calls to the judge at a time", must=_POSITIVE)
    judge_timeout: float = _setting(
        60.0, "seconds that a call to the judge takes at most", must=_ABOVE_0
    )
    judge_retries: int = _setting(
        6, "how often a call is repeated when the service is busy or fails", must=at_least(0)
    )

    def __post_init__(self) -> None:
        """Check every value, as `Parameter.check` does, and what does not go together."""
        for name, parameter in OF_THE_METHOD.items():
            value = parameter.check(getattr(self, name))
            if not isinstance(value, list):  # a list or tuple stays what it is
                object.__setattr__(self, name, value)
        for wrong, said in self._conflicts():
            if wrong:
                raise ValueError(said)

    def _conflicts(self) -> Iterable[tuple[bool, str]]:
        """What values can each be, but not together: whether that is so, and what to say then."""
        yield (
            len(self.languages) < 2,
            f"languages is {list(self.languages)}: CRANE contrasts languages, so it needs at least "
            "two different ones",
        )
        yield (
            self.score == "weight_gradient_sum" and self.site != "projections",
            f"score {self.score!r} is defined for projections only, and site is {self.site!r}; set "
            "site to 'projections'",
        )
        yield (
            self.rule == "relative" and self.statistic not in AMOUNTS,
            f"rule 'relative' takes shares of an amount of relevance, and statistic is "
            f"{self.statistic!r}; set statistic to {' or '.join(map(repr, AMOUNTS))}",
        )
        yield (
            self.mask_value != "zero" and self.site == "projections",
            f"mask_value {self.mask_value!r} is known for intermediate neurons only, and site is "
            "'projections'; set mask_value to 'zero'",
        )
        yield (
            bool(self.num_fewshot) and self.benchmarks != "harness",
            f"num_fewshot is {self.num_fewshot}, but "
            + ("the testbed's" if self.benchmarks == "testbed" else f"{self.benchmarks}")
            + " tasks have no examples to show; leave it None, or set benchmarks to 'harness'",
        )
        yield (
            self.context is not None and self.max_new_tokens >= self.context,
            f"max_new_tokens is {self.max_new_tokens} and context {self.context}: an answer leaves "
            "no room for its question; raise context or lower max_new_tokens",
        )
        yield (
            self.dtype == "float16" and self.device == "cpu",
            "dtype is 'float16', which is for GPUs, and device 'cpu'; use 'bfloat16' or 'float32'",
        )

    @property
    def label(self) -> str:
        """A short name of the model for titles: "testbed", or the last part of path or name."""
        parts = PurePath(self.model).parts or (self.model,)
        return "testbed" if "testbed" in parts[:-1] else parts[-1]

    @classmethod
    def of(cls, namespace: Mapping[str, Any]) -> Settings:
        """The settings found in a notebook's `globals()`; what it does not set is the default.

        Raises TypeError or ValueError for one that cannot be, also if it is its page's only.
        """
        for name, parameter in OF_PAGES.items():
            if name in namespace:
                parameter.check(namespace[name])
        names = [f.name for f in dataclasses.fields(cls)]
        found = cls(**{name: namespace[name] for name in names if name in namespace})
        # Not of all settings: a study can give every language a budget of its own.
        if found.rule in ("top", "relative") and found.budget is None:
            raise ValueError(
                f"rule {found.rule!r} needs a budget: the number of neurons to take; set budget"
            )
        return found


@dataclass(frozen=True)
class PageSettings:
    """What single pages depend on besides; read by the notebook that names it."""

    run_dir: str = _setting("runs/testbed", "where results are written; the runner sets it")
    testbed: str = _setting(
        "data/testbed",
        "folder with the testbed's training log and the files of its gate",
        path="folder",
    )
    n_checked: int = _setting(
        100, "windows per language on which relevance is checked", must=_SAMPLES
    )
    n_splits: int = _setting(
        5, "random splits of the windows, for the sampling error", must=_POSITIVE
    )
    n_answers: int = _setting(
        50, "items per task that the model answers freely under each mask", must=_POSITIVE
    )
    answer_tokens: int = _setting(12, "tokens of a free answer", must=_POSITIVE)
    null_data: str = _setting(
        "data/testbed", "folder with what random masks do, as it is shipped", path="folder"
    )
    n_null: int = _setting(
        0, "random masks of every set whose null is not shipped", must=at_least(0)
    )
    literal_reading: bool = _setting(
        True, "also mask what the literal reading of a neuron selects, site projections"
    )
    chat_model: str | None = _setting(
        "data/testbed/chat", "folder or name of its chat model; None: there is none"
    )
    published: str = _setting(
        "data/published", "folder with the paper's tables and claims", path="folder"
    )
    n_simulated: int = _setting(4000, "masks simulated for each point of a curve", must=_POSITIVE)
    real_data: str = _setting(
        "data/gemma", "folder with the shipped results on a real model", path="folder"
    )
    choices_data: str = _setting(
        "data/testbed", "folder with the shipped results of the sweep over choices", path="folder"
    )
    recompute_choices: bool = _setting(
        False, "run the sweep with these parameters instead of reading its results"
    )
    necessity_data: str = _setting(
        "data/testbed", "folder with the shipped effects of single ablations", path="folder"
    )
    recompute_necessity: bool = _setting(
        False, "ablate every neuron again instead of reading the shipped effects"
    )
    n_necessity: int = _setting(
        128, "held-out windows per language that single neurons are ablated on", must=at_least(2)
    )
    n_damage: int = _setting(
        64, "further held-out windows per language that whole sets are masked on", must=_POSITIVE
    )
    budgets: Sequence[int] = _setting(
        (8, 16, 32, 64, 128, 256), "sizes of the sets in damage curves", must=_POSITIVE
    )
    fdr: float = _setting(
        0.05, "false-discovery rate at which a neuron counts as necessary or selective", must=_SHARE
    )
    lape_file: str | None = _setting(
        None, "LAPE's released file of neurons of Llama-2-7B; None: not shown", path="file"
    )
    taught_data: str = _setting(
        "data/testbed", "folder with the shipped results of trainings", path="folder"
    )
    recompute_taught: bool = _setting(
        False, "train every set again instead of reading the shipped results"
    )
    n_trainings: int = _setting(5, "trainings of each set, if they are run again", must=_POSITIVE)
    languages_data: str = _setting(
        "data/languages", "folder with the shipped results on many languages", path="folder"
    )
    criterion_data: str = _setting(
        "data/criterion", "folder with what candidates for a criterion do", path="folder"
    )
    permutations: int = _setting(4999, "permutations of languages in Mantel's test", must=_POSITIVE)
    steering_questions: str = _setting(
        "data/steering/questions.yaml", "short questions with answers", path="file"
    )
    gpus: Sequence[str] = _setting(
        ("RTX 3090", "RTX 4090", "A100", "H100"), "devices that a run is planned for"
    )


def _parameters(of: type) -> dict[str, Parameter]:
    hints, found = get_type_hints(of), {}
    for field in dataclasses.fields(of):
        hint = hints[field.name]
        kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        kind = next(k for k in kinds if k is not NoneType)
        many = get_origin(kind) is not None
        default: Any = field.default
        found[field.name] = Parameter(
            field.name,
            list(default) if many and default is not None else default,
            field.metadata["help"],
            "list" if many else kind.__name__,
            choices=field.metadata["choices"],
            entry=get_args(kind)[0].__name__ if many else "",
            optional=NoneType in kinds,
            must=field.metadata["must"] or (NOT_EMPTY if str in (kind, *get_args(kind)) else None),
            path=field.metadata["path"],
        )
    return found


#: Every parameter by name: those of the method, and those of single pages.
OF_THE_METHOD = _parameters(Settings)
OF_PAGES = _parameters(PageSettings)
PARAMETERS = OF_THE_METHOD | OF_PAGES
