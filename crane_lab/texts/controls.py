"""Text that keeps one thing of a language and loses another: in Latin letters, or shuffled.

Romanised text has the language's words and not its script; shuffled text its words and not their
order. A set of neurons that a language shares with neither is one of its script, or of its order.
"""

from __future__ import annotations

import random
import re

from anyascii import anyascii

#: Writing without spaces between words, whose characters are shuffled instead.
_UNSPACED = re.compile(r"[\u0f00-\u0fff\u3040-\u30ff\u3400-\u9fff]")


def romanised(text: str) -> str:
    """`text` in ASCII letters, character by character: a Chinese one as Mandarin reads it."""
    return " ".join(anyascii(text).split())


def shuffled(text: str, seed: int = 0) -> str:
    """`text` with its words in an order drawn from `seed`, and from the text itself.

    In a text that is mostly in a script without spaces between words, characters are shuffled
    (Tibetan: syllables), and what is in Latin letters or digits as a whole.
    """
    letters = sum(character.isalpha() for character in text)
    if 2 * len(_UNSPACED.findall(text)) > letters - len(re.findall(r"[A-Za-z]", text)):
        parts = re.findall(r"[^\s་།]+[་།]?" if "་" in text else r"[A-Za-z0-9]+|\S", text)
        between = ""
    else:
        parts, between = text.split(), " "
    random.Random(f"{seed} {text}").shuffle(parts)
    return between.join(parts)


#: name -> what becomes of a text.
CONTROLS = {"romanised": romanised, "shuffled": shuffled}
