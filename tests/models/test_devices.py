"""No step mixes devices: each is made on tensors that only pretend to be elsewhere, as on a GPU, which few have here.

They hold their numbers on the CPU, and operations that a GPU would refuse raise: of tensors of both places, with
indices there of a tensor here, drawn there by a generator here, or read by NumPy. "Elsewhere" is PyTorch's device
`meta`, which autograd knows in every build.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from transformers import PreTrainedModel

from coolbits.artifacts.errors import CoolbitsError
from coolbits.data.shards import open_stream, write_shard
from coolbits.evaluation.curvature import lanczos, trace_probes
from coolbits.evaluation.loss import document_losses
from coolbits.evaluation.objective import Objective, rademacher
from coolbits.loops.norms import clip_gradients, l2_norm
from coolbits.models.build import build_model
from coolbits.models.devices import choose_device
from coolbits.models.presets import preset
from coolbits.optim.build import build_optimizer
from coolbits.ptq.checkpoint import Request, quantize_model
from coolbits.ptq.tokens import Tokens, write_tokens
from coolbits.study.optimizer_names import optimizer_preset
from coolbits.study.recipes import training as recipes
from coolbits.study.recipes.evaluation import Curvature, Loss
from coolbits.study.recipes.methods import AWQ, GPTQ, HQQ, RTN, Grid, Int8, Method
from coolbits.study.recipes.ptq import Quantized
from coolbits.training.gradient import accumulate_gradient, summed_loss
from coolbits.training.state_measures import Observed, measure

HERE, THERE = torch.device("cpu"), torch.device("meta")
VOCABULARY, LENGTH = 96, 32
_MOVES = ("aten::copy_", "aten::_to_copy", "aten::to", "aten::_foreach_copy_")
_PUTS = ("aten::index_put", "aten::index_put_", "aten::_index_put_impl_")
GRID = Grid(bits=3, group_size=16)


class Distant(Tensor):
    """A tensor that says it is elsewhere; `near` holds its numbers."""

    near: Tensor
    is_meta = False
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, near: Tensor) -> "Distant":
        layout = {"strides": near.stride(), "storage_offset": near.storage_offset()}
        distant = Tensor._make_wrapper_subclass(cls, near.shape, dtype=near.dtype, device=THERE, **layout)
        distant.near = near
        return distant

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        with Elsewhere():
            return operation(*arguments, **(options or {}))

    # These look at the device, or for memory there, before they ask anybody.
    def tolist(self) -> Any:
        return self.near.tolist()

    def data_ptr(self) -> int:
        return self.near.data_ptr()

    def repeat_interleave(self, repeats: Any, dim: int | None = None, *, output_size: int | None = None) -> Tensor:
        return Distant(self.near.repeat_interleave(getattr(repeats, "near", repeats), dim))


class Elsewhere(TorchDispatchMode):
    """Makes and moves tensors there, and refuses what a GPU would."""

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        options = options or {}
        name, leaves = operation._schema.name, tree_leaves((arguments, options))
        there = [leaf for leaf in leaves if isinstance(leaf, Distant)]
        here = [leaf for leaf in leaves if isinstance(leaf, Tensor) and not isinstance(leaf, Distant) and leaf.dim()]
        device = next((leaf for leaf in leaves if isinstance(leaf, torch.device)), None)
        goes_there = bool(there) if device is None else device == THERE
        if name == "aten::copy_" or name in _PUTS or name == "aten::index":
            goes_there = isinstance(arguments[0], Distant)
            mixed = bool(there) and not goes_there and name != "aten::copy_"
            mixed |= name in _PUTS and goes_there and any(tensor is arguments[2] for tensor in here)
        else:
            mixed = bool(there and here) and name not in _MOVES
        if mixed or (goes_there and options.get("generator") is not None):
            raise RuntimeError(f"{name} of tensors, or with a generator, of two devices")
        own = {id(tensor.near): tensor for tensor in there}

        def nearer(leaf: Any) -> Any:
            return leaf.near if isinstance(leaf, Distant) else HERE if isinstance(leaf, torch.device) else leaf

        def farther(leaf: Any) -> Any:
            if not (isinstance(leaf, Tensor) and goes_there):
                return leaf
            return own[id(leaf)] if id(leaf) in own else Distant(leaf)

        options = {key: value for key, value in options.items() if key not in ("pin_memory", "non_blocking")}
        return tree_map(farther, operation(*tree_map(nearer, arguments), **tree_map(nearer, options)))


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    tensor, autocast = torch.tensor, torch.autocast

    def made(data: Any, *, device: Any = None, **options: Any) -> Tensor:
        return tensor(data, **options) if device is None else tensor(data, **options).to(device)

    monkeypatch.setattr(torch, "tensor", made)
    monkeypatch.setattr(torch, "autocast", lambda device, *rest, **options: autocast("cpu", *rest, **options))
    with Elsewhere():
        yield


@pytest.mark.usefixtures("elsewhere")
class TestPretending:
    @pytest.mark.parametrize(
        "mix",
        [
            lambda there: there + torch.ones(3),
            lambda there: torch.ones(3)[there.long()],
            lambda there: torch.ones(3).index_put_((there.long(),), torch.ones(3)),
            lambda there: there.index_put_((torch.arange(3),), torch.ones(3)),
            lambda there: torch.rand(3, generator=torch.Generator(), device=THERE),
            lambda there: torch.cat([there, torch.ones(3)]),
            np.asarray,
        ],
    )
    def test_what_a_gpu_refuses_is_refused(self, mix: Callable[[Tensor], object]) -> None:
        with pytest.raises(RuntimeError, match=r"of two devices|numpy\(\) is not supported"):
            mix(torch.zeros(3, device=THERE))

    def test_what_a_gpu_takes_is_taken(self) -> None:
        there = torch.arange(3.0).to(THERE)
        assert (there * torch.tensor(2.0))[torch.tensor([1, 2])].tolist() == [2.0, 4.0]
        there[0] = 7.0
        assert there.cpu().numpy().sum() == 10.0 and there.max().item() == 7.0
        assert torch.ones(3).copy_(there).device == HERE


def tiny_model(device: torch.device) -> PreTrainedModel:
    model = build_model(preset("micro-neox", VOCABULARY, LENGTH, num_hidden_layers=1), seed=0)
    nn.Module.to(model, device)
    return model


def tokens(sequences: int) -> Tensor:
    return torch.randint(0, VOCABULARY, (sequences, LENGTH + 1), generator=torch.Generator().manual_seed(0))


def train(name: str, device: torch.device) -> list[Tensor]:
    """Two updates, and what is saved and measured of them: the weights and the loss, on the CPU."""
    model = tiny_model(device)
    recipe: recipes.Optimizer = TypeAdapter(recipes.Optimizer).validate_python(optimizer_preset(name))
    optimizer = build_optimizer(model, recipe, 0.01, "float32", compiled=False)
    loss = summed_loss(model, "float32")
    for _ in range(2):
        optimizer.zero_grad()
        mean = accumulate_gradient(loss, tokens(4).to(device), 3)
        norm = clip_gradients(list(model.parameters()), 1.0)
        optimizer.step(0.01)
    optimizer.load_state_tensors({key: tensor.cpu() for key, tensor in optimizer.state_tensors().items()})
    matrix = "gpt_neox.layers.0.mlp.dense_h_to_4h.weight"
    for state, stored in optimizer.states_of(matrix).items():
        observed = Observed(stored, stored, stored, "float32", state != "exp_avg_sq", 256)
        measure(observed, 5 if observed.signed else None)
    found = [mean, norm, l2_norm(model.parameters()), *model.parameters()]
    return [tensor.detach().cpu() for tensor in found]


@pytest.mark.parametrize("name", ["AdamW-32", "AdamW-8D", "SGDM-32", "SGDM-8L", "Muon-32", "Muon-8L+AdamW-8D"])
def test_a_training_step(name: str, request: pytest.FixtureRequest) -> None:
    expected = train(name, HERE)
    request.getfixturevalue("elsewhere")
    for one, other in zip(train(name, THERE), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "method",
    [
        RTN(grid=GRID),
        GPTQ(grid=GRID, order="activation", static_groups=True),
        GPTQ(grid=GRID, sequential="none"),
        AWQ(grid=GRID, steps=3, clip_steps=3),
        Int8(),
        HQQ(grid=Grid(bits=3, group_size=16, symmetric=False)),
    ],
    ids=lambda method: method.kind,
)
def test_a_model_is_quantized_block_by_block(method: Method, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    write_tokens(Tokens.of_equal_length(tokens(8)), tmp_path)
    model = tiny_model(HERE).eval()
    (expected,) = quantize_model([Request(Quantized(method=method), tmp_path)], model)
    request.getfixturevalue("elsewhere")
    (made,) = quantize_model([Request(Quantized(method=method), tmp_path)], model, device=THERE)
    for name, result in made.results.items():
        assert result.entry.method == expected.results[name].entry.method
        torch.testing.assert_close(result.layer.weight(), expected.results[name].layer.weight(), rtol=0, atol=0.05)


def test_losses_and_curvature_are_measured(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    header = write_shard(tmp_path / "validation-00000.bin", [tokens(9).numpy().ravel()], VOCABULARY)
    entry = {"file": "validation-00000.bin", "tokens": header.tokens, "sha256": header.digest}
    index = {"train": [], "validation": [entry], "end_of_text_id": 0, "vocabulary_size": VOCABULARY}
    (tmp_path / "index.json").write_text(str(index).replace("'", '"'))
    curvature = Curvature(windows=2, sequence_length=LENGTH, probes=2, eigenvalues=1, iterations=3, seed=0)

    def measured(device: torch.device) -> list[float]:
        model = tiny_model(device).eval()
        losses = document_losses(model, open_stream(tmp_path, "validation"), Loss(windows=4, sequence_length=LENGTH))
        objective = Objective(model, (tokens(2).to(device),))
        product, weights = objective.hessian(), objective.weights()
        start = rademacher(weights, torch.Generator().manual_seed(0))
        spectrum = lanczos(product, start, 1, 1e-3, 3)
        return [losses["nats"].sum(), *trace_probes(product, weights, curvature), spectrum.values[0]]

    expected = measured(HERE)
    request.getfixturevalue("elsewhere")
    assert measured(THERE) == pytest.approx(expected, rel=1e-2)


def test_a_gpu_is_taken_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [choose_device(name) for name in ("auto", "cuda", "cpu")] == ["cuda", "cuda", "cpu"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [choose_device(name) for name in ("auto", "cpu")] == ["cpu", "cpu"]
    with pytest.raises(CoolbitsError, match=r"execution\.device: cuda is asked for, but there is no CUDA device here"):
        choose_device("cuda")
