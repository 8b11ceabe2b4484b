"""What is read is the same in every locale: UTF-8, whatever a login node takes text files for."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from coolbits.artifacts.code import code_slice
from coolbits.artifacts.hashing import digest_of
from coolbits.artifacts.job import Job
from coolbits.artifacts.manifest import Manifest
from coolbits.artifacts.node import make_node
from coolbits.vision.arrays import write_index, write_split
from coolbits.vision.sources import Labelled

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
SAID = "Текст, ×"
READERS = {
    "manifest": "from coolbits.artifacts.manifest import read_manifest as read; print(read(path.parent).digest)",
    "job": "from coolbits.artifacts.job import Job; print(Job.read(path).nodes[0].fingerprint)",
    "index": "from coolbits.data.shards import read_index as read; from coolbits.artifacts.hashing import digest_of\n"
    "print(digest_of(read(path.parent)))",
    "images": "from coolbits.vision.arrays import open_images; from coolbits.artifacts.hashing import digest_of\n"
    "print(digest_of(open_images(path, 'train').classes[0]))",
    "code": "from coolbits.artifacts.code import code_slice as read; print(read('coolbits.stage', path.parent).digest)",
}


@pytest.fixture
def written(tmp_path):
    """Files that say something which ASCII has no letters for, and the digests that readers should come to."""
    node = make_node("corpus", "text", {"text_field": SAID}, {})
    manifest = Manifest("corpus", "text", "0" * 64, node.recipe, {}, {})
    values = {"manifest": manifest.to_json(), "job": Job("corpus", "text", (node,)).to_json(), "index": {"file": SAID}}
    paths = {kind: tmp_path / f"{kind}.json" for kind in values}
    for kind, value in values.items():
        paths[kind].write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    images = tmp_path / "images"
    images.mkdir()
    image = Labelled(np.zeros((1, 2, 2), np.uint8), 0)
    write_index(*(write_split(iter([image]), split, images) for split in ("train", "test")), (SAID,), images)
    source = tmp_path / "stage.py"
    source.write_text(f"SAID = {SAID!r}\n", encoding="utf-8")
    digests = {"manifest": manifest.digest, "job": node.fingerprint, "index": digest_of(values["index"])}
    digests["images"] = digest_of(SAID)
    return paths | {"images": images, "code": source}, digests | {"code": code_slice("coolbits.stage", tmp_path).digest}


@pytest.mark.parametrize("kind", READERS)
def test_what_is_read_does_not_depend_on_the_locale(written, kind):
    paths, digests = written
    read = f"import sys; from pathlib import Path; path = Path(sys.argv[1]); {READERS[kind]}"
    command = [sys.executable, "-c", read, str(paths[kind])]
    done = subprocess.run(command, env=os.environ | ASCII, capture_output=True, text=True)
    assert done.stdout.strip() == digests[kind], done.stderr
