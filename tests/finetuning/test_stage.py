"""The stage: it learns, its bytes are those of one uninterrupted run, and what diverged says so."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.job import Job
from coolbits.artifacts.manifest import read_manifest
from coolbits.artifacts.progress import Progress
from coolbits.finetuning import stage
from coolbits.finetuning.examples import read_examples
from coolbits.finetuning.training import Finetuning
from coolbits.models.build import build_model
from coolbits.models.files import save_model
from coolbits.study.execution import Execution
from coolbits.study.optimizer_names import optimizer_preset
from coolbits.study.recipes.finetuning import Finetuned, HubModel
from coolbits.study.recipes.training import SGD, AdamW, Constant, Divergence, Model, Muon

Recipe = Callable[..., Finetuned]
_CONTENT = ("model.safetensors", "metrics.parquet", "validation.parquet", "chat_template.jinja", "config.json")


def same_bytes(one: Path, other: Path) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in _CONTENT)


def stop_after(monkeypatch: pytest.MonkeyPatch, updates: int) -> None:
    """Kill the process' training, as far as a test can, once so many updates were made."""
    advance, made = Progress.advance, [0]

    def advance_or_die(self: Progress, units: int = 1, note: str = "") -> None:
        advance(self, units, note)
        made[0] += units
        if made[0] == updates:
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "advance", advance_or_die)


@pytest.mark.parametrize("optimizer", [AdamW(weight_decay=0.0), Muon(weight_decay=0.0)], ids=["adamw", "muon"])
def test_fine_tuning_lowers_the_loss_on_held_out_answers(lab: Any, finetuned: Recipe, optimizer: Any) -> None:
    place = lab.tune(lab.node(finetuned(optimizer=optimizer, steps=40, schedule=Constant(warmup_steps=2))))
    table = pd.read_parquet(place / "validation.parquet")
    assert table.loss.iloc[-1] < 0.5 * table.loss.iloc[0]
    summary = read_manifest(place).summary
    assert summary["outcome"] == "complete" and summary["step"] == 40
    assert [summary["start_validation_loss"], summary["validation_loss"]] == [table.loss.iloc[0], table.loss.iloc[-1]]


def test_the_result_opens_as_any_model_and_chats_by_its_template(lab: Any, finetuned: Recipe) -> None:
    place = lab.tune(lab.node(finetuned()))
    assert AutoModelForCausalLM.from_pretrained(place).num_parameters() > 0
    asked = AutoTokenizer.from_pretrained(place).apply_chat_template(
        [{"role": "user", "content": "hm"}], tokenize=False, add_generation_prompt=True
    )
    assert asked == "<|endoftext|>Question: hm\nAnswer:"


def test_losses_are_taken_before_now_and_then_and_after(lab: Any, finetuned: Recipe) -> None:
    place = lab.tune(lab.node(finetuned(steps=10, validate_steps=4, log_steps=3)))
    table, metrics = (pd.read_parquet(place / f"{name}.parquet") for name in ("validation", "metrics"))
    assert table.step.tolist() == [0, 4, 8, 10]
    assert list(table) == ["step", "loss", "exact", "tokens"] and table.tokens.nunique() == 1
    assert metrics.step.tolist() == [3, 6, 9, 10]
    assert list(metrics) == ["step", "tokens", "loss", "lr", "grad_norm", "weight_norm", "data_digest"]


def test_the_log_says_how_states_are_stored(lab: Any, finetuned: Recipe, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "coolbits.finetuning.stage")
    optimizer = AdamW.model_validate(optimizer_preset("AdamW-8D"))
    lab.tune(lab.node(finetuned(optimizer=optimizer)))
    (line,) = caplog.messages
    assert line.startswith("states: ") and "float32 (under 4,096 elements)" in line and "8-bit dynamic" in line


def test_a_job_keeps_what_is_made(lab: Any, finetuned: Recipe) -> None:
    node = lab.node(finetuned())
    first = (lab.tune(node) / "record.json").read_text()
    assert (lab.tune(node) / "record.json").read_text() == first


def test_the_same_recipe_gives_the_same_bytes(lab: Any, other_lab: Any, finetuned: Recipe) -> None:
    one, other = (each.tune(each.node(finetuned(steps=6))) for each in (lab, other_lab))
    assert same_bytes(one, other)
    another = lab.tune(lab.node(finetuned(steps=6, seed=1)))
    assert not same_bytes(one, another)


@pytest.mark.parametrize("updates", [3, 4, 9])
@pytest.mark.parametrize("optimizer", [AdamW(weight_decay=0.0), Muon(weight_decay=0.0)], ids=["adamw", "muon"])
def test_a_killed_fine_tuning_goes_on_to_the_same_bytes(
    lab: Any, other_lab: Any, finetuned: Recipe, monkeypatch: pytest.MonkeyPatch, updates: int, optimizer: Any
) -> None:
    whole = other_lab.tune(other_lab.node(finetuned(optimizer=optimizer)))
    node = lab.node(finetuned(optimizer=optimizer))
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        stop_after(patched, updates)
        lab.tune(node, state_every_seconds=1e-9)
    states = lab.store.work_directory(node) / "states"
    # The update under way when the kill came is lost with what it did.
    assert [path.name for path in states.iterdir()] == [f"step_{updates - 1:07d}"]
    assert same_bytes(lab.tune(node), whole)
    assert not states.exists()


def test_a_signal_saves_a_state_and_says_so(
    lab: Any, other_lab: Any, finetuned: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = other_lab.tune(other_lab.node(finetuned()))
    node, advance = lab.node(finetuned()), Progress.advance

    def advance_and_hear(self: Progress, units: int = 1, note: str = "") -> None:
        advance(self, units, note)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched, pytest.raises(SystemExit, match="stopped by SIGTERM after step 1;"):
        patched.setattr(Progress, "advance", advance_and_hear)
        lab.tune(node)
    assert same_bytes(lab.tune(node), whole)


def test_a_signal_while_a_model_is_written_ends_the_job_once_it_is_stored(
    lab: Any, finetuned: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (lab.node(finetuned(seed=seed)) for seed in (0, 1))
    write = stage.write_finetuned

    def write_and_hear(*arguments: Any) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGTERM)
        return write(*arguments)

    with monkeypatch.context() as patched, pytest.raises(SystemExit, match="stopped by SIGTERM; what was made"):
        patched.setattr(stage, "write_finetuned", write_and_hear)
        stage.run(Job("finetuned", "test", (first, second), Execution(device="cpu").identity()), lab.store)
    assert [lab.store.is_current(node) for node in (first, second)] == [True, False]


def test_a_state_of_other_code_or_parents_is_not_gone_on_from(
    lab: Any, other_lab: Any, finetuned: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = other_lab.tune(other_lab.node(finetuned()))
    node = lab.node(finetuned())
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        stop_after(patched, 5)
        lab.tune(node, state_every_seconds=1e-9)
    (state,) = (lab.store.work_directory(node) / "states").iterdir()
    owner = json.loads((state / "owner.json").read_text())
    (state / "owner.json").write_text(json.dumps(owner | {"code": "other"}))
    (state / "model.safetensors").write_bytes(b"of other code")
    assert same_bytes(lab.tune(node), whole)


def test_a_diverged_start_gives_a_diverged_model(lab: Any, finetuned: Recipe) -> None:
    place = lab.tune(lab.node(finetuned(), start=lab.diverged()))
    assert read_manifest(place).summary == {"outcome": "diverged", "diverged_step": 7}
    assert {path.name for path in place.iterdir()} == {"manifest.json", "record.json"}


def test_an_exploding_loss_is_a_result(lab: Any, finetuned: Recipe) -> None:
    rule = Divergence(loss_factor=1.2, window_steps=2)
    hot = finetuned(optimizer=SGD(weight_decay=0.0), peak_lr=1e3, divergence=rule)
    place = lab.tune(lab.node(hot))
    summary = read_manifest(place).summary
    assert summary["outcome"] == "diverged" and 1 < summary["diverged_step"] < 10
    assert pd.read_parquet(place / "metrics.parquet").step.iloc[-1] == summary["diverged_step"]
    assert pd.read_parquet(place / "validation.parquet").step.iloc[0] == 0
    assert not (place / "model.safetensors").exists()


def test_a_training_goes_on_from_the_commit_that_it_began_with(
    lab: Any, finetuned: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coolbits.artifacts.node import make_node

    commits, asked = ("0123456789" * 4, "9876543210" * 4), []

    def download(_name: str, revision: str) -> Path:
        asked.append(revision)
        commit = commits[len(asked) - 1] if revision == "main" else revision
        snapshot = lab.store.root.parent / "snapshots" / commit
        if not snapshot.exists():
            shutil.copytree(lab.start.directory(lab.store.root), snapshot)
        return snapshot

    def killed(*_: Any) -> None:
        raise SystemExit

    monkeypatch.setattr(stage, "download_model", download)
    tokenizer = make_node("tokenizer", "hub", {}, {})
    lab.store.ensure(tokenizer, lambda out: lab._tokenizer.save_pretrained(out) and {})
    size = AutoModelForCausalLM.from_pretrained(lab.start.directory(lab.store.root)).num_parameters()
    recipe = finetuned(hub=HubModel(id="someone/some", revision="main", parameters=size), steps=2)
    node = make_node(
        "finetuned", "hub", recipe.identity(), {"tokenizer": tokenizer.ref, "conversations": lab.conversations}
    )
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(stage, "_train", killed)
        lab.tune(node)
    assert read_manifest(lab.tune(node)).summary["commit"] == commits[0]
    assert asked == ["main", commits[0]]
    assert not list(lab.store.work_directory(node).glob("commit"))


@pytest.mark.parametrize(
    ("architecture", "context", "config"),
    [
        ("gpt2", "n_positions", {"n_embd": 32, "n_layer": 1, "n_head": 2}),
        (
            "gpt_neox",
            "max_position_embeddings",
            {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64},
        ),
    ],
)
def test_conversations_longer_than_the_positions_that_a_model_has_learned_are_refused(
    architecture: str, context: str, config: dict[str, int], lab: Any, finetuned: Recipe, tmp_path: Path
) -> None:
    """It has none to look up there; rotations go on for ever."""
    tokenizer, conversations = (ref.directory(lab.store.root) for ref in (lab.start, lab.conversations))
    longest = max(read_examples(conversations, "train").longest, read_examples(conversations, "validation").longest)

    def start(positions: int) -> Finetuning:
        model = Model(architecture=architecture, config=config | {"vocab_size": 300, context: positions})
        save_model(build_model(model, 0), tokenizer, tmp_path / str(positions))
        return stage.start_finetuning(finetuned(), tmp_path / str(positions), conversations, Execution(device="cpu"))

    next(start(longest).run())
    if architecture == "gpt_neox":
        next(start(longest - 1).run())
        return
    with pytest.raises(
        CoolbitsError, match=rf"than {longest - 1} positions, conversations have up to {longest} tokens"
    ):
        start(longest - 1)


def test_a_model_of_the_hub_takes_its_tokenizer_from_its_parent_and_must_have_the_size_it_is_said_to_have(
    lab: Any, finetuned: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coolbits.artifacts.node import make_node

    monkeypatch.setattr(stage, "download_model", lambda *_: lab.start.directory(lab.store.root))
    tokenizer = make_node("tokenizer", "hub", {}, {})
    lab.store.ensure(tokenizer, lambda out: lab._tokenizer.save_pretrained(out) and {})
    size = AutoModelForCausalLM.from_pretrained(lab.start.directory(lab.store.root)).num_parameters()
    for parameters in (size, size + 1):
        recipe = finetuned(hub=HubModel(id="someone/some", revision="main", parameters=parameters), steps=2)
        parents = {"tokenizer": tokenizer.ref, "conversations": lab.conversations}
        node = make_node("finetuned", "hub", recipe.identity(), parents)
        if parameters == size:
            assert (lab.tune(node) / "tokenizer.json").is_file()
        else:
            with pytest.raises(CoolbitsError, match=rf"someone/some has {size}, the study says {size + 1}"):
                lab.tune(node)


def test_where_the_processor_has_no_bfloat16_its_products_are_made_in_float32(
    lab: Any, finetuned: Recipe, widened: list[Any]
) -> None:
    lab.tune(lab.node(finetuned(steps=1)))
    assert not widened
    lab.tune(lab.node(finetuned(steps=1, precision="bfloat16")))
    assert widened


def test_losses_are_compared_with_that_of_all_held_out_answers_at_the_start(lab: Any, finetuned: Recipe) -> None:
    """The loss of a first batch of one short answer may be a third of it: half of healthy runs would have diverged."""
    places = (ref.directory(lab.store.root) for ref in (lab.start, lab.conversations))
    training = stage.start_finetuning(finetuned(batch_examples=1), *places, Execution(device="cpu"))
    next(training.run())
    memory = training.memory
    assert memory.history.first == memory.validation[0]["loss"] != memory.history.recent[0]
