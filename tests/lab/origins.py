"""Which cells of a notebook show something that rests on shipped or published results.

Names are followed through assignments, loops and `with`: what is made from a shipped folder or from
a published table rests on it.
"""

from __future__ import annotations

import ast

#: Parameters that name a folder of shipped results or random masks, and of what the paper prints.
PARAMETERS = {
    "testbed": "shipped",
    "choices_data": "shipped",
    "necessity_data": "shipped",
    "taught_data": "shipped",
    "real_data": "shipped",
    "languages_data": "shipped",
    "criterion_data": "shipped",
    "null_data": "nulls",
    "published": "published",
}
#: Calls and files that give the same.
CALLS = {
    "audit.read_scores": "published",
    "audit.published": "published",
    "audit.claims_table": "published",
    "table_pages.printed_table": "published",
}
GROWS = ("append", "extend", "update", "setdefault")
FILES = {"data/testbed/hand_scored.csv": "shipped", "data/published": "published"}


def rests_on(node: ast.AST, known: dict[str, set[str]]) -> set[str]:
    """What an expression rests on, by the names, calls and files in it."""
    found: set[str] = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            found |= known.get(part.id, set())
        elif isinstance(part, ast.Call):
            found |= {CALLS[name]} if (name := ast.unparse(part.func)) in CALLS else set()
        elif isinstance(part, ast.Constant) and isinstance(part.value, str):
            found |= {kind for file, kind in FILES.items() if part.value.startswith(file)}
    return found


def shown(cells: list[str]) -> list[set[str]]:
    """What each code cell of a notebook shows, by what it rests on."""
    known = {name: {kind} for name, kind in PARAMETERS.items()}
    found = []
    for source in cells:
        tree = ast.parse(source)
        own: set[str] = set()
        for node in ast.walk(tree):
            value = getattr(node, "value", None) or getattr(node, "iter", None)
            targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
            if isinstance(node, ast.Assign | ast.AugAssign | ast.For | ast.NamedExpr) and value:
                kinds = rests_on(value, known)
                for target in targets:
                    for name in ast.walk(target) if target is not None else ():
                        if isinstance(name, ast.Name) and kinds:
                            known[name.id] = known.get(name.id, set()) | kinds
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                kinds = {kind for part in node.args for kind in rests_on(part, known)}
                if kinds and isinstance(node.func.value, ast.Name) and node.func.attr in GROWS:
                    known[node.func.value.id] = known.get(node.func.value.id, set()) | kinds
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "display":
                for argument in node.args:
                    own |= rests_on(argument, known)
        if tree.body and isinstance(last := tree.body[-1], ast.Expr):
            own |= rests_on(last, known)
        found.append(own)
    return found
