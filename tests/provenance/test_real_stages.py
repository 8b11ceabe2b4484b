"""What real stages make is whole to the audit."""

import pytest

from coolbits.artifacts.code import code_slice
from coolbits.artifacts.job import Job
from coolbits.artifacts.store import Store
from coolbits.data import corpus, tokenize, tokenizers
from coolbits.provenance.audit import audit
from coolbits.provenance.lineage import trace
from coolbits.stages import STAGES
from coolbits.study.data_choices import Data
from coolbits.study.sources import data_nodes

# Of where and from what tree the tests run, not of the artifacts.
CIRCUMSTANCES = ("dirty", "environment")


@pytest.mark.slow
def test_documents_tokenizer_and_shards_are_whole_until_a_byte_changes(tmp_path):
    (tmp_path / "text").mkdir()
    paths = []
    for number in range(8):
        paths.append(f"text/{number}.txt")
        (tmp_path / paths[-1]).write_text(f"Document {number} says: " + "the quick brown fox. " * 40)
    choice = {
        "corpus": {"kind": "files", "paths": paths},
        "tokenizer": {"kind": "bpe", "vocabulary_size": 270},
        "validation_fraction": 0.5,
    }
    data = data_nodes(Data.model_validate(choice), tmp_path)
    root = tmp_path / "results"
    for node, stage in zip(data.nodes, (corpus, tokenizers, tokenize), strict=True):
        job = Job(node.kind, f"{node.kind}-{node.name}", (node,), {}, data.locations)
        stage.run(job, Store(root, code_slice(STAGES[node.kind])))
    shards = data.nodes[-1]

    def held():
        found = audit(trace(root, [(shards.kind, shards.name)]))
        return [str(finding) for finding in found if finding.what not in CIRCUMSTANCES and not finding.information]

    assert held() == []
    path = next(shards.directory(root).glob("train-*.bin"))
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert held() == [f"changed     shards/{shards.name}/{path.name}: its SHA-256 is not the one that was recorded"]
