import pytest

from coolbits.artifacts.code import code_slice
from coolbits.stages import STAGES


@pytest.fixture
def package(tmp_path):
    """A package `coolbits` with a stage that imports a helper, and a module that nobody imports."""
    source = tmp_path / "coolbits"
    (source / "stage").mkdir(parents=True)
    files = {
        "__init__.py": '"""Doc."""\n',
        "stage/__init__.py": "",
        "stage/run.py": "from coolbits.helper import add\nfrom . import local\n\n\ndef run():\n    return add(1, 2)\n",
        "stage/local.py": "VALUE = 1\n",
        "helper.py": "def add(a, b):\n    from coolbits import lazy\n\n    return a + b + lazy.ZERO\n",
        "lazy.py": "ZERO = 0\n",
        "other.py": "UNUSED = 1\n",
    }
    for name, text in files.items():
        (source / name).write_text(text)
    return source


def digest(package):
    return code_slice("coolbits.stage.run", package).digest


def test_a_digest_is_the_same_under_every_version_of_python(package):
    # `ast.dump` gives others: under 3.12 functions and classes have `type_params`, under 3.13 empty lists are left out.
    (package / "other.py").write_text(
        "class A(B, metaclass=M):\n"
        "    x: int | None = None\n\n"
        "    @property\n"
        "    async def f(self, a, /, *b, c=(), **d) -> str:\n"
        "        return f\"{a!r:.8} {{}}\" f'{b=}' 'é' if a else {**d, 'k': [...]}\n\n\n"
        "g = lambda: -0.5e-3\n",
        encoding="utf-8",
    )
    digest = code_slice("coolbits.other", package).modules["coolbits.other"]
    assert digest == "07c13b1d4b26e421b74cad69e78f88321f68b0a6f89e9cdc9582cf2e0d214d35"


def test_the_slice_is_what_is_imported_transitively(package):
    assert set(code_slice("coolbits.stage.run", package).modules) == {
        "coolbits",
        "coolbits.stage",
        "coolbits.stage.run",
        "coolbits.stage.local",
        "coolbits.helper",
        "coolbits.lazy",
    }


@pytest.mark.parametrize(
    "edited",
    [
        "# a comment\ndef add(a, b):\n    from coolbits import lazy\n\n    return a + b + lazy.ZERO\n",
        'def add(a, b):\n    """Add."""\n    from coolbits import lazy\n    return (a + b +\n            lazy.ZERO)\n',
    ],
    ids=["comment", "docstring and format"],
)
def test_comments_docstrings_and_format_do_not_count(package, edited):
    before = digest(package)
    (package / "helper.py").write_text(edited)
    assert digest(package) == before


@pytest.mark.parametrize("name", ["stage/run.py", "stage/local.py", "helper.py", "lazy.py", "__init__.py"])
def test_a_changed_statement_counts_wherever_it_is_imported_from(package, name):
    before = digest(package)
    path = package / name
    path.write_text(path.read_text() + "\nEXTRA = 1\n")
    assert digest(package) != before


def test_a_source_file_of_another_language_counts_with_the_module_that_names_it(package):
    (package / "fast.cpp").write_text("int one() { return 1; }\n")
    before = digest(package)
    (package / "lazy.py").write_text('ZERO = 0\nSOURCE = "fast.cpp"\nGONE = "lost.cpp"\n')
    named = digest(package)
    (package / "fast.cpp").write_text("int one() { return 2; }\n")
    assert len({before, named, digest(package)}) == 3
    assert "coolbits.lazy:fast.cpp" in code_slice("coolbits.stage.run", package).modules


def test_the_compiled_updates_are_in_the_slice_of_training():
    assert "coolbits.optim.compiled:lowbit.cpp" in code_slice(STAGES["checkpoint"]).modules


def test_a_module_that_is_not_imported_does_not_count(package):
    before = digest(package)
    (package / "other.py").write_text("UNUSED = 2\n")
    assert digest(package) == before


def test_training_does_not_depend_on_quantization_evaluation_or_figures():
    modules = code_slice(STAGES["checkpoint"]).modules
    foreign = ("coolbits.ptq", "coolbits.evaluation", "coolbits.figures", "coolbits.claims", "coolbits.study.plan")
    assert not [name for name in modules if name.startswith(foreign)]


@pytest.mark.parametrize("kind", STAGES)
def test_every_stage_has_a_slice_and_a_run_function(kind):
    assert STAGES[kind] in code_slice(STAGES[kind]).modules
