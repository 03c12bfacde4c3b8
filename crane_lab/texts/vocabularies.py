"""Whether two tokenizers make the same tokens of a text."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

#: What merges, cases, blanks, numbers and scripts show in.
_TRIED = (
    "The river's 1,024  winding banks\nweren't flooded (in 1987): “quite” so.",
    "Con sông này dài 1.024 km; nước lũ chưa về.",
    "这条河长1,024公里，洪水还没来。漢字",
    "Ёлка, résumé, Straße, ﬁn, ①, かな, 한국어, مرحبا, हिन्दी 🙂\tdef f(x): return x",
)


def vocabulary_difference(
    tokenizer: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase
) -> str:
    """How `other`'s vocabulary differs from `tokenizer`'s, in words; "" if it does not.

    What counts is how texts are encoded. Tokens that `other` adds to a vocabulary otherwise the
    same (the marks of a chat template), and marks that it renames in place, are no difference.
    """
    ours, theirs = tokenizer.get_vocab(), other.get_vocab()
    marks, added = tokenizer.added_tokens_decoder, other.added_tokens_decoder
    renamed = marks.keys() & added.keys()
    kinds = {
        "lacks": [t for t, i in ours.items() if t not in theirs and i not in renamed],
        "has besides": [t for t, i in theirs.items() if t not in ours and i not in added],
        "numbers otherwise": [t for t, i in ours.items() if theirs.get(t, i) != i],
    }
    found = [f"{k} {len(t)} token(s), such as {min(t, key=str)!r}" for k, t in kinds.items() if t]
    if found:
        return f"{len(ours)} and {len(theirs)} tokens: the other {', '.join(found)}"
    for text in _TRIED:
        if not any(str(mark) in text for mark in (*marks.values(), *added.values())):
            a, b = (t.encode(text, add_special_tokens=False) for t in (tokenizer, other))
            if a != b:
                return f"the same tokens, but others of them for {text!r}"
    return ""
