"""Fingerprints of the code that a stage computes with.

A fingerprint is a hash of the syntax trees, without docstrings, of every module of the package that
the stage's module imports, directly or not, and of the data files beside those modules. So comments
and docstrings do not count. Neither do the command line, the declarations of stages, the checks of
parameters, and what only shows progress or says where files are. DVC tracks fingerprints by key in
`artifacts/code.json`, and unfinished work is resumed only under the same fingerprint.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from clearnets.families import FAMILIES

PACKAGE = Path(__file__).parents[1]
# What a stage may import without depending on it. Parameters are tracked by their keys.
_OUTSIDE = (
    *("clearnets.cli", "clearnets.config"),
    *(f"clearnets.pipeline.{name}" for name in ("code", "paths", "processes", "progress", "stage")),
)
# Data files of the package that modules read.
_DATA = (".toml", ".html", ".css", ".js")


@cache
def fingerprint(stage: str) -> str:
    """Return the fingerprint of a stage's code, 16 hex digits."""
    digest = hashlib.sha256()
    names = sorted(modules(f"clearnets.stages.{stage}"))
    for name in names:
        digest.update(f"{name}\n{_tree(_file(name))}\n".encode())
    for path in sorted({path for name in names for path in _data_files(_file(name))}):
        digest.update(path.relative_to(PACKAGE).as_posix().encode() + path.read_bytes())
    for name, trees in sorted(_parameter_functions(names).items()):
        digest.update(f"{name}\n{trees}\n".encode())
    return digest.hexdigest()[:16]


def _parameter_functions(names: Iterable[str]) -> dict[str, str]:
    """Return the properties and methods of the typed parameters that modules name, as trees.

    Parameters are tracked by their values, so the package `config` is outside. But some of its
    functions compute with them, such as the number of latents of a width.
    """
    known, found = _functions_of_config(), {}
    queue: list[ast.AST] = [_parsed(_file(name)) for name in names]
    while queue:
        for node in ast.walk(queue.pop()):
            if isinstance(node, ast.Attribute) and node.attr in known and node.attr not in found:
                found[node.attr] = _canonical(known[node.attr])
                queue += known[node.attr]
    return found


@cache
def _functions_of_config() -> dict[str, list[ast.FunctionDef]]:
    """Return all public functions of the package `config` by name."""
    known: dict[str, list[ast.FunctionDef]] = {}
    for path in sorted((PACKAGE / "config").glob("*.py")):
        for node in ast.walk(_parsed(path)):
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                known.setdefault(node.name, []).append(node)
    return known


def family_identity(name: str | None) -> dict[str, object] | None:
    """Return what a family's results follow from in its row; None for what is no family."""
    return FAMILIES[name].identity() if name in FAMILIES else None


def reaches(stage: str, module: str) -> bool:
    """Whether a stage computes with a module."""
    return module in modules(f"clearnets.stages.{stage}")


@cache
def modules(root: str) -> frozenset[str]:
    """Return the modules of the package that `root` reaches by imports, itself among them.

    Imports inside functions count, those for type checkers do not. The packages of a module count,
    because importing it runs them.
    """
    found: set[str] = set()
    queue = [root] if _exists(root) else []
    while queue:
        name = queue.pop()
        if name in found or any(f"{name}.".startswith(f"{one}.") for one in _OUTSIDE):
            continue
        found.add(name)
        queue += [target for target in imports(_file(name)) if _exists(target)]
        queue += [name.rpartition(".")[0]] if "." in name else []
    return frozenset(found)


@cache
def imports(path: Path) -> frozenset[str]:
    """Return the names that a module imports from the package, as dotted names: modules, and names
    in modules."""
    return frozenset(
        name for name in _imports(_parsed(path)) if f"{name}.".startswith(f"{PACKAGE.name}.")
    )


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for part in node.orelse:
                yield from _imports(part)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from _imports(node)


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _file(name: str) -> Path:
    base = PACKAGE.parent.joinpath(*name.split("."))
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


def _exists(name: str) -> bool:
    base = PACKAGE.parent.joinpath(*name.split("."))
    return base.with_suffix(".py").is_file() or (base / "__init__.py").is_file()


def _data_files(module: Path) -> Iterator[Path]:
    """Yield the data files that a module may read: those below its folder that are no package's."""
    for path in module.parent.rglob("*"):
        folders = path.relative_to(module.parent).parents
        own = all(not (module.parent / f / "__init__.py").exists() for f in list(folders)[:-1])
        if own and path.is_file() and path.suffix in _DATA:
            yield path


@cache
def _tree(path: Path) -> str:
    return _canonical(_parsed(path))


def _canonical(value: object) -> str:
    """Return a syntax tree as text that does not depend on the version of Python: without places,
    docstrings and fields that are empty."""
    if isinstance(value, list):
        return f"[{','.join(_canonical(part) for part in value if _computes(part))}]"
    if not isinstance(value, ast.AST):
        return repr(value)
    fields = (
        f"{name}={_canonical(part)}"
        for name, part in ast.iter_fields(value)
        if part not in (None, []) and name not in ("ctx", "kind", "type_comment")
    )
    return f"{type(value).__name__}({','.join(fields)})"


def _computes(node: object) -> bool:
    """Whether a statement counts: no docstring, and no row of a table.

    DVC tracks what is not only words in the declaration of a stage, and families by their rows.
    """
    match node:
        case ast.Expr(value=ast.Constant(value=str())):
            return False
        case ast.Assign(targets=[ast.Name(id="STAGE" | "_ROWS")]):
            return False
    return True
