"""Bytes of optimizer states, counted on real optimizers whose tensors have shapes and types but no storage."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from transformers import PreTrainedModel

from coolbits.models.build import outline_model
from coolbits.optim.build import build_optimizer
from coolbits.optim.codecs import Blockwise
from coolbits.optim.groups import Role, parameter_roles
from coolbits.study.recipes.analysis import Memory, NamedModel
from coolbits.study.recipes.results import TABLE
from coolbits.study.recipes.training import AdamW, Optimizer, Storage

_PLACES: dict[Role, str] = {"matrix": "matrices", "embedding": "tables", "head": "tables", "vector": "vectors"}
_TYPES = {
    **{"model": "str", "parameters": "Int64", "matrices": "Int64", "tables": "Int64", "vectors": "Int64"},
    **{"optimizer": "str", "place": "str", "state": "str", "stored": "str"},
    **{"tensors": "Int64", "bytes": "Int64", "exempt_tensors": "Int64", "exempt_bytes": "Int64"},
    **{"total_bytes": "Int64", "cut": "float64", "cut_adamw": "float64"},
}


def build_memory(recipe: Memory, out: Path) -> dict[str, Any]:
    """Write the table to `out`: a row for each model, optimizer, place and state.

    A place is `matrices` (inside the blocks), `tables` (embeddings and head) or `vectors` (norms and biases). `stored`
    is the codec of the state; `exempt_tensors` are those too small for it and kept in float32. `total_bytes` are those
    of all states of the optimizer; `cut` is the share of them saved against the same optimizer with float32 states,
    `cut_adamw` against AdamW with float32 states.
    """
    rows = pd.concat([pd.DataFrame(_rows_of(named, recipe)) for named in recipe.models], ignore_index=True)
    rows[list(_TYPES)].astype(_TYPES).to_parquet(out / TABLE, index=False)
    return {"rows": len(rows)}


def state_bytes(model: PreTrainedModel, optimizer: Optimizer) -> pd.DataFrame:
    """Return a row for each state tensor that the optimizer keeps: `parameter`, `place`, `state`, `coded`, `bytes`.

    `bytes` are those of codes and scales together. The count of steps, 4 bytes in all, is left out.
    """
    roles = parameter_roles(model)
    rows = []
    built = build_optimizer(model, optimizer, peak_lr=1.0)
    for stored in built.stored_states():
        coded = isinstance(built.codecs_of(stored.parameter)[stored.state], Blockwise)
        rows.append((stored.parameter, _PLACES[roles[stored.parameter]], stored.state, coded, stored.bytes))
    return pd.DataFrame(rows, columns=["parameter", "place", "state", "coded", "bytes"])


def _rows_of(named: NamedModel, recipe: Memory) -> Iterator[dict[str, Any]]:
    model = outline_model(named.model)
    roles = parameter_roles(model)
    sizes = dict.fromkeys(_PLACES.values(), 0)
    for name, parameter in model.named_parameters():
        sizes[_PLACES[roles[name]]] += parameter.numel()
    wanted = [variant.optimizer for variant in recipe.optimizers]
    counted = {one: state_bytes(model, one) for one in dict.fromkeys([AdamW(), *wanted, *map(_in_float32, wanted)])}
    totals = {optimizer: states.bytes.sum() for optimizer, states in counted.items()}
    for variant in recipe.optimizers:
        total, whole = totals[variant.optimizer], totals[_in_float32(variant.optimizer)]
        for (place, state), own in counted[variant.optimizer].groupby(["place", "state"]):
            storage: Storage = getattr(variant.optimizer.states, str(state))
            exempt = own[~own.coded] if storage.codec != "float32" else own[:0]
            yield {
                **{"model": named.name, "parameters": sum(sizes.values()), **sizes},
                **{"optimizer": variant.name, "place": place, "state": state, "stored": storage.codec},
                **{"tensors": len(own), "bytes": own.bytes.sum()},
                **{"exempt_tensors": len(exempt), "exempt_bytes": exempt.bytes.sum()},
                **{"total_bytes": total, "cut": 1 - total / whole, "cut_adamw": 1 - total / totals[AdamW()]},
            }


def _in_float32(optimizer: Optimizer) -> Optimizer:
    return optimizer.model_copy(update={"states": type(optimizer.states)()})
