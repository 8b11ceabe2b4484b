"""Lengths that a study leaves out: windows are as long as the sequences that its runs are trained on."""

from collections.abc import Iterable
from typing import TypeVar

from coolbits.artifacts.errors import CoolbitsError
from coolbits.study.quantizer_choices import Quantizer
from coolbits.study.recipes.base import Recipe
from coolbits.study.recipes.calibration import RandomTokens, Windows
from coolbits.study.schema import EvaluationChoice, Study

_LENGTH = "sequence_length"
_Windowed = TypeVar("_Windowed", bound=Recipe)


def with_lengths(study: Study) -> Study:
    """Return the study with the `sequence_length` of measures and calibrations stated.

    One that it leaves out is that of the runs; in a study without runs it is the recipe's own. Documents keep theirs:
    each is a sequence of its own.

    Raises:
        CoolbitsError: if one is left out and the runs differ.
    """
    evaluations = {
        name: choice.model_copy(
            update={"measure": _stated(choice.measure, _trained(study, choice), f"evaluations.{name}.measure")}
        )
        for name, choice in study.evaluations.items()
    }
    lengths = _lengths(study, study.runs)
    quantizers = {name: _calibrated(choice, lengths, f"quantizers.{name}") for name, choice in study.quantizers.items()}
    return study.model_copy(update={"evaluations": evaluations, "quantizers": quantizers})


def _trained(study: Study, choice: EvaluationChoice) -> set[int]:
    """Return the lengths of the runs that an evaluation names; of all, if it names none that is trained here."""
    named = [name for name in study.runs if choice.runs != "all" and name in choice.runs]
    return _lengths(study, named or study.runs)


def _lengths(study: Study, names: Iterable[str]) -> set[int]:
    return {run.sequence_length for name in names for run in study.runs[name]}


def _calibrated(choice: Quantizer, lengths: set[int], where: str) -> Quantizer:
    if choice.calibration is not None:
        return choice.model_copy(update={"calibration": _shown(choice.calibration, lengths, f"{where}.calibration")})
    method = choice.method
    if (own := getattr(method, "calibration", None)) is None:
        return choice
    shown = _shown(own, lengths, f"{where}.method.calibration")
    return choice.model_copy(update={"method": method.model_copy(update={"calibration": shown})})


def _shown(calibration: _Windowed, lengths: set[int], where: str) -> _Windowed:
    return _stated(calibration, lengths, where) if isinstance(calibration, Windows | RandomTokens) else calibration


def _stated(recipe: _Windowed, lengths: set[int], where: str) -> _Windowed:
    if _LENGTH not in type(recipe).model_fields or _LENGTH in recipe.model_fields_set or not lengths:
        return recipe
    if len(lengths) > 1:
        found = " and ".join(map(str, sorted(lengths)))
        raise CoolbitsError(f"{where}.{_LENGTH}: missing, and the runs are trained on {found} tokens; say which")
    (length,) = lengths
    return recipe.model_copy(update={_LENGTH: length})
