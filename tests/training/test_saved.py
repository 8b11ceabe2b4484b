"""A training written and read goes on as if nothing had happened; what does not fit is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from coolbits.artifacts.errors import CoolbitsError
from coolbits.study.recipes.training import Cooldown, Muon, Trajectory
from coolbits.training.loop import Training
from coolbits.training.saved import read_start, read_training, write_training

Recipe = Callable[..., Trajectory]
Start = Callable[..., Training]


@pytest.fixture
def saved(recipe: Recipe, start: Start, tmp_path: Path) -> Path:
    """Five updates of the standard recipe, written."""
    training = start(recipe())
    list(training.train(5))
    write_training(training, tmp_path / "no-tokenizer", tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize("optimizer", [None, Muon()], ids=["adamw", "muon"])
def test_a_training_comes_back_whole(optimizer: Muon | None, recipe: Recipe, start: Start, tmp_path: Path) -> None:
    made = recipe(**{"optimizer": optimizer} if optimizer else {})
    written, read = start(made), start(made)
    list(written.train(7))
    write_training(written, tmp_path / "no-tokenizer", tmp_path / "saved")
    read_training(read, tmp_path / "saved")
    assert read.memory == written.memory
    for own, given in (
        (read.model.state_dict(), written.model.state_dict()),
        (read.optimizer.state_tensors(), written.optimizer.state_tensors()),
    ):
        assert own.keys() == given.keys()
        assert all(own[name].equal(given[name]) and own[name].dtype == given[name].dtype for name in own)


def test_tied_weights_come_back_tied(recipe: Recipe, start: Start, tmp_path: Path) -> None:
    model = recipe().model
    tied = model.model_copy(update={"config": model.config | {"tie_word_embeddings": True}})
    written, read = start(recipe(model=tied)), start(recipe(model=tied))
    list(written.train(2))
    write_training(written, tmp_path / "no-tokenizer", tmp_path / "saved")
    read_training(read, tmp_path / "saved")
    assert read.model.get_output_embeddings().weight is read.model.get_input_embeddings().weight
    torch.testing.assert_close(read.model.state_dict(), written.model.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["state.safetensors", "model.safetensors"])
def test_a_tensor_of_another_dtype_is_refused_by_name(name: str, saved: Path, recipe: Recipe, start: Start) -> None:
    tensors = load_file(saved / name)
    changed = max(tensors, key=lambda key: tensors[key].numel())
    save_file(tensors | {changed: tensors[changed].bfloat16()}, saved / name)
    with pytest.raises(CoolbitsError, match=rf"{changed} is torch.bfloat16.*torch.float32"):
        read_training(start(recipe()), saved)


def test_a_missing_tensor_and_an_unreadable_file_are_refused(saved: Path, recipe: Recipe, start: Start) -> None:
    tensors = load_file(saved / "model.safetensors")
    tensors.popitem()
    save_file(tensors, saved / "model.safetensors")
    with pytest.raises(CoolbitsError, match=r"does not fit config\.json beside it: missing keys gpt_neox"):
        read_training(start(recipe()), saved)
    (saved / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(CoolbitsError, match=r"model\.safetensors: not readable"):
        read_training(start(recipe()), saved)


def test_the_state_of_another_optimizer_is_refused(saved: Path, recipe: Recipe, start: Start) -> None:
    with pytest.raises(CoolbitsError, match="optimizer state does not fit"):
        read_training(start(recipe(optimizer=Muon())), saved)


def test_a_branch_must_begin_where_its_start_ends(saved: Path, recipe: Recipe, start: Start) -> None:
    right = Cooldown(warmup_steps=2, start_step=5, decay_steps=4)
    branch = start(recipe(schedule=right))
    read_start(branch, saved)
    assert branch.memory.step == 5
    wrong = right.model_copy(update={"start_step": 4})
    with pytest.raises(CoolbitsError, match=r"schedule\.start_step is 4, but the branch starts from step 5"):
        read_start(start(recipe(schedule=wrong)), saved)
