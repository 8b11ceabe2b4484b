"""What the finished blocks of a pass gave, on disk until its results are stored: a pass that is killed goes on from it.

Each recipe has a folder of its own, so that one whose neighbours in the pass were stored already still finds its
blocks. In it lie parts, what some blocks in a row gave each, named by the number of layers before them. A part is there
whole or not at all, says whose it is, and is verified before it is used.
"""

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from itertools import islice, takewhile
from pathlib import Path
from time import monotonic

import torch
import transformers

from coolbits.artifacts.files import replacing, write_json
from coolbits.loops.ownership import Owner, belongs, is_whole, mark, note_processor
from coolbits.models.quantized import read_packed, read_replaced, write_packed
from coolbits.ptq.calibration import gather_hessians
from coolbits.ptq.ledger import Entry, Result
from coolbits.ptq.tracing import Block, Chunk, Trace

_LOG = logging.getLogger(__name__)
_ENTRIES = "entries.json"
_PARTS = "[0-9]" * 6

# Of one recipe: layers by module name, in the order in which they were made, and other parameters that changed.
Made = tuple[dict[str, Result], dict[str, torch.Tensor]]


def circumstances(device: torch.device) -> Owner:
    """Return what decides the last bits of a pass, besides recipe, model, calibration and code.

    As in training, the kind of CPU and the number of threads are left out: a job may go on with others, and says so.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"device": name, "torch": str(torch.__version__), "transformers": transformers.__version__}


@dataclass(frozen=True)
class Place:
    """Where a recipe's finished blocks are kept, whose they are, and every how many seconds what is new is written.

    `owner` is asked only where there is something to read or to write: it may have a model to hash.
    """

    folder: Path
    owner: Callable[[], Owner]
    every_seconds: float

    def read(self) -> Made:
        """Return what is kept, up to the first part that is lost; remove what is another's or damaged, and say so."""
        results: dict[str, Result] = {}
        replaced: dict[str, torch.Tensor] = {}
        for part in sorted(self.folder.glob(_PARTS)):
            if (reason := _refusal(part, self.owner())) is not None:
                _LOG.warning("%s: finished blocks of an earlier run, not used: %s", part, reason)
                shutil.rmtree(part, ignore_errors=True)
            elif int(part.name) <= len(results):
                note_processor(part)
                results |= _read_results(part)
                replaced |= read_replaced(part)
        return results, replaced

    def write(self, made: Made, before: int) -> None:
        """Write the layers that were made behind the first `before`, and the parameters."""
        results = dict(islice(made[0].items(), before, None))
        with replacing(self.folder / f"{before:06d}") as part:
            write_packed({name: result.packing for name, result in results.items()}, made[1], None, part)
            lines = {name: {"entry": asdict(each.entry), "seconds": each.seconds} for name, each in results.items()}
            write_json(part / _ENTRIES, lines)
            mark(part, self.owner())

    def clear(self) -> None:
        """Remove all that is kept: the result is stored."""
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass
class Kept:
    """What a pass has made so far for each of its recipes, and their places; what has none is not kept."""

    made: Sequence[Made]
    places: Sequence[Place | None] = ()
    _written: list[int] = field(default_factory=list)  # layers of each recipe
    _since: float = field(default_factory=monotonic)

    def resume(
        self,
        trace: Trace,
        advance: Callable[[int], None],
        put_in: Callable[[Block], AbstractContextManager[object]] = nullcontext,
    ) -> tuple[int, Sequence[Chunk]]:
        """Fill `made` with what is kept; return how many blocks are finished for all, and what the next one reads.

        The calibration passes through the finished blocks, each with what `put_in` puts in for as long.
        """
        for place, (results, replaced) in zip(self.places, self.made, strict=False):
            if place is not None:
                found = place.read()
                results.update(found[0])
                replaced.update(found[1])
        self._written = [len(results) for results, _ in self.made]
        done = min(_finished(trace.blocks, results) for results, _ in self.made)
        if done:
            names = ", ".join(place.folder.name for place in self.places if place is not None)
            _LOG.info("%s: goes on after block %d of %d", names, done, len(trace.blocks))
            advance(len(self.made) * sum(len(block.layers) for block in trace.blocks[:done]))
        return done, _inputs_behind(trace, done, put_in)

    def write(self) -> None:
        """Write what is new to the places, if that was done long enough ago."""
        waited = monotonic() - self._since
        for number, (place, made) in enumerate(zip(self.places, self.made, strict=False)):
            if place is not None and waited >= place.every_seconds and len(made[0]) > self._written[number]:
                place.write(made, self._written[number])
                self._written[number], self._since = len(made[0]), monotonic()


def _refusal(part: Path, owner: Owner) -> str | None:
    """Say why a part cannot be used; None if it can."""
    try:
        if not belongs(part, owner):
            return "made of another model or calibration, by another recipe, code or device, or damaged"
        return None if is_whole(part) else "damaged"
    except OSError as error:
        return f"damaged ({error.strerror})"


def _read_results(part: Path) -> dict[str, Result]:
    lines = json.loads((part / _ENTRIES).read_text(encoding="utf-8"))
    layers = read_packed(part).items()
    return {name: Result(layer, Entry(**lines[name]["entry"]), lines[name]["seconds"]) for name, layer in layers}


def _finished(blocks: Sequence[Block], results: dict[str, Result]) -> int:
    """Return how many of the blocks have all of their layers among the results, up to the first that has not."""
    return sum(1 for _ in takewhile(lambda block: results.keys() >= set(block.layers), blocks)) if results else 0


def _inputs_behind(
    trace: Trace, done: int, put_in: Callable[[Block], AbstractContextManager[object]]
) -> Sequence[Chunk]:
    """Return what the block behind the first `done` reads; nothing if there is none."""
    if done == len(trace.blocks):
        return ()
    inputs = trace.inputs
    for block in trace.blocks[:done]:
        with block.placed(), put_in(block):
            _, inputs = gather_hessians(block, inputs, {})
    return inputs
