"""The README's whole method in a few lines: it runs, and is the page's."""

import re
import subprocess
import sys

from crane_lab.store import ROOT


def code(text: str) -> str:
    (found,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return str(found)


def test_the_method_in_a_few_lines_runs_with_public_names_only() -> None:
    lines = code((ROOT / "README.md").read_text(encoding="utf-8"))
    assert set(re.findall(r"^(?:from|import) (\w+)", lines, re.MULTILINE)) == {
        "crane_core", "pathlib", "torch"
    }  # fmt: skip
    import crane_core

    assert set(re.findall(r"\bcrane\.(\w+)", lines)) <= set(crane_core.__all__)
    said = subprocess.run(
        [sys.executable, "-c", lines], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    n, f1, drops = re.fullmatch(r"(\d+) neurons; LangSpec-F1 ([\d.]+); drops (.*)\n", said).groups()  # type: ignore[union-attr]
    assert int(n) > 0 and 0 <= float(f1) <= 1
    assert {"en", "zh", "vi"} == set(re.findall(r"'(\w\w)'", drops))


def test_the_page_has_the_same_lines() -> None:
    page = (ROOT / "notebooks" / "method.py").read_text(encoding="utf-8")
    for line in code((ROOT / "README.md").read_text(encoding="utf-8")).splitlines():
        named = line.replace('"data/testbed/base"', "model").replace(
            '("en", "zh", "vi")', "languages"
        )
        named = named.replace('f"data/testbed/corpus/attribution/{x}.txt"', 'corpus, f"{x}.txt"')
        assert named in page, line
