"""The tokens of a calibration: an artifact of their own, made once and shared by methods."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from coolbits.artifacts.errors import CoolbitsError
from coolbits.models.files import reading

TOKENS = "tokens.safetensors"


@dataclass(frozen=True)
class Tokens:
    """Sequences of tokens, the shorter ones padded on the right."""

    tokens: torch.Tensor  # int64 [sequences, length]
    lengths: torch.Tensor  # int64 [sequences]

    @property
    def count(self) -> int:
        """Tokens without padding."""
        return int(self.lengths.sum())

    @property
    def whole(self) -> bool:
        """Whether no sequence is padded."""
        return self.count == self.tokens.numel()

    @property
    def real(self) -> torch.Tensor:
        """Positions that hold tokens, bool [sequences, length]."""
        return torch.arange(self.tokens.shape[1]) < self.lengths[:, None]

    @classmethod
    def of_equal_length(cls, tokens: torch.Tensor) -> "Tokens":
        """Return sequences without padding, from int64 [sequences, length]."""
        return cls(tokens, torch.full((len(tokens),), tokens.shape[1]))

    def longest_first(self, sequences: int) -> tuple["Tokens", ...]:
        """Return chunks of `sequences` each, the last with the rest, none wider than its longest sequence.

        Sequences are in the order of their lengths, so that what is together is alike; equals stay as they lie.
        """
        order = self.lengths.argsort(descending=True, stable=True)
        chunks = zip(self.tokens[order].split(sequences), self.lengths[order].split(sequences), strict=True)
        return tuple(Tokens(tokens[:, : int(lengths[0])], lengths) for tokens, lengths in chunks)


def write_tokens(calibration: Tokens, out: Path) -> None:
    """Write `tokens.safetensors` into `out`: int32 `tokens` and `lengths`."""
    parts = {"tokens": calibration.tokens, "lengths": calibration.lengths}
    save_file({name: part.to(torch.int32).contiguous() for name, part in parts.items()}, out / TOKENS)


def read_tokens(directory: Path) -> Tokens:
    """Read back what `write_tokens` wrote.

    Raises:
        CoolbitsError: if the file is missing, or is not such a file.
    """
    path = directory / TOKENS
    if not path.is_file():
        raise CoolbitsError(f"{path}: no such file; a calibration artifact holds {TOKENS}")
    with reading(path, "the tokens of a calibration"):
        parts = load_file(path)
    for key, dimensions in (("tokens", 2), ("lengths", 1)):
        if mistake := _mistake_of_form(parts.get(key), dimensions):
            raise CoolbitsError(f"{path}: `{key}`: {mistake}")
    found = Tokens(parts["tokens"].long(), parts["lengths"].long())
    for key, mistake in _mistakes_of_value(found).items():
        raise CoolbitsError(f"{path}: `{key}`: {mistake}")
    return found


def _mistake_of_form(part: torch.Tensor | None, dimensions: int) -> str:
    """Say what keeps a tensor from being integers in so many dimensions; nothing if it is."""
    if part is None:
        return "there is no such key"
    if part.is_floating_point() or part.is_complex() or part.dtype is torch.bool:
        return f"holds {str(part.dtype).removeprefix('torch.')}; integers are expected"
    if part.dim() != dimensions:
        return f"has {part.dim()} dimensions; expected: {dimensions}"
    return "" if part.numel() else "is empty"


def _mistakes_of_value(found: Tokens) -> dict[str, str]:
    """Say by key what is wrong with integers of the right form; nothing of a key that is right."""
    sequences, width = found.tokens.shape
    mistakes: dict[str, str] = {}
    # Padding, too, is shown to the model, which has no embedding of a negative token.
    if (lowest := int(found.tokens.min())) < 0:
        mistakes["tokens"] = f"holds {lowest}; tokens are numbered from 0"
    if len(found.lengths) != sequences:
        mistakes["lengths"] = f"holds {len(found.lengths)} numbers; expected: {sequences}, one a sequence of `tokens`"
    elif wrong := [length for length in found.lengths.tolist() if not 1 <= length <= width]:
        mistakes["lengths"] = f"holds {wrong[0]}; allowed are 1 to {width}, the width of `tokens`"
    return mistakes
