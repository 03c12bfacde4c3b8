"""Texts as a model, a corpus or a mischief-maker writes them, each by what it tries."""

import unicodedata

HOSTILE = {
    "script": "<script>document.title='owned';window.owned=1</script> after script",
    "picture": '<img src=x onerror="window.owned=2"><svg/onload=window.owned=3> after picture',
    "attribute": '" onmouseover="window.owned=4" x=\'y\' after attribute',
    "comment": "before <!-- comment, after comment",
    "ends": "</td></tr></table></div></details></pre> --> ]]> after ends",
    "entities": "&lt;b&gt; &amp; &#60;i&#62; after entities",
    "tags": "<s>struck</s> <b>bold</b> <|im_end|> </s> <unk> after tags",
    "fences": "# Heading\n\n```{nosuch}\nx\n```\n~~~\n:::{note}\nHi\n:::\nafter fences",
    "lists": "- one\n- two\n1. three\n> quote\n\n    code\n***\n---\n===\nafter lists",
    "links": "[x](javascript:window.owned=5) ![y](http://x.invalid/z) [^1] [z]: <w> after links",
    "addresses": "<javascript:alert(1)> <https://x.invalid> https://y.invalid a@b.invalid after",
    "roles": "{ref}`nosuch` {{ name }} {% raw %} :ref:`nosuch` |x| `y`_ ..note:: after roles",
    "signs": "$x^2$ $$y$$ \\(z\\) \\[w\\] % *a* **b** _c_ ~~d~~ | e | f | \\ `g after signs",
    "table": "| a | b |\n|---|---|\n| c | d |\nafter table",
    "bidi": "user \u202e\u2066// Check if admin\u2069 \u2066 after bidi",
    "unseen": "zero\u200bwidth\ufeff \x1b[31mred\x1b[0m \x00 \x08 after unseen",
    "alphabets": unicodedata.normalize("NFD", "tiếng Việt") + " 中文 😀 👩‍👩‍👧 after alphabets",
    "long": "y" * 10_000,
    "many words": "word " * 2_000,
}
HOSTILE["markup"] = " ".join(
    HOSTILE[name] for name in ("script", "picture", "comment", "tags", "links", "signs")
)
