"""Quantizing without a study: what it writes, and that what cannot work leaves nothing behind."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BertConfig,
    BertLMHeadModel,
    FalconConfig,
    FalconForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    MptConfig,
    MptForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
)

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.hashing import file_digest
from coolbits.models.files import load_model
from coolbits.models.quantized import apply_quantized, read_quantized
from coolbits.ptq import standalone, standalone_order
from coolbits.ptq.checkpoint import quantize_model
from coolbits.ptq.export.model import export_model
from coolbits.ptq.standalone import quantize_standalone
from coolbits.ptq.standalone_calibration import Wish
from coolbits.ptq.standalone_order import Order, read_recipe
from coolbits.ptq.tokens import read_tokens
from coolbits.ptq.unfinished import Kept
from coolbits.study.recipes.methods import RTN, Grid
from coolbits.study.recipes.ptq import Quantized

RECIPE = "gptq-w3-g32"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A GPT-NeoX of width 32 with a tokenizer of bytes."""
    directory = tmp_path / "checkpoint"
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=300,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=48,
        bos_token_id=None,
        eos_token_id=None,
    )
    GPTNeoXForCausalLM(config).save_pretrained(directory)
    vocabulary = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocabulary | {"<end>": 256}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>").save_pretrained(directory)
    return directory


@pytest.fixture
def order(checkpoint: Path, tmp_path: Path) -> Order:
    return Order(str(checkpoint), RECIPE, tmp_path / "out", Wish(sequences=6))


def by_weights_alone(order: Order, recipe: str = "rtn-w4-g32", **changes: Any) -> Order:
    """Return the order with a recipe that takes no calibration."""
    return replace(order, recipe=recipe, calibration=Wish(), **changes)


def test_codes_ledger_calibration_and_origin_are_written(order, checkpoint):
    outcome = quantize_standalone(order)
    made = recorded(order)
    assert made["summary"] == outcome.summary
    assert (made["summary"]["modules"], made["summary"]["fallbacks"]) == (8, 0)
    assert len(pd.read_parquet(order.out / "ledger.parquet")) == 8
    assert made["model"]["sha256"] == {"model.safetensors": file_digest(checkpoint / "model.safetensors")}
    assert made["calibration"]["source"] == "embedded"
    assert made["calibration"]["sha256"] == file_digest(order.out / "calibration" / "tokens.safetensors")
    assert read_tokens(order.out / "calibration").count == made["calibration"]["tokens"] == 6 * 48


def replay(order: Order, out: Path, calibration: Wish) -> str:
    """Quantize again by the recipe that `order` wrote; return the digest of the codes."""
    recipe = out.with_suffix(".yaml")
    recipe.write_text(yaml.safe_dump(recorded(order)["recipe"]))
    quantize_standalone(Order(order.model, str(recipe), out, calibration))
    return file_digest(out / "codes.safetensors")


def recorded(order: Order) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((order.out / "quantization.json").read_text())
    return made


class Killed(BaseException):
    pass


@pytest.fixture
def kept(order: Order, monkeypatch: pytest.MonkeyPatch) -> Order:
    """An order that was killed when its first block was kept."""
    order, write = replace(order, state_every_seconds=0), Kept.write

    def killed(kept: Kept) -> None:
        write(kept)
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Kept, "write", killed)
        quantize_standalone(order)
    assert [path.name for path in order.out.parent.glob(".*")] == [".out.unfinished"]
    return order


def test_the_same_order_goes_on_from_the_blocks_that_were_finished(kept, tmp_path, caplog):
    caplog.set_level("INFO", "coolbits")
    quantize_standalone(kept)
    assert caplog.messages == [".out.unfinished: goes on after block 1 of 2"]
    assert not list(tmp_path.glob(".*"))
    whole = replace(kept, out=tmp_path / "whole")
    quantize_standalone(whole)
    assert recorded(kept) == recorded(whole)


def other_weights(order: Order) -> Order:
    model = AutoModelForCausalLM.from_pretrained(order.model)
    with torch.no_grad():
        model.gpt_neox.final_layer_norm.bias.add_(1)
    model.save_pretrained(order.model)
    return order


def other_settings(order: Order) -> Order:
    path = Path(order.model) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"layer_norm_eps": 1e-3}))
    return order


OTHERS = {
    "recipe": lambda order: replace(order, recipe="gptq-w4-g32"),
    "tokens": lambda order: replace(order, calibration=Wish(sequences=6, seed=1)),
    "weights": other_weights,
    "settings of the model": other_settings,
}


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS)
def test_another_order_does_not_use_them(kept, caplog, change):
    quantize_standalone(change(kept))
    (line,) = caplog.messages
    assert line.startswith(f"{kept.out.parent}/.out.unfinished/000000: finished blocks of an earlier run, not used: ")
    assert not kept.unfinished.exists()


def test_what_the_librarys_class_finished_is_not_used_for_a_models_own(kept, caplog, monkeypatch):
    monkeypatch.setattr("coolbits.ptq.standalone.is_own_code", lambda _model: True)
    quantize_standalone(kept)
    assert "not used" in caplog.text
    assert not kept.unfinished.exists()


def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(" ".join(f"sentence {number}." for number in range(400)))
    return path


SOURCES = {
    "embedded text": lambda _: None,
    "random tokens": lambda _: "random",
    "a file": lambda tmp_path: str(text_file(tmp_path)),
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_recipe_and_tokens_that_are_written_make_the_same_codes_again(order, tmp_path, source):
    order = replace(order, calibration=Wish(source(tmp_path), sequences=6, seed=3))
    quantize_standalone(order)
    codes = file_digest(order.out / "codes.safetensors")
    assert replay(order, tmp_path / "again", Wish(str(order.out / "calibration"))) == codes
    assert replay(order, tmp_path / "drawn again", Wish(source(tmp_path))) == codes


def test_tokens_of_a_folder_are_recorded_by_digest_and_no_recipe_is_said_to_have_drawn_them(order, tmp_path):
    quantize_standalone(order)
    before = str(order.out / "calibration")
    second = replace(order, out=tmp_path / "second", calibration=Wish(before))
    quantize_standalone(second)
    first, made = recorded(order)["calibration"], recorded(second)
    assert "calibration" not in made["recipe"]["method"]
    assert made["calibration"] == first | {"source": before, "text_sha256": None}
    codes = file_digest(order.out / "codes.safetensors")
    assert file_digest(second.out / "codes.safetensors") == codes
    assert replay(second, tmp_path / "third", Wish(str(second.out / "calibration"))) == codes
    assert replay(second, tmp_path / "alone", Wish()) != codes


def test_the_documents_of_the_tokens_lie_beside_them_and_come_along_with_them(order, tmp_path):
    text = text_file(tmp_path)
    quantize_standalone(replace(order, calibration=Wish(str(text), sequences=6)))
    documents = pd.read_parquet(order.out / "calibration" / "documents.parquet")
    assert list(documents["tokens"]) == [48] * 6
    assert set(documents["source"]) == {"text.txt"} and set(documents["document"]) == {0}
    assert "calibration/documents.parquet" in recorded(order)["files"]
    again = replace(order, out=tmp_path / "again", calibration=Wish(str(order.out / "calibration")))
    quantize_standalone(again)
    pd.testing.assert_frame_equal(pd.read_parquet(again.out / "calibration" / "documents.parquet"), documents)


def test_windows_of_a_file_are_recorded_with_its_digest(order, tmp_path):
    text = text_file(tmp_path)
    quantize_standalone(replace(order, calibration=Wish(str(text), sequences=6, seed=3)))
    made = recorded(order)
    drawn = {"kind": "windows", "sequences": 6, "sequence_length": 48, "seed": 3}
    assert made["recipe"]["method"]["calibration"] == drawn
    assert made["calibration"] == {
        "source": str(text),
        "text_sha256": file_digest(text),
        "sequences": 6,
        "sequence_length": 48,
        "tokens": 6 * 48,
        "sha256": file_digest(order.out / "calibration" / "tokens.safetensors"),
    }


def test_the_listed_files_are_those_that_were_made(order):
    quantize_standalone(order)
    files = recorded(order)["files"]
    assert files.keys() >= {"codes.safetensors", "layout.json", "ledger.parquet", "calibration/tokens.safetensors"}
    assert {name: file["sha256"] for name, file in files.items()} == {
        name: file_digest(order.out / name) for name in files
    }


def test_a_method_without_calibration_needs_no_tokenizer(order, checkpoint):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (checkpoint / name).unlink()
    outcome = quantize_standalone(by_weights_alone(order))
    assert outcome.calibration is None
    assert recorded(order)["calibration"] is None


def test_sizes_are_of_the_whole_model(order, checkpoint):
    outcome = quantize_standalone(order)
    assert outcome.bytes_before == (checkpoint / "model.safetensors").stat().st_size
    quantized = sum(layer.codes.numel() for layer in read_quantized(order.out).layers.values())
    assert outcome.bytes_after == outcome.bytes_before - 4 * quantized + outcome.summary["bytes"]


@pytest.mark.parametrize("named", ["float32", None])
def test_sizes_are_of_the_dtype_in_the_files_whatever_the_config_says(order, checkpoint, named):
    load_model(checkpoint, dtype=torch.float16).save_pretrained(checkpoint)
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"dtype": named}))
    outcome = quantize_standalone(by_weights_alone(order))
    quantized = sum(layer.codes.numel() for layer in read_quantized(order.out).layers.values())
    assert outcome.bytes_after == outcome.bytes_before - 2 * quantized + outcome.summary["bytes"]


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_the_head_is_quantized_if_asked_and_its_size_is_told(order, checkpoint, tied):
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=320, **sizes, tie_word_embeddings=tied)).save_pretrained(checkpoint)
    export = "compressed-tensors"
    outcome = quantize_standalone(by_weights_alone(order, head=True, save_model=True, export=export))
    made = recorded(order)
    assert (made["recipe"]["head"], made["summary"]["modules"]) == (True, 8)
    assert made["summary"].get("untied", False) is tied
    replaced = sum(layer.codes.numel() for name, layer in read_quantized(order.out).layers.items())
    replaced -= 320 * 32 if tied else 0  # the embedding has them still
    assert outcome.bytes_after == outcome.bytes_before - 4 * replaced + outcome.summary["bytes"]
    for folder in ("model", export):
        assert json.loads((order.out / folder / "config.json").read_text())["tie_word_embeddings"] is False


def test_a_recipe_may_ask_for_the_head_itself(order, tmp_path):
    (tmp_path / "own.yaml").write_text("{preset: rtn-w4-g32, head: true}")
    outcome = quantize_standalone(by_weights_alone(order, recipe=str(tmp_path / "own.yaml")))
    assert list(outcome.results)[-1] == "lm_head"


def test_a_recipe_may_ask_for_the_dequantized_model_itself(order, tmp_path):
    (tmp_path / "own.yaml").write_text("{preset: rtn-w4-g32, save_model: true}")
    quantize_standalone(by_weights_alone(order, recipe=str(tmp_path / "own.yaml")))
    assert len(load_model(order.out / "model").gpt_neox.layers) == 2


def test_sequences_are_as_long_as_the_model_reads_whatever_its_config_calls_that(order, checkpoint):
    config = MptConfig(vocab_size=300, d_model=32, n_layers=1, n_heads=2, expansion_ratio=2, max_seq_len=24)
    MptForCausalLM(config).save_pretrained(checkpoint)
    outcome = quantize_standalone(replace(order, calibration=Wish(sequences=12), save_model=True))
    assert outcome.calibration is not None
    assert outcome.calibration.tokens.tokens.shape == (12, 24)


def test_the_saved_and_the_exported_model_lie_beside_the_codes(order, checkpoint):
    outcome = quantize_standalone(replace(order, save_model=True, export="gptq"))
    expected = load_model(checkpoint)
    apply_quantized(expected, order.out)
    tokens = torch.arange(30)[None]
    with torch.inference_mode():
        assert torch.equal(load_model(order.out / "model")(tokens).logits, expected(tokens).logits)
    assert outcome.exported is not None
    assert outcome.exported.modules == 8
    assert json.loads((order.out / "gptq" / "coolbits.json").read_text())["recipe"]["method"]["kind"] == "gptq"


def test_what_was_written_can_be_exported_later(order, tmp_path):
    quantize_standalone(order)
    assert export_model(order.out, "gptq", tmp_path / "exported").modules == 8


def test_an_export_of_another_models_codes_is_refused(order, checkpoint, tmp_path):
    quantize_standalone(order)
    (checkpoint / "model.safetensors").write_bytes(b"")
    with pytest.raises(CoolbitsError, match="other weights than those that"):
        export_model(order.out, "gptq", tmp_path / "exported")


def test_a_recipe_is_a_preset_or_a_file(tmp_path):
    assert read_recipe("rtn-w3-g64") == Quantized(method=RTN(grid=Grid(bits=3, group_size=64)))
    (tmp_path / "own.yaml").write_text("method: {kind: rtn, grid: {bits: 5}}")
    assert read_recipe(str(tmp_path / "own.yaml")) == Quantized(method=RTN(grid=Grid(bits=5)))
    (tmp_path / "own.json").write_text('{"method": {"kind": "rtn", "grid": {"bits": 6}}}')
    assert read_recipe(str(tmp_path / "own.json")).method.bits == 6


def test_a_model_of_the_hub_is_downloaded_with_its_tokenizer(order, checkpoint, monkeypatch):
    asked = []

    def download(*arguments, **keywords):
        asked.append((arguments, keywords))
        return checkpoint

    monkeypatch.setattr(standalone_order, "download_model", download)
    quantize_standalone(replace(order, model="own/er", revision="v1"))
    assert asked == [(("own/er", "v1"), {"tokenizer": True, "code": False})]
    assert recorded(order)["model"]["revision"] == "v1"


COMMIT = "0123456789" * 4


@pytest.mark.parametrize(("folder", "commit"), [(COMMIT, COMMIT), ("copy", None)], ids=["known", "unknown"])
def test_the_commit_of_a_model_of_the_hub_is_recorded_and_exported(order, checkpoint, monkeypatch, folder, commit):
    """It is known where the cache names the snapshot by it."""
    snapshot = checkpoint.rename(checkpoint.with_name(folder))
    monkeypatch.setattr(standalone_order, "download_model", lambda *_, **__: snapshot)
    quantize_standalone(replace(order, model="own/er", revision="v1", export="gptq"))
    origin = json.loads((order.out / "gptq" / "coolbits.json").read_text())["model"]
    for found in (recorded(order)["model"], origin):
        assert (found["revision"], found["commit"]) == ("v1", commit)


def test_a_directory_has_neither_revision_nor_commit_whatever_its_name(order, checkpoint):
    quantize_standalone(replace(order, model=str(checkpoint.rename(checkpoint.with_name(COMMIT)))))
    made = recorded(order)["model"]
    assert (made["revision"], made["commit"]) == (None, None)


REFUSED = {
    "no such preset": ({"recipe": "gptq-w4"}, "no such preset"),
    "no recipe file": ({"recipe": "none.yaml"}, "--recipe none.yaml: no such file"),
    "no model": ({"model": "none"}, "--model none: no such folder, and no hub id"),
    "an empty model": ({"model": ""}, "--model : no such folder, and no hub id"),
    "a revision of a folder": ({"revision": "v1"}, "--revision v1: --model .* is a folder here, which has no revision"),
    "groups": ({"recipe": "gptq-w3-g48"}, "48 does not divide the 32 inputs"),
    "too little calibration": ({"calibration": Wish(sequences=1)}, "48 in all, are not more than the 64 inputs"),
    "too long": ({"calibration": Wish(sequence_length=49)}, "49 tokens, but the model has 48 positions"),
    "too long to be drawn": ({"calibration": Wish("random", sequence_length=10**12)}, "but the model has 48 positions"),
    "more than any machine holds": (
        {"calibration": Wish("random", sequences=10**12)},
        "--sequences: 1000000000000 sequences take 384 TB of memory or more, and this machine has .*B; take fewer",
    ),
    "no calibration file": ({"calibration": Wish("none.txt")}, "--calibration none.txt: no such file"),
    "export": ({"export": "compressed-tensors"}, "not neighbouring inputs .*; gptq can"),
    "export of what rounds as it runs": (
        {"recipe": "bnb-int8", "calibration": Wish(), "export": "gptq"},
        "it rounds activations, too; no format can$",
    ),
    "device": ({"device": "cuda"}, "no CUDA device"),
    "head": ({"recipe": "awq-w4-g32", "head": True}, "--recipe awq-w4-g32: head: awq takes its scales from"),
    "head's size": (
        {"recipe": "rtn-w4-g32", "calibration": Wish(), "head": True, "export": "gptq"},
        "lm_head is 300 x 32, not multiples of 8; compressed-tensors can",
    ),
    "a calibration unheeded": (
        {"recipe": "rtn-w4-g32"},
        "--sequences: rtn looks at weights alone and takes no calibration",
    ),
    "saved int8": ({"recipe": "bnb-int8", "save_model": True}, "--recipe bnb-int8: save_model: a plain model cannot"),
}


@pytest.mark.parametrize(("changes", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_work_is_refused_and_leaves_nothing(changes, reason, order, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CoolbitsError, match=reason):
        quantize_standalone(replace(order, **changes))
    assert [path.name for path in order.out.parent.iterdir()] == ["checkpoint"]


def test_a_file_is_no_model(order, checkpoint):
    given = str(checkpoint / "model.safetensors")
    with pytest.raises(CoolbitsError, match=f"^--model {given}: a file; name the folder with config.json and"):
        quantize_standalone(replace(order, model=given))


def test_a_place_that_takes_no_folder_is_refused_before_the_work(order, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to("none")
    monkeypatch.setattr(standalone, "quantize_model", lambda *_, **__: pytest.fail("the work has begun"))
    with pytest.raises(CoolbitsError, match="nothing may be written there"):
        quantize_standalone(replace(order, out=tmp_path / "link" / "out"))


def test_a_mixture_whose_experts_lie_in_one_tensor_is_refused(order, checkpoint):
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = MixtralConfig(vocab_size=300, num_local_experts=4, num_key_value_heads=1, **sizes)
    MixtralForCausalLM(config).save_pretrained(checkpoint)
    reason = (
        rf"--model {checkpoint}: model\.layers\.0\.mlp\.experts\.gate_up_proj, 4 x 128 x 32, "
        "lies in no linear layer .*; allowed are models whose decoder blocks hold all their matrices in linear layers"
    )
    with pytest.raises(CoolbitsError, match=reason):
        quantize_standalone(order)
    assert not order.out.exists()


def test_a_model_without_one_list_of_blocks_is_refused(order, checkpoint):
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertLMHeadModel(BertConfig(vocab_size=300, is_decoder=True, **sizes)).save_pretrained(checkpoint)
    with pytest.raises(CoolbitsError, match=r"BertLMHeadModel\.bert holds 0 lists of modules; allowed are models"):
        quantize_standalone(order)


def test_an_opt_is_quantized_and_its_saved_model_opens(order, checkpoint):
    sizes = {"hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 64, "num_hidden_layers": 2}
    OPTForCausalLM(OPTConfig(vocab_size=300, num_attention_heads=2, **sizes)).save_pretrained(checkpoint)
    outcome = quantize_standalone(replace(order, save_model=True))
    assert (outcome.summary["modules"], outcome.summary["fallbacks"]) == (12, 0)


def test_a_recipe_file_says_what_is_wrong_in_it(tmp_path):
    (tmp_path / "own.yaml").write_text("method: {kind: rtn, grid: {bits: 33}}")
    with pytest.raises(CoolbitsError, match=r"own\.yaml: method\.grid\.bits: .* found 33"):
        read_recipe(str(tmp_path / "own.yaml"))


def test_what_stands_at_out_is_left_alone(order):
    order.out.mkdir()
    with pytest.raises(CoolbitsError, match="exists already"):
        quantize_standalone(order)
    assert list(order.out.iterdir()) == []


def test_what_appears_at_out_during_the_work_is_left_alone_and_the_result_is_kept(order, monkeypatch):
    def quantize(*arguments, **keywords):
        order.out.mkdir()
        (order.out / "precious").write_text("x")
        return quantize_model(*arguments, **keywords)

    monkeypatch.setattr(standalone, "quantize_model", quantize)
    with pytest.raises(CoolbitsError, match=r"out: something else was put there meanwhile, .* lies in \S+$") as refusal:
        quantize_standalone(order)
    assert [path.name for path in order.out.iterdir()] == ["precious"]
    kept = Path(str(refusal.value).rpartition(" ")[2])
    assert recorded(replace(order, out=kept))["summary"]["modules"] == 8
    assert len(read_quantized(kept).layers) == 8


def falcon() -> FalconForCausalLM:
    sizes = {"hidden_size": 32, "ffn_hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    return FalconForCausalLM(FalconConfig(vocab_size=300, **sizes))


def gpt2() -> GPT2LMHeadModel:
    return GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=32, n_layer=1, n_head=2, n_positions=48))


@pytest.mark.parametrize("form", ["compressed-tensors", "gptq"])
@pytest.mark.parametrize(("build", "kind"), [(falcon, "FalconLinear"), (gpt2, "Conv1D")])
def test_modules_that_no_reader_puts_codes_into_are_refused_before_the_work(
    build, kind, form, order, checkpoint, monkeypatch
):
    build().save_pretrained(checkpoint)
    plain = by_weights_alone(order)
    monkeypatch.setattr(standalone, "quantize_model", lambda *_, **__: pytest.fail("the work has begun"))
    with pytest.raises(CoolbitsError, match=rf"--model .*: the format {form} cannot .* is {kind}, .*--save-model"):
        quantize_standalone(replace(plain, export=form))
    with pytest.raises(CoolbitsError, match=r"no format can$"):
        quantize_standalone(replace(plain, recipe="rtn-w8a8", export=form))
    monkeypatch.undo()
    quantize_standalone(plain)
    with pytest.raises(CoolbitsError, match=rf"out: the format {form} cannot hold this model: .* is {kind}, "):
        export_model(order.out, form, order.out / "exported")
    assert not (order.out / "exported").exists()


def test_an_architecture_without_sdpa_is_quantized(order, checkpoint):
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    Gemma2ForCausalLM(Gemma2Config(vocab_size=300, num_key_value_heads=2, head_dim=16, **sizes)).save_pretrained(
        checkpoint
    )
    outcome = quantize_standalone(replace(order, save_model=True, export="gptq"))
    assert (outcome.summary["modules"], outcome.summary["fallbacks"]) == (14, 0)


def test_an_unreachable_hub_is_told_from_a_missing_folder(order, monkeypatch):
    def unreachable(*_arguments, **_keywords):
        raise CoolbitsError("model own/er: the Hugging Face hub cannot be reached")

    monkeypatch.setattr(standalone_order, "download_model", unreachable)
    with pytest.raises(CoolbitsError, match=r"--model own/er: no such folder; as a hub id, .* cannot be reached"):
        quantize_standalone(replace(order, model="own/er"))


def test_what_is_quantized_already_is_refused(order, checkpoint):
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "gptq"}}))
    with pytest.raises(CoolbitsError, match="quantized already"):
        quantize_standalone(order)
    (checkpoint / "config.json").write_text(json.dumps(config | {"quantization_config": None}))
    assert quantize_standalone(by_weights_alone(order)).summary["modules"] == 8


CODE = """
from transformers import LlamaConfig, LlamaForCausalLM


class OwnConfig(LlamaConfig):
    model_type = "own"


class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture(params=["own", "llama"], ids=["the library has not", "the library has, too"])
def with_code(request, checkpoint, tmp_path, monkeypatch):
    """A Llama in `checkpoint` that brings code for a type of model; return the type."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=300, **sizes)).save_pretrained(checkpoint)
    config = json.loads((checkpoint / "config.json").read_text())
    classes = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"}
    own = {"model_type": request.param, "auto_map": classes}
    (checkpoint / "config.json").write_text(json.dumps(config | own))
    (checkpoint / "own.py").write_text(CODE.replace('"own"', f'"{request.param}"'))
    return request.param


def test_a_models_own_code_runs_only_if_trusted(order, with_code):
    plain = by_weights_alone(order)
    if with_code == "own":
        with pytest.raises(CoolbitsError, match="--trust-remote-code"):
            quantize_standalone(plain)
    else:
        quantize_standalone(replace(plain, out=order.out / "untrusted"))
        assert recorded(replace(plain, out=order.out / "untrusted"))["model"]["own_code"] is False
    trusted = replace(plain, out=order.out / "trusted", trust_remote_code=True)
    assert quantize_standalone(trusted).summary["modules"] == 7
    assert recorded(trusted)["model"]["own_code"] is True


@pytest.mark.parametrize(
    ("option", "changes"), [("--save-model", {"save_model": True}), ("--export", {"export": "compressed-tensors"})]
)
def test_what_own_code_opens_is_neither_saved_nor_exported(order, with_code, option, changes, monkeypatch):
    trusted = by_weights_alone(order, trust_remote_code=True)
    monkeypatch.setattr(standalone, "quantize_model", lambda *_, **__: pytest.fail("the work has begun"))
    with pytest.raises(CoolbitsError, match=rf"^{option}: .*checkpoint is opened by Python code of its own"):
        quantize_standalone(replace(trusted, **changes))
    assert not order.out.exists()


def test_what_own_code_opened_is_not_exported_later(order, with_code, tmp_path):
    quantize_standalone(by_weights_alone(order, trust_remote_code=True))
    with pytest.raises(CoolbitsError, match=r"out: quantized with --trust-remote-code, by code of the model's own"):
        export_model(order.out, "compressed-tensors", tmp_path / "exported")


@pytest.mark.parametrize("with_code", ["llama"], indirect=True)
def test_what_the_library_opens_is_saved_and_exported_without_a_word_of_code(order, with_code, tmp_path):
    """Else a reader who trusts code would look for it in vain."""
    assert with_code == "llama"
    quantize_standalone(by_weights_alone(order, save_model=True, export="compressed-tensors"))
    export_model(order.out, "compressed-tensors", tmp_path / "later")
    for written in (order.out / "model", order.out / "compressed-tensors", tmp_path / "later"):
        assert "auto_map" not in json.loads((written / "config.json").read_text())
        config = AutoConfig.from_pretrained(written, trust_remote_code=True)
        assert type(config) is LlamaConfig
    AutoModelForCausalLM.from_pretrained(order.out / "model", trust_remote_code=True)


@pytest.mark.parametrize(
    ("content", "changes", "reason"),
    [
        ("{", {"save_model": True}, "cannot be read"),
        ("3", {"export": "compressed-tensors"}, "holds a number; keys and values are expected"),
    ],
    ids=["saved", "exported"],
)
def test_a_tokenizer_that_cannot_come_along_is_refused_before_the_work(
    order, checkpoint, monkeypatch, content, changes, reason
):
    (checkpoint / "tokenizer_config.json").write_text(content)
    quantize_standalone(by_weights_alone(order))  # which needs no tokenizer
    monkeypatch.setattr(standalone, "quantize_model", lambda *_, **__: pytest.fail("the work has begun"))
    with pytest.raises(CoolbitsError, match=f"checkpoint/tokenizer_config.json: {reason}"):
        quantize_standalone(by_weights_alone(order, out=order.out / "again", **changes))


def test_a_model_in_a_folder_whose_name_no_record_could_hold_is_refused(order, checkpoint, monkeypatch):
    folder = checkpoint.parent / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    monkeypatch.chdir(folder)
    checkpoint.rename(folder / "checkpoint")
    with pytest.raises(CoolbitsError, match=r"^--model checkpoint: lies in .*, which is not valid UTF-8"):
        quantize_standalone(by_weights_alone(order, model="checkpoint"))
