import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from coolbits.artifacts.errors import CoolbitsError
from coolbits.models.blocks import decoder_blocks, decoder_linears
from coolbits.ptq.calibration import check_calibration, gather_hessian, gather_hessians, run_quantizing
from coolbits.ptq.tokens import Tokens
from coolbits.ptq.tracing import Trace, trace_model

TOKENS = torch.arange(6 * 16).reshape(6, 16) % 96
CALIBRATION = Tokens.of_equal_length(TOKENS)


@pytest.fixture
def trace(model: PreTrainedModel) -> Trace:
    return trace_model(model, decoder_blocks(model), decoder_linears(model), CALIBRATION)


def test_no_more_tokens_than_a_layer_has_inputs_are_refused() -> None:
    linears = {"up": nn.Linear(32, 128), "down": nn.Linear(128, 32)}
    for sequences, length in ((9, 16), (9, 15)):
        check_calibration(Tokens.of_equal_length(torch.zeros(sequences, length, dtype=torch.long)), linears, 96)
        with pytest.raises(CoolbitsError, match="not more than the 128 inputs of down; take at least 9 sequences"):
            fewer = torch.zeros(sequences - 1, length, dtype=torch.long)
            check_calibration(Tokens.of_equal_length(fewer), linears, 96)


def test_padding_does_not_count_as_calibration() -> None:
    linears = {"down": nn.Linear(128, 32)}
    padded = Tokens(torch.zeros(9, 16, dtype=torch.long), torch.tensor([15] * 8 + [8]))
    with pytest.raises(CoolbitsError, match="128 in all, are not more than the 128 inputs of down"):
        check_calibration(padded, linears, 96)


def test_tokens_of_another_vocabulary_are_refused() -> None:
    tokens = Tokens.of_equal_length(torch.full((8, 16), 96))
    with pytest.raises(CoolbitsError, match="the token 96 lies outside the model's vocabulary of 96"):
        check_calibration(tokens, {"up": nn.Linear(32, 128)}, 96)


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
        under_autocast = trace_model(model, decoder_blocks(model), linears, CALIBRATION)
        gathered = gather_hessians(under_autocast.blocks[0], under_autocast.inputs, linears)[0]
    assert all(torch.equal(plain[name], gathered[name]) for name in plain)


def test_the_outputs_of_a_block_are_the_inputs_of_the_next(model: PreTrainedModel, trace: Trace) -> None:
    inputs = trace.inputs
    for block in trace.blocks:
        inputs = gather_hessians(block, inputs, {})[1]
    with torch.no_grad():
        states = model(TOKENS, output_hidden_states=True).hidden_states
        final = model.gpt_neox.final_layer_norm(torch.cat([chunk.hidden for chunk in inputs]))
    torch.testing.assert_close(final, states[-1])


def test_one_run_of_a_block_gives_the_hessians_of_as_many_runs_as_it_has_groups(
    model: PreTrainedModel, trace: Trace
) -> None:
    linears = decoder_linears(model)
    block, (chunk,) = trace.blocks[0], trace.inputs
    met: dict[tuple[str, ...], torch.Tensor] = {}
    output = run_quantizing(block, chunk, linears, lambda group, hessian: met.update({tuple(group): hessian}))
    assert list(met) == list(block.groups)
    for group, hessian in met.items():
        assert torch.equal(hessian, gather_hessian(block, [chunk], linears[group[0]]))
    assert torch.equal(output.hidden, gather_hessians(block, [chunk], {})[1][0].hidden)


def test_a_layer_reads_what_the_layers_quantized_before_it_give(model: PreTrainedModel, trace: Trace) -> None:
    linears = decoder_linears(model)
    block, (chunk,) = trace.blocks[0], trace.inputs
    met: dict[tuple[str, ...], torch.Tensor] = {}

    def halve(group, hessian: torch.Tensor) -> None:
        met[tuple(group)] = hessian
        for name in group:
            linears[name].weight.data.mul_(0.5)

    run_quantizing(block, chunk, linears, halve)
    last = block.groups[-1]
    assert torch.equal(met[last], gather_hessian(block, [chunk], linears[last[0]]))
    assert not torch.equal(met[block.groups[0]], torch.zeros_like(met[block.groups[0]]))
