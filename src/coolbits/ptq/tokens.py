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


def write_tokens(calibration: Tokens, out: Path) -> None:
    """Write `tokens.safetensors` into `out`: int32 `tokens` and `lengths`."""
    parts = {"tokens": calibration.tokens, "lengths": calibration.lengths}
    save_file({name: part.to(torch.int32).contiguous() for name, part in parts.items()}, out / TOKENS)


def read_tokens(directory: Path) -> Tokens:
    """Read back what `write_tokens` wrote.

    Raises:
        CoolbitsError: if the file is missing, or is not such a file.
    """
    if not (directory / TOKENS).is_file():
        raise CoolbitsError(f"{directory / TOKENS}: no such file; a calibration artifact holds {TOKENS}")
    with reading(directory / TOKENS, "the tokens of a calibration"):
        parts = load_file(directory / TOKENS)
        return Tokens(parts["tokens"].long(), parts["lengths"].long())
