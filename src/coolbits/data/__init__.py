"""Text to tokens to batches: sources, corpus, tokenizer, token shards and deterministic batches.

sources, formats, hub         where documents come from
corpus, documents             exact deduplication, split by hash, parquet pieces and how to read them
draws                         documents drawn up to a size
tokenizers, local_tokenizer   byte-level BPE trained here, from the hub, or local
shards, tokenize              token files that are checked, memory-mapped and made in steps that can be resumed
batches                       batches as a pure function of (seed, step)
"""

from typing import Literal

Split = Literal["train", "validation"]
