"""A pass that is killed goes on at the block it had reached, and ends with the bytes of one that was not."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import monotonic

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from coolbits.artifacts.manifest import SECONDS
from coolbits.models.files import load_model
from coolbits.ptq import tracing, unfinished
from coolbits.ptq.checkpoint import Request, quantize_model, write_results
from coolbits.ptq.tokens import Tokens, write_tokens
from coolbits.ptq.unfinished import Kept, Place
from coolbits.study.recipes.methods import AWQ, GPTQ, Grid
from coolbits.study.recipes.ptq import Quantized, Rotation

BLOCKS = 3
OTHER = "made of another model or calibration, by another recipe, code or device, or damaged"
GRID = Grid(bits=3, group_size=16)
SKEW = Grid(bits=4, group_size=16, symmetric=False)


def awq(**knobs: object) -> Quantized:
    return Quantized(method=AWQ(grid=SKEW, steps=4, clip_steps=3, **knobs))


def gptq(sequential: str, grid: Grid = GRID, precision: str = "float64", **keys: object) -> Quantized:
    return Quantized(method=GPTQ(grid=grid, sequential=sequential, precision=precision), **keys)


PASSES = {
    "none": [gptq("none")],
    "block": [gptq("block")],
    "layer": [gptq("layer")],
    "several in one pass": [gptq("none"), gptq("none", SKEW), gptq("none", Grid(bits=2))],
    "none, rotated": [gptq("none", rotation=Rotation())],
    "layer, rotated": [gptq("layer", SKEW, rotation=Rotation())],
    "none, with the head": [gptq("none", head=True)],
    "block, with the head": [gptq("block", head=True, precision="float32")],
    "layer, with the head": [gptq("layer", head=True)],
    "awq": [awq()],
    "two of awq": [awq(), awq(clip=False)],
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama in `model` whose norms let some channels stand out, and padded tokens in `calibration`."""
    directory = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=BLOCKS,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
            if name.endswith("layernorm.weight"):
                parameter[::7] *= 8
    model.save_pretrained(directory / "model")
    (directory / "calibration").mkdir()
    tokens = Tokens(torch.randint(0, 96, (16, 32)), torch.randint(9, 33, (16,)))
    write_tokens(tokens, directory / "calibration")
    return directory


class Killed(BaseException):
    pass


class Lab:
    """A model to quantize by some recipes, whose finished blocks are kept, a folder each, as soon as they are there."""

    def __init__(self, llama: Path, recipes: list[Quantized], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.llama, self.folder, self.blocks = llama, folder, 0
        self.places = [Place(folder / f"kept {number}", dict, 0) for number in range(len(recipes))]
        self.requests = [
            Request(recipe, llama / "calibration", place) for recipe, place in zip(recipes, self.places, strict=True)
        ]
        self.wanted = self.files([replace(request, place=None) for request in self.requests])
        self._kill_behind: int | None = None
        write = Kept.write

        def watched(kept: Kept) -> None:
            write(kept)
            self.blocks += 1
            if self.blocks == self._kill_behind:
                raise Killed

        monkeypatch.setattr(Kept, "write", watched)

    def files(self, requests: list[Request]) -> list[dict[str, bytes]]:
        """Quantize; return the files of each result but that of its seconds."""
        model = load_model(self.llama / "model")
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        found = []
        for number, (request, made) in enumerate(zip(requests, quantize_model(requests, model), strict=True)):
            out = self.folder / f"result {number}"
            out.mkdir(exist_ok=True)
            write_results(request.recipe, made, self.llama / "model", out)
            found.append({path.name: path.read_bytes() for path in out.iterdir() if path.name != SECONDS})
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        return found

    def kill_behind(self, blocks: int) -> None:
        """Quantize, and be killed when so many blocks are finished."""
        self.blocks, self._kill_behind = 0, blocks
        with pytest.raises(Killed):
            self.files(self.requests)
        self._kill_behind = None

    def finish(self) -> int:
        """Quantize; the result must be the one that nothing happened to. Return how many blocks there were to do."""
        self.blocks = 0
        assert self.files(self.requests) == self.wanted
        return self.blocks

    def parts(self, number: int = 0) -> list[Path]:
        return sorted(self.places[number].folder.iterdir())


@pytest.fixture
def lab(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(llama, PASSES["layer"], tmp_path, monkeypatch)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The lines that are logged."""
    caplog.set_level(logging.INFO, unfinished.__name__)
    return caplog


@pytest.mark.parametrize(("name", "chunks"), [*((name, 8) for name in PASSES), ("layer", 1), ("awq", 1)])
def test_a_pass_that_was_killed_ends_with_the_same_bytes(
    llama: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: pytest.LogCaptureFixture,
    name: str,
    chunks: int,
) -> None:
    recipes = PASSES[name]
    monkeypatch.setattr(tracing, "CHUNK_TOKENS", 16 * 32 // chunks)
    lab = Lab(llama, recipes, tmp_path, monkeypatch)
    assert any("replaced.safetensors" in files for files in lab.wanted) == isinstance(recipes[0].method, AWQ)
    blocks = BLOCKS + recipes[0].head
    for done in (2, blocks):
        lab.kill_behind(done)
        said.clear()
        assert lab.finish() == blocks - done
        names = ", ".join(place.folder.name for place in lab.places)
        assert said.messages == [f"{names}: goes on after block {done} of {blocks}"]
        for place in lab.places:
            place.clear()


def test_a_pass_may_be_killed_again_and_again(lab: Lab) -> None:
    for _ in range(BLOCKS):
        lab.kill_behind(1)
    assert lab.finish() == 0


def test_without_a_place_nothing_is_kept(lab: Lab) -> None:
    assert lab.files([replace(request, place=None) for request in lab.requests]) == lab.wanted
    assert not lab.places[0].folder.exists()


def test_blocks_are_written_together_when_the_time_has_come(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = monotonic()
    times = iter([begun, begun + 11, begun + 11, begun + 20])  # behind block 1, block 2 and what is written, block 3
    monkeypatch.setattr(unfinished, "monotonic", lambda: next(times))
    lab.requests = [replace(lab.requests[0], place=replace(lab.places[0], every_seconds=10))]
    assert lab.files(lab.requests) == lab.wanted
    monkeypatch.undo()
    assert [part.name for part in lab.parts()] == ["000000"]
    assert len(lab.places[0].read()[0]) == 2 * 7


def test_what_is_anothers_is_removed_and_not_used(lab: Lab, said: pytest.LogCaptureFixture) -> None:
    lab.kill_behind(2)
    own, parts = lab.requests[0], lab.parts()
    lab.requests = [replace(own, place=replace(lab.places[0], owner=lambda: {"recipe": "another"}))]
    said.clear()
    assert lab.finish() == BLOCKS
    assert said.messages == [f"{part}: finished blocks of an earlier run, not used: {OTHER}" for part in parts]
    lab.requests = [own]
    assert lab.finish() == BLOCKS


def test_what_another_processor_made_is_used_and_told(
    lab: Lab, said: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.kill_behind(2)
    parts, threads = lab.parts(), torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)
    said.clear()
    assert lab.finish() == BLOCKS - 2
    told = [line.partition(": saved on ")[0] for line in said.messages if "last bits" in line]
    assert told == [str(part) for part in parts]


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {"changed": flip, "cut": lambda path: path.write_bytes(path.read_bytes()[:-9]), "lost": Path.unlink}
FILES = ["codes.safetensors", "layout.json", "entries.json", "owner.json"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_part_is_not_used_nor_what_comes_behind_it(
    lab: Lab, said: pytest.LogCaptureFixture, damage: Callable[[Path], object], file: str
) -> None:
    lab.kill_behind(3)
    part = lab.parts()[1]
    damage(part / file)
    said.clear()
    assert lab.finish() == 2
    refused, went_on = said.messages
    assert refused.startswith(f"{part}: finished blocks of an earlier run, not used: ") and "damaged" in refused
    assert went_on.endswith("goes on after block 1 of 3")


def test_what_a_kill_left_half_written_is_no_part(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise Killed

    lab.kill_behind(1)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(unfinished, "mark", killed)
        patch.setattr("coolbits.artifacts.files.shutil.rmtree", lambda *_, **__: None)
        lab.files(lab.requests)
    assert [part.name[0] for part in lab.parts()] == [".", "0"]
    assert lab.finish() == 2


@pytest.fixture
def three(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(llama, PASSES["several in one pass"], tmp_path, monkeypatch)


def test_a_recipe_goes_on_though_its_neighbours_are_stored(three: Lab) -> None:
    three.kill_behind(2)
    three.requests, three.wanted = three.requests[1:2], three.wanted[1:2]
    assert three.finish() == 1


def test_recipes_of_a_pass_go_on_where_all_of_them_were(three: Lab) -> None:
    three.kill_behind(2)
    for path in three.parts(1)[-1:]:
        unfinished.shutil.rmtree(path)
    assert three.finish() == 2
