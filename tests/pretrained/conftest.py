"""A tiny Llama with its tokenizer, as a Hugging Face directory and as a GGUF file."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from coolbits.models.files import save_model

HEADS, KEY_HEADS = 4, 2
_MERGES = [("t", "h"), ("th", "e")]


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level BPE of 256 bytes, two merges and three special tokens."""
    entries = ["<end>", "<user>", "<turn>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "th", "the"]
    backend = Backend(models.BPE({entry: number for number, entry in enumerate(entries)}, _MERGES))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<user>", eos_token="<turn>", unk_token="<end>", pad_token="<turn>"
    )


@pytest.fixture
def model() -> PreTrainedModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=264,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture
def directory(model: PreTrainedModel, tmp_path: Path) -> Path:
    """The model and its tokenizer as a Hugging Face directory."""
    byte_tokenizer().save_pretrained(tmp_path / "tokenizer")
    save_model(model, tmp_path / "tokenizer", tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def gguf_file(model: PreTrainedModel, tmp_path: Path) -> Path:
    """The same as one file, weights in float32, with queries and keys ordered as GGUF has them."""
    gguf = pytest.importorskip("gguf", reason="the package gguf is not installed")
    config, path = model.config, tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(config.vocab_size)
    entries = sorted(byte_tokenizer().get_vocab().items(), key=lambda item: item[1])
    words = [word for word, _ in entries] + [f"<unused{spare}>" for spare in range(config.vocab_size - len(entries))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(words)
    writer.add_token_types([3] * 3 + [1] * (len(words) - 3))
    writer.add_token_merges([" ".join(merge) for merge in _MERGES])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    for name, tensor in model.state_dict().items():
        if name != "lm_head.weight":
            writer.add_tensor(_gguf_name(name), _gguf_order(name, tensor).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _gguf_name(name: str) -> str:
    renamed = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "model.layers": "blk",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "post_attention_layernorm": "ffn_norm",
        "input_layernorm": "attn_norm",
    }
    for old, new in renamed.items():
        name = name.replace(old, new)
    return name


def _gguf_order(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Interleave the halves of each head of queries and keys, whose rotary embedding GGUF applies to neighbours."""
    if "q_proj" not in name and "k_proj" not in name:
        return tensor
    heads = HEADS if "q_proj" in name else KEY_HEADS
    rows, columns = tensor.shape
    return tensor.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns).contiguous()
