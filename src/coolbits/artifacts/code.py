"""Code slices: a digest of just the project code that a stage imports, blind to comments and formatting."""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from coolbits.artifacts.hashing import file_digest

PACKAGE = "coolbits"
_SOURCE = Path(__file__).resolve().parents[1]
_FOREIGN = (".cpp", ".cu", ".css", ".js")
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Slice:
    """The modules that `entry` imports, transitively, each with the digest of its normalized syntax tree."""

    entry: str
    modules: dict[str, str]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over all modules of the slice."""
        text = "\n".join(f"{name} {digest}" for name, digest in sorted(self.modules.items()))
        return hashlib.sha256(text.encode()).hexdigest()


def code_slice(entry: str, source: Path = _SOURCE) -> Slice:
    """Return the slice of the module `entry` ("coolbits.ptq.stage"), read from the package folder `source`.

    Imports inside functions count; a package's `__init__` counts with each of its modules, and a source file in another
    language with the module beside it that names it. Comments, docstrings and formatting do not change a digest, save
    in other languages.
    """
    digests: dict[str, str] = {}
    seen, waiting = set[str](), [entry]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        path = _module_path(name, source)
        if path is None:
            continue
        digest, imported, foreign = _read_module(path, name, path.stat().st_mtime_ns, path.stat().st_size)
        digests[name] = digest
        digests |= {f"{name}:{file}": file_digest(path.parent / file) for file in foreign}
        waiting.extend(imported)
        parent = name.rpartition(".")[0]
        if parent:
            waiting.append(parent)
    if entry not in digests:
        raise ModuleNotFoundError(f"no module {entry} below {source}")
    return Slice(entry, digests)


def _module_path(name: str, source: Path) -> Path | None:
    parts = name.split(".")
    if parts[0] != PACKAGE:
        return None
    stem = source.joinpath(*parts[1:])
    for candidate in (stem / "__init__.py", stem.with_suffix(".py")):
        if candidate.is_file() and (candidate.name == "__init__.py" or len(parts) > 1):
            return candidate
    return None


@cache
def _read_module(path: Path, name: str, _mtime: int, _size: int) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Return the digest of a module, the modules it imports, and the files of other languages that it names."""
    nodes: list[ast.AST] = []
    outline = _outline(ast.parse(path.read_bytes()), nodes)
    imported = tuple(_imports(nodes, name if path.name != "__init__.py" else f"{name}.__init__"))
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    foreign = tuple(sorted(text for text in texts if text.endswith(_FOREIGN) and (path.parent / text).is_file()))
    return hashlib.sha256(outline.encode()).hexdigest(), imported, foreign


def _outline(value: Any, nodes: list[ast.AST]) -> str:
    """Return a syntax tree as text, without docstrings, and add to `nodes` those that the text has.

    It is the same under every version of Python, which `ast.dump` is not: versions differ in fields that say nothing
    where they are empty, 3.12 gives functions and classes `type_params`. Trees of the whole package are written at
    each start of the workflow: hence one walk for all that is wanted of them.
    """
    if isinstance(value, list):
        return f"[{','.join([_outline(part, nodes) for part in value])}]"
    if not isinstance(value, ast.AST):
        return repr(value)
    nodes.append(value)
    said = []
    for name in value._fields:
        part = getattr(value, name, None)
        if name == "body" and isinstance(value, _DOCUMENTED) and ast.get_docstring(value, clean=False) is not None:
            part = value.body[1:]
        if part is not None and part != []:
            said.append(f"{name}={_outline(part, nodes)}")
    return f"{type(value).__name__}({','.join(said)})"


def _imports(nodes: Iterable[ast.AST], name: str) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = name.split(".")[: -node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)
