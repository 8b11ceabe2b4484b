import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GenerationConfig, GPTNeoXConfig, GPTNeoXForCausalLM

from coolbits.artifacts.code import Slice
from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.job import Job
from coolbits.artifacts.manifest import read_manifest
from coolbits.artifacts.node import Node, make_node
from coolbits.artifacts.store import Store
from coolbits.averaging.stage import build_average, run
from coolbits.study.recipes.averaging import Average

Write = Callable[..., Path]
Tensors = Callable[..., dict[str, torch.Tensor]]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results", Slice("coolbits.averaging.stage", {}))


def put(store: Store, source: Path | None, step: int, **summary: object) -> Node:
    """Make a checkpoint artifact with the files of `source`."""
    node = make_node("checkpoint", f"trunk/step_{step}", {"step": step}, {})

    def build(out: Path) -> dict:
        if source is not None:
            shutil.copytree(source, out, dirs_exist_ok=True)
        return summary

    store.ensure(node, build)
    return node


def average(recipe: Average, members: list[Node]) -> Node:
    parents = {f"member.{index}": member.ref for index, member in enumerate(members)}
    return make_node("average", recipe.kind, recipe.identity(), parents)


def test_lawa_windows_along_a_trunk_are_means_of_their_members(store: Store, write: Write, tensors: Tensors) -> None:
    trunk = [put(store, write(f"s{step}", tensors(step)), step) for step in range(5)]
    windows = [trunk[start : start + 3] for start in range(3)]
    nodes = tuple(average(Average(kind="lawa", members=3), window) for window in windows)
    job = Job("average", "test", nodes)
    assert run(job, store) == 3
    assert run(job, store) == 0
    for start, node in enumerate(nodes):
        found = load_file(store.directory(node) / "model.safetensors")
        for name, tensor in found.items():
            expected = sum(tensors(start + offset)[name].double() for offset in range(3)) / 3
            torch.testing.assert_close(tensor, expected.float(), rtol=1e-7, atol=1e-9)
        assert read_manifest(store.directory(node)).summary == {"outcome": "complete", "members": 3}


def test_members_are_taken_by_number_not_by_spelling(store: Store, write: Write) -> None:
    values = [write(f"s{step}", {"a": torch.tensor([float(step == 10)])}) for step in range(11)]
    node = average(Average(kind="ema", members=11, decay=0.5), [put(store, each, i) for i, each in enumerate(values)])
    run(Job("average", "test", (node,)), store)
    assert load_file(store.directory(node) / "model.safetensors")["a"].item() == 0.5


def test_an_average_of_a_diverged_member_is_a_note(store: Store, write: Write, tensors: Tensors) -> None:
    members = [put(store, write("s0", tensors(0)), 0), put(store, None, 1, outcome="diverged", diverged_step=12)]
    node = average(Average(kind="soup", members=2), members)
    assert run(Job("average", "test", (node,)), store) == 1
    manifest = read_manifest(store.directory(node))
    assert manifest.summary == {"outcome": "diverged", "diverged_step": 12}
    assert not manifest.files


def test_a_shorter_window_than_the_recipe_says_is_refused(write: Write, tensors: Tensors, tmp_path: Path) -> None:
    members = [write(f"s{step}", tensors(step)) for step in range(2)]
    with pytest.raises(CoolbitsError, match="the recipe of this lawa says 3, 2 are given"):
        build_average(Average(kind="lawa", members=3), members, tmp_path)


def test_config_and_tokenizer_are_the_first_members_and_nothing_else_is_copied(
    write: Write, tensors: Tensors, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    members = [write("one", tensors(0)), write("two", tensors(1), transformers_version="5.1")]
    assert build_average(Average(kind="soup", members=2), members, out) == {"members": 2}
    assert {path.name for path in out.iterdir()} == {"config.json", "model.safetensors", "tokenizer.json"}
    assert json.loads((out / "config.json").read_text())["transformers_version"] == "5.0"


def test_an_average_generates_as_its_members_do(write: Write, tensors: Tensors, tmp_path: Path) -> None:
    """A checkpoint's config is of training, without a cache, which `generate` needs to be quick."""
    out = tmp_path / "out"
    out.mkdir()
    members = [write(name, tensors(0), use_cache=False) for name in ("one", "two")]
    (members[0] / "generation_config.json").write_text('{"use_cache": true}')
    build_average(Average(kind="soup", members=2), members, out)
    assert GenerationConfig.from_pretrained(out).use_cache


def test_an_average_opens_with_transformers(tmp_path: Path) -> None:
    members = []
    for seed in range(2):
        torch.manual_seed(seed)
        config = GPTNeoXConfig(
            vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
        )
        GPTNeoXForCausalLM(config).save_pretrained(tmp_path / f"m{seed}")
        members.append(tmp_path / f"m{seed}")
    out = tmp_path / "out"
    out.mkdir()
    build_average(Average(kind="merge", members=2, weights=(0.9, 0.1)), members, out)
    first, second, merged = (AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (*members, out))
    for name, tensor in merged.items():
        torch.testing.assert_close(tensor, 0.9 * first[name] + 0.1 * second[name])
