"""The dictionary of results: every file and column of a finished run, and nothing besides."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

from crane_lab.runs import Project
from crane_lab.runs.book import toc_entries
from crane_lab.runs.dictionary import SOURCE, Dictionary, columns_of, results_of, results_page
from crane_lab.store import ROOT

TEXT = """
columns:
  seed: the seed | number
  <column>_low: lower end | as that column
  <column>_null_low: least of random masks | as that column
files:
  a.csv:
    about: The first.
    columns: &same
      <language>: a score | share
      en_low: its own lower end, of |x| | share
  b_*.csv: {about: The others., columns: *same}
  b_<language>.csv: {about: Never found., columns: {}}
  c_<language>.bin: {about: No table.}
"""
NOTEBOOK = """\
# %% [markdown]
# # One

# %% tags=["parameters"]
languages = ["en", "vi"]  # languages
run_dir = "runs/testbed"  # where results go

# %%
from pathlib import Path

folder = Path(run_dir) / "results"
folder.mkdir(parents=True)
"""


def test_a_finished_run_is_described_and_nothing_else() -> None:
    run = Project().run("smoke")
    run.execute()
    known = Dictionary(ROOT / "book" / SOURCE, run.parameters["languages"])
    lacking: list[str] = []
    used: set[object] = set()
    for files in results_of(run).values():
        for name in files:
            found = known.find(name, columns_of(run.directory / "results" / name))
            if found is None:
                lacking.append(name)
                continue
            lacking += [f"{name}: {column}" for column in found.unknown]
            own = known.files[found.pattern].get("columns", {})
            used |= {found.pattern}
            used |= {(id(own), key) if key in own else key for key in found.names}
    assert not lacking, f"book/{SOURCE} says nothing of: {lacking}"
    # Files that other runs write say when; columns that files have in common are one object.
    entries = {name: entry for name, entry in known.files.items() if "when" not in entry}
    extra = [name for name in entries if name not in used]
    extra += [key for key in known.shared if key not in used]
    for name, entry in entries.items():
        own = entry.get("columns", {})
        extra += [f"{name}: {key}" for key in own if (id(own), key) not in used]
    assert not extra, f"book/{SOURCE} describes what no run makes: {extra}"


def test_every_column_has_a_meaning_and_a_unit() -> None:
    text = yaml.safe_load((ROOT / "book" / SOURCE).read_text("utf-8"))
    for columns in (text["columns"], *(e.get("columns", {}) for e in text["files"].values())):
        for name, said in columns.items():
            meaning, _, unit = said.rpartition(" | ")
            assert meaning and unit.strip(), f"{name}: {said}"


@pytest.fixture
def known(tmp_path: Path) -> Dictionary:
    (tmp_path / "results.yaml").write_text(TEXT, "utf-8")
    return Dictionary(tmp_path / "results.yaml", ["en", "vi"])


def test_columns_are_looked_up_from_the_nearest(known: Dictionary) -> None:
    found = known.find("a.csv", ["seed", "en", "vi", "zh", "en_low", "vi_low", "en_null_low"])
    assert found is not None and found.unknown == ("zh",)
    assert found.names == {
        "seed": ["seed"],
        "<language>": ["en", "vi"],
        "en_low": ["en_low"],
        "<column>_low": ["vi_low"],
        "<column>_null_low": ["en_null_low"],
    }
    assert found.columns["en_low"] == ("its own lower end, of |x|", "share")
    others = known.find("b_vi.csv", ["en"])
    assert others is not None and others.pattern == "b_*.csv"
    assert known.find("c_vi.bin", []) is not None
    assert known.find("c_zh.bin", []) is None and known.find("d.csv", []) is None


def test_the_page_lists_what_a_run_has_left(tmp_path: Path) -> None:
    (tmp_path / "notebooks" / "profiles").mkdir(parents=True)
    (tmp_path / "notebooks" / "profiles" / "testbed.yaml").write_text("")
    cells = 'import pandas as pd\n\nfor x in ("a", "b_1", "d"):\n'
    cells += '    pd.DataFrame({"en": [1], "odd": [2]}).to_csv(folder / f"{x}.csv", index=False)\n'
    (tmp_path / "notebooks" / "01_one.py").write_text(NOTEBOOK + cells, "utf-8")
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / SOURCE).write_text(TEXT, "utf-8")
    run = Project(tmp_path).run()
    order = ["01_one", "02_two"]
    assert "This run has left none so far." in results_page(run, order)
    run.execute(progress=False)
    page = results_page(run, order)
    assert "## 01: One" in page and "(../notebooks/01_one)" in page
    assert "`a.csv`\n: The first.\n" in page and "  | `en` | a score | share |" in page
    assert "  | `odd` | not described | |" in page
    assert "`b_1.csv`\n: The others.\n" in page and "`d.csv`\n: Not described.\n" in page


def test_columns_are_read_without_the_rows(tmp_path: Path) -> None:
    table = pd.DataFrame({"a, b": [1.0], "c": ["x"]})
    table.to_csv(tmp_path / "t.csv", index=False)
    table.to_parquet(tmp_path / "t.parquet")
    for name in ("t.csv", "t.parquet"):
        assert columns_of(tmp_path / name) == ["a, b", "c"]
    assert columns_of(tmp_path / "t.json") == []


def test_the_page_is_in_the_book() -> None:
    assert "book/results" in list(toc_entries(yaml.safe_load((ROOT / "_toc.yml").read_text())))
