"""From the study's quantizers to recipes: documents that a study names by path enter by their digest."""

from dataclasses import dataclass
from pathlib import Path

from coolbits.artifacts.errors import CoolbitsError
from coolbits.study.measurements import FULL
from coolbits.study.quantizer_choices import DocumentsChoice, Quantizer
from coolbits.study.recipes.calibration import Calibration, Documents
from coolbits.study.recipes.data import FileSource
from coolbits.study.recipes.methods import CALIBRATED
from coolbits.study.recipes.ptq import Quantized
from coolbits.study.schema import Study
from coolbits.study.sources import text_source


@dataclass(frozen=True)
class Quantizers:
    """The quantizers of a study as recipes, by name, and where the documents lie that they calibrate on, by digest."""

    recipes: dict[str, Quantized]
    locations: dict[str, list[str]]


def quantizers(study: Study, folder: Path) -> Quantizers:
    """Resolve the quantizers of a study whose relative paths start at `folder`.

    Raises:
        CoolbitsError: if a file is missing, a calibration is given to a method that takes none, or documents are named
            by digest alone.
    """
    made = Quantizers({}, {})
    if FULL in study.quantizers:
        raise CoolbitsError(f"quantizers.{FULL}: the name of the full-precision model in tables; choose another")
    for name, choice in study.quantizers.items():
        made.recipes[name] = _resolved(choice, folder, f"quantizers.{name}", made.locations)
    return made


def _resolved(choice: Quantizer, folder: Path, where: str, locations: dict[str, list[str]]) -> Quantized:
    fields = {name: getattr(choice, name) for name in Quantized.model_fields}
    method = choice.method
    if choice.calibration is not None:
        if not isinstance(method, CALIBRATED):
            raise CoolbitsError(f"{where}.calibration: {method.kind} is shown no tokens; leave it out")
        calibration = _calibration(choice.calibration, folder, f"{where}.calibration", locations)
        fields["method"] = method.model_copy(update={"calibration": calibration})
    elif isinstance(method, CALIBRATED) and isinstance(getattr(method.calibration, "source", None), FileSource):
        raise CoolbitsError(
            f"{where}.method.calibration.source: names files by digest; give their paths in {where}.calibration"
        )
    return Quantized(**fields)


def _calibration(
    choice: DocumentsChoice | Calibration, folder: Path, where: str, locations: dict[str, list[str]]
) -> Calibration:
    if not isinstance(choice, DocumentsChoice):
        return choice
    source, _, paths = text_source(choice.source, folder, f"{where}.source.paths")
    if isinstance(source, FileSource):
        locations |= {digest: [str(path)] for digest, path in zip(source.sha256, paths, strict=True)}
    return Documents(**dict(choice) | {"source": source})
