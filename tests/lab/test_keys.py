"""Keys that cannot lie: each input is changed in turn, and just the keys that depend on it move."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_pipeline import LANGUAGES, folder, settings_in
from torch import Tensor
from transformers import AutoTokenizer, CTRLTokenizer

from crane_core.interventions import Add, Intervention, Scale, SetTo, zero
from crane_core.neurons import NeuronSet
from crane_lab.engines.judging import JudgeError
from crane_lab.engines.llm_judge import LLMJudge
from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.stages.keys import Loaded, tokenizer_digest
from crane_lab.store import ROOT, Store, sources
from crane_lab.store.sources import PACKAGES, Sources

__all__ = ["folder"]  # a fixture: the model, corpora and tasks made up in test_pipeline

pytestmark = pytest.mark.filterwarnings("ignore:kurtosis of")


class _Asked(Exception):
    """Carries the stage and the key of the artefact asked for."""


class _KeyStore(Store):
    """Says which artefact is asked for and computes nothing."""

    def _asked(self, stage: str, key: Mapping[str, Any], *rest: Any, **more: Any) -> Any:
        raise _Asked(stage, json.dumps(key, sort_keys=True))

    has = tensors = table = value = _asked


STAGES: dict[str, Callable[[Pipeline, Intervention], object]] = {
    "collected": lambda p, _: p.collected("en"),
    "neuron-values": lambda p, _: p.neuron_values,
    "items": lambda p, intervention: p.items(intervention),
    "answers": lambda p, intervention: p.answers(intervention, 2, 3),
    "losses": lambda p, intervention: p.losses(intervention),
    "said": lambda p, intervention: p.said(intervention),
}
ALL = set(STAGES)
#: What texts for attribution are read for, and what an intervention is evaluated by.
TEXTS, EVALUATED = {"collected", "neuron-values"}, {"items", "answers", "losses", "said"}


def keys(
    settings: Settings, intervention: Intervention | None = None, loaded: Loaded | None = None
) -> dict[str, str]:
    """The key of every stage under some settings."""
    found = {}
    for stage, ask in STAGES.items():
        pipeline = Pipeline(settings, _KeyStore("none"), loaded)
        with pytest.raises(_Asked) as asked:
            ask(pipeline, intervention or Intervention())
        assert asked.value.args[0] == stage
        found[stage] = str(asked.value.args[1])
    return found


def differing(a: Mapping[str, str], b: Mapping[str, str]) -> set[str]:
    return {stage for stage in ALL if a[stage] != b[stage]}


@pytest.fixture
def inputs(folder: Path, tmp_path: Path) -> Path:
    """A copy of everything the pipeline reads, to be edited."""
    root = tmp_path / "inputs"
    shutil.copytree(folder, root)
    (root / "questions").mkdir()
    for language in LANGUAGES:
        (root / "questions" / f"{language}.txt").write_text("Ai?\nỞ đâu?\n", encoding="utf-8")
    return root


def of(root: Path, **changes: Any) -> Settings:
    return settings_in(root, questions=str(root / "questions"), **changes)


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content, ensure_ascii=False), "utf-8")


def edit_line(path: Path) -> None:
    lines = path.read_text("utf-8").split("\n")
    lines[0] = lines[0][:-1] + "!" if not lines[0].endswith("}") else lines[0].replace(".", "!", 1)
    path.write_text("\n".join(lines), "utf-8")


# ------------------------------------------------------------------------------------- the model


def _weights(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] += 1e-3
    save_file(tensors, model / "model.safetensors", {"format": "pt"})


def _rope(model: Path) -> None:
    edit_json(model / "config.json", lambda c: c["rope_parameters"].update(rope_theta=500_000.0))


def _norm(model: Path) -> None:
    edit_json(model / "config.json", lambda c: c.update(rms_norm_eps=1e-3))


def _merges(model: Path) -> None:
    edit_json(model / "tokenizer.json", lambda t: t["model"]["merges"].pop())


def _normaliser(model: Path) -> None:
    edit_json(model / "tokenizer.json", lambda t: t.update(normalizer={"type": "NFC"}))


def _template(model: Path) -> None:
    (model / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")


@pytest.mark.parametrize("change", [_weights, _rope, _norm, _merges, _normaliser, _template])
def test_a_corrected_model_is_another_one(inputs: Path, change: Callable[[Path], None]) -> None:
    before = keys(of(inputs))
    change(inputs / "model0")
    assert differing(before, keys(of(inputs))) == ALL


@pytest.mark.parametrize("library", ["torch", "transformers"])
def test_another_version_of_a_library_is_another_model(
    inputs: Path, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = keys(of(inputs))
    monkeypatch.setattr(f"{library}.__version__", "9.9.9")
    assert differing(before, keys(of(inputs))) == ALL


def test_how_tokens_become_text_is_the_tokenizers() -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(ROOT / "data" / "testbed" / "base")
    before = tokenizer_digest(tokenizer)
    tokenizer.clean_up_tokenization_spaces = not tokenizer.clean_up_tokenization_spaces
    assert tokenizer_digest(tokenizer) != before


def test_files_of_a_tokenizer_without_a_fast_one(tmp_path: Path) -> None:
    def digest() -> str:
        return tokenizer_digest(CTRLTokenizer(str(tmp_path / "vocab"), str(tmp_path / "merges")))

    (tmp_path / "vocab").write_text(json.dumps({"<unk>": 0, "a</w>": 1, "b</w>": 2, "a@@": 3}))
    (tmp_path / "merges").write_text("#version: 0.2\na b</w>\n")
    before = digest()
    assert digest() == before
    (tmp_path / "merges").write_text("#version: 0.2\nb a</w>\n")
    assert digest() != before


def test_type_and_attention_belong_to_the_model(inputs: Path) -> None:
    before = keys(of(inputs))
    assert differing(before, keys(of(inputs, dtype="bfloat16"))) == ALL
    loaded = Loaded.from_settings(of(inputs))
    assert keys(of(inputs), loaded=loaded) == before
    loaded = Loaded.from_settings(of(inputs))
    assert loaded.model.config._attn_implementation != "eager"
    loaded.model.set_attn_implementation("eager")
    assert differing(before, keys(of(inputs), loaded=loaded)) == ALL


def test_what_ends_a_text_matters_to_what_is_written_only(inputs: Path) -> None:
    before = keys(of(inputs))
    edit_json(inputs / "model0" / "generation_config.json", lambda c: c.update(eos_token_id=[2, 7]))
    assert differing(before, keys(of(inputs))) == {"said", "answers"}


def _moved(root: Path) -> None:
    shutil.move(root / "model0", root / "elsewhere")
    shutil.copytree(root / "elsewhere", root / "model0")
    edit_json(root / "model0" / "config.json", lambda c: c.update(_name_or_path="elsewhere"))


def _read_me(root: Path) -> None:
    (root / "model0" / "README.md").write_text("a model")
    (root / "attribution" / "README.md").write_text("texts")
    (root / "perplexity" / "LICENSE").write_text("free")
    (root / "tasks" / "README.md").write_text("tasks")
    (root / "questions" / "README.md").write_text("questions")


def _written_by(root: Path) -> None:
    edit_json(root / "model0" / "config.json", lambda c: c.update(transformers_version="4.0.0"))
    edit_json(
        root / "model0" / "generation_config.json",
        lambda c: c.update(transformers_version="4.0.0"),
    )


def _layout(root: Path) -> None:
    for name in ("config.json", "tokenizer.json"):
        path = root / "model0" / name
        path.write_text(json.dumps(json.loads(path.read_text("utf-8"))), "utf-8")


@pytest.mark.parametrize("change", [_moved, _read_me, _written_by, _layout])
def test_what_changes_no_result_changes_no_key(
    inputs: Path, change: Callable[[Path], None]
) -> None:
    before = keys(of(inputs))
    change(inputs)
    assert keys(of(inputs)) == before


def test_where_everything_lies_does_not_matter(inputs: Path, tmp_path: Path) -> None:
    before = keys(of(inputs))
    assert keys(of(Path(shutil.move(inputs, tmp_path / "moved")))) == before


# ----------------------------------------------------------------------- texts, tasks, questions


@pytest.mark.parametrize(
    ("file", "stages"),
    [
        ("attribution/en.txt", TEXTS),
        ("perplexity/vi.txt", {"losses"}),
        ("tasks/knowledge_en.jsonl", {"items", "answers"}),
        ("questions/zh.txt", {"said"}),
    ],
)
def test_an_edited_text_is_another_one(inputs: Path, file: str, stages: set[str]) -> None:
    before = keys(of(inputs))
    edit_line(inputs / file)
    assert differing(before, keys(of(inputs))) == stages


def test_texts_of_another_language_are_not_read(inputs: Path) -> None:
    before = keys(of(inputs))
    edit_line(inputs / "attribution" / "vi.txt")
    after = keys(of(inputs))
    assert after["collected"] == before["collected"]  # of "en"


def _by_language(root: Path) -> tuple[str, Path]:
    for language in LANGUAGES:
        (root / "texts" / language).mkdir(parents=True)
        shutil.copy(root / "attribution" / f"{language}.txt", root / "texts" / language / "a.txt")
    return str(root / "texts" / "{language}" / "a.txt"), root / "texts" / "en" / "a.txt"


def _in_folders(root: Path) -> tuple[str, Path]:
    for language in LANGUAGES:
        own = root / "texts" / language
        own.mkdir(parents=True)
        lines = (root / "attribution" / f"{language}.txt").read_text("utf-8").split("\n")
        (own / "1.txt").write_text("\n".join(lines[:20]), "utf-8")
        (own / "2.txt").write_text("\n".join(lines[20:]), "utf-8")
    return str(root / "texts"), root / "texts" / "en" / "2.txt"


@pytest.mark.parametrize("lay_out", [_by_language, _in_folders])
def test_every_file_of_a_corpus_counts(
    inputs: Path, tmp_path: Path, lay_out: Callable[[Path], tuple[str, Path]]
) -> None:
    corpus, file = lay_out(inputs)
    before = keys(of(inputs, corpus=corpus))
    (inputs / "texts" / "en" / "README.md").write_text("beside them")
    shutil.copytree(inputs / "texts", tmp_path / "copy")
    copied = corpus.replace(str(inputs / "texts"), str(tmp_path / "copy"))
    assert keys(of(inputs, corpus=corpus)) == keys(of(inputs, corpus=copied)) == before
    edit_line(file)
    assert differing(before, keys(of(inputs, corpus=corpus))) == TEXTS


# --------------------------------------------------------------------- settings and interventions


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        ({"max_new_tokens": 5}, {"said"}),
        ({"repetition_penalty": 1.2}, {"said"}),
        ({"context": 128}, {"said"}),
        ({"n_questions": 1}, {"said"}),
        ({"engine": "vllm"}, {"said"}),
        ({"task_limit": 3}, {"items", "answers"}),
        ({"n_perplexity": 4}, {"losses"}),
        ({"window": 7}, TEXTS | {"losses"}),
        ({"seed": 1}, TEXTS | {"losses"}),
        ({"batch_size": 8}, TEXTS),
        ({"n_samples": 30}, TEXTS),
        ({"reduction": "mean"}, TEXTS),
        ({"max_document_tokens": 9}, TEXTS | {"losses"}),
        ({"statistic": "gini"}, {"collected"}),  # sorts samples, so they are kept
        ({"statistic": "mean_abs", "site": "projections", "rule": "threshold"}, set()),
        ({"mask_value": "mean", "f1_others": "sum", "f1_drop": "relative"}, set()),
        ({"judge_model": "other"}, set()),
    ],
)
def test_a_setting_moves_the_keys_that_depend_on_it(
    inputs: Path, change: dict[str, Any], stages: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crane_lab.pipeline.VLLMEngine", lambda *args, **options: None)
    before = keys(of(inputs))
    assert differing(before, keys(dataclasses.replace(of(inputs), **change))) == stages


def test_every_intervention_has_keys_of_its_own(inputs: Path) -> None:
    shape = Pipeline(of(inputs), _KeyStore("none")).shape
    one, two = (NeuronSet.from_pairs([(0, i)], shape) for i in (1, 2))
    values = {"intermediate": torch.full(shape["intermediate"], 0.5)}
    values["intermediate"][0, 1] = 0.25
    interventions = [
        Intervention(),
        zero(one),
        zero(two),
        Intervention(SetTo(one, 0.5)),
        Intervention(SetTo(one, values)),
        Intervention(SetTo(one, 0.0, at="act_fn")),
        Intervention(SetTo(one, 0.0, positions="generated")),
        Intervention(Add(one, 0.5)),
        Intervention(Add(one, 0.5, 2.0)),
        Intervention(Scale(one, 0.5)),
        zero(one) + Intervention(Add(two, 0.5)),
        Intervention(Add(two, 0.5)) + zero(one),
    ]
    found = [keys(of(inputs), one) for one in interventions]
    for stage in EVALUATED:
        assert len({k[stage] for k in found}) == len(interventions), stage
    for stage in TEXTS:
        assert len({k[stage] for k in found}) == 1, stage


# ------------------------------------------------------------------------------------------ code


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of both packages."""
    root: Path = tmp_path_factory.mktemp("code")
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    return root


@pytest.mark.parametrize(
    ("module", "stages"),
    [
        ("crane_core/attribution.py", TEXTS),
        ("crane_core/accumulators.py", TEXTS),
        ("crane_core/moments.py", TEXTS),
        ("crane_core/windows.py", ALL),
        ("crane_core/interventions.py", EVALUATED),
        ("crane_core/families.py", ALL),
        ("crane_lab/stages/streams.py", TEXTS),
        ("crane_lab/texts/local.py", TEXTS | {"losses"}),
        ("crane_lab/engines/multiple_choice.py", {"items", "answers"}),
        ("crane_lab/engines/perplexity.py", {"losses"}),
        ("crane_lab/engines/generation.py", {"said"}),
        ("crane_lab/engines/decoding.py", {"items", "answers", "said"}),
        ("crane_lab/engines/prompting.py", {"items", "answers", "said"}),
        ("crane_lab/engines/thoughts.py", {"said"}),
        ("crane_core/metrics.py", set()),
        ("crane_lab/show/figures.py", set()),
        ("crane_lab/store/artefacts.py", set()),
        ("crane_lab/runs/execution.py", set()),
        ("crane_lab/cli/main.py", set()),
    ],
)
def test_code_moves_the_keys_of_what_it_computes(
    inputs: Path, code: Path, module: str, stages: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = code / module
    kept = path.read_text("utf-8")

    def with_text(text: str) -> dict[str, str]:
        path.write_text(text, "utf-8")
        monkeypatch.setattr(sources, "OWN", Sources(code))
        return keys(of(inputs))

    try:
        before = with_text(kept)
        first, _, rest = kept.partition('"""\n')
        assert with_text(f'{first} In other words."""\n# a comment\n{rest}\n# and another\n') == (
            before
        )
        (path.parent / "README.md").write_text("what lies here")
        assert with_text(kept) == before
        assert differing(before, with_text(f"{kept}\n\nADDED = 1\n")) == stages
    finally:
        path.write_text(kept, "utf-8")
        (path.parent / "README.md").unlink(missing_ok=True)


def test_the_harness_and_vllm_are_code_of_their_own(
    inputs: Path, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = code / "crane_lab" / "engines" / "benchmarks.py"
    kept = path.read_text("utf-8")
    found = []
    try:
        for text in (kept, f"{kept}\n\nADDED = 1\n"):
            path.write_text(text, "utf-8")
            monkeypatch.setattr(sources, "OWN", Sources(code))
            own = [keys(of(inputs, benchmark_backend=name)) for name in ("huggingface", "vllm")]
            found.append(own)
    finally:
        path.write_text(kept, "utf-8")
    assert differing(found[0][0], found[1][0]) == set()
    assert differing(found[0][1], found[1][1]) == {"items", "answers"}


# ---------------------------------------------------------------------------- nothing stale comes


def _measured(settings: Settings, store: Path) -> tuple[Tensor, Tensor]:
    pipeline = Pipeline(settings, Store(store))
    moments = pipeline.collected("en")["intermediate"].moments
    return pipeline.losses()["en"], moments.mean()


@pytest.mark.parametrize("change", [_merges, _rope])
def test_after_a_correction_no_old_result_comes_out_of_the_store(
    inputs: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    settings = of(inputs)
    old = _measured(settings, tmp_path / "store")
    change(inputs / "model0")
    if change is _merges:  # so that texts are certainly cut otherwise
        edit_json(inputs / "model0" / "tokenizer.json", lambda t: t["model"].update(merges=[]))
    corrected = _measured(settings, tmp_path / "store")
    fresh = _measured(settings, tmp_path / "another")
    for before, after, expected in zip(old, corrected, fresh, strict=True):
        assert torch.equal(after, expected)
        assert not torch.equal(after, before)


def test_grades_are_kept_by_judge_and_by_identifier(
    inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is sent to a judge, and who tells the language; not how fast it is asked."""

    class Answered(_KeyStore):
        def table(self, stage: str, key: Mapping[str, Any], *rest: Any, **more: Any) -> Any:
            return pd.DataFrame({"text": ["a"]}) if stage == "said" else self._asked(stage, key)

    def key(**changes: Any) -> str:
        with pytest.raises(_Asked) as asked:
            Pipeline(of(inputs, **{"judge": "llm"} | changes), Answered("none")).graded()
        assert asked.value.args[0] == "graded"
        return str(asked.value.args[1])

    first = key()
    what: list[dict[str, Any]] = [
        {"judge": "rubric"},
        {"judge": "surface"},
        {"judge_model": "other"},
        {"judge_endpoint": "http://localhost:1/v1"},
        {"judge_max_tokens": 300},
        {"judge_max_tokens": None},
        {"judge_temperature": None},
        {"judge_seed": None},
    ]
    how: list[dict[str, Any]] = [
        {"judge_requests_per_minute": 10.0},
        {"judge_concurrency": 1},
        {"judge_timeout": 5.0},
        {"judge_retries": 0},
    ]
    assert len({first, *(key(**changes) for changes in what)}) == 1 + len(what)
    assert all(key(**changes) == first for changes in how)
    monkeypatch.setattr("crane_lab.pipeline.version", lambda package: f"{package} of tomorrow")
    assert key() != first


def test_a_judge_is_tried_out_before_answers_are_generated(
    inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no(judge: LLMJudge) -> None:
        raise JudgeError("the key is wrong")

    monkeypatch.setattr(LLMJudge, "try_out", no)
    for there, error in ((False, JudgeError), (True, _Asked)):  # what is there costs no hours
        store = _KeyStore("none")
        monkeypatch.setattr(_KeyStore, "has", lambda *_, there=there: there)
        with pytest.raises(error):
            Pipeline(of(inputs, judge="llm"), store).judged([])
