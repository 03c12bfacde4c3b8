"""Profiles, and the parameters that the notebooks declare."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from crane_lab.parameter import Parameter
from crane_lab.settings import OF_THE_METHOD, PARAMETERS
from crane_lab.store.secrets import refuse_secret, scrubbed
from crane_lab.store.sources import OWN, modules_behind

if TYPE_CHECKING:
    import nbformat


@dataclass(frozen=True)
class Notebook:
    """A notebook's source: jupytext percent format, the only form kept in git."""

    path: Path

    @property
    def name(self) -> str:
        """The file name without its ending, such as `02_kurtosis`."""
        return self.path.stem

    @property
    def number(self) -> str:
        """What stands before the name's first underscore, such as `02` or `04b`."""
        return self.name.split("_")[0]

    @property
    def title(self) -> str:
        """Its first heading, or its name without one."""
        found = re.search(r"^# # (.+)$", self.source, re.MULTILINE)
        return found[1] if found else self.name

    @cached_property
    def source(self) -> str:
        """The text of the file."""
        return self.path.read_text(encoding="utf-8")

    def read(self) -> nbformat.NotebookNode:
        """Return the notebook without outputs; same source, same bytes (jupytext's ids vary)."""
        import jupytext

        notebook = jupytext.reads(self.source, fmt="py:percent")
        notebook.metadata = {
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        }
        for number, cell in enumerate(notebook.cells, 1):
            cell["id"] = f"cell-{number}"
        return notebook

    @cached_property
    def parameters(self) -> dict[str, Parameter]:
        """The parameters declared in the cell tagged `parameters`.

        Raises ValueError when there is no such cell, a line of it is not
        `name = literal  # what it does`, or it differs from the line of a setting.
        """
        cells, inspected = OWN.remembered("papermill", self.source, self._inspected)
        if len(cells) != 1:
            raise ValueError(
                f"notebook {self.name} needs one cell tagged `parameters` "
                f'(`# %% tags=["parameters"]`); it has {len(cells)}'
            )
        declared = {}
        for name, found in inspected.items():
            refuse_secret(name, found["default"])
            if not found["help"]:
                raise ValueError(
                    f"notebook {self.name}: parameter {name} needs a comment on its line that "
                    "says what it does; the book's parameter reference is made from it"
                )
            try:
                default = ast.literal_eval(found["default"])
            except (ValueError, SyntaxError) as error:
                raise ValueError(
                    f"notebook {self.name}: the default of parameter {name} must be a literal on "
                    f"one line; got {found['default']}"
                ) from error
            annotated = found["inferred_type_name"]
            type_name = annotated if annotated != "None" else type(default).__name__
            declared[name] = Parameter(
                name,
                default,
                found["help"],
                "" if type_name == "NoneType" else type_name,
                (self.name,),
            )
        assigned = {
            target.id
            for node in ast.walk(ast.parse(cells[0]))
            if isinstance(node, (ast.Assign, ast.AnnAssign))
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        }
        if assigned != set(declared):
            raise ValueError(
                f"notebook {self.name}: papermill cannot read parameter(s) "
                f"{', '.join(sorted(assigned ^ set(declared)))}; write each on one line as "
                "`name = literal  # what it does`"
            )
        if self.uses_settings:
            for name in set(declared) & set(PARAMETERS):
                self._require_line(declared[name])
                declared[name] = replace(PARAMETERS[name], notebooks=(self.name,))
        return declared

    def _inspected(self) -> tuple[list[str], dict[str, Any]]:
        """The cells tagged `parameters`, and what papermill reads in them."""
        from papermill import inspect_notebook

        notebook = self.read()
        tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
        found = inspect_notebook(notebook) if len(tagged) == 1 else {}
        return [cell.source for cell in tagged], dict(found)

    @cached_property
    def uses_settings(self) -> bool:
        """Whether the notebook runs the method, so that any of its settings can be given to it."""
        # The store, too, reaches a module of the core: only what a notebook names itself counts.
        imported = OWN.imported(self.source)
        named = any(m.partition(".")[0] == "crane_core" for m in imported)
        known = "crane_lab.settings"
        return named or known in imported or known in modules_behind(self.source)

    @property
    def accepts(self) -> set[str]:
        """The names of all parameters that can be given to it."""
        return set(self.parameters) | (set(OF_THE_METHOD) if self.uses_settings else set())

    def _require_line(self, found: Parameter) -> None:
        setting = PARAMETERS[found.name]
        if (found.default, found.help) != (setting.default, setting.help):
            raise ValueError(
                f"notebook {self.name}: parameter {found.name} is not as crane_lab/settings.py has "
                f"it; its line there is\n    {setting.line}\nand in the notebook\n    {found.line}"
            )


def load_profile(folder: Path, name: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a profile's parameters, those of the profile it extends included."""
    available = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in available:
        where = f" (extended by {seen[-1]})" if seen else ""
        raise ValueError(
            f"unknown profile {name!r}{where}; profiles: {', '.join(available) or 'none'}. "
            f"A new one is a YAML file in {folder.parent.name}/{folder.name}/"
        )
    if name in seen:
        raise ValueError(f"profiles extend each other in a circle: {' -> '.join((*seen, name))}")
    path = folder / f"{name}.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"profile {path.name} is not valid YAML: {scrubbed(str(error))}") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError(f"profile {path.name} must be a list of `parameter: value` lines")
    for key, value in content.items():
        refuse_secret(key, value)
    nested = [key for key, value in content.items() if isinstance(value, dict)]
    if nested:
        raise ValueError(
            f"profile {path.name}: a profile is flat, but {', '.join(nested)} holds a mapping"
        )
    parent = content.pop("extends", None)
    base = {} if parent is None else load_profile(folder, str(parent), (*seen, name))
    return {**base, **content}
