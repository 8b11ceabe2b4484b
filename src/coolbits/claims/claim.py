"""What a claim is: what is said and where, what is measured, by which rule it is judged."""

from collections.abc import Callable
from dataclasses import dataclass

from coolbits.claims.evidence import Evidence
from coolbits.claims.verdict import Effect, Form
from coolbits.study.recipes.results import Evident

POINTS = "percentage points of relative error"
NATS = "nats per token"
PERCENT_OF_LOSS = "percent of the loss"
PERCENT_OF_ANSWER_LOSS = "percent of the loss on answers"
POINTS_OF_ACCURACY = "percentage points of accuracy"
POINTS_OF_BYTES = "percentage points of the states' bytes"
PERCENT = "percent"
DOUBLINGS = "doublings"


@dataclass(frozen=True)
class Claim:
    """A claim and its statistic, positive where the claim holds.

    `reading` is one sentence in which `{effect}` is the effect with its unit. `needs` says which rows it takes.
    `most_bits` limits it to quantizers with no more bits, where it is a claim about few bits; one about the loss at
    `full_precision` is judged once, not for each quantizer. It is judged on the rows of one `table` of the study.
    """

    statement: str
    source: str
    statistic: str
    reading: str
    needs: str
    measure: Callable[[Evidence], Effect | None]
    unit: str = POINTS
    form: Form = "direction"
    margin: str = ""
    most_bits: int = 8
    full_precision: bool = False
    table: Evident = "loss"
