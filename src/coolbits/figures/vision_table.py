"""The trainings of image classifiers, read and made into columns: a row a logged update, a row an evaluation."""

from collections.abc import Sequence

import pandas as pd

from coolbits.artifacts.errors import CoolbitsError
from coolbits.figures.measurements import Measurement

_TYPES = {
    "step": "Int64",
    "epoch": "float64",
    "split": "str",
    "loss": "float64",
    "accuracy": "float64",
    "lr": "float64",
    "grad_norm": "float64",
    "parameters": "Int64",
    "train_images": "Int64",
    "outcome": "str",
    "diverged_step": "Int64",
}


def vision(measured: Sequence[Measurement]) -> pd.DataFrame:
    """Return losses (nats an image) and accuracies along every row's training; `epoch` is a number of passes.

    Where `split` is "train" the loss is that of one batch, with `lr` and `grad_norm`; where it is "test" it is that of
    all held-out images, with `accuracy`. Column `row` counts the rows of the recipe from 0. A training that diverged
    keeps what there was before; one that diverged before anything was logged has one row that says so.

    Raises:
        CoolbitsError: if a classifier has no metrics.
    """
    frames = []
    for row, item in enumerate(measured):
        paths = [item.place / name for name in ("metrics.parquet", "evaluation.parquet")]
        for path in paths:
            if not path.is_file():
                raise CoolbitsError(f"{path}: no such file; a table of vision takes classifiers")
        train, test = (pd.read_parquet(path) for path in paths)
        size = item.summary["train_images"]
        train = train.assign(split="train", epoch=train.images / size).drop(columns="images")
        described = {"parameters": item.summary["parameters"], "train_images": size}
        described |= {"outcome": item.outcome, "diverged_step": item.diverged_step}
        logged = [part for part in (train, test) if len(part)]
        both = pd.concat(logged or [pd.DataFrame({"step": [item.diverged_step], "split": ["train"]})])
        frames.append(both.reindex(columns=list(_TYPES)).assign(**described).astype(_TYPES).assign(row=row))
    return pd.concat(frames, ignore_index=True)
