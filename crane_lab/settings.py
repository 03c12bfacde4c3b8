"""Every parameter of the book, once: name, default, type, help and choices.

`Settings` are what the method and its evaluation depend on, `PageSettings` what single pages do
besides. A notebook's parameter cell names those that its page talks about, word for word as they
stand here; any other can be given to it all the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from crane_lab.store.sources import OWN

# What the method knows by name, as its modules have it. Not imported: torch and transformers take
# seconds, and to name a run or to see how it stands needs neither.
OBJECTIVES, REDUCTIONS, SCORES, SITES = (
    OWN.choices("crane_core.attribution", name)
    for name in ("OBJECTIVES", "REDUCTIONS", "SCORES", "SITES")
)
STATISTICS = OWN.choices("crane_core.concentration", "STATISTICS")
AGGREGATES = OWN.choices("crane_core.metrics", "AGGREGATES")
DTYPES = OWN.choices("crane_core.models", "DTYPES")
NORMALISATIONS = OWN.choices("crane_core.selection", "NORMALISATIONS")
RULES = OWN.choices("crane_core.selection", "RULES")
#: What a masked neuron can put out instead of its own value.
MASK_VALUES = ("zero", *OWN.choices("crane_core.accumulators", "NEURON_VALUES"))
#: How a drop enters LangSpec-F1: as Eq. 3 has it, or as §3.1 and §3.4 word it.
DROPS = ("absolute", "relative")
#: What can score lm-evaluation-harness' benchmarks, and what can generate answers.
ENGINES = ("huggingface", "vllm")
#: Where the multiple-choice items come from.
BENCHMARKS = ("testbed", "harness")
#: Who can grade answers.
JUDGES = ("rubric", "llm")


@dataclass(frozen=True)
class Parameter:
    """One parameter.

    `type_name` is "int", "float", "str", "bool", "list", or "" if anything goes. `choices` are the
    values it can take (those of a list's entries), empty for all. `notebooks` are those whose
    parameter cell names it.
    """

    name: str
    default: Any
    help: str
    type_name: str
    notebooks: tuple[str, ...] = ()
    choices: tuple[Any, ...] = ()
    optional: bool = False

    def check(self, value: Any) -> Any:
        """Return `value`, as a float where one is expected.

        Raises TypeError if it has another type, and ValueError if it is not among the choices.
        """
        if value is None and (self.optional or self.default is None):
            return None
        if self.type_name == "float" and isinstance(value, (int, str)):
            # YAML reads 1e-3 as a string
            value = _as_float(value)
        if self.type_name and type(value).__name__ != self.type_name:
            raise TypeError(self._mismatch(value))
        if isinstance(value, list) and isinstance(self.default, list) and self.default:
            wanted = {type(item) for item in self.default}
            if not {type(item) for item in value} <= wanted:
                raise TypeError(self._mismatch(value))
        for item in value if isinstance(value, list) else [value]:
            if self.choices and item not in self.choices:
                raise ValueError(
                    f"parameter {self.name} is {item!r}: expected one of "
                    f"{', '.join(map(repr, self.choices))}"
                )
        return value

    def parse(self, text: str) -> Any:
        """Return the value that `text` from the command line means for this parameter."""
        if (self.optional or self.default is None) and text in ("None", "null", "~", ""):
            return None
        if self.type_name == "str":
            return self.check(text)
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"parameter {self.name}: cannot read {text!r} as YAML") from error
        return self.check(value)

    @property
    def line(self) -> str:
        """Its line in a notebook's parameter cell."""
        default = self.default
        text = f'"{default}"' if isinstance(default, str) else repr(default).replace("'", '"')
        return f"{self.name} = {text}  # {self.help}"

    def _mismatch(self, value: Any) -> str:
        hint = ""
        if isinstance(value, list) and any(isinstance(item, bool) for item in value):
            hint = " (YAML reads a bare no, yes, on or off as true or false: put it in quotes)"
        expected = self.type_name
        if isinstance(self.default, list) and self.default:
            names = sorted({type(item).__name__ for item in self.default})
            expected += f" of {' or '.join(names)}"
        if self.optional:
            expected += " or None"
        return (
            f"parameter {self.name} is {expected} (default {self.default!r}); "
            f"got {type(value).__name__} {value!r}{hint}"
        )


def _as_float(value: int | str) -> Any:
    if isinstance(value, bool):
        return value
    try:
        return float(value)
    except ValueError:
        return value


def _setting(default: Any, about: str, choices: Iterable[Any] = ()) -> Any:
    return dataclasses.field(default=default, metadata={"help": about, "choices": tuple(choices)})


@dataclass(frozen=True)
class Settings:
    """What a run of the method depends on; the notebooks' parameters of the same names."""

    model: str = _setting(
        "data/testbed/base", "checkpoint to examine: a folder, or a name on the hub"
    )
    dtype: str = _setting("float32", "type of the weights: float32, bfloat16 or float16", DTYPES)
    device: str = _setting("cpu", "where the model runs: cpu, cuda, or auto for a GPU if any")
    offline: bool = _setting(True, "False: weights, corpora and benchmarks may come from the hub")
    languages: Sequence[str] = _setting(
        ("en", "zh", "vi"), "languages by code, in the order of all tables"
    )
    corpus: str = _setting(
        "data/testbed/corpus/attribution", "held-out text for attribution, one file per language"
    )
    perplexity_corpus: str = _setting(
        "data/testbed/corpus/perplexity", "held-out text for perplexity, one file each"
    )
    text_column: str = _setting("text", "column of JSON lines or Parquet that holds the documents")
    max_document_tokens: int | None = _setting(
        None, "tokens a document is cut to; None: it is not cut"
    )
    deduplicate: bool = _setting(True, "leave out documents that have occurred before")
    corpus_documents: int = _setting(
        5000, "documents per language that are taken from a corpus on the hub"
    )
    n_samples: int = _setting(1000, "windows of text per language that relevance is taken on")
    window: int = _setting(64, "tokens per window of text")
    batch_size: int = _setting(50, "windows that go through the model at a time")
    seed: int = _setting(0, "seed of everything that is drawn at random, except training")
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
    rule: str = _setting("contrast", "how neurons are selected: contrast, threshold or top", RULES)
    threshold: float = _setting(1.0, "normalised score above which a neuron is a candidate")
    budget: int | None = _setting(
        None, "neurons to select per language; None: all above the threshold"
    )
    random_seeds: Sequence[int] = _setting((0, 1, 2, 3, 4), "one random mask per seed, as control")
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
        "testbed", "testbed, or harness: lm-eval's MMLU, C-Eval and Belebele", BENCHMARKS
    )
    num_fewshot: int | None = _setting(
        None, "examples before each question; None: what the definition says"
    )
    benchmark_backend: str = _setting(
        "huggingface", "what scores the harness's benchmarks: huggingface or vllm", ENGINES
    )
    benchmark_data: str | None = _setting(
        None, "folder with copies of the harness's data sets; None: the hub's cache"
    )
    tasks: str = _setting(
        "data/testbed/tasks", "folder with the benchmarks: lm-eval YAML files and their items"
    )
    n_perplexity: int = _setting(200, "windows per language that perplexity is measured on")
    task_limit: int | None = _setting(None, "items per task, spread evenly over it; None takes all")
    task_tables: Sequence[str] | None = _setting(
        None, "tables of tasks to evaluate, such as paper or reading; None: all"
    )
    chat: bool = _setting(False, "the model is a chat model: questions go through its template")
    questions: str = _setting(
        "data/questions", "folder with <language>.txt, one open question per line"
    )
    n_questions: int | None = _setting(None, "questions per language; None: all")
    engine: str = _setting("huggingface", "what generates answers: huggingface or vllm", ENGINES)
    max_new_tokens: int = _setting(96, "tokens of an answer at most")
    repetition_penalty: float = _setting(
        1.1, "makes tokens that were used already less likely; 1: no penalty"
    )
    context: int | None = _setting(
        None, "tokens of question and answer together; None: the model's positions"
    )
    tensor_parallel_size: int = _setting(1, "GPUs that vLLM divides the model among")
    judge: str = _setting("rubric", "who grades answers: rubric (testbed only) or llm", JUDGES)
    judge_model: str = _setting("gpt-4o", "name of the judging model, for judge llm")
    judge_endpoint: str | None = _setting(
        None, "address of an OpenAI-compatible service; None: OpenAI's"
    )
    judge_prompt: str | None = _setting(None, "file with the judge's instructions; None: ours")
    judge_max_tokens: int | None = _setting(
        200, "tokens of a verdict, thoughts included; None: the service's bound"
    )
    judge_temperature: float | None = _setting(
        0.0, "temperature of the judge; None: not sent, as for models that reject it"
    )
    judge_seed: int | None = _setting(0, "seed that the judge is sent; None: none")
    judge_requests_per_minute: float | None = _setting(
        None, "calls to the judge per minute at most; None: no bound"
    )
    judge_concurrency: int = _setting(4, "calls to the judge at a time")
    judge_timeout: float = _setting(60.0, "seconds that a call to the judge takes at most")
    judge_retries: int = _setting(
        6, "how often a call is repeated when the service is busy or fails"
    )

    @classmethod
    def of(cls, namespace: Mapping[str, Any]) -> Settings:
        """The settings found in a notebook's `globals()`; what it does not set is the default."""
        names = [f.name for f in dataclasses.fields(cls)]
        return cls(**{name: namespace[name] for name in names if name in namespace})


@dataclass(frozen=True)
class PageSettings:
    """What single pages depend on besides; read by the notebook that names it."""

    run_dir: str = _setting("runs/testbed", "where results are written; the runner sets it")
    testbed: str = _setting(
        "data/testbed", "folder with the testbed's training log and the files of its gate"
    )
    n_checked: int = _setting(100, "windows per language on which relevance is checked")
    n_splits: int = _setting(5, "random splits of the windows, for the sampling error")
    n_answers: int = _setting(50, "items per task that the model answers freely under each mask")
    answer_tokens: int = _setting(12, "tokens of a free answer")
    chat_model: str = _setting(
        "data/testbed/chat", "folder or name of the chat model tuned from it"
    )
    published: str = _setting("data/published", "folder with the paper's tables and claims")
    n_simulated: int = _setting(4000, "masks simulated for each point of a curve")
    choices_data: str = _setting(
        "data/testbed", "folder with the shipped results of the sweep over choices"
    )
    recompute_choices: bool = _setting(
        False, "run the sweep with these parameters instead of reading its results"
    )
    necessity_data: str = _setting(
        "data/testbed", "folder with the shipped effects of single ablations"
    )
    recompute_necessity: bool = _setting(
        False, "ablate every neuron again instead of reading the shipped effects"
    )
    n_necessity: int = _setting(
        128, "held-out windows per language that single neurons are ablated on"
    )
    n_damage: int = _setting(
        64, "further held-out windows per language that whole sets are masked on"
    )
    budgets: Sequence[int] = _setting(
        (8, 16, 32, 64, 128, 256), "sizes of the sets in damage curves"
    )
    fdr: float = _setting(
        0.05, "false-discovery rate at which a neuron counts as necessary or selective"
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
            optional=NoneType in kinds,
        )
    return found


#: Every parameter by name: those of the method, and those of single pages.
OF_THE_METHOD = _parameters(Settings)
OF_PAGES = _parameters(PageSettings)
PARAMETERS = OF_THE_METHOD | OF_PAGES
