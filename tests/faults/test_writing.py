"""Who writes files, and how: whole or not at all, or where no reader looks."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import coolbits

SOURCE = Path(coolbits.__file__).parent
LIBRARIES = ("to_parquet", "save_file", "save_pretrained", "np.save", "savefig", "ParquetWriter")
# What opens a file for writing itself, and why a reader of results cannot see it half-written.
OWN = {
    "artifacts/files.py": "under another name, which is replaced when all is written",
    "data/shards.py": "in a folder of work, listed when it is whole; linked to the artifact then",
    "loops/locks.py": "a lock has no content that is relied on",
    "provenance/crate/archive.py": "under another name, which is replaced when all is written",
    "vision/arrays.py": "in the empty directory that becomes the artifact",
}


def calls(tree: ast.Module) -> Iterator[tuple[ast.Call, str, set[str]]]:
    """Yield each call, the name of what is called, and the names around it that a caller gave, or that lead below."""

    def walk(node: ast.AST, given: set[str]) -> Iterator[tuple[ast.Call, str, set[str]]]:
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            spec = node.args
            given = given | {argument.arg for argument in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs)}
        elif isinstance(node, ast.With):
            given |= {item.optional_vars.id for item in node.items if isinstance(item.optional_vars, ast.Name)}
        elif isinstance(node, ast.Assign) and place_of(node.value) in (*given, "BytesIO", "io"):
            given |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.Call):
            yield node, ast.unparse(node.func), given
        for child in ast.iter_child_nodes(node):
            yield from walk(child, given)

    yield from walk(tree, set())


def modes(call: ast.Call) -> str:
    """Return the constant texts among a call's first two arguments: for `open` the mode is one of them."""
    return "".join(
        given.value for given in call.args[:2] if isinstance(given, ast.Constant) and isinstance(given.value, str)
    )


def place_of(expression: ast.expr) -> str:
    """Return the name that a path begins with: `out` of `out / "x" / name` and of `Path(out)`."""
    match expression:
        case ast.Name(id=name):
            return name
        case ast.BinOp(left=inner) | ast.Attribute(value=inner) | ast.Subscript(value=inner):
            return place_of(inner)
        case ast.Call(func=ast.Name(id="Path"), args=[inner]) | ast.Call(func=inner):
            return place_of(inner)
    return ""


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_files_are_written_whole_or_where_the_caller_says(path):
    own = path.relative_to(SOURCE).as_posix() in OWN
    for call, full_name, given in calls(ast.parse(path.read_text())):
        place, name = f"{path}:{call.lineno}", full_name.rpartition(".")[2]
        if name == "open" and set(modes(call)) & set("wax+") and "/" not in modes(call):
            assert own, place
        if full_name.endswith((".write_text", ".write_bytes")):
            assert own, f"{place}: not atomic; artifacts.files has a function of this name that is"
        if (name in LIBRARIES or full_name in LIBRARIES) and call.args:
            # A stage gives these functions the empty directory that `Store.ensure` or `replacing` made.
            assert place_of(call.args[1] if name == "save_file" else call.args[0]) in given, place


def test_what_is_said_of_modules_that_write_is_of_modules_that_are_there():
    assert all((SOURCE / name).is_file() for name in OWN)


@pytest.mark.slow
@pytest.mark.xdist_group("workflow")
def test_a_reader_sees_whole_artifacts_alone_while_a_study_is_made(empty):
    looked = 0
    for job in empty.jobs:
        process = empty.start(job)
        while process.is_alive():
            empty.demand_whole()
            process.join(0.02)
            looked += 1
        assert process.exitcode == 0, empty.said()
    assert looked > 100
    empty.demand_whole(every=True)
