import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.manifest import describe_files
from coolbits.models.files import load_model
from coolbits.models.quantized import QuantizedModel, apply_quantized, read_quantized, write_quantized
from coolbits.ptq.checkpoint import build_quantized
from coolbits.ptq.export import model as exporting
from coolbits.ptq.export.model import FORMATS, export_model, write_export
from coolbits.ptq.export.source import Source
from coolbits.ptq.export.verify import verify
from coolbits.ptq.tokens import Tokens, write_tokens
from coolbits.study.recipes.methods import AWQ, Grid
from coolbits.study.recipes.ptq import Quantized

GRID = Grid(bits=3, group_size=32)


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("architecture", ["neox", "llama", "nemotron"])  # files name its body otherwise than the model
def test_every_weight_is_read_back_before_the_directory_appears(form, architecture, models, quantized, tmp_path):
    model = models(architecture)
    made = write_export(Source(quantized(model, GRID), model, {"recipe": "r"}), form, tmp_path / "out")
    assert made.modules == len(read_quantized(tmp_path / "codes").layers)
    assert made.bytes == sum(path.stat().st_size for path in (tmp_path / "out").glob("*.safetensors"))
    assert json.loads((tmp_path / "out" / "coolbits.json").read_text()) == {
        "format": form.name,
        "dtype": "float32",
        "exact": True,
        "recipe": "r",
    }


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_config_and_tokenizer_come_with_it(form, models, quantized, tmp_path):
    model = models("llama")
    write_export(Source(quantized(model, GRID), model, {}), form, tmp_path / "out")
    config = AutoConfig.from_pretrained(tmp_path / "out")
    assert config.hidden_size == 64
    assert config.quantization_config["quant_method"] == form.name
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "{}"


def test_all_that_is_not_quantized_is_the_models_own(models, quantized, tmp_path):
    model = models("llama")
    write_export(Source(quantized(model, GRID), model, {}), FORMATS["gptq"], tmp_path / "out")
    ours, stored = load_file(model / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    shared = ours.keys() & stored.keys()
    assert {key for key in shared if "norm" in key or "embed" in key} == shared
    assert all(torch.equal(ours[key], stored[key]) for key in shared)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_replaced_parameters_take_the_place_of_the_models(dtype, models, quantized, tmp_path):
    model = models("llama")
    codes = quantized(model, GRID)
    norm = "model.layers.0.input_layernorm.weight"
    moved = torch.full_like(load_file(model / "model.safetensors")[norm], 0.5)
    write_quantized(QuantizedModel(read_quantized(codes).layers, {norm: moved}), codes)
    write_export(Source(codes, model, {}), FORMATS["compressed-tensors"], tmp_path / "out", dtype)
    assert torch.equal(load_file(tmp_path / "out" / "model.safetensors")[norm].float(), moved)


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("architecture", ["neox", "llama"])
def test_what_awq_scaled_gives_our_logits_when_put_together_again(form, architecture, models, tmp_path):
    """Norms and biases that were divided must come along with the weights that were multiplied."""
    model, codes, calibration = models(architecture), tmp_path / "codes", tmp_path / "calibration"
    for folder in (codes, calibration):
        folder.mkdir()
    tokens = torch.randint(0, 96, (16, 32), generator=torch.Generator().manual_seed(0))
    write_tokens(Tokens.of_equal_length(tokens), calibration)
    recipe = Quantized(method=AWQ(grid=Grid(bits=4, group_size=32, symmetric=False)))
    build_quantized(recipe, model, calibration, codes)
    write_export(Source(codes, model, {}), form, tmp_path / "out")

    stored, config = load_file(tmp_path / "out" / "model.safetensors"), AutoConfig.from_pretrained(tmp_path / "out")
    quantized = read_quantized(codes)
    assert any("norm" in name for name in quantized.replaced)
    ours, again = load_model(model), load_model(model)
    apply_quantized(ours, codes)
    with torch.inference_mode():
        for name, parameter in again.named_parameters():
            if name.removesuffix(".weight") in quantized.layers:
                parameter.copy_(form.weight(parts_of(name.removesuffix("weight"), stored), config.quantization_config))
            elif name in stored:
                parameter.copy_(stored[name])
        assert torch.equal(again(input_ids=tokens).logits, ours(input_ids=tokens).logits)


def parts_of(owner, stored):
    """Return the tensors that stand for the weight of a layer, without its name."""
    own = {key.removeprefix(owner): tensor for key, tensor in stored.items() if key.startswith(owner)}
    return {part: tensor for part, tensor in own.items() if part != "bias"}


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize(("architecture", "stored_name"), [("neox", "embed_out"), ("llama", "lm_head")])
def test_a_quantized_head_comes_along_and_a_tied_one_is_untied(
    form, architecture, stored_name, models, quantized, tmp_path
):
    model = models(architecture)
    codes = quantized(model, GRID, head=True)
    write_export(Source(codes, model, {}), form, tmp_path / "out")
    config = AutoConfig.from_pretrained(tmp_path / "out")
    assert config.tie_word_embeddings is False
    assert config.quantization_config.get("lm_head", True) is True
    assert config.quantization_config.get("ignore", []) == []
    stored, own = load_file(tmp_path / "out" / "model.safetensors"), load_file(model / "model.safetensors")
    parts = parts_of(f"{stored_name}.", stored)
    expected = read_quantized(codes).layers["lm_head"].weight()
    assert torch.equal(form.weight(parts, config.quantization_config), expected)
    assert all(torch.equal(own[key], stored[key]) for key in own if "embed_tokens" in key or "embed_in" in key)


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_a_head_that_is_not_quantized_is_named_as_such_and_stays_tied(form, models, quantized, tmp_path):
    model = models("llama")
    write_export(Source(quantized(model, GRID), model, {}), form, tmp_path / "out")
    config = AutoConfig.from_pretrained(tmp_path / "out")
    assert config.tie_word_embeddings is True
    assert config.quantization_config.get("lm_head", False) is False
    assert config.quantization_config.get("ignore", ["lm_head"]) == ["lm_head"]


def test_half_precision_rounds_scales_and_says_so(models, quantized, tmp_path):
    model = models("neox")
    codes = quantized(model, GRID)
    write_export(Source(codes, model, {}), FORMATS["gptq"], tmp_path / "out", dtype="bfloat16")
    stored = load_file(tmp_path / "out" / "model.safetensors")
    name, layer = next(iter(read_quantized(codes).layers.items()))
    assert torch.equal(stored[f"{name}.scales"], layer.scales.T.to(torch.bfloat16))
    assert stored["gpt_neox.embed_in.weight"].dtype == torch.bfloat16
    assert json.loads((tmp_path / "out" / "coolbits.json").read_text())["exact"] is False


@pytest.mark.parametrize("factor", [1e-9, 1e-6, 1e9], ids=["zero", "few digits", "infinity"])
def test_scales_that_half_precision_cannot_hold_are_refused(factor, models, quantized, tmp_path):
    model = models("neox")
    codes = quantized(model, GRID)
    layers = read_quantized(codes).layers
    name, layer = next(iter(layers.items()))
    write_quantized(QuantizedModel(layers | {name: replace(layer, scales=layer.scales * factor)}), codes)
    for dtype in ("float32", "bfloat16"):
        write_export(Source(codes, model, {}), FORMATS["gptq"], tmp_path / dtype, dtype)
    with pytest.raises(CoolbitsError, match=f"--dtype float16: it cannot hold .*, a scale of {name}; allowed are"):
        write_export(Source(codes, model, {}), FORMATS["gptq"], tmp_path / "out", "float16")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("architecture", ["neox", "llama"])
def test_what_is_not_quantized_is_written_in_its_own_dtype_and_read_in_float32(
    form, architecture, models, quantized, tmp_path
):
    model = models(architecture)
    load_model(model, dtype=torch.bfloat16).save_pretrained(model)
    codes = quantized(model, GRID)
    ours = load_file(model / "model.safetensors")
    norm = next(key for key in ours if "norm" in key)
    moved = torch.full_like(ours[norm], 0.1, dtype=torch.float32)  # bfloat16 has no such number
    write_quantized(QuantizedModel(read_quantized(codes).layers, {norm: moved}), codes)
    made = write_export(Source(codes, model, {}), form, tmp_path / "out")
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(ours[key], stored[key]) for key in ours.keys() & stored.keys() - {norm})
    assert {stored[key].dtype for key in ours.keys() & stored.keys() - {norm}} == {torch.bfloat16}
    assert torch.equal(stored[norm], moved)
    assert AutoConfig.from_pretrained(tmp_path / "out").dtype == torch.float32
    assert json.loads((tmp_path / "out" / "coolbits.json").read_text())["exact"] is True
    assert made.bytes < (model / "model.safetensors").stat().st_size


def test_a_tensor_that_reads_back_wrong_stops_the_export(models, quantized, tmp_path, monkeypatch):
    model = models("neox")
    form = FORMATS["gptq"]
    broken = replace(form, tensors=lambda layer, config: form.tensors(layer, config) | {"scales": 2 * layer.scales.T})
    with pytest.raises(RuntimeError, match="reads back as other weights"):
        write_export(Source(quantized(model, GRID), model, {}), broken, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_head_that_reads_back_wrong_under_its_older_name_stops_the_export(models, quantized, tmp_path):
    model, form = models("neox"), FORMATS["gptq"]

    def broken(layer, config):
        parts = form.tensors(layer, config)
        return parts | ({"scales": 2 * layer.scales.T} if layer.shape == (96, 64) else {})

    codes = quantized(model, GRID, head=True)
    with pytest.raises(RuntimeError, match="lm_head reads back as other weights"):
        write_export(Source(codes, model, {}), replace(form, tensors=broken), tmp_path / "out")


@pytest.mark.parametrize(("architecture", "lost"), [("neox", "final_layer_norm"), ("nemotron", "norm_f")])
def test_a_library_that_loses_a_tensor_is_noticed(architecture, lost, models, quantized, tmp_path, monkeypatch):
    model = models(architecture)

    def save_less(loaded, tokenizer, out, tensors):
        kept = {
            key.replace("model.", "backbone."): tensor.contiguous()
            for key, tensor in tensors.items()
            if lost not in key
        }
        save_file(kept, out / "model.safetensors")

    monkeypatch.setattr(exporting, "save_model", save_less)
    with pytest.raises(RuntimeError, match=rf"{lost}\.\w+ reads back as another tensor, or not at all"):
        write_export(Source(quantized(model, GRID), model, {}), FORMATS["gptq"], tmp_path / "out")


def test_a_lost_tensor_is_noticed_where_another_has_its_numbers(models, quantized, tmp_path, monkeypatch):
    """All norms of a model are ones before it is trained."""
    model, lost = models("llama"), "model.layers.1.input_layernorm.weight"
    stored = load_file(model / "model.safetensors")
    save_file(
        {key: torch.ones_like(tensor) if "norm" in key else tensor for key, tensor in stored.items()},
        model / "model.safetensors",
        {"format": "pt"},
    )

    def save_less(loaded, tokenizer, out, tensors):
        kept = {key: tensor.clone() for key, tensor in tensors.items() if key != lost}
        save_file(kept, out / "model.safetensors")

    monkeypatch.setattr(exporting, "save_model", save_less)
    with pytest.raises(RuntimeError, match=f"{lost} reads back as another tensor, or not at all"):
        write_export(Source(quantized(model, GRID), model, {}), FORMATS["gptq"], tmp_path / "out")


def test_a_refusal_names_the_formats_that_can(models, quantized, tmp_path):
    model = models("neox")
    codes = quantized(model, GRID, activation_order=True)
    with pytest.raises(CoolbitsError, match=r"not neighbouring inputs .*; gptq can"):
        write_export(Source(codes, model, {}), FORMATS["compressed-tensors"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_stands_at_out_is_left_alone(tmp_path):
    with pytest.raises(CoolbitsError, match="exists already"):
        export_model(tmp_path, "gptq", tmp_path)


def test_what_appears_at_out_meanwhile_is_left_alone(models, quantized, tmp_path, monkeypatch):
    model, out = models("neox"), tmp_path / "out"
    codes = quantized(model, GRID)

    def check(*arguments):
        verify(*arguments)
        out.mkdir()

    monkeypatch.setattr(exporting, "verify", check)
    with pytest.raises(CoolbitsError, match="out: something else was put there meanwhile"):
        write_export(Source(codes, model, {}), FORMATS["gptq"], out)
    assert list(out.iterdir()) == []


def test_a_folder_that_is_no_artifact_is_refused(tmp_path):
    with pytest.raises(CoolbitsError, match="no such folder"):
        export_model(tmp_path / "none", "gptq", tmp_path / "out")
    with pytest.raises(CoolbitsError, match=r"a folder without manifest\.json, so no artifact"):
        export_model(tmp_path, "gptq", tmp_path / "out")


def test_the_models_own_directory_stays_as_it_is(models, quantized, tmp_path):
    model = models("llama")
    before = describe_files(model)
    write_export(Source(quantized(model, GRID), model, {}), FORMATS["gptq"], tmp_path / "out")
    assert describe_files(model) == before


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(CoolbitsError, match="'awq': no such format; allowed are compressed-tensors, gptq"):
        export_model(tmp_path, "awq", tmp_path / "out")
