"""The core as a package: what it imports, what can be imported from it, how long it is."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import crane_core

FOLDER = Path(crane_core.__file__).parent
MODULES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")
#: What the core may stand on, beside the standard library.
ALLOWED = {"torch", "transformers", "tokenizers", "gguf", "lxt", "numpy", "scipy", "safetensors"}


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path.name}: imports are absolute"
            found.add(node.module.partition(".")[0])
    return found


def test_the_core_stands_on_few_packages() -> None:
    for module in MODULES:
        outside = imported(FOLDER / f"{module}.py") - set(sys.stdlib_module_names) - {"crane_core"}
        assert outside <= ALLOWED, module


def test_what_runs_and_shows_is_not_loaded_with_it() -> None:
    heavy = ["lm_eval", "datasets", "papermill", "jupyter_book", "crane_lab"]
    code = f"import crane_core, sys; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_public_names() -> None:
    assert set(crane_core.__all__) <= set(dir(crane_core))
    # A name is that of a module or of something in one, never both.
    assert not set(crane_core.__all__) & set(MODULES)
    assert crane_core.__doc__ and all(f"`{module}`" in crane_core.__doc__ for module in MODULES)


def test_names_are_loaded_when_they_are_asked_for() -> None:
    """Each is what the imports for type checkers say, and none takes torch before it is used."""
    tree = ast.parse((FOLDER / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    named = set()
    for node in block.body:
        assert isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names:
            name = alias.asname or alias.name
            named.add(name)
            module = importlib.import_module(node.module)
            assert getattr(crane_core, name) is getattr(module, alias.name), name
    assert named == set(crane_core.__all__)
    code = "import crane_core, sys; print('torch' in sys.modules, crane_core.metrics.__name__)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False crane_core.metrics\n"


def test_the_core_is_thin() -> None:
    lines = {name: len((FOLDER / f"{name}.py").read_text().splitlines()) for name in MODULES}
    assert sum(lines.values()) <= 4500
