"""What languages are called in English."""

from __future__ import annotations

from collections.abc import Sequence

NAMES = {"en": "English", "zh": "Chinese", "vi": "Vietnamese"}


def language_names(languages: Sequence[str]) -> dict[str, str]:
    """Code -> name of each language, in their order; a code without a name stands for itself."""
    return {x: NAMES.get(x, x) for x in languages}
