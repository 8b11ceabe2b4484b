"""The stage of fine-tuning: one model after the other, each from its start to its end."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.files import write_text
from coolbits.artifacts.job import Job
from coolbits.artifacts.progress import Progress
from coolbits.artifacts.store import Store
from coolbits.finetuning.examples import read_examples
from coolbits.finetuning.saved import States, write_finetuned
from coolbits.finetuning.training import Finetuning
from coolbits.loops.allocator import keep_freed_memory
from coolbits.loops.guards import Heard, guarded, hearing_signals, make_reproducible, stop_if_asked
from coolbits.loops.locks import alone_in
from coolbits.models.blocks import most_positions
from coolbits.models.devices import choose_device
from coolbits.models.files import load_model
from coolbits.models.hub import commit_of, download_model
from coolbits.optim.build import build_optimizer
from coolbits.optim.optimizer import describe_states
from coolbits.study.execution import Execution
from coolbits.study.recipes.finetuning import Finetuned, HubModel

_LOG = logging.getLogger(__name__)
_COMMIT = "commit"  # in the work folder: a branch may move while a training is down


def run(job: Job, store: Store) -> int:
    """Make the fine-tuned models of the job that are missing; return how many were made.

    Training goes on from a saved state. SIGTERM and SIGINT end it after the step under way, with a state saved, or
    after the model that is being written; what kills it outright costs at most `state_every_seconds` of work. A start
    that diverged gives a model that did.

    Raises:
        CoolbitsError: if another process makes one of them, or a model does not fit its recipe.
        SystemExit: after a signal, saying where training stopped.
    """
    execution = Execution.read(job.execution)
    made = 0
    with hearing_signals() as heard:
        for node in job.nodes:
            stop_if_asked(heard)
            states = States(node, store)
            with alone_in(states.work):
                made += store.ensure(node, partial(_build, states, execution, heard))
                states.clear()
                (states.work / _COMMIT).unlink(missing_ok=True)
    return made


def start_finetuning(recipe: Finetuned, start: Path, conversations: Path, execution: Execution) -> Finetuning:
    """Return the fine-tuning of `recipe` before its first update, from the Hugging Face directory `start`.

    Raises:
        CoolbitsError: if the model cannot be read, has not as many parameters as the recipe says, or has
            fewer positions than the longest conversation has tokens.
    """
    device = choose_device(execution.device)
    make_reproducible(device)
    if device == "cpu":
        keep_freed_memory()
    model = load_model(start, device)
    found = sum(parameter.numel() for parameter in model.parameters())
    if recipe.hub is not None and found != recipe.hub.parameters:
        said = recipe.hub.parameters
        raise CoolbitsError(f"start.hub.parameters: {recipe.hub.id} has {found}, the study says {said}")
    train, validation = read_examples(conversations, "train"), read_examples(conversations, "validation")
    longest, positions = max(train.longest, validation.longest), most_positions(model)
    if positions is not None and longest > positions:
        raise CoolbitsError(
            f"{start}: the model has no more than {positions} positions, conversations have up to {longest} tokens; "
            f"`sequence_length` of the fine-tuning must be {positions} or less"
        )
    nn.Module.requires_grad_(model, True)
    optimizer = build_optimizer(model, recipe.optimizer, recipe.peak_lr, recipe.precision)
    _LOG.info(describe_states(optimizer.stored_states()))
    return Finetuning(recipe, model, optimizer, train, validation, execution.micro_batch_sequences)


def _build(states: States, execution: Execution, heard: Heard, out: Path) -> dict[str, Any]:
    node, store = states.node, states.store
    recipe = Finetuned.read(node.recipe)
    if "start" in node.parents and (parent := store.manifest(node, "start")).diverged:
        return {"outcome": "diverged", "diverged_step": parent.summary["diverged_step"]}
    conversations = node.parent_directory(store.root, "conversations")
    hub = recipe.hub
    start = node.parent_directory(store.root, "start") if hub is None else _downloaded(hub, states.work)
    tokenizer = start if hub is None else node.parent_directory(store.root, "tokenizer")
    stop_if_asked(heard)  # a download may have taken long
    training = start_finetuning(recipe, start, conversations, execution)
    states.read(training)
    _train(training, states, tokenizer, heard, execution.state_every_seconds)
    return write_finetuned(training, tokenizer, conversations, out) | (
        {} if hub is None else {"commit": commit_of(start)}
    )


def _downloaded(hub: HubModel, work: Path) -> Path:
    """Return the directory of a hub's model, of the commit that this training began from if it began before."""
    kept = work / _COMMIT
    begun = kept.read_text(encoding="utf-8") if kept.is_file() else None
    start = download_model(hub.id, begun or hub.revision)
    if begun is None and (commit := commit_of(start)):
        write_text(kept, commit)
    return start


def _train(training: Finetuning, states: States, tokenizer: Path, heard: Heard, every_seconds: float) -> None:
    done = training.memory.step
    label = states.node.name + (f" (from step {done:,})" if done else "")
    with Progress(label, training.recipe.steps, "step", done) as progress:
        for _ in guarded(training.run(), heard, partial(states.save, training, tokenizer), every_seconds):
            progress.advance(note=f"loss {training.memory.history.recent[-1]:.2f}")
