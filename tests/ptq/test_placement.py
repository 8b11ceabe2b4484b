"""Blocks are moved and widened for their turn, and get the very tensors back that they had."""

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedModel, Qwen3Config

from coolbits.models.blocks import decoder_blocks, decoder_linears
from coolbits.models.files import load_model
from coolbits.models.layers import PackedLayer
from coolbits.ptq.checkpoint import Quantization, Request, quantize_checkpoint, quantize_model
from coolbits.ptq.placement import placed, placed_in_turn
from coolbits.ptq.tokens import Tokens, write_tokens
from coolbits.study.recipes.methods import AWQ, GPTQ, RTN, Grid, Method
from coolbits.study.recipes.ptq import Quantized

META, CPU = torch.device("meta"), torch.device("cpu")
GRID = Grid(bits=3, group_size=16)
METHODS = {
    "rtn": RTN(grid=GRID),
    "layer": GPTQ(grid=GRID),
    "block": GPTQ(grid=GRID, sequential="block"),
    "none": GPTQ(grid=GRID, sequential="none"),
    "awq": AWQ(grid=GRID, steps=3, clip_steps=3),
}
SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 48,
    "pad_token_id": None,
}
CONFIGS = {
    "llama": LlamaConfig(**SIZES, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SIZES, head_dim=16),
    "gpt2": GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=2),
}


class Mixed(nn.Module):
    """Tensors of several dtypes, one of them in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3, dtype=torch.bfloat16)
        self.second = nn.Linear(3, 3, bias=False)
        self.third = nn.Linear(3, 3, bias=False)
        self.third.weight = self.second.weight
        self.register_buffer("count", torch.tensor(3))


def tensors_of(module: nn.Module) -> dict[str, int]:
    named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return {name: id(tensor) for name, tensor in named}


def test_real_numbers_are_float32_meanwhile_and_the_very_tensors_come_back() -> None:
    model = Mixed()
    before, values = tensors_of(model), model.first.weight.clone()
    with torch.inference_mode(), placed(model.modules(), CPU):
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        assert torch.equal(model.first.weight, values.float())
        assert isinstance(model.first.weight, nn.Parameter)
        assert id(model.second.weight) == before["second.weight"]  # in place already
        model.first.weight.zero_()
    assert tensors_of(model) == before
    assert torch.equal(model.first.weight, values)
    assert not model.first.weight.is_inference() and model.first.weight.requires_grad


def test_everything_moves_and_comes_back_after_an_error() -> None:
    model = Mixed()
    before = tensors_of(model)
    with pytest.raises(KeyError), placed(model.modules(), META):
        assert {tensor.device for tensor in [*model.parameters(), *model.buffers()]} == {META}
        assert model.count.dtype == torch.int64
        raise KeyError
    assert tensors_of(model) == before


def test_blocks_are_placed_while_they_run() -> None:
    model = nn.Sequential(*(nn.Linear(2, 2, dtype=torch.bfloat16) for _ in range(3)))
    seen = []
    handles = [
        block.register_forward_hook(lambda *_: seen.append([each.weight.dtype for each in model])) for block in model
    ]
    with placed_in_turn(model, CPU):
        model(torch.ones(1, 2))
    narrow, wide = torch.bfloat16, torch.float32
    assert seen == [[wide, narrow, narrow], [narrow, wide, narrow], [narrow, narrow, wide]]
    for handle in handles:
        handle.remove()
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in model)


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    tokens = torch.randint(0, 96, (16, 32), generator=torch.Generator().manual_seed(0))
    write_tokens(Tokens.of_equal_length(tokens), tmp_path)
    return tmp_path


def random_model(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIGS[name]).to(torch.bfloat16).eval()


def quantized(model: PreTrainedModel, method: Method, calibration: Path) -> Quantization:
    (made,) = quantize_model([Request(Quantized(method=method), calibration)], model)
    return made


def assert_same(one: Quantization, other: Quantization) -> None:
    assert list(one.results) == list(other.results)
    for name, result in one.results.items():
        assert result.entry == other.results[name].entry
        assert torch.equal(result.layer.weight(), other.results[name].layer.weight())
    assert one.replaced.keys() == other.replaced.keys()
    assert all(torch.equal(tensor, other.replaced[name]) for name, tensor in one.replaced.items())


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_in_bfloat16_is_quantized_as_its_copy_in_float32(name: str, method: Method, calibration: Path) -> None:
    model = random_model(name)
    before, values = tensors_of(model), {key: tensor.clone() for key, tensor in model.state_dict().items()}
    narrow = quantized(model, method, calibration)
    assert tensors_of(model) == before
    assert all(torch.equal(tensor, values[key]) for key, tensor in model.state_dict().items())
    assert_same(narrow, quantized(random_model(name).float(), method, calibration))


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_no_two_blocks_are_placed_at_once(method: Method, calibration: Path) -> None:
    model = random_model("llama")
    blocks = [block for _, block in decoder_blocks(model)]
    wide = []

    def note(module: nn.Module, *_: object) -> None:
        # While the arguments of blocks are watched, none of them computes, and none need be placed.
        if "forward" not in vars(module):
            wide.append([each is module for each in blocks if next(each.parameters()).itemsize == 4])

    for block in blocks:
        block.register_forward_hook(note)
    quantized(model, method, calibration)
    assert all(own == [True] for own in wide)
    assert bool(wide) == (method != METHODS["rtn"])


def test_a_checkpoint_is_read_in_the_dtype_of_its_files(calibration: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random_model("llama").save_pretrained(calibration / "model")
    seen = []

    def watching(requests: list[Request], model: PreTrainedModel, name: str, device: torch.device) -> list:
        seen.append(({parameter.dtype for parameter in model.parameters()}, device))
        return quantize_model(requests, model, name, device)

    monkeypatch.setattr("coolbits.ptq.checkpoint.quantize_model", watching)
    request = Request(Quantized(method=METHODS["layer"]), calibration)
    (made,) = quantize_checkpoint([request], calibration / "model")
    assert seen == [({torch.bfloat16}, CPU)]
    assert_same(made, quantized(load_model(calibration / "model", dtype=torch.float32), METHODS["layer"], calibration))


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_finished_layers_wait_packed(method: Method, calibration: Path) -> None:
    model = random_model("llama")
    weights = sum(module.weight.numel() for module in decoder_linears(model).values())
    held = [result.held for result in quantized(model, method, calibration).results.values()]
    assert all(isinstance(layer, PackedLayer) for layer in held)
    assert sum(layer.parts["codes"].nbytes for layer in held) == weights * 3 // 8
