"""The two forms of a claim about states in 8 bits, parity and instability, for each way of training and its score."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from coolbits.claims import states
from coolbits.claims.claim import PERCENT_OF_ANSWER_LOSS, PERCENT_OF_LOSS, POINTS_OF_ACCURACY, Claim
from coolbits.claims.evidence import Evidence
from coolbits.claims.states import ACCURACY_MARGIN, ACCURACY_STALL_MARGIN, LOSS_MARGIN, STALL_MARGIN, Variant
from coolbits.claims.verdict import Effect
from coolbits.study.optimizer_names import display_name
from coolbits.study.recipes.results import Evident

Measure = Callable[[Variant, Variant, Evidence], Effect | None]


@dataclass(frozen=True)
class Score:
    """How trainings of a `table` are compared at their ends: words, unit, measures and margins.

    In the words `{one}` is the optimizer with 32-bit states, `{other}` that with 8-bit ones; `difference` begins a
    sentence or follows "the".
    """

    table: Evident
    difference: str
    reading: str
    needs: str
    unit: str
    increase: Measure
    margin: str
    unstable: Measure
    stall_margin: str

    def words(self, text: str, reference: Variant, tested: Variant) -> str:
        """Return `text` with the names of both optimizers."""
        return text.format(one=display_name(*reference), other=display_name(*tested), effect="{effect}")


PRETRAINING = Score(
    "loss",
    "final full-precision loss of {other} relative to that of {one}, less 1, each at the setting of lowest loss among "
    "those tried.",
    "The final loss of {other} differs from that of {one} by {effect}.",
    "finished runs of {one} and runs of {other} with equal model, schedule and budget",
    PERCENT_OF_LOSS,
    states.loss_increase,
    f"{LOSS_MARGIN:g} percent",
    states.instability,
    f"{STALL_MARGIN:g} percent",
)
IMAGES = Score(
    "vision",
    "accuracy of {one} on held-out images at the end less that of {other}, each at the setting of highest accuracy "
    "among those tried.",
    "{other} ended with an accuracy lower than that of {one} by {effect}.",
    "finished classifiers of {one} and classifiers of {other} in one entry of `vision`, with equal images, model, "
    "schedule, epochs and batch",
    POINTS_OF_ACCURACY,
    states.accuracy_lost,
    f"{ACCURACY_MARGIN:g} point",
    states.accuracy_instability,
    f"{ACCURACY_STALL_MARGIN:g} points",
)
ANSWERS = Score(
    "finetuning",
    "loss of {other} on held-out answers at the end relative to that of {one}, less 1, each at the setting of lowest "
    "loss among those tried.",
    "The final loss of {other} on answers differs from that of {one} by {effect}.",
    "finished fine-tunings with {one} and fine-tunings with {other} in one entry of `finetuning`, with equal model and "
    "schedule",
    PERCENT_OF_ANSWER_LOSS,
    states.loss_increase,
    f"{LOSS_MARGIN:g} percent",
    states.instability,
    f"{STALL_MARGIN:g} percent",
)
TASKS = Score(
    "tasks",
    "accuracy of {one} at the end, mean over tasks, less that of {other}, each at the setting of lowest full-precision "
    "loss among those tried.",
    "{other} ended with a mean accuracy lower than that of {one} by {effect}.",
    "finished runs of {one} and runs of {other} with equal model, schedule and budget, scored on tasks at full "
    "precision, and their losses",
    POINTS_OF_ACCURACY,
    states.accuracy_lost,
    f"{ACCURACY_MARGIN:g} point",
    states.accuracy_instability,
    f"{ACCURACY_STALL_MARGIN:g} points",
)


def parity(score: Score, statement: str, source: str, reference: Variant, tested: Variant) -> Claim:
    """Return the claim that `tested` ends where `reference` does, within the margin of its score."""
    difference = score.words(score.difference, reference, tested)
    return Claim(
        statement,
        source,
        difference[0].upper() + difference[1:],
        score.words(score.reading, reference, tested),
        score.words(score.needs, reference, tested),
        partial(score.increase, reference, tested),
        score.unit,
        "equivalence",
        score.margin,
        full_precision=True,
        table=score.table,
    )


def unstable(score: Score, statement: str, source: str, reference: Variant, tested: Variant) -> Claim:
    """Return the claim that `tested` diverges where `reference` does not, or ends far behind it."""
    one, other = display_name(*reference), display_name(*tested)
    return Claim(
        statement,
        source,
        f"Runs of {other} that diverged, at all settings tried at which {one} did not; of the others the "
        + score.words(score.difference, reference, tested),
        score.words(score.reading, reference, tested),
        score.words(score.needs, reference, tested),
        partial(score.unstable, reference, tested),
        score.unit,
        "instability",
        score.stall_margin,
        full_precision=True,
        table=score.table,
    )
