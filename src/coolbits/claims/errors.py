"""What no paper has: the quantization error of models trained with 8-bit states, against their 32-bit twins."""

from functools import partial

from coolbits.claims import states
from coolbits.claims.claim import Claim
from coolbits.claims.states import LOSS_MARGIN, Variant
from coolbits.study.optimizer_names import display_name

_MUON, _ADAMW, _SGDM = ("muon", "32"), ("adamw", "32"), ("sgd", "32")
_TWINS: dict[str, tuple[Variant, Variant]] = {
    "muon-8l": (_MUON, ("muon", "8L")),
    "muon-8d": (_MUON, ("muon", "8D")),
    "hybrid-8d": (_MUON, ("muon", "8L+8D")),
    "hybrid-8l": (_MUON, ("muon", "8L+8L")),
    "adamw-8d": (_ADAMW, ("adamw", "8D")),
    "sgdm-8l": (_SGDM, ("sgd", "8L")),
    "sgdm-8d": (_SGDM, ("sgd", "8D")),
}
# When they are compared: the end of a claim's name -> words of its statement, statistic and reading, and its measure.
_WAYS = {
    "": ("at the end of training", "Final error", "At the end of training", states.error_increase),
    "-at-equal-loss-after-cooldown": (
        "at equal full-precision loss after the cooldown",
        f"Final error, of runs whose final full-precision losses are within {LOSS_MARGIN:g} percent of each other,",
        "At equal loss, after the cooldown,",
        states.error_increase_at_equal_loss_after_cooldown,
    ),
    "-at-equal-loss-at-constant-rate": (
        "at equal full-precision loss and a constant rate",
        "Error at equal full-precision loss along runs, checkpoints between warmup and decay alone, interpolated,",
        "At equal loss, before the decay,",
        states.error_increase_at_equal_loss_at_constant_rate,
    ),
    "-at-constant-rate": (
        "at a constant rate",
        "Error after equally many tokens, mean over the checkpoints before the decay,",
        "At a constant rate",
        states.error_increase_at_constant_rate,
    ),
}


def _question(reference: Variant, tested: Variant, way: str) -> Claim:
    one, other = display_name(*reference), display_name(*tested)
    when, what, where, measure = _WAYS[way]
    return Claim(
        f"Open question: is a model trained with {other} easier or harder to quantize than with {one}, {when}?",
        "no paper; where both papers meet",
        f"{what} under {other} less that under {one}, equal settings, those of lowest loss under {one}.",
        f"{where} the error under {other} differs from that under {one} by {{effect}}.",
        f"{one} and {other} with equal model, settings, schedule and budget",
        partial(measure, reference, tested),
        form="open",
    )


OF_ERRORS = {f"{name}-error{way}": _question(*twins, way) for name, twins in _TWINS.items() for way in _WAYS}
