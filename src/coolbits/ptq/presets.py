"""Named quantizers for study files. Nothing here needs torch."""

import re

from coolbits.artifacts.errors import CoolbitsError
from coolbits.study.recipes.ptq import GPTQ, RTN, Calibration, Grid, Method

_PATTERN = re.compile(r"(?P<method>rtn|gptq)-w(?P<bits>[2-8])-(?:g(?P<group>[1-9]\d*)|channel)")


def _paper(bits: int, damping: float, damping_step: float) -> GPTQ:
    """Return GPTQ as paper A ran it: `QuantizeConfig(bits, group_size=128)` of GPTQModel, every default spelled out.

    Its calibration set is 1,024 documents of C4; here it is as many sequences of the paper's context of 2,048 tokens.
    """
    return GPTQ(
        grid=Grid(bits=bits, group_size=128, symmetric=True),
        order="activation",
        static_groups=False,
        damping=damping,
        damping_step=damping_step,
        true_sequential=True,
        block_size=128,
        calibration=Calibration(sequences=1024, sequence_length=2048),
    )


PRESETS: dict[str, Method] = {
    # GPTQModel up to 3.0, and 4.0: paper A's lock file allows both.
    "gptq-w3-g128-paper": _paper(3, 0.01, 0.0025),
    "gptq-w4-g128-paper": _paper(4, 0.01, 0.0025),
    "gptq-w3-g128-paper-damp05": _paper(3, 0.05, 0.01),
    "gptq-w4-g128-paper-damp05": _paper(4, 0.05, 0.01),
    "rtn-w3-g128": RTN(grid=Grid(bits=3, group_size=128)),
    "rtn-w4-g128": RTN(grid=Grid(bits=4, group_size=128)),
}


def method_preset(name: str) -> Method:
    """Return the method that `name` stands for: a preset, or `METHOD-wBITS-gGROUP` (`-channel`: one scale a row).

    `gptq-w3-g64` and the like have the recipe's defaults for all that the name does not say.

    Raises:
        CoolbitsError: if `name` is neither.
    """
    if name in PRESETS:
        return PRESETS[name]
    match = _PATTERN.fullmatch(name)
    if match is None:
        known = ", ".join(sorted(PRESETS))
        raise CoolbitsError(
            f"quantizer {name!r}: no such preset; allowed are {known}, or names such as rtn-w3-g64 and gptq-w4-channel"
        )
    grid = Grid(bits=int(match["bits"]), group_size=int(match["group"]) if match["group"] else None)
    return RTN(grid=grid) if match["method"] == "rtn" else GPTQ(grid=grid)
