"""Whatever a pretrained model comes as, it leaves as a plain directory with the same function."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaPreTrainedModel, PreTrainedModel

from coolbits.artifacts.code import Slice
from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.hashing import file_digest
from coolbits.artifacts.job import Job
from coolbits.artifacts.manifest import read_manifest
from coolbits.artifacts.node import make_node
from coolbits.artifacts.store import Store
from coolbits.models.files import load_model
from coolbits.pretrained import stage
from coolbits.pretrained.gguf import read_gguf
from coolbits.pretrained.stage import build_pretrained, run
from coolbits.study.recipes.pretrained import DirectoryWeights, GGUFWeights, HubWeights, Pretrained

TOKENS = torch.arange(32)[None]


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=TOKENS).logits


def parameters(model: PreTrainedModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def of_directory(directory: Path, model: PreTrainedModel, **knobs: Any) -> Pretrained:
    files = sorted(directory.iterdir())
    names, digests = tuple(file.name for file in files), tuple(map(file_digest, files))
    source = DirectoryWeights(names=names, sha256=digests)
    return Pretrained(**{"source": source, "parameters": parameters(model)} | knobs)


def test_a_directory_gives_the_same_model_and_tokenizer(
    directory: Path, model: PreTrainedModel, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    summary = build_pretrained(of_directory(directory, model), directory, out)
    assert summary == {"parameters": parameters(model), "vocabulary_size": 264, "architecture": "llama"}
    assert torch.equal(logits(load_model(out)), logits(model))
    assert (out / "tokenizer.json").read_bytes() == (directory / "tokenizer.json").read_bytes()


def test_equal_inputs_give_equal_bytes(directory: Path, model: PreTrainedModel, tmp_path: Path) -> None:
    for name in ("one", "two"):
        build_pretrained(of_directory(directory, model), directory, tmp_path / name)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()
        assert str(tmp_path).encode() not in file.read_bytes()


def test_weights_are_kept_in_the_type_asked_for(directory: Path, model: PreTrainedModel, tmp_path: Path) -> None:
    build_pretrained(of_directory(directory, model, dtype="bfloat16"), directory, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    rounded = load_model(tmp_path / "out", dtype=torch.bfloat16)
    for name, weight in model.state_dict().items():
        assert torch.equal(rounded.state_dict()[name], weight.bfloat16())


def test_a_gguf_file_gives_the_same_function_and_the_same_tokens(
    gguf_file: Path, directory: Path, model: PreTrainedModel, tmp_path: Path
) -> None:
    recipe = Pretrained(source=GGUFWeights(sha256=file_digest(gguf_file)), parameters=parameters(model))
    summary = build_pretrained(recipe, gguf_file, tmp_path / "out")
    assert summary == {"parameters": parameters(model), "vocabulary_size": 264, "architecture": "llama"}
    torch.testing.assert_close(logits(load_model(tmp_path / "out")), logits(model), rtol=1e-5, atol=1e-5)
    found, expected = (AutoTokenizer.from_pretrained(place) for place in (tmp_path / "out", directory))
    text = "the other day — naïve 日本"
    assert found.encode(text) == expected.encode(text)
    assert (found.bos_token, found.eos_token) == ("<user>", "<turn>")


def test_a_file_that_is_no_gguf_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF, but not quite")
    recipe = Pretrained(source=GGUFWeights(sha256=file_digest(path)), parameters=1)
    with pytest.raises(CoolbitsError, match=r"broken\.gguf: "):
        build_pretrained(recipe, path, tmp_path / "out")


def test_a_gguf_file_of_an_architecture_without_sdpa_gets_eager_attention(
    gguf_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_gguf(gguf_file, torch.float32)[0].config._attn_implementation == "sdpa"
    monkeypatch.setattr(LlamaPreTrainedModel, "_supports_sdpa", False)
    assert read_gguf(gguf_file, torch.float32)[0].config._attn_implementation == "eager"


def test_a_model_of_the_hub_is_read_from_its_snapshot(
    directory: Path, model: PreTrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    snapshot = shutil.copytree(directory, tmp_path / "snapshots" / ("0123456789" * 4))
    monkeypatch.setattr(stage, "download_model", lambda *names, **knobs: asked.append((names, knobs)) or snapshot)
    recipe = Pretrained(source=HubWeights(id="someone/some", revision="abc"), parameters=parameters(model))
    assert build_pretrained(recipe, None, tmp_path / "out")["commit"] == snapshot.name
    assert asked == [(("someone/some", "abc"), {"tokenizer": True})]
    assert torch.equal(logits(load_model(tmp_path / "out")), logits(model))


def test_code_that_a_model_brings_is_never_run(directory: Path, model: PreTrainedModel, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (directory / "modeling_evil.py").write_text(
        f"open({str(ran)!r}, 'w').close()\nclass Evil: ...\nclass Config: ...\n"
    )
    config = json.loads((directory / "config.json").read_text())
    evil = {"AutoModelForCausalLM": "modeling_evil.Evil", "AutoConfig": "modeling_evil.Config"}
    (directory / "config.json").write_text(json.dumps(config | {"auto_map": evil}))
    tokenizer = json.loads((directory / "tokenizer_config.json").read_text())
    named = {"auto_map": {"AutoTokenizer": [None, "modeling_evil.Evil"]}}
    (directory / "tokenizer_config.json").write_text(json.dumps(tokenizer | named))
    build_pretrained(of_directory(directory, model), directory, tmp_path / "out")
    for name in ("config.json", "tokenizer_config.json"):
        assert "auto_map" not in json.loads((tmp_path / "out" / name).read_text())
    trusting: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "out", trust_remote_code=True)
    assert torch.equal(logits(trusting), logits(model))
    (directory / "config.json").write_text(json.dumps(config | {"auto_map": evil, "model_type": "evil"}))
    with pytest.raises(CoolbitsError, match=r"config\.json: auto_map: the model brings Python code of its own"):
        build_pretrained(of_directory(directory, model), directory, tmp_path / "other")
    assert not ran.exists()


def test_a_model_of_another_size_is_refused(directory: Path, model: PreTrainedModel, tmp_path: Path) -> None:
    recipe = of_directory(directory, model, parameters=7)
    with pytest.raises(CoolbitsError, match=rf"the model has {parameters(model)}, the study says 7"):
        build_pretrained(recipe, directory, tmp_path / "out")


def test_a_file_that_changed_is_refused(directory: Path, model: PreTrainedModel, tmp_path: Path) -> None:
    recipe = of_directory(directory, model)
    (directory / "tokenizer.json").write_text("{}")
    with pytest.raises(CoolbitsError, match=r"tokenizer\.json: its SHA-256 is"):
        build_pretrained(recipe, directory, tmp_path / "out")


def test_a_tokenizer_with_more_tokens_than_the_model_embeds_is_refused(
    directory: Path, model: PreTrainedModel, tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(directory)
    tokenizer.add_tokens([f"<extra{number}>" for number in range(9)])
    tokenizer.save_pretrained(directory)
    with pytest.raises(CoolbitsError, match="the tokenizer has 270 tokens, but the model embeds 264"):
        build_pretrained(of_directory(directory, model), directory, tmp_path / "out")


@pytest.mark.parametrize("ends", [False, True], ids=["that no text gives", "that ends a text"])
def test_a_special_token_behind_the_last_row_is_refused_only_if_texts_give_it(
    directory: Path, model: PreTrainedModel, tmp_path: Path, ends: bool
) -> None:
    """Gemma 3 of 1B has 262,144 rows and a tokenizer with a marker of images behind them."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    tokenizer.add_tokens([f"<extra{number}>" for number in range(3)])
    tokenizer.add_special_tokens({"eos_token" if ends else "pad_token": "<image>"})
    assert tokenizer.convert_tokens_to_ids("<image>") == model.config.vocab_size
    tokenizer.save_pretrained(directory)
    recipe = of_directory(directory, model)
    if ends:
        with pytest.raises(CoolbitsError, match="the tokenizer has 265 tokens, but the model embeds 264"):
            build_pretrained(recipe, directory, tmp_path / "out")
    else:
        assert build_pretrained(recipe, directory, tmp_path / "out")["vocabulary_size"] == 264


def test_the_stage_finds_a_model_by_its_node(directory: Path, model: PreTrainedModel, tmp_path: Path) -> None:
    store = Store(tmp_path / "results", Slice("coolbits.pretrained.stage", {}))
    node = make_node("pretrained", "tiny", of_directory(directory, model).identity(), {})
    with pytest.raises(CoolbitsError, match="locations: missing"):
        run(Job("pretrained", "job", (node,)), store)
    job = Job("pretrained", "job", (node,), {}, {f"pretrained/{node.name}": [str(directory)]})
    assert [run(job, store), run(job, store)] == [1, 0]
    assert read_manifest(node.directory(store.root)).summary["parameters"] == parameters(model)
