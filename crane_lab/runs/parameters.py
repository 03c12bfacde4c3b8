"""Profiles, and the parameters that the notebooks declare."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from crane_lab.store.secrets import refuse_secret

if TYPE_CHECKING:
    import nbformat


@dataclass(frozen=True)
class Parameter:
    """One parameter as the notebooks declare it in their `parameters` cells."""

    name: str
    default: Any
    help: str
    type_name: str  # "int", "float", "str", "bool", "list", or "" when the default is None
    notebooks: tuple[str, ...] = ()

    def check(self, value: Any) -> Any:
        """Return `value`, as a float where one is expected; TypeError if it has another type."""
        if value is None and self.default is None:
            return None
        if self.type_name == "float" and isinstance(value, (int, str)):
            # YAML reads 1e-3 as a string
            value = _as_float(value)
        if self.type_name and type(value).__name__ != self.type_name:
            raise TypeError(self._mismatch(value))
        if isinstance(value, list) and isinstance(self.default, list) and self.default:
            wanted = {type(item) for item in self.default}
            if not {type(item) for item in value} <= wanted:
                raise TypeError(self._mismatch(value))
        return value

    def parse(self, text: str) -> Any:
        """Return the value that `text` from the command line means for this parameter."""
        if self.type_name == "str":
            return text
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"parameter {self.name}: cannot read {text!r} as YAML") from error
        return self.check(value)

    def _mismatch(self, value: Any) -> str:
        hint = ""
        if isinstance(value, list) and any(isinstance(item, bool) for item in value):
            hint = " (YAML reads a bare no, yes, on or off as true or false: put it in quotes)"
        expected = self.type_name
        if isinstance(self.default, list) and self.default:
            names = sorted({type(item).__name__ for item in self.default})
            expected += f" of {' or '.join(names)}"
        return (
            f"parameter {self.name} is {expected} (default {self.default!r}); "
            f"got {type(value).__name__} {value!r}{hint}"
        )


def _as_float(value: int | str) -> Any:
    if isinstance(value, bool):
        return value
    try:
        return float(value)
    except ValueError:
        return value


@dataclass(frozen=True)
class Notebook:
    """A notebook's source: jupytext percent format, the only form kept in git."""

    path: Path

    @property
    def name(self) -> str:
        """The file name without its ending, such as `02_kurtosis`."""
        return self.path.stem

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

        Raises ValueError when there is no such cell, or a line of it is not
        `name = literal  # what it does`.
        """
        from papermill import inspect_notebook

        notebook = self.read()
        tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
        if len(tagged) != 1:
            raise ValueError(
                f"notebook {self.name} needs one cell tagged `parameters` "
                f'(`# %% tags=["parameters"]`); it has {len(tagged)}'
            )
        declared = {}
        for name, found in inspect_notebook(notebook).items():
            refuse_secret(name, None)
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
            for node in ast.walk(ast.parse(tagged[0].source))
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
        return declared


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
        raise ValueError(f"profile {path.name} is not valid YAML: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError(f"profile {path.name} must be a list of `parameter: value` lines")
    nested = [key for key, value in content.items() if isinstance(value, dict)]
    if nested:
        raise ValueError(
            f"profile {path.name}: a profile is flat, but {', '.join(nested)} holds a mapping"
        )
    parent = content.pop("extends", None)
    for key, value in content.items():
        refuse_secret(key, value)
    base = {} if parent is None else load_profile(folder, str(parent), (*seen, name))
    return {**base, **content}
