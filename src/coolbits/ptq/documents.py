"""Calibration without a study's shards: documents that the tokenizer reads here, and tokens that no one wrote."""

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerFast

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.progress import Progress
from coolbits.data.sources import Document
from coolbits.ptq.tokens import Tokens
from coolbits.study.recipes.calibration import Documents, RandomTokens

_HALF = np.uint64(32)


def first_documents(tokenizer: PreTrainedTokenizerFast, recipe: Documents, found: Iterable[Document]) -> Tokens:
    """Return the first of the documents `found`, each a sequence cut at the recipe's length and padded on the right.

    A document is encoded as the tokenizer encodes a text by itself: with the special tokens that it adds of its own
    accord (Llama's at the beginning; GPT-NeoX adds none), and no end-of-text token. The text of a special token inside
    a document is read as plain text. Blank documents are left out.

    Raises:
        CoolbitsError: if there are fewer documents than wanted, or one cannot be read.
    """
    texts = (document.text for document in found if document.text.strip())
    sequences = list(islice(_encoded(tokenizer, texts, recipe), recipe.sequences))
    if len(sequences) < recipe.sequences:
        raise CoolbitsError(
            f"calibration.sequences: {recipe.sequences} documents are wanted, the {recipe.source.kind} source has "
            f"{len(sequences)} that are not blank"
        )
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    return Tokens(pad_sequence(sequences, batch_first=True), lengths)


def _encoded(tokenizer: PreTrainedTokenizerFast, texts: Iterator[str], recipe: Documents) -> Iterator[torch.Tensor]:
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.enable_truncation(recipe.sequence_length)
    backend.encode_special_tokens = True
    with Progress("calibration", recipe.sequences, "documents") as progress:
        for text in texts:
            if ids := backend.encode(text).ids:
                progress.advance()
                yield torch.tensor(ids)


def draw_tokens(tokenizer: PreTrainedTokenizerFast, recipe: RandomTokens) -> Tokens:
    """Return tokens drawn evenly from the tokenizer's vocabulary, special ones left out.

    Each is entry `(r * n) >> 32` of the n others by id, r the upper half of an output of PCG64: bits that NumPy keeps
    from version to version, and even to n in 2**32.

    Raises:
        CoolbitsError: if the tokenizer has special tokens alone.
    """
    special = set(tokenizer.all_special_ids)
    ids = np.array(sorted(set(tokenizer.get_vocab().values()) - special), dtype=np.int64)
    if not len(ids):
        raise CoolbitsError("calibration: the tokenizer has no token that is not a special one")
    drawn = np.random.PCG64(recipe.seed).random_raw(recipe.sequences * recipe.sequence_length) >> _HALF
    places = (drawn * np.uint64(len(ids)) >> _HALF).astype(np.int64)
    return Tokens.of_equal_length(torch.from_numpy(ids[places].reshape(recipe.sequences, recipe.sequence_length)))
