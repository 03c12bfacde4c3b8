"""The pages: staging the sources of the book and building them with Jupyter Book."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from crane_lab.runs.chapters import descriptions, with_ends
from crane_lab.runs.dictionary import SOURCE, results_of, results_page
from crane_lab.runs.downloads import RESULTS, downloadable, with_tables
from crane_lab.runs.execution import DEFAULT_PROFILE, RUN_DIR, Run, RunError
from crane_lab.runs.glossary import glossary_terms, terms_linked, with_terms
from crane_lab.runs.numbering import PAGE, Shown, list_of, with_numbers
from crane_lab.runs.parameters import load_profile
from crane_lab.runs.prompts import with_prompts
from crane_lab.runs.questions import with_questions
from crane_lab.runs.reading import READING_TIME, reading_time
from crane_lab.runs.repository import add_launch_buttons
from crane_lab.store import ROOT
from crane_lab.store.files import canonical, digest_of, file_sha256, write_text
from crane_lab.store.sources import packages_digest, source_digest


def build_book(run: Run) -> Path:
    """Build the pages of a run from its executed notebooks and return their folder.

    The sources are staged (chapters, executed notebooks, parameter reference), built by Jupyter
    Book with warnings as errors, and the finished pages replace the old ones. When nothing that is
    staged has changed, the pages are left as they are. A notebook of the table of contents that
    this run has not executed gets a page that says so, so that links to it hold.

    Raises RunError with the builder's output when there is any warning, or when another process is
    at work on the run.
    """
    with run.lock():
        return _build(run)


def _build(run: Run) -> Path:
    output = run.book
    base = output.parent
    source = base / "src"
    stamp = base / "book.sha256"
    built_from, staged_from = [*_words(stamp), "", ""][:2] if output.is_dir() else ("", "")
    # Staging takes seconds, a look at all that it reads does not.
    inputs = _inputs(run)
    if staged_from == inputs:
        print(f"book: up to date, {_shown(output)}")
        return output
    _stage(run, source)
    # The reference is made from docstrings, which no digest of code covers.
    depends: list[Any] = [_tree(source), _tree(run.project.root / "crane_core")]
    # Sphinx loads its extensions by name, so they are no imports of this module.
    config = yaml.safe_load((source / "_config.yml").read_text("utf-8"))
    extensions = config["sphinx"]["config"]["extensions"]
    modules = ["crane_lab.runs.book", *(x for x in extensions if x.startswith("crane_lab."))]
    depends += [*map(source_digest, modules), packages_digest()]
    digest = digest_of(canonical(depends), 64)
    if built_from == digest:
        write_text(stamp, f"{digest} {inputs}")
        print(f"book: up to date, {_shown(output)}")
        return output
    # Always from nothing: Sphinx's incremental builds forget the warnings of unchanged pages.
    scratch = base / "tmp"
    shutil.rmtree(scratch, ignore_errors=True)
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    command += ["build", str(source), "-q"]
    command += ["-W", "-n", "--keep-going", "--path-output", str(scratch)]
    built = subprocess.run(
        command,
        env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONUTF8": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )
    if built.returncode != 0:
        shutil.rmtree(scratch, ignore_errors=True)
        raise RunError(f"the book did not build without warnings:\n{_said(built.stdout, source)}")
    _mark_heads(scratch / "_build" / "html")
    stamp.unlink(missing_ok=True)
    shutil.rmtree(output, ignore_errors=True)
    os.replace(scratch / "_build" / "html", output)
    shutil.rmtree(scratch, ignore_errors=True)
    write_text(stamp, f"{digest} {inputs}")
    print(f"book: built, {_shown(output)}")
    return output


def _mark_heads(pages: Path) -> None:
    """Say of the heads of Markdown's tables that they are columns', which docutils does not."""
    for page in pages.rglob("*.html"):
        text = page.read_text("utf-8")
        if '<th class="head">' in text:
            page.write_text(
                text.replace('<th class="head">', '<th class="head" scope="col">'), "utf-8"
            )


def _words(path: Path) -> list[str]:
    return path.read_text("utf-8").split() if path.is_file() else []


def _inputs(run: Run) -> str:
    """Return a digest of all that the pages of a run are made from, whatever comes of it."""
    root = run.project.root
    folders = [root / name for name in ("book", "notebooks", "data", "crane_core", "crane_lab")]
    # Ours may be elsewhere, if the project is not the one that we are part of.
    folders += [ROOT / "crane_core", ROOT / "crane_lab"]
    folders += [run.directory / "notebooks", run.directory / "results"]
    real = root / str(run.parameters.get("real_data", "data"))
    folders += [] if real.is_relative_to(root / "data") else [real]
    files = [root / "_config.yml", root / "_toc.yml"]
    depends: list[Any] = [_tree(folder) for folder in dict.fromkeys(folders)]
    depends += [[file_sha256(path) for path in files], run.name, run.profile]
    depends += [run.values, run.overrides, packages_digest()]
    return digest_of(canonical(depends), 64)


def _said(output: str, source: Path) -> str:
    """Return the builder's warnings without its colours and banners, files named from the root."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", output).replace(f"{source}/", "")
    banners = ("Running ", "Source Folder", "Config Path", "Output Path", "=====", "Building your")
    return "\n".join(line for line in text.splitlines() if line and not line.startswith(banners))


def _shown(folder: Path) -> str:
    page = folder / "index.html"
    return os.path.relpath(page)


def _tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): file_sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


#: Chapters in which things are looked up: their words are no running text.
LOOKED_UP = {
    f"book/{name}"
    for name in ("bibliography", "figures", "glossary", "parameters", "reference", "results")
}


def toc_entries(toc: Any) -> Iterator[str]:
    """Yield every `file` and `root` of a Jupyter Book table of contents."""
    if isinstance(toc, dict):
        for key, value in toc.items():
            if key in ("file", "root"):
                yield str(value)
            else:
                yield from toc_entries(value)
    elif isinstance(toc, list):
        for item in toc:
            yield from toc_entries(item)


def _stage(run: Run, target: Path) -> None:
    """Fill `target` with the sources of the book: same layout as the repository."""
    from crane_lab.show import first_page
    from crane_lab.show.explorable import SCRIPT
    from crane_lab.show.foreign import as_html

    root = run.project.root
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(root / "book", target / "book")
    # Jupyter Book takes style sheets from `_static` beside the configuration.
    static = target / "book" / "_static"
    if static.is_dir():
        shutil.move(static, target / "_static")
    # Not among them: every page would load it, and few draw.
    (target / "extra").mkdir()
    shutil.copyfile(SCRIPT, target / "extra" / SCRIPT.name)
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    config["sphinx"]["config"]["html_extra_path"] = ["extra"]
    if run.name != DEFAULT_PROFILE:
        config["sphinx"]["config"]["html_theme_options"]["announcement"] = (
            f"Built from run “{as_html(run.name)}”, not from the default profile: "
            "see the parameter reference for its values."
        )
    address = add_launch_buttons(config)
    (target / "_config.yml").write_text(yaml.safe_dump(config, allow_unicode=True), "utf-8")
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    shutil.copyfile(root / "_toc.yml", target / "_toc.yml")
    first = target / "book" / "intro.md"
    text = first.read_text("utf-8")
    said = descriptions(text)
    if READING_TIME in text:
        text = text.replace(READING_TIME, reading_time(nb.source for nb in run.project.notebooks))
    if first_page.MARK in text:
        real = root / str(run.parameters["real_data"])
        criterion = root / str(run.parameters["criterion_data"])
        text = first_page.staged(text, run.directory / "results", real, criterion)
    first.write_text(text, "utf-8")
    (target / "book" / "parameters.md").write_text(parameter_reference(run), "utf-8")

    entries = list(toc_entries(toc))
    if "book/results" in entries:
        order = [Path(entry).name for entry in entries if entry.startswith("notebooks/")]
        (target / "book" / "results.md").write_text(results_page(run, order), "utf-8")
        (target / "book" / SOURCE).unlink()
    listed = set(entries)
    missing = [nb.name for nb in run.project.notebooks if f"notebooks/{nb.name}" not in listed]
    if missing:
        raise ValueError(f"_toc.yml does not list notebooks/{missing[0]}; add it where it is read")
    (target / "notebooks").mkdir()
    (target / RESULTS).mkdir()
    tables = {
        name: [file for file in files if file.endswith(".csv")]
        for name, files in results_of(run).items()
    }
    for name in {name for files in tables.values() for name in files}:
        shutil.copy(run.directory / "results" / name, target / RESULTS)
    shown: list[tuple[str, str, list[Shown]]] = []
    glossary = root / "book" / "glossary.md"
    terms = glossary_terms(glossary.read_text("utf-8")) if glossary.is_file() else []
    for entry in (name for name in entries if name.startswith("notebooks/")):
        executed = run.directory / f"{entry}.ipynb"
        number = Path(entry).name.split("_")[0]
        if executed.is_file():
            asked = root / "book" / "questions" / f"{number}.yaml"
            text = with_prompts(with_terms(executed.read_text("utf-8"), terms))
            text, own = with_numbers(text, number)
            shown.append((Path(entry).name, run.project.find(Path(entry).name).title, own))
            text = with_tables(with_questions(text, asked), tables.get(Path(entry).name, []))
            offered = downloadable(text, address)
            (target / f"{entry}.ipynb").write_text(offered, "utf-8")
        else:
            (target / f"{entry}.md").write_text(
                f"# Notebook {number}: not run\n\nThis run of the book did not execute "
                f"`{entry}.py`. `make book NOTEBOOK={number}` does.\n",
                "utf-8",
            )
    if f"book/{Path(PAGE).stem}" in listed:
        (target / "book" / PAGE).write_text(list_of(shown), "utf-8")
    for entry in (name for name in entries if name.startswith("book/")):
        chapter = target / f"{entry}.md"
        (text,) = terms_linked([chapter.read_text("utf-8")], [] if entry in LOOKED_UP else terms)
        if entry in said:
            text = with_ends(text, entry, said[entry], entries)
        chapter.write_text(text, "utf-8")


def parameter_reference(run: Run) -> str:
    """Return the book's page of all parameters, as MyST text, from the notebooks themselves."""
    from crane_lab.show.foreign import as_code, as_markdown, verbatim

    profiles = sorted((run.project.root / "notebooks" / "profiles").glob("*.yaml"))
    lines = [
        "# Parameters",
        "",
        "Every parameter of the book. Settings of the method can be given to any notebook that "
        "runs it, whether its page talks about them or not. "
        f"This run has the values of profile {as_code(run.profile)}"
        + (", with overrides; " if run.overrides else "; ")
        + "where they differ from the default, the value is given as *here*. Values are YAML: "
        "`null` is Python's `None`.",
        "",
    ]
    for parameter in sorted(run.project.parameters.values(), key=lambda p: p.name):
        if parameter.name == RUN_DIR:
            continue
        value = run.values.get(parameter.name, parameter.default)
        used = ", ".join(
            f"[{name.split('_')[0]}](../notebooks/{name})" for name in parameter.notebooks
        )
        facts = [f"default {_code(parameter.default)}"]
        if parameter.type_name:
            facts.insert(0, parameter.type_name)
        if value != parameter.default:
            marked = " (override)" if parameter.name in run.overrides else ""
            facts.append(f"here {_code(value)}{marked}")
        if parameter.choices:
            facts.insert(1, f"one of {', '.join(_code(choice) for choice in parameter.choices)}")
        if used:
            facts.append(f"on the page of {used}")
        lines += [
            f"`{parameter.name}`",
            f": {as_markdown(parameter.help, None)}",
            "",
            f"  {'; '.join(facts)}",
            "",
        ]
    lines += ["## Profiles", "", "What each profile sets; everything else keeps its default.", ""]
    for path in profiles:
        values = load_profile(path.parent, path.stem)
        shown = "\n".join(
            f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in values.items()
        )
        block = verbatim(shown or "# only defaults", language="yaml", longest=None).data
        lines += [f"### {as_code(path.stem)}", "", block, ""]
    return "\n".join(lines)


def _code(value: object) -> str:
    from crane_lab.show.foreign import as_code

    return as_code(json.dumps(value, ensure_ascii=False))
