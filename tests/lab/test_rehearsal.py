"""What a rehearsal of the paper's setting is made of (`make test` runs it as a whole, too)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from crane_core import models
from crane_lab.cli import rehearsal
from crane_lab.engines import benchmarks
from crane_lab.engines.llm_judge import LLMJudge


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rehearsal.build_rehearsal(tmp_path_factory.mktemp("rehearsal"), layers=1, width=64)


def test_the_model_has_llamas_proportions() -> None:
    whole = rehearsal.config(32, 4096)
    assert (whole.intermediate_size, whole.num_attention_heads, whole.head_dim) == (11008, 32, 128)
    small = rehearsal.config(2, 256)
    assert small.intermediate_size == 688 and small.vocab_size == whole.vocab_size == 32000
    for layers, width in ((0, 256), (2, 100), (2, 8192)):
        with pytest.raises(ValueError, match="expected at least one layer, and a multiple of 64"):
            rehearsal.config(layers, width)


def test_base_and_chat_share_neurons_and_words(made: Path) -> None:
    (base, words), (chat, _) = (models.load(made / name) for name in ("base", "chat"))
    assert models.shape(base) == models.shape(chat)
    assert models.fingerprint(base) != models.fingerprint(chat)
    assert words.convert_ids_to_tokens([0, 1, 2]) == ["<unk>", "<s>", "</s>"]
    for text in ("The town of Coldhill", "重庆", "Hà Nội", "日本語 🙂"):
        ids = words(text)["input_ids"]
        assert ids[0] == 1 and words.decode(ids, skip_special_tokens=True) == text
    asked = [{"role": "user", "content": "Hi"}]
    assert words.apply_chat_template(asked, tokenize=False) == "<s>[INST] Hi [/INST]"


def test_what_is_there_is_not_made_again(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "tokenizer", lambda: pytest.fail("made again"))
    assert rehearsal.build_rehearsal(made.parent, layers=1, width=64) == made
    assert [path.name for path in made.parent.iterdir()] == [made.name]


def test_the_harness_reads_its_benchmarks(made: Path) -> None:
    found = benchmarks.load(["ceval-valid", "belebele_vie_Latn"], 5, 6, made / "benchmarks")
    assert set(found.group.values()) == {"ceval-valid", "belebele_vie_Latn"}
    assert sum(len(rows) for rows in found.places.values()) == 12
    assert len(benchmarks.subjects("mmlu")) == 57


def test_the_judge_answers_alike(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "rehearsal")
    answers = pd.DataFrame(
        [("en", "1", "Why?", "Because."), ("vi", "2", "Ai?", "Nam.")],
        columns=["language", "id", "question", "text"],
    )
    with rehearsal.judge_server(0) as address:
        scored = [
            LLMJudge("rehearsal", address, cache=tmp_path / f"{n}.sqlite").score(answers)["score"]
            for n in range(2)
        ]
    assert scored[0].equals(scored[1]) and scored[0].between(1, 10).all()
    with rehearsal.judge_server(0) as address:
        port = int(address.split(":")[2].split("/")[0])
        with rehearsal.judge_server(port) as other:  # the port is taken
            assert other != address
