"""What an executed notebook says: the same on every machine, without keys, and nothing hidden."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crane_lab.store.files import write_text
from crane_lab.store.secrets import scrubbed
from crane_lab.texts.visible import visible

if TYPE_CHECKING:
    import nbformat

# A picture inside HTML; whatever is looked for in texts is not in there.
_PICTURE = re.compile(r"(base64,[A-Za-z0-9+/=]{100,})")


def tidy(notebook: nbformat.NotebookNode, root: Path, here: str, there: str) -> None:
    """Take times, process numbers, this machine's paths and keys out of an executed notebook.

    What was printed is left without characters that control a terminal or turn a line's direction;
    the folder `here`, which it was executed in, is called `there`.
    """
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell["id"] = "injected-parameters"
            cell["source"] = cell["source"].replace(here, there)
            cell.metadata["tags"].append("hide-input")  # as the cell above it, which it overrides
        if cell.cell_type != "code":
            continue
        streams: dict[str, Any] = {}
        outputs: list[Any] = []
        for output in cell.outputs:
            _change(output, lambda text: _kept(text, root).replace(here, there))
            if output.output_type == "stream":
                output["text"] = visible(output["text"], None)
                # stderr arrives in pieces whose order among the rest depends on timing
                if output.name in streams and (
                    output.name == "stderr" or outputs[-1] is streams[output.name]
                ):
                    streams[output.name]["text"] += output["text"]
                    continue
                streams[output.name] = output
            outputs.append(output)
        cell["outputs"] = [o for o in outputs if o is not streams.get("stderr")]
        if "stderr" in streams:
            cell["outputs"].append(streams["stderr"])


def scrub(path: Path, here: str, there: str) -> None:
    """Take keys out of what a notebook that failed has said; it is kept to be looked at.

    The folder `here`, which it was executed in, is called `there`.
    """
    notebook = json.loads(path.read_text(encoding="utf-8").replace(here, there))
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            _change(output, scrubbed)
    write_text(path, json.dumps(notebook, ensure_ascii=False, indent=1) + "\n")


def _change(output: Any, how: Callable[[str], str]) -> None:
    """Change every text of an output, those of a rich one included; pictures stay as they are."""

    def changed(text: Any) -> Any:
        if isinstance(text, list):
            return [changed(line) for line in text]
        if not isinstance(text, str):
            return text
        parts = _PICTURE.split(text)
        return "".join(how(part) if i % 2 == 0 else part for i, part in enumerate(parts))

    for name in {"text", "traceback", "evalue"} & output.keys():
        output[name] = changed(output[name])
    for mime in output.get("data", {}):
        if not mime.startswith("image/png"):
            output["data"][mime] = changed(output["data"][mime])


def _kept(text: str, root: Path) -> str:
    return scrubbed(neutral(text, root))


def neutral(text: str, root: Path) -> str:
    """Return `text` without paths of this machine, process numbers and memory addresses."""
    # Each match begins where a word does: tried at every letter, a figure in base64 takes minutes.
    text = re.sub(r"(?<!\S)\S*/ipykernel_\d+/\d+\.py", "<cell>", text)
    text = re.sub(r"(?<![^\s'\"(<>])[^\s'\"(<>]*/site-packages/", "", text)
    text = text.replace(f"{root}/", "").replace(str(root), ".")
    home = re.escape(str(Path.home()))
    text = re.sub(rf"(?<![\w/.]){home}(?=/\w)", "~", text)
    return re.sub(r"\b0x[0-9a-f]{8,}\b", "0x…", text)
