"""Every optimizer by its name of paper B, on a real model: what it stores, and that it goes on bit for bit."""

from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from coolbits.artifacts.errors import CoolbitsError
from coolbits.models.build import build_model
from coolbits.models.presets import preset
from coolbits.optim.build import build_optimizer
from coolbits.optim.codecs import Blockwise, Float32
from coolbits.optim.groups import parameter_roles
from coolbits.optim.optimizer import Optimizer, describe_states
from coolbits.study.optimizer_names import optimizer_preset
from coolbits.study.recipes import training as recipes

NAMES = [
    *(f"{rule}-{states}" for rule in ("AdamW", "Muon", "SGDM") for states in ("32", "8L", "8D")),
    *(
        "AdamC-8D",
        "AdamW-8D-b256",
        "Muon-8L+AdamW-8D",
        "Muon-8D+AdamW-8L-b256",
        "AdamW-8L-min0",
        "Muon-8L-b256-min0+AdamW-8D-min1024",
    ),
]
EVERY_NAME = pytest.mark.parametrize("name", NAMES)
LR = 3e-3


def recipe_of(name: str, **storage: int) -> recipes.Optimizer:
    keys = optimizer_preset(name)
    for state in keys["states"]:
        keys["states"][state] |= storage
    return TypeAdapter(recipes.Optimizer).validate_python(keys)


def tiny() -> PreTrainedModel:
    return build_model(preset("micro-neox", 96, 32, num_hidden_layers=2), seed=0)


def build(name: str, model: PreTrainedModel, compiled: bool = True, **storage: int) -> Optimizer:
    return build_optimizer(model, recipe_of(name, **storage), LR, "float32", compiled)


def train(model: PreTrainedModel, optimizer: Optimizer, steps: range, parts: int = 1) -> list[float]:
    """Updates on one batch, its gradient gathered in so many parts; the loss of each."""
    tokens = torch.randint(0, 96, (4, 32), generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in steps:
        optimizer.zero_grad()
        total = 0.0
        for part in tokens.chunk(parts):
            loss = model(input_ids=part, labels=part).loss / parts
            loss.backward()
            total += float(loss.detach())
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(0.1 if "sgd" in str(type(optimizer.groups[0].rule)) else LR)
        losses.append(total)
    return losses


def copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


class TestTraining:
    @EVERY_NAME
    def test_saved_and_loaded_it_goes_on_bit_for_bit_in_parts_of_a_batch(self, name: str, tmp_path: Path) -> None:
        model = tiny()
        optimizer = build(name, model)
        train(model, optimizer, range(3), parts=2)
        save_file(copied(optimizer.state_tensors()), tmp_path / "state")
        weights = copied(model.state_dict())
        train(model, optimizer, range(3), parts=2)

        resumed = tiny()
        resumed.load_state_dict(weights)
        other = build(name, resumed)
        other.load_state_tensors(load_file(tmp_path / "state"))
        train(resumed, other, range(3), parts=2)
        assert same(model.state_dict(), resumed.state_dict())
        assert same(optimizer.state_tensors(), other.state_tensors())

    def test_codes_of_one_kind_are_not_loaded_as_another_s(self) -> None:
        """Second moments have the same type and shape either way."""
        saved = build("AdamW-8L", tiny()).state_tensors()
        with pytest.raises(CoolbitsError, match=r"missing .*\.dynamic-2048\.codes.*; unknown .*\.linear-2048\.codes"):
            build("AdamW-8D", tiny()).load_state_tensors(saved)

    @EVERY_NAME
    def test_compiled_or_not_makes_no_difference(self, name: str) -> None:
        runs = []
        for compiled in (True, False):
            model = tiny()
            optimizer = build(name, model, compiled)
            train(model, optimizer, range(4))
            runs.append((model.state_dict(), optimizer.state_tensors()))
        assert same(runs[0][0], runs[1][0]) and same(runs[0][1], runs[1][1])

    @pytest.mark.parametrize("name", [name for name in NAMES if "AdamW-8L" not in name])
    def test_8_bits_train_about_as_well_as_32(self, name: str) -> None:
        """Not AdamW with linear codes: its second moments round to zero, as paper B says."""
        final = []
        for chosen in (name, name.partition("-")[0] + "-32"):
            model = tiny()
            final.append(train(model, build(chosen, model), range(12))[-1])
        assert final[0] == pytest.approx(final[1], abs=0.1) and final[1] < 4.3


class TestStorage:
    @EVERY_NAME
    def test_what_is_large_is_stored_as_the_name_says_and_what_is_small_as_float32(self, name: str) -> None:
        model = tiny()
        optimizer, recipe, roles = build(name, model), recipe_of(name), parameter_roles(model)
        for parameter, tensor in model.named_parameters():
            for state, codec in optimizer.codecs_of(parameter).items():
                storage = getattr(recipe.states, state)
                if storage.codec == "float32":
                    assert codec == Float32()
                elif tensor.numel() < storage.smallest:
                    assert codec == Float32(below=storage.smallest) and roles[parameter] == "vector"
                else:
                    assert codec == Blockwise(storage.codec, state != "exp_avg_sq", storage.block_size)

    @EVERY_NAME
    def test_its_bytes_are_those_of_its_tensors_on_the_meta_device_too(self, name: str) -> None:
        model = tiny()
        optimizer, measured = build(name, model), build(name, model.to("meta"))
        size = sum(tensor.nbytes for tensor in optimizer.state_tensors().values())
        assert sum(stored.bytes for stored in optimizer.stored_states()) + 4 == size
        assert measured.stored_states() == optimizer.stored_states()
        assert {tensor.device.type for tensor in measured.state_tensors().values()} == {"meta"}

    def test_8_bits_with_a_scale_for_each_2048_take_a_quarter(self) -> None:
        sizes = []
        for name in ("AdamW-32", "AdamW-8L"):
            optimizer = build(name, tiny(), smallest=0)
            sizes.append(sum(stored.bytes for stored in optimizer.stored_states()))
        blocks = sum(2 * -(-parameter.numel() // 2048) for parameter in tiny().parameters())
        assert sizes[1] == sizes[0] / 4 + 4 * blocks

    def test_small_tensors_have_codes_if_that_is_asked_for(self) -> None:
        optimizer = build("AdamW-8D", tiny(), smallest=0)
        assert {stored.label for stored in optimizer.stored_states()} == {"8-bit dynamic (block 2,048)"}

    def test_parts_are_named_after_parameter_and_state(self) -> None:
        names = build("Muon-8L", tiny()).state_tensors().keys()
        assert {"gpt_neox.embed_in.weight.exp_avg", "lm_head.weight.exp_avg_sq"} < names
        matrix = "gpt_neox.layers.0.mlp.dense_h_to_4h.weight.momentum"
        assert {f"{matrix}.linear-2048.codes", f"{matrix}.linear-2048.scales"} < names and matrix not in names

    def test_one_line_says_what_is_stored_how(self) -> None:
        line = describe_states(build("AdamW-8L", tiny()).stored_states())
        assert (
            line == "states: 36 tensors float32 (under 4,096 elements), 20 tensors 8-bit linear (block 2,048), 0.24 MB"
        )


class TestQueries:
    def test_states_are_decoded_by_parameter(self) -> None:
        model = tiny()
        optimizer = build("AdamW-8D", model)
        train(model, optimizer, range(2))
        states, stored = optimizer.states_of("lm_head.weight"), optimizer.state_tensors()
        assert set(states) == {"exp_avg", "exp_avg_sq"}
        parts = {part: stored[f"lm_head.weight.exp_avg.dynamic-2048.{part}"] for part in ("codes", "scales")}
        assert torch.equal(states["exp_avg"], Blockwise("dynamic", True).decode(parts))
        assert states["exp_avg_sq"].shape == model.lm_head.weight.shape and states["exp_avg_sq"].min() >= 0

    def test_a_parameters_rule_and_codecs(self) -> None:
        optimizer = build("Muon-8L", tiny())
        matrix = "gpt_neox.layers.0.mlp.dense_h_to_4h.weight"
        assert optimizer.rule_of(matrix).states == ("momentum",)
        assert optimizer.codecs_of(matrix) == {"momentum": Blockwise("linear", True)}
        assert optimizer.codecs_of("lm_head.weight") == {"exp_avg": Float32(), "exp_avg_sq": Float32()}

    def test_parameters_of_another_dtype_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"is torch\.bfloat16; optimizers update float32 parameters"):
            build("AdamW-8L", tiny().bfloat16())

    def test_states_of_different_codecs_are_updated_too(self) -> None:
        """First moments in 8 bits beside second ones in float32: no fused update, the same rule."""
        model = tiny()
        storage = recipes.Storage(codec="linear")
        optimizer = build_optimizer(model, recipes.AdamW(states=recipes.AdamStates(exp_avg=storage)), LR)
        losses = train(model, optimizer, range(8))
        assert losses[-1] < losses[0] - 0.2
        assert optimizer.codecs_of("lm_head.weight")["exp_avg_sq"] == Float32()
