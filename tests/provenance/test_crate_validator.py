"""The public validator of RO-Crates finds nothing that the Provenance Run Crate profile requires and a crate lacks."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from coolbits.provenance.crate.write import Order, write_crate

SCRIPT = Path(__file__).with_name("validate_crate.py")
# Made by `make test` from envs/crate-validator.txt: the validator wants an older rich than Snakemake's environment has.
PYTHON = Path(os.environ.get("COOLBITS_CRATE_VALIDATOR", f"{sys.prefix}/crate-validator")) / "bin" / "python"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason=f"no validator in {PYTHON.parents[1]}; `make test` puts one there"),
]


def validate(path):
    """Run the validator; return its status and the lines it printed."""
    done = subprocess.run([PYTHON, SCRIPT, path], capture_output=True, text=True)
    assert done.stdout, done.stderr
    return done.returncode, done.stdout.splitlines()


@pytest.fixture
def crate(empty, clone, tmp_path):
    """The crate of the fabricated study, without its larger files."""
    plan, place = clone("näme mit space.yaml"), empty.root.parent
    write_crate(Order(plan, place / "näme mit space.yaml", empty.root, place, largest=1000), tmp_path / "out.zip")
    return tmp_path / "out.zip"


def test_a_crate_has_all_that_the_profile_requires(crate):
    status, said = validate(crate)
    assert (status, said[:-1]) == (0, [])
    assert int(said[-1].split()[0]) > 50


def test_a_crate_that_lacks_something_is_found_out(crate, tmp_path):
    spoiled = tmp_path / "spoiled.zip"
    with zipfile.ZipFile(crate) as source, zipfile.ZipFile(spoiled, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "ro-crate-metadata.json":
                metadata = json.loads(content)
                run = next(entity for entity in metadata["@graph"] if entity["@id"].startswith("#run/corpus/"))
                del run["instrument"]
                content = json.dumps(metadata).encode()
            target.writestr(name, content)
    status, said = validate(spoiled)
    assert status == 1
    assert any("MUST have an instrument property" in line for line in said)
