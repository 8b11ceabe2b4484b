import copy

import pytest

from coolbits.artifacts.code import code_slice
from coolbits.artifacts.manifest import MANIFEST, compose, write_manifest
from coolbits.stages import STAGES
from coolbits.study.load import parse_study
from coolbits.study.plan import resolve
from coolbits.study.standing import wanted_files

TINY = {
    "study": "tiny",
    "data": {"tokenizer": {"kind": "bpe", "vocabulary_size": 300}},
    "defaults": {
        "model": "micro-neox",
        "sequence_length": 16,
        "batch_tokens": 64,
        "optimizer": {"kind": "adamw"},
        "peak_lr": 1e-2,
    },
    "runs": {
        "trunk": {
            "schedule": {"kind": "constant", "warmup": 128},
            "tokens": 1280,
            "checkpoints": {"every": 320},
            "cooldowns": {"at": [640, 1280], "length": 320},
        },
        "wsd": {"schedule": {"kind": "wsd", "warmup": 128, "decay": "25%"}, "tokens": 1280, "peak_lr": [1e-2, 3e-2]},
    },
    "averages": {"lawa": {"kind": "lawa", "run": "trunk", "window": 2, "every": 320}},
    "quantizers": {
        "rtn-w3": {"method": {"kind": "rtn", "grid": {"bits": 3, "group_size": 16}}},
        "gptq-w4": {"method": {"kind": "gptq", "grid": {"bits": 4, "group_size": 16}}},
    },
    "evaluations": {"loss": {"measure": {"kind": "loss", "windows": 4, "sequence_length": 16}}},
    "figures": {"tokens": {"figure": "tokens"}},
}


@pytest.fixture
def tiny():
    """A small study as plain values, free to change."""
    return copy.deepcopy(TINY)


@pytest.fixture(scope="session")
def tiny_plan(tmp_path_factory):
    """The plan of the small study as it is, never to be changed."""
    return resolve(parse_study(copy.deepcopy(TINY)), tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def planned(tmp_path):
    """Resolve a study given as plain values."""
    return lambda raw: resolve(parse_study(raw), tmp_path)


@pytest.fixture
def finish(tmp_path):
    """Put nodes of a plan below a folder as if they had been made, and before each its parents, where they are not."""

    def make(plan, *nodes, root=tmp_path, code=lambda kind: code_slice(STAGES[kind]).digest):
        for node in nodes:
            directory = node.directory(root)
            if (directory / MANIFEST).exists():
                continue
            make(plan, *(plan.known[ref.kind, ref.name] for ref in node.parents.values()), root=root, code=code)
            directory.mkdir(parents=True)
            for name in wanted_files(node):
                if name != MANIFEST:
                    (directory / name).touch()
            record = {"code": {"digest": code(node.kind)}}
            write_manifest(directory, compose(node, root, directory, {}), record)

    return make
