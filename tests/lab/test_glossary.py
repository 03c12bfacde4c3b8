"""Words of the glossary are linked where a page first uses them."""

import json

from crane_lab.runs.glossary import PLAIN, glossary_terms, terms_linked, with_terms
from crane_lab.store import ROOT

TERMS = ["Nat", "LAPE", "LAPE matched", "Jaccard index", "Mask"]


def staged(*sources: str) -> list[str]:
    cells = [{"cell_type": "markdown", "source": source} for source in sources]
    text = json.dumps({"cells": [*cells, {"cell_type": "code", "source": "nats = 1"}]})
    return ["".join(cell["source"]) for cell in json.loads(with_terms(text, TERMS))["cells"]]


def test_the_first_use_is_a_link_and_no_other() -> None:
    one, two, code = staged("Two nats, of LAPE matched and LAPE.", "A nat. LAPE.")
    assert one == (
        "Two {term}`nats <Nat>`, of {term}`LAPE matched <LAPE matched>` and {term}`LAPE <LAPE>`."
    )
    assert two == "A nat. LAPE." and code == "nats = 1"
    for said in ("Jaccard", "Jaccard index"):
        assert terms_linked([f"Its {said} is."], TERMS) == [
            f"Its {{term}}`{said} <Jaccard index>` is."
        ]


def test_what_is_no_running_text_is_left_alone() -> None:
    source = """# A nat
| nat |
[a nat](x.md) and `nat`, $nat$ {cite:p}`nat` alternating signat |nat|

:::{note}
A nat.
:::

```
nat
```
Mask the nat."""
    (found, _) = staged(source)
    assert found == source.replace("Mask the nat.", "Mask the {term}`nat <Nat>`.")


def test_a_term_that_the_page_links_is_not_linked_again() -> None:
    sources = ("A Jaccard index of one.", "The {term}`Jaccard <Jaccard index>` again.")
    assert tuple(staged(*sources)[:2]) == sources


def test_the_glossary_is_read() -> None:
    terms = glossary_terms((ROOT / "book" / "glossary.md").read_text("utf-8"))
    assert {"Nat", "LAPE matched", "Wilson interval"} | PLAIN <= set(terms)
    assert glossary_terms("# No glossary") == []
