"""What all tests share: Triton's interpreter, and counts of what was done to the product, for the summary."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from coolbits import native, products
from coolbits.study.recipes.results import MODEL_COLUMNS, TRAJECTORY_COLUMNS

# Without a GPU, Triton's kernels run in its interpreter. Triton must know that before anything imports it, and
# transformers does: hence here, not beside the tests of the kernels.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

COUNTED = ("kills survived", "flipped bits found", "damaged inputs refused", "bad inputs refused")


@pytest.fixture
def counted(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Count, under one of the names in `COUNTED`, something that a test did once or several times."""

    def count(what: str, times: int = 1) -> None:
        assert what in COUNTED
        record_property(what, times)

    return count


@pytest.fixture(scope="session")
def bootstrap() -> Callable[..., tuple[float, float, float]]:
    """Return the estimate and the ends of its percentile interval, one resample after the other: paired over units."""

    def interval(
        statistic: Callable[..., float], *columns: Any, samples: int, confidence: float, seed: int
    ) -> tuple[float, float, float]:
        units = np.stack(columns)  # [columns, units]
        picks = np.random.default_rng(seed).integers(units.shape[1], size=(samples, units.shape[1]), dtype=np.uint32)
        drawn = [statistic(*units[:, pick]) for pick in picks]
        low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
        return statistic(*units), low, high

    return interval


@pytest.fixture
def trunk_and_decays() -> pd.DataFrame:
    """Rows of a trunk that two runs share, two cooldowns, a wsd run, a cosine run and an average, all of 3 bits."""
    millions, null = 1_000_000, dict.fromkeys(TRAJECTORY_COLUMNS | MODEL_COLUMNS)
    base = null | {"model": "m", "optimizer": "adamw", "weight_decay": 0.1, "peak_lr": 1e-2, "seed": 0, "final": False}
    base |= {"states": "32", "beta2": 0.95, "source": "checkpoint", "quantizer": "gptq-w3", "method": "gptq", "bits": 3}
    trunk = {"run": "trunk", "trajectory": "t", "family": "t", "schedule": "constant", "phase": "stable"}
    linear = {"phase": "decay", "decay_tokens": millions, "decay_shape": "linear", "final_fraction": 0.0}
    wsd = {"run": "rates", "family": "w", "schedule": "wsd", "budget_tokens": 5 * millions, "peak_lr": 3e-2}
    cosine = {"run": "cosine", "trajectory": "c", "family": "c", "schedule": "cosine", "budget_tokens": 5 * millions}
    cosine |= {"phase": "decay", "decay_tokens": 4.9 * millions, "decay_shape": "cosine", "final_fraction": 0.1}

    def row(tokens: int, **fields: Any) -> dict[str, Any]:
        return base | {"tokens": tokens, "step": tokens} | fields

    rows = [row(tokens * millions, **trunk) for tokens in (1, 2, 3, 4, 5)]
    rows += [row(2 * millions, **trunk | {"run": "soup"})]
    for start in (2, 4):
        end = (start + 1) * millions
        left = {"trajectory": f"b{start}", "branch_tokens": start * millions, "budget_tokens": end, "final": True}
        rows += [row(end, **trunk | {"schedule": "cooldown"} | linear | left)]
    rows += [row(tokens * millions, **wsd, trajectory="w", phase="stable") for tokens in (1, 4)]
    rows += [row(5 * millions + 200, **wsd, **linear, trajectory="w-end", final=True)]
    rows += [row(tokens * millions, **cosine, final=tokens == 5) for tokens in (2, 5)]
    rows += [row(4 * millions, **trunk | {"run": "lawa"}, source="average", average="lawa", window=5)]
    return pd.DataFrame(rows).astype(TRAJECTORY_COLUMNS | MODEL_COLUMNS)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The environment may be changed, and functions that are compiled in it are forgotten after."""
    native.library.cache_clear()
    yield monkeypatch
    native.library.cache_clear()


@pytest.fixture
def widened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A processor without bfloat16 products, whichever this is; the list gets their factors, made float32 since."""
    factors: list[Any] = []
    is_narrow = products._is_narrow

    def noted(value: Any) -> bool:
        narrow = is_narrow(value)
        factors.extend([value] * narrow)
        return narrow

    monkeypatch.setattr(products, "_is_narrow", noted)
    monkeypatch.setattr(products, "has_bfloat16", lambda: False)
    return factors


@pytest.fixture
def by_onednn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A processor on which oneDNN makes products of float32, whichever this is; the list gets their factors."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN")
    factors: list[Any] = []
    by_onednn = products._by_onednn

    def noted(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        factors.append((inputs, weight))
        return by_onednn(inputs, weight, bias)

    monkeypatch.setattr(products, "mkl_is_slow", lambda: True)
    monkeypatch.setattr(products, "_by_onednn", noted)
    return factors


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how much was counted in tests that passed."""
    counts: Counter[str] = Counter()
    for report in terminalreporter.stats.get("passed", []):
        for what, times in report.user_properties:
            counts[what] += times
    for what in COUNTED:
        if counts[what]:
            terminalreporter.write_line(f"{counts[what]} {what}")
