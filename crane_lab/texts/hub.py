"""Corpora among the datasets of the Hugging Face hub: named, drawn from, and what can go wrong."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from datasets.data_files import EmptyDatasetError
from datasets.exceptions import DatasetNotFoundError, DatasetsError
from huggingface_hub import DatasetCard
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # whichever it uses

from crane_lab.texts.documents import distinct, reason, text_of

#: One configuration of Wikipedia per language, the default of profile `hub`.
WIKIPEDIA = "hub:wikimedia/wikipedia:20231101.{language}"
#: Documents of a stream among which the next one is drawn: streams have no random access.
SHUFFLE_BUFFER = 10_000
#: What `datasets` raises when a data set cannot be opened; `hub_error` puts it in plain words.
HUB_ERRORS = (DatasetsError, ValueError, RuntimeError, OSError, httpx.HTTPError)


@dataclass(frozen=True)
class HubSource:
    """A dataset of the hub by language: `hub:<dataset>[@<revision>][:<config>][:<split>]`."""

    dataset: str
    revision: str | None
    config: str | None
    split: str

    @classmethod
    def parse(cls, source: str) -> HubSource:
        """Read a source that begins with "hub:"; raises ValueError if it is malformed."""
        name, *rest = source.removeprefix("hub:").split(":")
        dataset, _, revision = name.partition("@")
        if not dataset or len(rest) > 2 or "{language}" not in source:
            raise ValueError(
                f"corpus {source!r}: expected hub:<dataset>[@<revision>][:<configuration>]"
                "[:<split>] with {language} in it, such as " + WIKIPEDIA
            )
        config, split = [*rest, "", ""][:2]
        return cls(dataset, revision or None, config or None, split or "train")

    def of(self, language: str) -> HubSource:
        """The source with `language` filled in."""
        filled = {
            field: value and value.replace("{language}", language)
            for field, value in dataclasses.asdict(self).items()
        }
        return HubSource(**filled)

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"hub:{self.dataset}{revision}:{self.config or ''}:{self.split}"


def fetch(
    source: HubSource, n_documents: int, seed: int, text_column: str, deduplicate: bool
) -> dict[str, Any]:
    """Draw documents of one language from the hub: `{"documents": [...], "source": {...}}`.

    The dataset is streamed: its shards are put in an order drawn from `seed`, every document is
    drawn from a buffer of `SHUFFLE_BUFFER`, and reading stops at `n_documents` (fewer if the
    dataset holds fewer). Repeated ones do not count. `source` says where they come from: dataset,
    revision, configuration, split, licence, and how many were read.

    Raises FileNotFoundError for a dataset that does not exist, PermissionError for one that is
    gated, ConnectionError without network, ValueError for an unknown configuration, split or
    column and for a dataset without text.
    """
    name = f"corpus {source}"
    try:
        builder = datasets.load_dataset_builder(
            source.dataset, source.config, revision=source.revision
        )
        stream = builder.as_streaming_dataset(split=source.split)
    except HUB_ERRORS as error:
        if str(error).startswith("BuilderConfig"):
            raise ValueError(f"{name}: {_no_configuration(source)}") from error
        advice = "run once with network, or give a local folder as the corpus"
        raise hub_error(name, error, advice) from error

    n_read = 0

    def read() -> Iterator[str]:
        nonlocal n_read
        for row in stream.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER):
            n_read += 1
            yield text_of(row, text_column)

    texts: list[str] = []
    try:
        for text in distinct(read()) if deduplicate else filter(None, map(str.strip, read())):
            texts.append(text)
            if len(texts) == n_documents:
                break
    except (TypeError, KeyError, UnicodeEncodeError) as error:
        raise ValueError(f"{name}: {reason(error)}") from error
    except (OSError, httpx.HTTPError) as error:
        raise ConnectionError(
            f"{name}: the connection broke after {n_read} documents; run again ({error})"
        ) from error
    if not texts:
        raise ValueError(f"{name} is empty: {n_read} documents, none of them with text")
    about = {
        "dataset": source.dataset,
        "revision": builder.hash,
        "config": source.config,
        "split": source.split,
        "licence": _licence(source.dataset),
        "seed": seed,
        "read": n_read,
    }
    return {"documents": texts, "source": about}


def hub_error(name: str, error: Exception, advice: str) -> Exception:
    """What to raise when `datasets` failed to open `name`, in words that say what to do.

    PermissionError for a gated dataset, FileNotFoundError for one that does not exist,
    ConnectionError, with `advice`, if the hub did not answer, and ValueError for the rest.
    """
    login = "log in with `hf auth login` or set HF_TOKEN"
    if isinstance(error, DatasetNotFoundError) and "gated" in str(error):
        return PermissionError(
            f"{name}: the dataset is gated; accept its terms on its page, then {login} ({error})"
        )
    if isinstance(error, DatasetNotFoundError):
        return FileNotFoundError(
            f"{name}: there is no such dataset or revision, or it is private; check the name, or "
            f"{login} ({error})"
        )
    if "scripts are no longer supported" in str(error):
        return ValueError(
            f"{name}: it comes with a loading script, which is code and is not run; expected "
            f"Parquet, JSON lines or CSV files: give a copy of it in one of them ({error})"
        )
    if isinstance(error, DatasetsError | EmptyDatasetError | ValueError | RuntimeError):
        # `datasets` says "An error occurred" and leaves what it was to the cause.
        cause = "" if error.__cause__ is None else f" ({_short(error.__cause__)})"
        return ValueError(f"{name}: {_short(error)}{cause}")
    return ConnectionError(
        f"{name}: the hub did not answer, and it is not kept here; {advice} ({error})"
    )


def _short(error: BaseException) -> str:
    said = " ".join(str(error).split())
    return said if len(said) <= 400 else f"{said[:400]} …"


def _no_configuration(source: HubSource) -> str:
    names = datasets.get_dataset_config_names(source.dataset, revision=source.revision)
    close = difflib.get_close_matches(source.config or "", names, n=8, cutoff=0.0)
    return (
        f"no configuration {source.config!r} among the dataset's {len(names)}; closest: "
        + ", ".join(close)
    )


def _licence(dataset: str) -> list[str]:
    """The licences that the dataset's card names, if it has a card and names any."""
    readme = Path(dataset) / "README.md"
    try:
        card = DatasetCard.load(readme if readme.is_file() else dataset)
    except (OSError, ValueError, httpx.HTTPError):
        return []
    named = card.data.to_dict().get("license") or []
    return [named] if isinstance(named, str) else [str(name) for name in named]
