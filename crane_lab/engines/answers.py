"""What a model says instead of an answer that a mask has taken from it.

Its greedy continuation of each prompt is sorted by what it names and by its language.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crane_lab.engines.decoding import Greedy, end_tokens
from crane_lab.engines.multiple_choice import Prepared
from crane_lab.engines.prompting import opened

#: Marks that Vietnamese letters carry once decomposed: grave, acute, circumflex, tilde, breve,
#: hook above, horn, dot below. đ has no decomposition.
_VIETNAMESE = re.compile("[\u0300\u0301\u0302\u0303\u0306\u0309\u031b\u0323]|đ", re.IGNORECASE)
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_LATIN_WORD = re.compile("[^\\W\\d_]+")


def script_language(text: str) -> str:
    """The language a text looks like by its script: "zh", "vi", "en" or "" (no letters).

    "zh" if it holds at least as many Chinese characters as words in other letters; else "vi" if any
    letter carries a Vietnamese diacritic or is đ; else "en". So Vietnamese in plain letters alone
    ("Nam", "hai") looks English; `answer_instead` settles those by the words of the tasks.
    """
    han = len(_HAN.findall(text))
    words = _LATIN_WORD.findall(_HAN.sub(" ", text))
    if not han and not words:
        return ""
    if han >= len(words):
        return "zh"
    return "vi" if _VIETNAMESE.search(unicodedata.normalize("NFD", text)) else "en"


def named_option(text: str, options: Sequence[str]) -> int | None:
    """Which option a text names first (the longest, if several begin there), or None.

    An option in an alphabet must stand as whole words ("Rome" is not named by "Romeo"). Letter case
    is ignored.
    """
    text = unicodedata.normalize("NFC", text).casefold()
    found = []
    for index, option in enumerate(options):
        option = unicodedata.normalize("NFC", option).strip().casefold()
        pattern = re.escape(option)
        if not _HAN.search(option):
            pattern = rf"(?<!\w){pattern}(?!\w)"
        match = re.search(pattern, text)
        if match:
            found.append((match.start(), -len(option), index))
    return min(found)[2] if found else None


def _words(*texts: str) -> list[str]:
    return _LATIN_WORD.findall(unicodedata.normalize("NFC", " ".join(texts)).casefold())


def _text_language(text: str, expected: str, known: Mapping[str, set[str]]) -> str:
    """`script_language`, but plain letters go to the language that knows more of the words."""
    looks = script_language(text)
    if looks != "en":
        return looks
    votes = {
        language: sum(word in words for word in _words(text)) for language, words in known.items()
    }
    most = max(votes.values())
    if most == 0:
        return looks
    return expected if votes[expected] == most else max(votes, key=lambda language: votes[language])


def answer_instead(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prepared: Prepared,
    n_items: int = 100,
    max_new_tokens: int = 16,
    batch_size: int = 64,
) -> pd.DataFrame:
    """What the model goes on to say after a prompt, greedily, under whatever mask is on it.

    For `n_items` items of every task, spread evenly over it: `task`, `language`, `id`, `relation`,
    `answer` (the right option's text), `text` (the first line generated), `text_language` and
    `category`, one of

    - "gold" or "wrong option": the text names an option of the item (`named_option`), or begins
      with its letter where the prompt asks for letters;
    - "same language" or "other language": it names none, and is in the task's language or not;
    - "nothing": no letters.

    The language of a text is told by its script (`script_language`). Plain letters may be English
    or a Vietnamese name, so there the words decide: the language in whose items more of them occur,
    the task's own if equally many, English if none does.

    Raises ValueError if `n_items` or `max_new_tokens` is less than 1, or if a prompt leaves no room
    for `max_new_tokens` in the model's positions.
    """
    if n_items < 1 or max_new_tokens < 1:
        raise ValueError(
            f"n_items and max_new_tokens must be at least 1, got {n_items} and {max_new_tokens}"
        )
    described = prepared.described
    chosen: list[int] = []
    for rows in prepared.items.groupby("task", sort=False).indices.values():
        count = min(n_items, len(rows))
        chosen += [int(rows[index * len(rows) // count]) for index in range(count)]
    requests = [prepared.requests[prepared.starts[index]] for index in chosen]
    prompts = [request.args[0].rstrip() for request in requests]
    said = first_lines(model, tokenizer, prompts, max_new_tokens, batch_size)
    known: dict[str, set[str]] = {item.language: set() for item in described}
    for item in described:
        known[item.language].update(_words(item.text, *item.options))
    outcomes = []
    for index, text in zip(chosen, said, strict=True):
        item = described[index]
        looks = _text_language(text, item.language, known)
        option = _letter(text) if item.lettered else None
        if option is None:
            option = named_option(text, item.options)
        if option is not None:
            category = "gold" if option == item.answer else "wrong option"
        elif not looks:
            category = "nothing"
        else:
            category = "same language" if looks == item.language else "other language"
        outcomes.append(
            {
                "task": item.task,
                "language": item.language,
                "id": item.id,
                "relation": item.relation,
                "answer": item.options[item.answer],
                "text": text,
                "text_language": looks,
                "category": category,
            }
        )
    return pd.DataFrame(outcomes)


def _letter(text: str) -> int | None:
    """The option whose letter a text begins with: alone, or as in "(B)", "B." and "B:"."""
    found = re.match(r"\s*\(?([A-D])\s*(?:$|[).:,;。．：，、])", text)
    return "ABCD".index(found[1]) if found else None


def first_lines(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    max_new_tokens: int,
    batch_size: int,
) -> list[str]:
    """The first line of each prompt's greedy continuation, in the order of `prompts`.

    Raises ValueError if a prompt leaves no room for `max_new_tokens` in the model's positions.
    """
    encoded = opened(tokenizer, prompts)
    limit = model.config.get_text_config().max_position_embeddings
    longest = max(len(ids) for ids in encoded)
    if longest + max_new_tokens > limit:
        raise ValueError(
            f"a prompt of {longest} tokens and {max_new_tokens} new ones exceed the model's "
            f"{limit} positions; lower max_new_tokens"
        )
    ends = end_tokens(model.generation_config, tokenizer)
    newline = tokenizer.encode("\n", add_special_tokens=False)
    if len(newline) == 1:  # what follows is not read, so need not be generated
        ends = [*ends, *newline]
    decoder = Greedy(model, tokenizer, ends, batch_size=batch_size)
    tokens = decoder.tokens(encoded, [max_new_tokens] * len(encoded))
    texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return [text.split("\n")[0].strip() for text in texts]
