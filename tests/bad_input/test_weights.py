"""Models, weights and tokens that a stage refuses: in one sentence, and no file appears in the results."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.slow

Change = Callable[[Any], object]


def recipe(job: str, change: Callable[[dict[str, Any]], object]) -> Change:
    """Change the recipe of every node of a job."""
    return lambda folder: folder.edit(job, lambda node: change(node["recipe"]))


def model(**values: Any) -> Change:
    return recipe("checkpoint-0", lambda own: own["trajectory"]["model"]["config"].update(values))


def in_artifact(job: str, name: str, spoil: Change, number: int = 0) -> Change:
    """Spoil a file of an artifact, which then counts as made so."""
    return lambda folder: folder.spoil(job, name, spoil, number)


def weights(change: Callable[[str, torch.Tensor], torch.Tensor]) -> Change:
    def spoil(path):
        save_file(
            {name: change(name, tensor).clone() for name, tensor in load_file(path).items()}, path, {"format": "pt"}
        )

    return spoil


def text(content: str) -> Change:
    return lambda path: path.write_text(content)


def key(**values: Any) -> Change:
    return lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | values))


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def pickled(path):
    torch.save(load_file(path), path.with_name("pytorch_model.bin"))
    path.unlink()


NOT_FINITE = weights(lambda name, tensor: torch.where(tensor == tensor.max(), torch.nan, tensor))
HALVED = weights(lambda name, tensor: tensor[: len(tensor) // 2])
NARROW = weights(lambda name, tensor: tensor.half())
STEP, WEIGHTS, CONFIG = "results/checkpoint/...", "model.safetensors", "config.json"
UNREADABLE, EXPECTED = "cannot be read as part of a model", "safetensors are expected"
BOMB = (1 << 60).to_bytes(8, "little") + b"{}"

TRAINING = [
    (model(hiden_size=32), "model.config.hiden_size is not a key of gpt_neox; known are attention_bias..."),
    (model(hidden_dropout=0.1), "model.config.hidden_dropout is 0.1; models are trained without dropout, give 0"),
    (model(hidden_act="magic"), "model.config of gpt_neox is refused: 'magic' is no name that it knows"),
    (
        model(num_attention_heads=3),
        "model.config.hidden_size: 32 in gpt_neox; it must be a multiple of the 3 attention heads",
    ),
    (
        model(vocab_size=100),
        "results/shards/...: tokens of a vocabulary of 300, but the model embeds 100; raise "
        "data.tokenizer.vocabulary_size",
    ),
    (
        lambda folder: folder.configure("checkpoint-0", execution={"device": "cuda"}),
        "execution.device: cuda is asked for, but there is no CUDA device here; take cpu or auto",
    ),
]
BRANCHES = [
    (in_artifact("checkpoint-0", WEIGHTS, NOT_FINITE), f"{STEP}{WEIGHTS}: ... holds values that are not finite"),
    (
        in_artifact("checkpoint-0", WEIGHTS, truncated),
        f"{STEP}{WEIGHTS}: not readable as safetensors (...); delete its directory to train again",
    ),
    (
        in_artifact("checkpoint-0", WEIGHTS, pickled),
        f"{STEP}{WEIGHTS}: no such file; delete its directory to train again",
    ),
    (
        in_artifact("checkpoint-0", "state.safetensors", truncated),
        f"{STEP}state.safetensors: not readable as safetensors (...); delete its directory to train again",
    ),
    (
        recipe("checkpoint-1", lambda own: own["trajectory"]["model"]["config"].update(hidden_size=64)),
        f"{STEP}{WEIGHTS}: gpt_neox.embed_in.weight has the shape [300, 32], but [300, 64] in the model in training",
    ),
]
AVERAGES = [
    (
        in_artifact("checkpoint-0", WEIGHTS, NOT_FINITE, 1),
        f"{STEP}{WEIGHTS}: ... holds values that are not finite; they cannot be averaged",
    ),
    (
        in_artifact("checkpoint-0", WEIGHTS, HALVED, 1),
        f"{STEP}{WEIGHTS}: ... is float32 [...], but float32 [...] in {STEP}",
    ),
    (
        in_artifact("checkpoint-0", WEIGHTS, NARROW, 1),
        f"{STEP}{WEIGHTS}: ... is float16 [...], but float32 [...] in {STEP}",
    ),
    (in_artifact("checkpoint-0", WEIGHTS, truncated, 1), f"{STEP}{WEIGHTS}: {UNREADABLE} (...); {EXPECTED}"),
    (in_artifact("checkpoint-0", WEIGHTS, pickled, 1), f"{STEP}{WEIGHTS}: no such file"),
    (
        in_artifact("checkpoint-0", WEIGHTS, lambda path: path.write_bytes(BOMB), 1),
        f"{STEP}{WEIGHTS}: {UNREADABLE} (Error while deserializing header: header too large); {EXPECTED}",
    ),
    (
        in_artifact("checkpoint-0", CONFIG, key(hidden_size=64), 1),
        f"{STEP}{CONFIG}: another architecture than {STEP}: hidden_size is 64, not 32",
    ),
    (
        in_artifact("checkpoint-0", CONFIG, text("{"), 1),
        f"{STEP}{CONFIG}: {UNREADABLE} (Expecting property name enclosed in double quotes: ...)",
    ),
    (
        in_artifact("checkpoint-0", "tokenizer.json", text("{}"), 1),
        f"{STEP}tokenizer.json: another tokenizer than that of {STEP}",
    ),
]
CALIBRATIONS = [
    (
        recipe("calibration-0", lambda own: own["calibration"].update(sequences=10**6)),
        "calibration.sequences: 1000000 sequences of 16 tokens are wanted, the training split has ...",
    ),
    (
        recipe("calibration-0", lambda own: own["calibration"].update(sequence_length=10**6)),
        "calibration.sequence_length: 1000000 tokens, but the training split has ...; at most ... are possible in each "
        "of 16 sequences",
    ),
]
QUANTIZED = [
    (in_artifact("checkpoint-0", WEIGHTS, NOT_FINITE), f"{STEP}{WEIGHTS}: ... holds values that are not finite"),
    (in_artifact("checkpoint-0", WEIGHTS, truncated), f"{STEP}{WEIGHTS}: {UNREADABLE} (...); {EXPECTED}"),
    (in_artifact("checkpoint-0", WEIGHTS, text("")), f"{STEP}{WEIGHTS}: {UNREADABLE} (...); {EXPECTED}"),
    (
        in_artifact("checkpoint-0", WEIGHTS, pickled),
        f"{STEP}{WEIGHTS}: no such file; a model is saved as config.json and model.safetensors",
    ),
    (
        in_artifact("checkpoint-0", WEIGHTS, lambda path: torch.save({"weight": torch.ones(99)}, path)),
        f"{STEP}{WEIGHTS}: {UNREADABLE} (Error while deserializing header: ...); {EXPECTED}",
    ),
    (
        in_artifact("checkpoint-0", CONFIG, text("{")),
        f"{STEP}{CONFIG}: {UNREADABLE} (Expecting property name enclosed in double quotes: ...)",
    ),
    (
        in_artifact("checkpoint-0", CONFIG, text("[]")),
        f"{STEP}{CONFIG}: holds a list; keys and values are expected",
    ),
    (
        in_artifact("checkpoint-0", CONFIG, text('{"model_type": "magic"}')),
        f"{STEP}{CONFIG}: {UNREADABLE} (The checkpoint you are trying to load has model type `magic` but ...)",
    ),
    (in_artifact("checkpoint-0", CONFIG, key(dtype="float9")), f"{STEP}{CONFIG}: {UNREADABLE} (...float9...)"),
    (
        in_artifact("checkpoint-0", CONFIG, key(model_type="evil", auto_map={"AutoConfig": "evil.Config"})),
        f"{STEP}{CONFIG}: auto_map: the model brings Python code of its own, which a study never runs, and "
        "`coolbits quantize` only with --trust-remote-code",
    ),
    (
        in_artifact("checkpoint-0", CONFIG, key(intermediate_size=128)),
        f"{STEP}{WEIGHTS}: does not fit config.json beside it: mismatched keys ...and 2 more",
    ),
    (
        in_artifact("checkpoint-0", CONFIG, text('{"model_type": "bert"}')),
        f"{STEP}{WEIGHTS}: does not fit config.json beside it: missing keys ...; unexpected keys ... and ... more",
    ),
    (
        recipe("quantized-0", lambda own: own["method"]["grid"].update(group_size=48)),
        "grid.group_size: 48 does not divide the 32 inputs of gpt_neox.layers.0.attention.query_key_value; "
        "take a divisor, or null for one scale a row",
    ),
    (
        in_artifact("calibration-0", "tokens.safetensors", truncated),
        "results/calibration/...tokens.safetensors: cannot be read as the tokens of a calibration (...); "
        "safetensors are expected",
    ),
    (
        in_artifact(
            "calibration-0",
            "tokens.safetensors",
            weights(lambda name, tensor: tensor + 400 if name == "tokens" else tensor),
        ),
        "calibration: the token ... lies outside the model's vocabulary of 300; the tokens are another tokenizer's",
    ),
    (
        in_artifact("calibration-0", "tokens.safetensors", weights(lambda name, tensor: tensor[:1])),
        "calibration.sequences: 1 sequences of up to 16 tokens, 16 in all, are not more than the 64 inputs "
        "of gpt_neox.layers.0.mlp.dense_4h_to_h; take at least 5 sequences",
    ),
]
EVALUATIONS = [
    (in_artifact("checkpoint-0", WEIGHTS, NOT_FINITE), f"{STEP}{WEIGHTS}: ... holds values that are not finite"),
    (
        recipe("evaluation-0", lambda own: own["measure"].update(sequence_length=10**6)),
        "measure.sequence_length: found 1000000, but the corpus has ... validation tokens; at most ... is possible",
    ),
]
ROWS = {
    "checkpoint-0": TRAINING,
    "checkpoint-1": BRANCHES,
    "average-0": AVERAGES,
    "calibration-0": CALIBRATIONS,
    "quantized-0": QUANTIZED,
    "evaluation-0": EVALUATIONS,
}


@pytest.mark.parametrize(
    ("job", "spoil", "message"),
    [pytest.param(job, *row, id=f"{job}: {row[1]:.60}") for job, rows in ROWS.items() for row in rows],
)
def test_a_model_that_cannot_be_used(stage_refused, folder, job, spoil, message):
    spoil(folder)
    stage_refused(job, message)
