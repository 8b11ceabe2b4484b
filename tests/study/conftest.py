import copy

import pytest

from coolbits.study.load import parse_study
from coolbits.study.plan import resolve

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


@pytest.fixture
def planned(tmp_path):
    """Resolve a study given as plain values."""
    return lambda raw: resolve(parse_study(raw), tmp_path)
