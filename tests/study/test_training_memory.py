"""What a training keeps, by arithmetic, against the tensors that PyTorch keeps for the backward pass."""

import pytest
import torch
from torch.nn import functional

from coolbits.models.build import build_model
from coolbits.models.counts import parameter_counts
from coolbits.models.presets import preset
from coolbits.study.optimizer_names import optimizer_preset
from coolbits.study.recipes.training import AdamW, Model, Muon
from coolbits.study.training_memory import kept_bytes, state_bytes, training_bytes

LENGTH, VOCABULARY = 32, 300
GPT2 = {"n_embd": 256, "n_head": 4, "n_inner": 768}
NEOX = {"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 768}
LLAMA = NEOX | {"num_key_value_heads": 4}
# A model of each architecture, wide enough for its matrices to outweigh all else.
MODELS = {
    "gpt-162m": ("num_hidden_layers", NEOX),
    "micro-gpt2": ("n_layer", GPT2),
    "micro-llama": ("num_hidden_layers", LLAMA),
    "micro-olmo2": ("num_hidden_layers", LLAMA),
    "micro-qwen3": ("num_hidden_layers", LLAMA | {"head_dim": 64}),
}


def model_of(name, layers):
    key, config = MODELS[name]
    return preset(name, VOCABULARY, LENGTH, **config, **{key: layers})


def kept(model, precision, sequences):
    """Return the bytes that a forward pass keeps, each storage once."""
    found = {}

    def keep(tensor):
        found[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    built, tokens = build_model(model, seed=0), torch.zeros(sequences, LENGTH, dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            logits = built(input_ids=tokens, use_cache=False).logits
        functional.cross_entropy(logits.flatten(0, 1).float(), tokens.flatten(), reduction="sum")
    return sum(tensor.untyped_storage().nbytes() for tensor in found.values())


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
@pytest.mark.parametrize("name", MODELS)
def test_blocks_keep_what_is_counted(name, precision):
    # Two layers more, of two sequences more: weights and logits drop out.
    few, many = ([kept(model_of(name, layers), precision, count) for count in (1, 3)] for layers in (1, 3))
    of_layers = (many[1] - many[0]) - (few[1] - few[0])
    assert of_layers / (2 * LENGTH) == pytest.approx(kept_bytes(model_of(name, 2), precision), rel=0.05)


def test_a_training_is_weights_gradients_states_casts_activations_and_logits():
    model = model_of("micro-llama", 2)
    weights, kept_of_token = parameter_counts(model).total, kept_bytes(model, "bfloat16")
    adamw = AdamW()
    assert training_bytes(model, adamw, "bfloat16", 1) == (4 + 4 + 8 + 2) * weights + kept_of_token + 12 * VOCABULARY
    more = training_bytes(model, adamw, "bfloat16", 11) - training_bytes(model, adamw, "bfloat16", 1)
    assert more == 10 * (kept_of_token + 12 * VOCABULARY)
    wide = kept_bytes(model, "float32")
    assert training_bytes(model, adamw, "float32", 1) == (4 + 4 + 8) * weights + wide + 12 * VOCABULARY
    assert wide > kept_of_token
    low = Muon.model_validate(optimizer_preset("Muon-8L+AdamW-8L"))
    assert training_bytes(model, low, "bfloat16", 1) < training_bytes(model, adamw, "bfloat16", 1) - 5 * weights


def test_muons_state_is_of_the_matrices_and_those_of_adamw_of_all_else():
    counts = parameter_counts(model_of("micro-llama", 2))
    tables = counts.embedding + counts.head
    assert min(counts.matrices, tables, counts.vectors) > 0
    for name, coded in [("Muon-32+AdamW-32", 4), ("Muon-8L+AdamW-8L", 1 + 4 / 2048)]:
        muon = Muon.model_validate(optimizer_preset(name))
        expected = coded * counts.matrices + 2 * (coded * tables + 4 * counts.vectors)
        assert state_bytes(model_of("micro-llama", 2), muon) == round(expected)


def test_a_step_of_llama_3b_on_two_conversations_is_what_was_counted_tensor_by_tensor():
    # On PyTorch's fake tensors: 33.9 GB live where the backward pass begins, beside weights, gradients and two states.
    sizes = {"hidden_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 24, "num_key_value_heads": 8}
    sizes |= {"head_dim": 128, "intermediate_size": 8192, "vocab_size": 128256, "max_position_embeddings": 4096}
    llama = Model(architecture="llama", config=sizes | {"tie_word_embeddings": True})
    assert parameter_counts(llama).total == 3_212_749_824
    counted = 4 * 4 * 3_212_749_824 + 33.885e9
    assert training_bytes(llama, AdamW(), "bfloat16", 2 * 2048) == pytest.approx(counted, rel=0.02)
