import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from coolbits.artifacts.errors import CoolbitsError
from coolbits.data.shards import TokenStream, open_stream
from coolbits.models.blocks import decoder_blocks, decoder_linears
from coolbits.ptq.calibration import calibration_tokens, check_calibration, gather_hessian, gather_hessians
from coolbits.ptq.tracing import Trace, trace_model
from coolbits.study.recipes.ptq import Calibration

TOKENS = torch.arange(6 * 16).reshape(6, 16) % 96


@pytest.fixture
def stream(shards) -> TokenStream:
    return open_stream(shards, "train")


@pytest.fixture
def trace(model: PreTrainedModel) -> Trace:
    return trace_model(model, decoder_blocks(model), decoder_linears(model), TOKENS)


def test_sequences_are_windows_of_the_training_split_drawn_once_each(stream: TokenStream) -> None:
    windows = torch.from_numpy(stream.read(0, 4096).astype("int64")).reshape(-1, 64)
    tokens = calibration_tokens(stream, Calibration(sequences=64, sequence_length=64, seed=3))
    assert tokens.dtype == torch.int64
    assert sorted(tokens.tolist()) == sorted(windows.tolist())


def test_the_seed_decides_the_sequences(stream: TokenStream) -> None:
    first, again, other = (
        calibration_tokens(stream, Calibration(sequences=8, sequence_length=64, seed=seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_more_sequences_than_there_are_are_refused(stream: TokenStream) -> None:
    with pytest.raises(CoolbitsError, match="65 sequences of 64 tokens are wanted, the training split has 64"):
        calibration_tokens(stream, Calibration(sequences=65, sequence_length=64))


def test_fewer_tokens_than_a_layer_has_inputs_are_refused() -> None:
    linears = {"up": nn.Linear(32, 128), "down": nn.Linear(128, 32)}
    check_calibration(Calibration(sequences=8, sequence_length=16), linears)
    with pytest.raises(CoolbitsError, match="fewer than the 128 inputs of down; take at least 8 sequences"):
        check_calibration(Calibration(sequences=7, sequence_length=16), linears)


def expected_hessian(model: PreTrainedModel, name: str) -> torch.Tensor:
    """Return 2 * mean(x x^T) from a plain forward pass of the whole model."""
    caught = []
    handle = model.get_submodule(name).register_forward_pre_hook(lambda _module, inputs: caught.append(inputs[0]))
    with torch.no_grad():
        model(TOKENS)
    handle.remove()
    vectors = caught[0].reshape(-1, caught[0].shape[-1]).double()
    return 2 * vectors.T @ vectors / len(vectors)


def test_hessians_are_those_of_a_plain_forward_pass(model: PreTrainedModel, trace: Trace) -> None:
    linears, inputs = decoder_linears(model), trace.inputs
    for block in trace.blocks:
        names = [group[0] for group in block.groups]
        alone = {name: gather_hessian(block, inputs, linears[name]) for name in names}
        hessians, inputs = gather_hessians(block, inputs, {name: linears[name] for name in names})
        for name in names:
            assert hessians[name].dtype == torch.float64
            torch.testing.assert_close(hessians[name], expected_hessian(model, name), rtol=1e-5, atol=1e-6)
            assert torch.equal(hessians[name], alone[name])


def test_hessians_inside_autocast_are_the_same_to_the_last_bit(model: PreTrainedModel, trace: Trace) -> None:
    linears = decoder_linears(model)
    plain = gather_hessians(trace.blocks[0], trace.inputs, linears)[0]
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = trace_model(model, decoder_blocks(model), linears, TOKENS)
        gathered = gather_hessians(under_autocast.blocks[0], under_autocast.inputs, linears)[0]
    assert all(torch.equal(plain[name], gathered[name]) for name in plain)


def test_the_outputs_of_a_block_are_the_inputs_of_the_next(model: PreTrainedModel, trace: Trace) -> None:
    inputs = trace.inputs
    for block in trace.blocks:
        inputs = gather_hessians(block, inputs, {})[1]
    with torch.no_grad():
        states = model(TOKENS, output_hidden_states=True).hidden_states
        final = model.gpt_neox.final_layer_norm(torch.cat(inputs))
    torch.testing.assert_close(final, states[-1])
