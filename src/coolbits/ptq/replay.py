"""A module called again, with other weights, on some of the tokens or sequences that it was called with."""

import copy
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from coolbits.models.quantized import weight_matrix
from coolbits.ptq.hooks import first_of
from coolbits.ptq.observation import Call
from coolbits.ptq.pairs import substituted
from coolbits.ptq.search import ALL, Objective, Weighed

_PIECES = 32  # losses of a sequence, each of as many tokens, of 8 at least: the race's limits are measured with these
_SHORTEST = 8
_EQUAL = 1e-4  # how far an output may stray from the whole call's, as a share of it
_TRIED = 16


@dataclass(frozen=True)
class Cut:
    """A call in pieces that the module computes apart: its tokens, its sequences, or all of it as one.

    `again(places)` are the outputs at some places, `wanted` those at all when it was called. `places` are the units:
    where there are tokens.
    """

    again: Callable[[torch.Tensor], torch.Tensor]  # float32 [some places, tokens, width], of int64 [some places]
    wanted: torch.Tensor  # float32 [all places, tokens, width]
    real: torch.Tensor  # bool [all places, tokens]: positions that hold tokens
    places: torch.Tensor  # int64 [units]

    def losses(self, units: torch.Tensor) -> torch.Tensor:
        """Return the squared errors of some units' outputs, summed over pieces of them, float32 [units, pieces]."""
        places = self.places[units.to(self.places.device)]
        errors = (self.again(places) - self.wanted[places]).square_().sum(-1)
        errors = torch.where(self.real[places], errors, 0)
        piece = self._piece
        return nn.functional.pad(errors, (0, -errors.shape[1] % piece)).unflatten(1, (-1, piece)).sum(-1).cpu()

    @property
    def pieces(self) -> int:
        """The number of losses of a unit."""
        return -(-self.wanted.shape[1] // self._piece)

    @property
    def _piece(self) -> int:
        return max(_SHORTEST, -(-self.wanted.shape[1] // _PIECES))

    def holds(self) -> bool:
        """Whether a few units, taken apart, come out as in the whole call, token by token."""
        count = len(self.places)
        few = self.places[torch.linspace(0, count - 1, min(_TRIED, max(1, count // 2))).long()]
        try:
            found, wanted = self.again(few), self.wanted[few]
        except torch.OutOfMemoryError:
            raise
        except Exception:  # a module's own, of shapes that do not fit
            return False
        if found.shape != wanted.shape:
            return False
        strays = (found - wanted).norm(dim=-1) > _EQUAL * wanted.norm(dim=-1)
        return not bool((strays & self.real[few]).any())


def replaying(parent: nn.Module, calls: Sequence[Call], linears: Mapping[str, nn.Module]) -> Objective:
    """Return the summed squared error of a module's output, one part a call.

    Its units are tokens where the module computes each by itself, as an MLP does, else sequences, else calls: what it
    is, is tried.
    """
    for kind in (_tokens, _sequences):
        cuts = [kind(parent, call) for call in calls]
        if all(cut.holds() for cut in cuts):
            return _objective(cuts, linears, drawn=kind is _tokens)
    return _objective([_whole(parent, call) for call in calls], linears, drawn=False)


def _objective(cuts: Sequence[Cut], linears: Mapping[str, nn.Module], drawn: bool) -> Objective:
    counts = [len(cut.places) for cut in cuts]
    parts = torch.arange(sum(counts)).split(counts)
    pieces = max(cut.pieces for cut in cuts)

    def losses(weighed: Weighed, units: torch.Tensor) -> torch.Tensor:
        table = torch.zeros(len(units), pieces)
        with substituted([(weight_matrix(linears[name]), weight) for name, weight in weighed(ALL).items()]):
            for cut, part in zip(cuts, parts, strict=True):
                here = (units >= part[0]) & (units <= part[-1])
                if here.any():
                    found = cut.losses(units[here] - part[0])
                    table[here, : found.shape[1]] = found
        return table

    return Objective(parts, losses, drawn)


def _tokens(module: nn.Module, call: Call) -> Cut:
    """Cut a call into tokens: the rows of what has as many as the output."""
    rows, real = call.output.flatten(0, -2), _real(call).flatten()

    def few(tensor: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        if tensor.dim() < 2 or tensor.shape[:-1].numel() != len(rows):
            return tensor
        return tensor.flatten(0, -2)[places].reshape(*[1] * (tensor.dim() - 2), len(places), -1)

    def again(places: torch.Tensor) -> torch.Tensor:
        return _output(module, call, lambda tensor: few(tensor, places)).reshape(len(places), 1, -1)

    return Cut(again, rows[:, None], real[:, None], real.nonzero().squeeze(1))


def _sequences(module: nn.Module, call: Call) -> Cut:
    """Cut a call into its sequences, the first dimension of the output and of what belongs to one of them."""
    count = len(call.output)

    def again(places: torch.Tensor) -> torch.Tensor:
        return _output(module, call, lambda tensor: tensor[places] if tensor.shape[:1] == (count,) else tensor)

    return Cut(again, call.output, _real(call), torch.arange(count, device=call.output.device))


def _whole(module: nn.Module, call: Call) -> Cut:
    def again(_places: torch.Tensor) -> torch.Tensor:
        return _output(module, call).flatten(0, -2)[None]

    rows = call.output.flatten(0, -2)
    return Cut(again, rows[None], _real(call).reshape(1, -1), torch.zeros(1, dtype=torch.int64, device=rows.device))


def _real(call: Call) -> torch.Tensor:
    output = call.output
    return torch.ones(output.shape[:-1], dtype=torch.bool, device=output.device) if call.real is None else call.real


def _output(
    module: nn.Module, call: Call, change: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor
) -> torch.Tensor:
    """Return what a module gives for every tensor that it was called with changed.

    Those in mappings are changed in a copy, for later blocks may read them.
    """

    def changed(item: Any) -> Any:
        if isinstance(item, torch.Tensor):
            return change(item)
        if isinstance(item, MutableMapping):
            own = copy.copy(item)
            own.update({key: changed(value) for key, value in item.items()})
            return own
        return tuple(map(changed, item)) if type(item) is tuple else item

    return first_of(module(*changed(call.arguments), **{key: changed(item) for key, item in call.keywords.items()}))
