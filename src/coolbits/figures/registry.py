"""The figures' modules by name."""

from collections.abc import Callable
from typing import NamedTuple

from matplotlib.figure import Figure

from coolbits.artifacts.errors import CoolbitsError
from coolbits.figures.plots import (
    averages,
    curvature,
    finetuning,
    landscape,
    memory,
    norms,
    optimizers,
    peak_rate,
    prediction,
    quantizers,
    schedules,
    states,
    tasks,
    telemetry,
    telemetry_layers,
    theory,
    tokens,
    vision,
    weight_decay,
)
from coolbits.figures.selection import Options, Tables


class Plot(NamedTuple):
    """How a figure is drawn and what its caption says; some look at single held-out documents, too."""

    draw: Callable[[Tables, Options], Figure]
    caption: Callable[[Tables, Options, str], str]
    documents: bool = False


PLOTS = {
    module.NAME: Plot(module.draw, module.caption, documents=module is states)
    for module in (
        *(tokens, peak_rate, weight_decay, schedules, averages, optimizers, norms, states, tasks),
        *(quantizers, curvature, prediction, landscape),
        *(vision, finetuning, memory, theory, telemetry, telemetry_layers),
    )
}


def plot(name: str) -> Plot:
    """Return the figure called `name`.

    Raises:
        CoolbitsError: if there is none, listing those there are.
    """
    if name not in PLOTS:
        raise CoolbitsError(f"figure {name!r}: no such figure; there are {', '.join(PLOTS)}")
    return PLOTS[name]
