"""Shared contexts: lm-eval's own log-likelihoods, computed once."""

import copy
from collections.abc import Callable
from typing import Any

import lm_eval
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from made_up_tasks import (
    LINES,
    MODEL,
    TOKENIZER,
    WITH_BOS,
    assert_same_as_hflm,
    constant_model,
    make_model,
    prepared,
    requests,
    tasks,
)
from tokenizers.processors import TemplateProcessing
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from crane_lab.engines import shared_context, vocabulary
from crane_lab.engines.multiple_choice import Prepared, accuracies, evaluate
from crane_lab.engines.shared_context import SharedContextLM
from crane_lab.engines.tasks import Tasks

__all__ = ["prepared", "tasks"]  # fixtures


@pytest.mark.parametrize("tokenizer", [TOKENIZER, WITH_BOS], ids=["plain", "bos"])
@pytest.mark.parametrize("rows", [{}, {"batch_tokens": 1, "row_tokens": 1}, {"row_tokens": 4096}])
def test_tasks_score_as_under_hflm(
    prepared: Prepared, tokenizer: PreTrainedTokenizerFast, rows: dict[str, int]
) -> None:
    assert_same_as_hflm(MODEL, tokenizer, list(prepared.packed.pairs), **rows)


@pytest.mark.parametrize("logits", [1, 500, 10**6])
def test_a_large_vocabulary_scores_as_under_hflm(
    prepared: Prepared, logits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_context, "_LARGE", 0)
    monkeypatch.setattr(vocabulary, "AT_ONCE", logits)
    assert_same_as_hflm(MODEL, WITH_BOS, list(prepared.packed.pairs))


@settings(max_examples=30, deadline=None)
@given(
    stems=st.lists(st.text("ab \n河ế", max_size=12), min_size=1, max_size=4),
    tails=st.lists(
        st.tuples(st.integers(0, 3), st.text("ab 河", max_size=3), st.text("ab河ế ", min_size=1)),
        min_size=1,
        max_size=8,
    ),
    bos=st.booleans(),
    rows=st.sampled_from([1, 16, 4096]),
)
@example(stems=["a"], tails=[(0, "", "bbaa"), (0, "bb", "aa")], bos=False, rows=1)
def test_any_requests_score_as_under_hflm(
    stems: list[str], tails: list[tuple[int, str, str]], bos: bool, rows: int
) -> None:
    """Shared and nested prefixes, repeated requests, empty contexts, spaces at the seam."""
    pairs = [(stems[stem % len(stems)] + more, rest) for stem, more, rest in tails]
    # HFLM itself cannot encode a context of white space alone.
    pairs = [pair for pair in pairs if not pair[0] or pair[0].strip()]
    if pairs:
        assert_same_as_hflm(MODEL, WITH_BOS if bos else TOKENIZER, pairs, row_tokens=rows)


def test_greedy_continuations_are_flagged() -> None:
    model = constant_model(TOKENIZER("x")["input_ids"][0])
    pairs = [("Q:", "x"), ("Q:", "xx"), ("Q:", "xy"), ("Q:", "y"), ("A cat:", "x")]
    assert_same_as_hflm(model, TOKENIZER, pairs)
    lm = SharedContextLM(model, TOKENIZER)
    greedy = [flag for _, flag in lm.loglikelihood(requests(pairs))]
    assert greedy == [True, True, False, False, True]


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_long_texts_are_cut_on_the_left(implementation: str) -> None:
    model = make_model(max_position_embeddings=24, attn_implementation=implementation)
    pairs = [(LINES[0], " Paris"), (LINES[0], " Lima and Rome"), (LINES[1], "罗马"), ("Q:", " A")]
    assert_same_as_hflm(model, TOKENIZER, pairs)
    lm = SharedContextLM(model, TOKENIZER)
    with pytest.raises(ValueError, match=r"has 0 tokens after 'Q:'; expected 1 to 24"):
        lm.pack([("Q:", "")])
    with pytest.raises(ValueError, match="expected 1 to 24"):
        lm.pack([("Q:", LINES[2])])


def count_tokens(model: LlamaForCausalLM, run: Callable[[], Any]) -> int:
    seen = []
    handle = model.model.embed_tokens.register_forward_hook(
        lambda module, inputs, output: seen.append(inputs[0].numel())
    )
    try:
        run()
    finally:
        handle.remove()
    return sum(seen)


def test_what_requests_share_is_computed_once(prepared: Prepared) -> None:
    all_requests = list(prepared.requests)
    theirs = HFLM(pretrained=MODEL, tokenizer=TOKENIZER, batch_size=1)
    ours = SharedContextLM(MODEL, TOKENIZER, batch_tokens=1)
    full = count_tokens(MODEL, lambda: theirs.loglikelihood(all_requests, disable_tqdm=True))
    shared = count_tokens(MODEL, lambda: ours.loglikelihood(all_requests, disable_tqdm=True))
    assert ours.packed is not None and shared == ours.packed.tokens
    assert full > 3 * shared


@pytest.mark.parametrize("reason", ["head", "attention", "window"])
def test_hflm_steps_in_where_trees_cannot_run(
    reason: str, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    expected, _ = SharedContextLM(model, TOKENIZER)._score(prepared.packed)
    if reason == "head":
        monkeypatch.setattr("crane_core.families.linear_head", lambda model: False)
    elif reason == "attention":
        model.config._attn_implementation = "flash_attention_2"
        monkeypatch.setattr(
            LlamaForCausalLM, "forward", forward_with(LlamaForCausalLM.forward, "sdpa")
        )
    else:
        model.config.sliding_window = prepared.packed.longest - 1
    monkeypatch.setattr(SharedContextLM, "_score", None)
    lm = SharedContextLM(model, TOKENIZER, packed=prepared.packed)
    got = lm.loglikelihood(list(prepared.requests), disable_tqdm=True)
    torch.testing.assert_close(
        torch.tensor([logprob for logprob, _ in got]), expected, rtol=1e-5, atol=1e-5
    )


def forward_with(forward: Callable[..., Any], implementation: str) -> Callable[..., Any]:
    def patched(self: LlamaForCausalLM, *args: Any, **kwargs: Any) -> Any:
        asked, self.config._attn_implementation = self.config._attn_implementation, implementation
        try:
            return forward(self, *args, **kwargs)
        finally:
            self.config._attn_implementation = asked

    return patched


def test_lm_eval_reports_the_same(
    tasks: Tasks, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lm-eval's own evaluator, with this LM, with HFLM, and `evaluate` beside them."""
    # It would start a dozen programs to describe this machine in its report.
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda report: None)
    outcomes = []
    for lm in (
        HFLM(pretrained=MODEL, tokenizer=TOKENIZER, batch_size=8),
        SharedContextLM(MODEL, TOKENIZER),
    ):
        report = lm_eval.simple_evaluate(
            lm,
            tasks=list(tasks.values()),
            bootstrap_iters=0,
            task_manager=TaskManager(include_defaults=False),  # indexing lm-eval's own takes long
        )
        assert report is not None
        accuracy = {task: report["results"][task]["acc,none"] for task in tasks}
        logprobs = [
            [float(response[0]) for response in sample["filtered_resps"]]
            for task in tasks
            for sample in sorted(report["samples"][task], key=lambda sample: sample["doc_id"])
        ]
        outcomes.append((accuracy, np.array(logprobs)))
    assert outcomes[0][0] == outcomes[1][0]
    np.testing.assert_allclose(outcomes[0][1], outcomes[1][1], rtol=1e-5, atol=1e-5)
    items = evaluate(MODEL, prepared)
    assert accuracies(items)["accuracy"].to_dict() == outcomes[0][0]
    columns = [f"logprob_{option}" for option in range(4)]
    np.testing.assert_allclose(items[columns].to_numpy(), outcomes[0][1], rtol=1e-5, atol=1e-5)


def test_special_tokens_that_an_item_spells_are_text() -> None:
    """Neither within an item nor in front of it, where lm-eval takes one for the text's opening."""
    lm, bos = SharedContextLM(MODEL, WITH_BOS), WITH_BOS.bos_token
    packed = lm.pack([(f"{bos}What is {bos}?", f" a {bos}b"), (f"{bos}x", "y")])
    for batch in packed.batches:
        ids = batch.input_ids[batch.position_ids > 0].tolist() + batch.targets.tolist()
        assert WITH_BOS.bos_token_id not in ids
    opened = lm.tok_encode(f"{bos}What")
    assert opened[0] == WITH_BOS.bos_token_id and WITH_BOS.decode(opened[1:]) == f"{bos}What"
    assert lm.tok_encode("What", left_truncate_len=2) == lm.tok_encode("What")[-2:]


def test_a_token_that_ends_texts_is_not_taken_for_a_continuation() -> None:
    """With one behind context and text alike, the first token of an option would not be scored."""
    ending = copy.deepcopy(WITH_BOS)
    ending.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A <s>", special_tokens=[("<s>", ending.bos_token_id)]
    )
    plain = copy.deepcopy(WITH_BOS)
    plain.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", plain.bos_token_id)]
    )
    assert ending("a")["input_ids"][-1] == ending.bos_token_id
    pairs = [("What is it?", " abc"), ("What is it?", " d")]
    found, expected = (SharedContextLM(MODEL, x).pack(pairs) for x in (ending, plain))
    assert [b.targets.tolist() for b in found.batches] == [
        b.targets.tolist() for b in expected.batches
    ]
