"""A synthetic study in which every claimed effect is present, reversed or absent, down to the documents.

And tables of image classifiers, of fine-tunings, of tasks and of curvature, which have one number a model; and of
analyses.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

from coolbits.analysis.memory import build_memory
from coolbits.analysis.rows import table
from coolbits.analysis.theory import random_rows
from coolbits.models.presets import preset
from coolbits.study.optimizer_names import optimizer_preset
from coolbits.study.recipes.analysis import Memory, NamedModel, NamedOptimizer, Theory
from coolbits.study.recipes.results import MODEL_COLUMNS, TRAJECTORY_COLUMNS, VISION_COLUMNS
from coolbits.study.recipes.training import Muon

BATCH, DOCUMENTS = 4096, 80
NO_DECAY = dict.fromkeys(("decay_tokens", "decay_shape", "final_fraction"))
# Of each variant the claimed effect on the error and on the full loss.
VARIANTS = {
    ("adamw", "32"): (0.0, 0.0),
    ("adamw", "8D"): (1.5, 0.0),
    ("adamw", "8L"): (0.0, -0.5),
    ("muon", "32"): (0.0, 0.05),
    ("muon", "8D"): (1.5, 0.05),
    ("muon", "8L"): (1.5, 0.05),
    ("muon", "8L+8D"): (1.5, 0.04),
    ("muon", "8L+8L"): (1.5, 0.03),
    ("sgd", "32"): (0.0, -0.1),
    ("sgd", "8L"): (1.5, -0.1),
    ("sgd", "8D"): (1.5, -0.1),
}
# How far each variant ends behind its 32-bit form: in points of accuracy, in percent of the loss on answers.
WORSE_ACCURACY = {
    ("sgd", "32"): 0.0,
    ("sgd", "8L"): 0.1,
    ("sgd", "8D"): 0.1,
    ("adamw", "32"): 0.0,
    ("adamw", "8D"): -0.2,
    ("adamw", "8L"): 9,
    ("adamw", "8D-min0"): 0.1,
    ("adamw", "8L-min0"): 30,
}
WORSE_ANSWERS = dict.fromkeys([("muon", "32"), ("muon", "8L"), ("muon", "8D"), ("adamw", "32"), ("adamw", "8D")], 0.2)
WORSE_ANSWERS |= {("muon", "32"): 0.0, ("adamw", "32"): 0.0, ("adamw", "8L"): 9.0}
GOOD_RATE, BAD_RATE = 1e-2, 1e-1
Frame = pd.DataFrame
Variant = tuple[str, str]
Study = tuple[Frame, Frame]


def _points(seed: int) -> Iterator[dict[str, Any]]:
    """Yield the models of one seed; `shift` is the claimed effect on the error, `gain` that on the full loss."""
    base: dict[str, Any] = {
        "seed": seed,
        "data_seed": seed,
        "run": "run",
        "model": "micro",
        "parameters": 1000,
        "optimizer": "adamw",
        "weight_decay": 0.1,
    }
    base |= {"peak_lr": 1e-2, "lr": 0.0, "branch_tokens": None, "budget_tokens": None, "final": False}
    base |= {"source": "checkpoint", "average": None, "window": None, "gain": 0.0, "shift": 0.0}
    base |= {"states": "32", "beta2": 0.95, "decay_tokens": None, "decay_shape": None, "final_fraction": None}

    def at(millions: float, phase: str, **fields: Any) -> dict[str, Any]:
        tokens = round(millions * 1e6 / BATCH) * BATCH
        return base | {"tokens": tokens, "step": tokens // BATCH, "phase": phase} | fields

    def tokens(millions: float) -> int:
        return round(millions * 1e6 / BATCH) * BATCH

    def decay(millions: float, shape: str = "linear") -> dict[str, Any]:
        return {"decay_tokens": tokens(millions), "decay_shape": shape, "final_fraction": 0.0}

    trunk = {"trajectory": f"trunk-s{seed}", "family": f"trunk-s{seed}"}
    for millions in range(1, 10):
        yield at(millions, "stable", **trunk, schedule="constant")
    for millions in (2, 4, 8):
        branch = {"trajectory": f"branch{millions}-s{seed}", "family": trunk["family"], "schedule": "cooldown"}
        branch |= {"branch_tokens": tokens(millions), "budget_tokens": tokens(millions + 1)} | decay(1)
        yield at(millions + 1, "decay", **branch, shift=2.0, gain=0.1, final=True)
        average = {"source": "average", "average": "lawa", "window": 5}
        yield at(millions + 1, "stable", **trunk, schedule="constant", **average, shift=-2.0, gain=0.05)
    for budget in (2, 4, 8):
        run = {"trajectory": f"cosine{budget}-s{seed}", "family": f"cosine{budget}-s{seed}", "schedule": "cosine"}
        run |= decay(0.99 * budget, "cosine")
        yield at(budget, "decay", **run, budget_tokens=tokens(budget), shift=1.5 * np.log2(budget), final=True)
    arms: dict[str, tuple[dict[str, Any], float, float]] = {
        "rate-low": ({"peak_lr": 3e-3}, 1.5, 0.0),
        "rate-high": ({"peak_lr": 3e-2}, -1.5, 0.0),
        "little-decay": ({"weight_decay": 0.01}, 1.5, 0.0),
        "adamc": ({"optimizer": "adamc"}, 0.0, 0.0),
        "muon": ({"optimizer": "muon"}, 1.5, 0.0),
    }
    for (optimizer, states), (shift, gain) in VARIANTS.items():
        fields = {"model": "variants", "optimizer": optimizer, "states": states}
        arms[f"{optimizer}-{states}"] = (fields, shift, gain)
    for name, (fields, shift, gain) in arms.items():
        stem = {"trajectory": f"{name}-s{seed}", "family": f"{name}-s{seed}", "schedule": "wsd"} | fields
        stem |= {"budget_tokens": tokens(5)} | decay(1)
        for millions in (1, 2, 3, 4):
            yield at(millions, "stable", **stem | NO_DECAY, shift=shift, gain=gain)
        end = stem | {"trajectory": f"{name}-end-s{seed}"}
        yield at(5, "decay", **end, shift=shift + 2.0, gain=0.1 + gain, final=True)
    for member in range(2):
        run = {"trajectory": f"soup{member}-s{seed}", "family": f"souptrunk-s{seed}", "model": "tiny"}
        run |= {"schedule": "cooldown", "branch_tokens": tokens(6), "budget_tokens": tokens(7)} | decay(1)
        yield at(7, "decay", **run, shift=2.0, final=True)
    soup = {"source": "average", "average": "soup", "window": 2, "members": f"soup0-s{seed} soup1-s{seed}"}
    yield at(7, "decay", **run | soup | {"trajectory": f"soup-s{seed}"}, shift=0.5)


def make_study(sign: float, seeds: int = 3, model_noise: float = 0.02, document_noise: float = 0.02) -> Study:
    """Return loss table and documents; effects are multiplied by `sign` (1: as claimed, -1: reversed, 0: absent).

    `model_noise` is the spread of the error between models, in points; `document_noise` that of a document's excess
    loss under quantization, in nats a token.
    """
    points = pd.DataFrame([point for seed in range(seeds) for point in _points(seed)])
    generator = np.random.default_rng(11)
    tokens = generator.integers(30, 300, DOCUMENTS)
    hardness = generator.normal(0, 0.4, DOCUMENTS)
    errors = 6.0 + sign * points["shift"] + generator.normal(0, model_noise, len(points))
    # AdamW trains best at 1e-2 and 0.1, by a little, so that "the best rate" is the one its peers are compared with.
    detuned = 0.01 * ((points.peak_lr != 1e-2) | (points.weight_decay != 0.1))
    full = detuned + 2.5 + (points.tokens / 1e6) ** -0.5 - sign * points["gain"]
    rows, documents = [], []
    for place, point in enumerate(points.drop(columns=["shift", "gain"]).to_dict("records")):
        base = tokens * np.clip(full[place] + hardness, 0.5, None)
        noise = generator.normal(0, document_noise, DOCUMENTS)
        nats = base * (1 + errors[place] / 100) + tokens * noise
        numbers = {"loss": nats.sum() / tokens.sum(), "base_loss": base.sum() / tokens.sum()}
        numbers |= {"relative_error": nats.sum() / base.sum() - 1, "outcome": "complete", "diverged_step": None}
        numbers |= {"fallbacks": 0}
        itself = point | numbers | {"loss": numbers["base_loss"], "relative_error": 0.0}
        rows.append(point | numbers | {"quantizer": "gptq-w3", "method": "gptq", "bits": 3, "group_size": 64})
        rows.append(itself | {"quantizer": "none", "method": "none", "bits": None, "group_size": None})
        documents.append({"row": 2 * place, "tokens": tokens, "nats": nats, "base_nats": base})
        documents.append({"row": 2 * place + 1, "tokens": tokens, "nats": base, "base_nats": base})
    table = pd.DataFrame(rows).astype(TRAJECTORY_COLUMNS | MODEL_COLUMNS | {"outcome": "str", "diverged_step": "Int64"})
    return table, pd.DataFrame(documents)


@pytest.fixture(scope="session")
def study() -> Callable[..., Study]:
    """Return `make_study`, which makes each study once; what it returns is free to change."""
    made = cache(make_study)

    def copied(*arguments: Any, **options: Any) -> Study:
        table, documents = made(*arguments, **options)
        return table.copy(), documents.copy()

    return copied


def make_classifiers(worse: Mapping[Variant, float] = WORSE_ACCURACY, seeds: int = 3, spread: float = 0.1) -> Frame:
    """Return a vision table; the accuracy of each variant with 8-bit states is lower by `worse` points.

    That number grows by `spread` points a seed, around its mean. Each variant has a second rate, at which it ends 20
    points lower, and an accuracy that is higher halfway than at the end.
    """
    rows = []
    for optimizer, states, seed, rate in _trainings(worse, seeds):
        columns: dict[str, Any] = {"run": "digits", "trajectory": f"{optimizer}-{states}-{rate:g}-s{seed}"}
        columns |= {"images": "digits", "model": "resnet-micro", "optimizer": optimizer, "states": states}
        columns |= {"beta2": None if optimizer == "sgd" else 0.999, "weight_decay": 0.01, "schedule": "cosine"}
        columns |= {"peak_lr": rate, "seed": seed, "epochs": 2, "batch_images": 64}
        columns |= {"outcome": "complete", "diverged_step": None}
        lost = worse[optimizer, states] + spread * (states != "32") * (seed - (seeds - 1) / 2) + 20 * (rate == BAD_RATE)
        final = 0.95 + 0.004 * seed - lost / 100
        for step, split, accuracy in ((1, "train", None), (10, "test", 0.97), (20, "test", final), (20, "train", None)):
            rows.append(columns | {"step": step, "epoch": step / 10, "split": split, "accuracy": accuracy})
    types = VISION_COLUMNS | {"step": "Int64", "accuracy": "float64", "outcome": "str", "diverged_step": "Int64"}
    return pd.DataFrame(rows).astype(types)


def make_finetunings(worse: Mapping[Variant, float] = WORSE_ANSWERS, seeds: int = 3, spread: float = 0.1) -> Frame:
    """Return a table of fine-tunings; the loss on answers with 8-bit states is higher by `worse` percent.

    That number grows by `spread` percent a seed, around its mean; a second rate ends 0.5 nats higher.
    """
    rows = []
    for optimizer, states, seed, rate in _trainings(worse, seeds):
        columns = dict.fromkeys(TRAJECTORY_COLUMNS | MODEL_COLUMNS) | {"run": "qa", "model": "micro", "tokens": 10_000}
        columns |= {"trajectory": f"{optimizer}-{states}-{rate:g}-s{seed}", "optimizer": optimizer, "states": states}
        columns |= {"weight_decay": 0.0, "beta2": None if optimizer == "sgd" else 0.95, "peak_lr": rate, "seed": seed}
        columns |= {"schedule": "cosine", "data_seed": 0, "start": f"micro-s{seed}"}
        columns |= {"outcome": "complete", "diverged_step": None}
        raised = worse[optimizer, states] + spread * (states != "32") * (seed - (seeds - 1) / 2)
        final = (2.5 + 0.1 * seed) * (1 + raised / 100) + 0.5 * (rate == BAD_RATE)
        rows += [columns | {"step": step, "loss": loss, "last": step == 20} for step, loss in ((0, 6.0), (20, final))]
    types = TRAJECTORY_COLUMNS | MODEL_COLUMNS | {"loss": "float64", "outcome": "str", "diverged_step": "Int64"}
    return pd.DataFrame(rows).astype(types)


def _trainings(variants: Iterable[Variant], seeds: int) -> Iterator[tuple[str, str, int, float]]:
    for optimizer, states in variants:
        for seed in range(seeds):
            for rate in (GOOD_RATE, BAD_RATE):
                yield optimizer, states, seed, rate


@pytest.fixture(scope="session")
def classifiers() -> Callable[..., Frame]:
    """Return `make_classifiers`."""
    return make_classifiers


@pytest.fixture(scope="session")
def finetunings() -> Callable[..., Frame]:
    """Return `make_finetunings`."""
    return make_finetunings


def make_tasks(losses: Frame, worse: float = 0.2, spread: float = 0.1) -> Frame:
    """Return a table of two tasks for the finished runs of a loss table.

    With 8-bit states the accuracy of both is lower by `worse` points, which grows by `spread` points a seed around its
    mean. One task has a normalized accuracy, too, the other a metric that is no accuracy.
    """
    ends = losses[losses.final.astype(bool) & (losses.quantizer == "none")].drop(columns=["loss", "base_loss"])
    lost = (ends.states != "32") * (worse + spread * (ends.seed.astype(float) - ends.seed.mean())) / 100
    parts = []
    for task, base, others in (("arc_easy", 0.6, {"acc_norm": 0.1}), ("lambada_openai", 0.4, {"perplexity": 30.0})):
        accuracy = base + 0.01 * ends.seed.astype(float) - lost
        parts.append(ends.assign(task=task, metric="acc", value=accuracy))
        parts += [ends.assign(task=task, metric=metric, value=value) for metric, value in others.items()]
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="session")
def tasks() -> Callable[..., Frame]:
    """Return `make_tasks`."""
    return make_tasks


def make_curvatures(losses: Frame) -> Frame:
    """Return a curvature table of the models of a loss table, two eigenvalues each.

    A point of error doubles the largest one, and the trace twice.
    """
    models = losses[losses.quantizer == "none"].reset_index(drop=True)
    largest = 2.0 ** (100 * losses.loc[losses.quantizer != "none", "relative_error"].to_numpy())
    table = models.drop(columns=["base_loss", "relative_error"])
    table = table.assign(measurement=models.index, measure="curvature", top_eigenvalue=largest, trace=90 * largest**2)
    ranked = [table.assign(rank=rank, eigenvalue=largest / rank, residual=0.0) for rank in (1, 2)]
    return pd.concat(ranked).sort_values(["measurement", "rank"], ignore_index=True)


@pytest.fixture(scope="session")
def curvatures() -> Callable[..., Frame]:
    """Return `make_curvatures`."""
    return make_curvatures


@pytest.fixture(scope="session")
def memory_table(tmp_path_factory: pytest.TempPathFactory) -> Frame:
    """Bytes of Muon's states on the smallest and the largest model of paper B, counted on real optimizers."""
    out = tmp_path_factory.mktemp("memory")
    models = (NamedModel(name=name, model=preset(name, 50_257, 2048)) for name in ("gpt-162m", "gpt-2.7b"))
    names = ("Muon-32", "Muon-8L", "Muon-8D", "Muon-8L+AdamW-8D")
    optimizers = (
        NamedOptimizer(name=name, optimizer=Muon.model_validate(optimizer_preset(name) | {"kind": "muon"}))
        for name in names
    )
    build_memory(Memory(models=tuple(models), optimizers=tuple(optimizers)), out)
    return pd.read_parquet(out / "table.parquet")


@pytest.fixture(scope="session")
def theory_table() -> Frame:
    """The theorems on small random matrices of each distribution."""
    return table(random_rows(Theory(rows=48, columns=96, seeds=2, adam_block_sizes=(256, 2048))))
