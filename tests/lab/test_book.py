"""The book: how it is staged and built, and the pages that the `smoke` profile gives."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from bs4 import BeautifulSoup, Tag

from crane_lab.runs import Project, RunError, build_book
from crane_lab.runs.book import toc_entries
from crane_lab.runs.downloads import first_cell
from crane_lab.store import ROOT

# --- what is checked on every page --------------------------------------------------------------

# Attributes that make a browser fetch something while it shows a page; a link does not.
LOADS = {
    "audio": ["src"],
    "embed": ["src"],
    "iframe": ["src"],
    "image": ["href", "xlink:href"],
    "img": ["src", "srcset"],
    "input": ["src"],
    "link": ["href"],
    "object": ["data"],
    "script": ["src"],
    "source": ["src", "srcset"],
    "track": ["src"],
    "video": ["src", "poster"],
}


def remote(address: str) -> bool:
    return bool(re.match(r"\s*(https?:)?//", address))


def in_style(text: str) -> list[str]:
    """Addresses that a style sheet loads."""
    found = re.findall(r"url\(\s*['\"]?([^'\")]+)", text)
    return found + re.findall(r"@import\s+['\"]([^'\"]+)", text)


class Pages:
    """The HTML files below a folder, parsed once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.soups = {
            path: BeautifulSoup(path.read_text(encoding="utf-8"), "lxml")
            for path in sorted(folder.rglob("*.html"))
            if "_static" not in path.relative_to(folder).parts
        }

    def show(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def loaded_from_the_network(self) -> list[str]:
        found = []
        for path, soup in self.soups.items():
            for tag in soup.find_all(True):
                for attribute in LOADS.get(tag.name, []):
                    if remote(str(tag.get(attribute, ""))):
                        found.append(f"{self.show(path)}: <{tag.name} {tag[attribute]}>")
                found += [
                    f"{self.show(path)}: {address}"
                    for address in in_style(str(tag.get("style", "")))
                    if remote(address)
                ]
            for tag in soup.find_all("style"):
                found += [f"{self.show(path)}: {a}" for a in in_style(tag.text) if remote(a)]
            for tag in soup.find_all("script"):
                if not tag.get("src") and re.search(
                    r"(import|fetch|src\s*=).{0,40}https?:", tag.text
                ):
                    found.append(f"{self.show(path)}: {tag.text[:80]}")
        for path in sorted(self.folder.rglob("*.css")):
            text = path.read_text(encoding="utf-8")
            found += [f"{self.show(path)}: {a}" for a in in_style(text) if remote(a)]
        return found

    def broken_links(self) -> list[str]:
        """Links and embedded files that lead nowhere; other sites are not asked."""
        found = []
        for path, soup in self.soups.items():
            for tag in soup.find_all(True):
                for attribute in ("href", "src"):
                    address = str(tag.get(attribute, ""))
                    parts = urlsplit(address)
                    if not address or parts.scheme or remote(address):
                        continue
                    target = path
                    if parts.path:
                        target = (path.parent / unquote(parts.path)).resolve()
                    if not target.is_file():
                        found.append(f"{self.show(path)}: {address} is no file")
                    elif parts.fragment and not self.has_anchor(target, unquote(parts.fragment)):
                        found.append(f"{self.show(path)}: {address} is no place on that page")
        return found

    def has_anchor(self, path: Path, anchor: str) -> bool:
        soup = self.soups.get(path)
        return soup is None or soup.find(attrs={"id": anchor}) is not None

    def without_alt_text(self) -> list[str]:
        """Pictures whose alternative text is missing, or is only the name of the file."""
        found = []
        for path, soup in self.soups.items():
            for tag in soup.find_all("img"):
                alt = str(tag.get("alt", "")).strip()
                if len(alt) < 10 or re.search(r"\.(png|svg|jpe?g)$", alt):
                    found.append(f"{self.show(path)}: {tag.get('src')} has alt text {alt!r}")
        return found


def test_the_checks_find_what_they_look_for(tmp_path: Path) -> None:
    (tmp_path / "good.html").write_text('<p id="here"><a href="https://example.org">out</a></p>')
    (tmp_path / "bad.html").write_text(
        '<link href="https://x.org/a.css"><script src="//x.org/a.js"></script>'
        "<style>@import 'https://x.org/b.css'</style><p style=\"background: url(http://x.org/c)\">"
        '<script>import("https://x.org/d.js")</script>'
        '<a href="good.html#here">fine</a><a href="good.html#there">1</a><a href="none.html">2</a>'
        '<img src="a.png" alt="../a.png"><img src="good.html" alt="a rising line, then a fall">'
    )
    (tmp_path / "style.css").write_text("a { src: url('https://x.org/font.woff2') }")
    pages = Pages(tmp_path)
    assert len(pages.loaded_from_the_network()) == 6
    assert [text.split(": ")[1].split(" ")[0] for text in pages.broken_links()] == [
        "good.html#there",
        "none.html",
        "a.png",
    ]
    assert len(pages.without_alt_text()) == 1


# --- building, on a small project ---------------------------------------------------------------

NOTEBOOK = """\
# %% [markdown]
# # Đếm · 数
#
# Back to [the start](../book/intro.md).

# %% tags=["parameters"]
n_samples = 3  # how many lines to print | or draw
run_dir = "runs/testbed"  # where results go

# %% [markdown]
# ```{exercise} Here
# :label: counted
#
# Count, as in {ref}`first`.
# ```

# %%
print("tiếng Việt, 中文\\n" * n_samples)

# %% mystnb={"image": {"alt": "A line that rises from 1 to 3"}}
import matplotlib.pyplot as plt

plt.plot([1, 2, 3]);

# %%
from crane_lab.show import figures

drawn, axes = plt.subplots()
axes.plot([3, 1])
plt.close()
figures.show(drawn, "A line that falls from 3 to 1")
"""

ASKED = """\
# Asked

| who | what |
| --- | --- |
| you | how many |

```{exercise} First of its page
:label: first

How many?
```

```{solution} first
:class: dropdown

Many.
```

```{exercise} Second
:label: second

How many more than in {ref}`first`?
```
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    root = tmp_path_factory.mktemp("book")
    (root / "notebooks" / "profiles").mkdir(parents=True)
    (root / "notebooks" / "profiles" / "testbed.yaml").write_text("")
    (root / "notebooks" / "01_count.py").write_text(NOTEBOOK, "utf-8")
    (root / "book").mkdir()
    intro = (
        "# Start\n\n$x^2$, [counting](../notebooks/01_count) and [the rest](../notebooks/02_more)\n"
    )
    (root / "book" / "intro.md").write_text(intro)
    (root / "book" / "references.bib").write_text("")
    (root / "_config.yml").write_text((ROOT / "_config.yml").read_text())
    (root / "book" / "asked.md").write_text(ASKED)
    chapters = ["notebooks/01_count", "book/asked", "notebooks/02_more"]
    chapters += ["book/parameters", "book/figures"]
    toc = {"format": "jb-book", "root": "book/intro", "chapters": [{"file": c} for c in chapters]}
    (root / "_toc.yml").write_text(yaml.safe_dump(toc))
    return Project(root)


def test_book_shows_what_was_run(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    run = project.run("testbed", {"n_samples": "2"})
    run.execute(progress=False)
    folder = build_book(run)
    assert folder == run.directory / "_build" / "html"
    assert sorted(path.name for path in folder.parent.iterdir()) == ["book.sha256", "html", "src"]
    pages = Pages(folder)
    assert pages.loaded_from_the_network() == []
    assert pages.broken_links() == []
    assert pages.without_alt_text() == []
    count = (folder / "notebooks" / "01_count.html").read_text("utf-8")
    assert count.count("tiếng Việt, 中文") == 3  # the source, and two lines of output
    assert 'alt="A line that rises from 1 to 3"' in count
    assert '<span class="numbered" id="figure-1-1">Figure 1.1.</span>' in count
    listed = (folder / "book" / "figures.html").read_text("utf-8")
    assert 'notebooks/01_count.html#figure-1-1">Figure 1.1</a>: A line that falls' in listed
    assert str(project.root) not in count
    assert "mathjax/tex-chtml.js" in (folder / "book" / "intro.html").read_text("utf-8")
    assert run.name in (folder / "book" / "intro.html").read_text("utf-8")
    assert "did not execute" in (folder / "notebooks" / "02_more.html").read_text("utf-8")
    # Offered as it was run, with a first cell that the page does not show; no address, no launch.
    offered = folder / "_sources" / "notebooks" / "01_count.ipynb"
    cells = json.loads(offered.read_text("utf-8"))["cells"]
    assert cells[0]["source"] == first_cell("") and "os.chdir" not in count
    assert 'href="../_sources/notebooks/01_count.ipynb"' in count
    assert not re.search(r"binder|colab|github\.com", count, re.I)
    assert '<th class="head" scope="col">' in (folder / "book" / "asked.html").read_text("utf-8")
    parameters = BeautifulSoup(
        (folder / "book" / "parameters.html").read_text("utf-8"), "lxml"
    ).text
    assert "how many lines to print | or draw" in parameters
    assert "int; default 3; here 2 (override); on the page of 01" in parameters

    # Built again it is left alone; the same from nothing has the same bytes.
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.html")}
    page = (folder / "notebooks" / "01_count.html").read_bytes()
    capsys.readouterr()
    build_book(run)
    assert "up to date" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.html")} == before
    # Nothing is staged to find that out, unless something that it is made from has changed.
    source = folder.parent / "src" / "book" / "intro.md"
    source.unlink()
    build_book(run)
    assert not source.exists()
    (project.root / "data").mkdir(exist_ok=True)
    (project.root / "data" / "more.csv").write_text("a\n")
    build_book(run)
    assert "up to date" in capsys.readouterr().out and source.exists()
    (folder.parent / "book.sha256").unlink()
    build_book(run)
    assert (folder / "notebooks" / "01_count.html").read_bytes() == page


def test_exercises_are_numbered_page_by_page(project: Project) -> None:
    """In their titles, in those of solutions and where they are referred to."""
    run = project.run("testbed", {"n_samples": "2"})
    run.execute(progress=False)
    pages = Pages(build_book(run))
    titles = {
        page: [
            " ".join(tag.text.split())
            for tag in pages.soups[pages.folder / page].select("p.admonition-title")
        ]
        for page in ("notebooks/01_count.html", "book/asked.html")
    }
    first, solution, second = titles["book/asked.html"]
    assert "Exercise 1 (Here)" in titles["notebooks/01_count.html"]
    assert (first, second) == ("Exercise 1 (First of its page)", "Exercise 2 (Second)")
    assert solution == "Solution to Exercise 1 (First of its page)"
    for page, where in (("book/asked.html", "#second"), ("notebooks/01_count.html", "#counted")):
        referred = pages.soups[pages.folder / page].select(f"{where} section a.reference")
        assert [tag.text for tag in referred] == ["Exercise 1"]


def test_a_page_of_a_known_repository_can_be_launched(project: Project) -> None:
    """The same pages, once `_config.yml` names the repository; they still load nothing."""
    config = project.root / "_config.yml"
    without = config.read_text("utf-8")
    config.write_text(without.replace('url: ""', "url: https://github.com/someone/some.book/"))
    run = project.run("testbed", {"n_samples": "2"})
    run.execute(progress=False)
    try:
        folder = build_book(run)
    finally:
        config.write_text(without)
    pages = Pages(folder)
    assert pages.loaded_from_the_network() == []
    assert pages.broken_links() == []
    assert pages.without_alt_text() == []
    at = "someone/some.book"
    assert {
        tag["href"]
        for tag in pages.soups[folder / "notebooks" / "01_count.html"].select("a.btn")
        if remote(str(tag["href"]))
    } == {
        f"https://mybinder.org/v2/gh/{at}/notebooks?urlpath=lab/tree/notebooks/01_count.ipynb",
        f"https://colab.research.google.com/github/{at}/blob/notebooks/notebooks/01_count.ipynb",
    }
    assert not pages.soups[folder / "book" / "intro.html"].select('a[href*="binder"]')
    offered = (folder / "_sources" / "notebooks" / "01_count.ipynb").read_text("utf-8")
    assert json.loads(offered)["cells"][0]["source"] == first_cell(f"https://github.com/{at}")


def test_a_warning_fails_the_build_and_leaves_the_pages(project: Project) -> None:
    run = project.run()
    old = run.book / "index.html"
    old.parent.mkdir(parents=True)
    old.write_text("the book as it was")
    intro = project.root / "book" / "intro.md"
    good = intro.read_text()
    intro.write_text(good + "\n[nowhere](nowhere.md)\n")
    try:
        for _ in range(2):  # the second time as well: nothing is remembered
            with pytest.raises(RunError, match=r"warnings:\nbook/intro\.md:5: .*nowhere"):
                build_book(run)
    finally:
        intro.write_text(good)
    assert old.read_text() == "the book as it was"


def test_a_notebook_must_be_in_the_table_of_contents(project: Project) -> None:
    extra = project.root / "notebooks" / "09_extra.py"
    extra.write_text(NOTEBOOK, "utf-8")
    try:
        with pytest.raises(ValueError, match=r"_toc\.yml does not list notebooks/09_extra"):
            build_book(Project(project.root).run())
    finally:
        extra.unlink()


# --- the book itself ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pages() -> Iterator[Pages]:
    run = Project().run("smoke")
    run.execute()
    yield Pages(build_book(run))


def test_every_chapter_is_built(pages: Pages) -> None:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    for entry in toc_entries(toc):
        assert (pages.folder / f"{entry}.html").is_file(), entry


def test_what_the_first_page_says_in_other_languages_still_holds(pages: Pages) -> None:
    """Its summaries say in Chinese and Vietnamese what these headings say, which results choose."""
    said = " ".join(pages.soups[pages.folder / "book" / "intro.html"].text.split())
    for heading in (
        "kurtosis selects are not shown to be those that a language needs:",
        "Other sums of the very same relevance do find them:",
        "Counting activations (LAPE) finds some:",
        "LangSpec-F1 is above zero for masks without any purpose:",
        "printed tables carry some of its claims:",
    ):
        assert heading in said, f"say otherwise in the summaries of book/intro.md: {heading}"


def test_pages_load_nothing_from_the_network(pages: Pages) -> None:
    assert pages.loaded_from_the_network() == []
    assert (pages.folder / "_static" / "mathjax" / "tex-chtml.js").is_file()


def test_links_lead_somewhere(pages: Pages) -> None:
    assert pages.broken_links() == []


def test_pictures_have_alternative_text(pages: Pages) -> None:
    assert pages.without_alt_text() == []


def test_pages_show_nothing_of_this_machine(pages: Pages) -> None:
    for path, soup in pages.soups.items():
        for secret in (str(ROOT), str(Path.home()) + "/", "ipykernel_", "site-packages"):
            assert secret not in soup.text, f"{pages.show(path)} shows {secret}"


def test_notebook_pages_are_complete(pages: Pages) -> None:
    """Each says what it is for at the top, has an exercise whose solution is folded, and output."""
    for notebook in Project().notebooks:
        soup = pages.soups[pages.folder / "notebooks" / f"{notebook.name}.html"]
        text = soup.text.lower()
        assert re.search(r"you (can|will be able to)", text), (
            f"{notebook.name} does not say what it teaches"
        )
        assert soup.select("div.exercise"), f"{notebook.name} has no exercise"
        solutions = soup.select("div.solution")
        assert solutions, f"{notebook.name} has no solution"
        assert all("dropdown" in (tag.get("class") or []) for tag in solutions), notebook.name
        assert soup.select("div.cell_output"), f"{notebook.name} shows no output"
        assert isinstance(soup.find("h1"), Tag)


def test_parameters_named_in_the_chapters_exist(pages: Pages) -> None:
    """The chapter on choices names the parameter of each; the notebooks have to declare it."""
    declared = Project().parameters
    text = (ROOT / "book" / "choices.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("Parameter")]
    named = {name for line in lines for name in re.findall(r"`(\w+)`", line)}
    assert named
    if declared:
        assert named - set(declared) == set()
