"""Thoughts that a model writes before its answer, and that are no part of it (§4.4)."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

_WORD = r"(?:think|thinking|thoughts?|reasoning)"
#: How chat models open their thoughts: Qwen, DeepSeek, SmolLM and most others `<think>`, Seed-OSS
#: `<seed:think>`, Mistral `[THINK]`, Cohere `<|START_THINKING|>`, OpenThinker
#: `<|begin_of_thought|>`, Kimi `◁think▷`, gpt-oss and Gemma 4 a channel.
_OPEN = re.compile(
    rf"<(?:\w+:)?{_WORD}>|\[THINK\]|<\|(?:(?:begin|start)_(?:of_)?)?{_WORD}(?:_(?:begin|start))?\|>"
    rf"|◁{_WORD}▷|<\|channel\|>(?:analysis|commentary)\b|<\|channel>",
    re.IGNORECASE,
)
_CLOSE = re.compile(
    rf"</(?:\w+:)?{_WORD}>|\[/THINK\]|<\|(?:/|end_(?:of_)?){_WORD}\|>|<\|{_WORD}_end\|>"
    rf"|◁/{_WORD}▷|<\|channel\|>final\s*<\|message\|>|<channel\|>",
    re.IGNORECASE,
)
#: An answer in marks of its own, which follows thoughts.
_MARKED = re.compile(
    r"\s*(?:<answer>|<\|begin_of_solution\|>)(.*?)(?:(?:</answer>|<\|end_of_solution\|>).*)?",
    re.IGNORECASE | re.DOTALL,
)


def left_open(prompt: str) -> bool:
    """Whether a prompt ends within thoughts, so that a model goes on with them."""
    return any(not prompt[mark.end() :].strip() for mark in _OPEN.finditer(prompt))


def without_thoughts(
    tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], opened: bool = False
) -> tuple[str, bool]:
    """The text that generated tokens spell, without special tokens and without thoughts.

    `opened` says that the prompt ended within thoughts (`left_open`). The second value is whether
    the thoughts came to no end, so that there is no answer.

    Thoughts stand at the beginning, up to the last mark that closes some. A mark that none opens
    closes thoughts if it ends a line; further on in an answer, marks are what it talks of.
    """
    tokens = list(tokens)
    plain: str = tokenizer.decode(tokens, skip_special_tokens=True)
    raw: str = tokenizer.decode(tokens, skip_special_tokens=False)
    first = _OPEN.search(raw)
    opened = opened or (first is not None and not raw[: first.start()].strip())
    closed = list(_CLOSE.finditer(raw))
    if not opened:
        unopened = [mark for mark in closed if first is None or mark.start() < first.start()]
        closed = [mark for mark in unopened if _ends_a_line(raw, mark)]
        if not closed:
            return plain, False
    if not closed:
        return "", True
    place = closed[-1].end()
    if _OPEN.match(raw[place:].lstrip()):  # and thinks again
        return "", True

    def read(n: int) -> bool:
        """Whether the first n tokens spell all thoughts."""
        return bool(tokenizer.decode(tokens[:n])[:place] == raw[:place])

    # The marks may be special tokens, which are seen up to the answer, and not in it.
    cut = bisect_left(range(len(tokens)), True, key=read)
    text = tokenizer.decode(tokens[:cut])[place:]
    text += tokenizer.decode(tokens[cut:], skip_special_tokens=True)
    marked = _MARKED.fullmatch(text)
    return (text if marked is None else marked[1]), False


def _ends_a_line(text: str, mark: re.Match[str]) -> bool:
    return re.match(r"[^\S\n]*(?:\n|$)", text[mark.end() :]) is not None
