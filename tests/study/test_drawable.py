"""Figures that no row of a study can fill are refused by the plan, as drawing itself would refuse them in the end."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from coolbits.artifacts.errors import CoolbitsError
from coolbits.figures.names import FIGURES
from coolbits.figures.registry import plot
from coolbits.figures.tables import describe
from coolbits.study.plan import Plan
from coolbits.study.recipes.results import Table

Study = dict[str, Any]

COSINE = {"schedule": {"kind": "cosine", "warmup": 128}, "tokens": 1280}
MEASURED = {"outcome": "complete", "base_loss": 2.0, "loss": 2.1, "relative_drop": 0.1, "metric": "acc", "task": "one"}
CURVED = {
    "scored_tokens": 9,
    "rank": 1,
    "eigenvalue": 1.0,
    "increase": 0.1,
    "predicted": 0.1,
    "random": 0.1,
    "squared_norm": 1.0,
}


def measured(kind: str) -> dict[str, Any]:
    own = {"tasks": {"tasks": ["embedded"]}}.get(kind, {"windows": 4})
    return {"measure": {"kind": kind} | own}


def tables(plan: Plan) -> dict[str, pd.DataFrame]:
    """The tables that the plan describes, as if all had come to its end."""
    found = {}
    for node in plan.of_kind("table"):
        recipe = Table.model_validate(node.recipe)
        found[recipe.content] = describe(recipe).assign(**MEASURED | CURVED)
    return found


def no_decay(kind: str) -> Callable[[Study], None]:
    def change(study: Study) -> None:
        study |= {"runs": {"cosine": COSINE}, "averages": {}, "evaluations": {"one": measured(kind)}}

    return change


def ends_alone(study: Study) -> None:
    study |= {"runs": {"wsd": study["runs"]["wsd"]}, "averages": {}}
    study["evaluations"]["loss"]["of"] = "final"


def one_rate(study: Study) -> None:
    study["runs"]["wsd"]["peak_lr"] = 1e-2


def rate_of_its_own(study: Study) -> None:
    study["runs"]["cosine"] = COSINE | {"peak_lr": 0.5}


def quantized_once(study: Study) -> None:
    study["evaluations"]["loss"]["quantizers"] = ["rtn-w3"]


def landscape_of_one(study: Study) -> None:
    study["evaluations"]["loss"] = measured("landscape") | {"runs": ["trunk"]}


def nothing(_study: Study) -> None:
    pass


LACKING = {
    "no decay": (no_decay("loss"), "tokens", {}, "run with a decay"),
    "no trunk": (ends_alone, "tokens", {}, "checkpoint of a constant-rate trunk"),
    "no quantizer": (lambda study: study.update(quantizers={}), "tokens", {}, "quantized model"),
    "another quantizer": (quantized_once, "peak-rate", {"quantizers": ["gptq-w4"]}, "model quantized by 'gptq-w4'"),
    "one rate": (one_rate, "peak-rate", {}, "second peak learning rate"),
    "one weight decay": (nothing, "weight-decay", {}, "second weight decay"),
    "no such optimizer": (nothing, "norms", {"optimizers": ["Muon-8L"]}, "run of the optimizers in its options"),
    "no such rate": (nothing, "norms", {"peak_lr": 0.5}, "run at peak rate 0.5"),
    "no cosine": (nothing, "schedules", {}, "run with a cosine schedule"),
    "other rates": (rate_of_its_own, "schedules", {}, "second schedule in a setting"),
    "no average": (lambda study: study.update(averages={}), "averages", {}, "average"),
    "one optimizer": (nothing, "optimizers", {}, "second optimizer"),
    "one precision": (nothing, "states", {}, "second optimizer, or precision of states"),
    "another model": (nothing, "states", {"model": "gpt-162m"}, "model 'gpt-162m'"),
    "no decay asked": (no_decay("tasks"), "tasks", {}, "run with a decay"),
    "no pretrained model": (nothing, "quantizers", {}, "quantized pretrained model"),
    "no curvature": (no_decay("curvature"), "curvature", {}, "run with a decay"),
    "no prediction": (no_decay("prediction"), "prediction", {}, "run with a decay"),
    "another landscape": (landscape_of_one, "landscape", {"runs": ["wsd"]}, "model of the runs"),
}


@pytest.mark.parametrize(("change", "figure", "options", "lacks"), LACKING.values(), ids=LACKING)
def test_a_figure_without_its_rows_is_refused(
    tiny: Any, planned: Any, change: Callable[[Study], None], figure: str, options: dict[str, Any], lacks: str
) -> None:
    change(tiny)
    plan = planned(tiny | {"figures": {}})
    with pytest.raises(CoolbitsError, match=rf"^figures\.mine: {figure} needs an? {lacks}"):
        planned(tiny | {"figures": {"mine": {"figure": figure, "options": options}}})
    # So the figure itself would fail, after the last training.
    with pytest.raises((CoolbitsError, ValueError)):
        plot(figure).caption(tables(plan), options, "")


def test_more_quantizers_than_a_figure_shows_are_refused(tiny: Any, planned: Any) -> None:
    tiny["figures"] = {"mine": {"figure": "peak-rate", "options": {"quantizers": ["rtn-w3", "gptq-w4"]}}}
    with pytest.raises(CoolbitsError) as raised:
        planned(tiny)
    assert str(raised.value) == "figures.mine.options.quantizers: 2 of them, but the figure shows at most 1"


def test_figures_with_their_rows_are_planned(tiny: Any, planned: Any) -> None:
    tiny["runs"] |= {
        "cosine": COSINE | {"peak_lr": 1e-2, "telemetry": {"every": 64}},
        "sgd": COSINE | {"optimizer": {"kind": "sgd"}, "peak_lr": 1e-2},
        "decays": tiny["runs"]["wsd"] | {"optimizer": [{"kind": "adamw", "weight_decay": decay} for decay in (0, 0.2)]},
    }
    kinds = ("tasks", "curvature", "prediction", "landscape")
    tiny["evaluations"] |= {kind: measured(kind) for kind in kinds}
    drawn = [name for name, (table, *_) in FIGURES.items() if table in ("loss", "metrics", "telemetry", *kinds)]
    options = {"quantizers": {"runs": ["trunk"]}, "telemetry-layers": {"optimizers": ["AdamW-32"]}}
    tiny["figures"] = {name: {"figure": name, "options": options.get(name, {})} for name in drawn}
    assert len(planned(tiny).of_kind("figure")) == len(drawn) > 12


@pytest.mark.parametrize(
    ("figure", "options", "said"),
    [
        ("telemetry", {"runs": ["trunk"]}, "telemetry needs a run with telemetry"),
        ("telemetry-layers", {"optimizers": ["Muon-8L"]}, "telemetry-layers needs a run of the optimizers"),
    ],
)
def test_telemetry_of_what_is_not_watched_is_refused(
    tiny: Any, planned: Any, figure: str, options: dict[str, Any], said: str
) -> None:
    tiny["runs"]["wsd"]["telemetry"] = {"every": 64}
    tiny["figures"] = {"mine": {"figure": figure, "options": options}}
    with pytest.raises(CoolbitsError, match=rf"^figures\.mine: {said}"):
        planned(tiny)
