"""Named quantizers: what others mean by a name, with every knob spelled out. Nothing here needs torch."""

import re
from collections.abc import Callable
from typing import NamedTuple

from coolbits.artifacts.errors import CoolbitsError
from coolbits.study.recipes.calibration import Documents, Windows
from coolbits.study.recipes.data import HubSource
from coolbits.study.recipes.methods import AWQ, GPTQ, HQQ, RTN, Codebook, Grid, Int8, Method
from coolbits.study.recipes.ptq import Activations, Quantized, Rotation

# Paper A, and GPTQModel's own example: no document is cut there, and few of C4 are longer.
C4_DOCUMENTS = Documents(
    kind="documents",
    source=HubSource(
        id="allenai/c4",
        config=None,
        split="train",
        revision="main",
        text_field="text",
        documents=1024,
        files=("en/c4-train.00001-of-01024.json.gz",),
    ),
    sequences=1024,
    sequence_length=2048,
)


class Family(NamedTuple):
    """A method as one library or paper runs it, for any grid; `bits` and `group_size` are its own."""

    method: Callable[[int, int | None], Method]
    bits: int = 4
    group_size: int | None = 128


def _gptqmodel(
    order: str, damping: float, damping_step: float, damping_attempts: int, damping_accumulates: bool = False
) -> Family:
    """Return GPTQ as GPTQModel runs it: it tries every damping below 1 before it gives up."""
    return Family(
        lambda bits, group_size: GPTQ(
            grid=Grid(bits=bits, group_size=group_size, symmetric=True, search=None),
            order=order,
            static_groups=False,
            scales="block",
            damping=damping,
            damping_step=damping_step,
            damping_attempts=damping_attempts,
            damping_accumulates=damping_accumulates,
            precision="float32",
            sequential="layer",
            block_size=128,
            calibration=C4_DOCUMENTS,
        )
    )


def _llmcompressor(bits: int, group_size: int | None) -> GPTQ:
    """Return GPTQ as `GPTQModifier` of llm-compressor 0.14 runs it on the scheme W4A16."""
    return GPTQ(
        grid=Grid(bits=bits, group_size=group_size, symmetric=True, search=None),
        order="activation",
        static_groups=True,
        scales="current",  # of no effect on static groups
        damping=0.01,
        damping_step=0.0025,  # of no effect where one factorization is tried
        damping_attempts=1,
        damping_accumulates=False,  # likewise
        precision="float32",
        sequential="block",
        block_size=128,
        calibration=Windows(sequences=512, sequence_length=2048, seed=0),
    )


def _ist(bits: int, group_size: int | None) -> GPTQ:
    """Return GPTQ as `llama.py` of IST-DASLab/gptq runs it, without any of its flags."""
    return GPTQ(
        grid=Grid(bits=bits, group_size=group_size, symmetric=False, search=None),
        order="natural",
        static_groups=False,
        scales="block",
        damping=0.01,
        damping_step=0.0025,  # of no effect where one factorization is tried
        damping_attempts=1,
        damping_accumulates=False,  # likewise
        precision="float32",
        sequential="block",
        block_size=128,
        calibration=Windows(sequences=128, sequence_length=2048, seed=0),
    )


def _awq_llmcompressor(bits: int, group_size: int | None) -> AWQ:
    """Return AWQ as `AWQModifier` of llm-compressor 0.14 runs it on the scheme W4A16_ASYM: it does not clip."""
    return AWQ(
        grid=Grid(bits=bits, group_size=group_size, symmetric=False, search=None),
        steps=20,
        search="exhaustive",
        largest_exponent=1.0,
        weighted=True,
        shared_channels=False,
        clip=False,
        clip_steering=False,  # this and the rest of clipping: of no effect without it
        clip_steps=20,
        smallest_clip=0.55,
        calibration=Windows(sequences=512, sequence_length=2048, seed=0),
    )


FAMILIES: dict[str, Family] = {
    # GPTQModel up to 3.0, and 4.0: paper A's lock file allows both.
    "gptq-paper": _gptqmodel("activation", 0.01, 0.0025, 396, damping_accumulates=True),
    "gptq-paper-damp05": _gptqmodel("activation", 0.05, 0.01, 95),
    "gptq-gptqmodel-head": _gptqmodel("group-aware", 0.05, 0.01, 95),  # 7.6.0
    "gptq-llmcompressor": Family(_llmcompressor),
    "gptq-ist": Family(_ist, group_size=None),
    "awq-llmcompressor": Family(_awq_llmcompressor),
}
# The recipes' own defaults for all but the grid, which the name has to say.
PLAIN: dict[str, Family] = {
    "rtn": Family(lambda bits, group_size: RTN(grid=Grid(bits=bits, group_size=group_size))),
    "gptq": Family(lambda bits, group_size: GPTQ(grid=Grid(bits=bits, group_size=group_size))),
    "awq": Family(lambda bits, group_size: AWQ(grid=Grid(bits=bits, group_size=group_size, symmetric=False))),
    "hqq": Family(lambda bits, group_size: HQQ(grid=Grid(bits=bits, group_size=group_size, symmetric=False))),
}
FIXED: dict[str, Method] = {
    "bnb-fp4": Codebook(kind="fp4", block_size=64, double=False),
    "bnb-nf4": Codebook(kind="nf4", block_size=64, double=False),
    "bnb-nf4-double": Codebook(kind="nf4", block_size=64, double=True),
    "bnb-int8": Int8(threshold=6.0, precision="float16"),
}
_PATTERN = re.compile(
    r"(?P<rotated>rotated-)?"
    rf"(?P<family>{'|'.join(sorted(FAMILIES | PLAIN, key=len, reverse=True))})"
    r"(-w(?P<bits>[2-8])(a(?P<activations>[4-8]))?)?"
    r"(-(g(?P<group>[1-9]\d*)|(?P<channel>channel)))?"
)


def quantizer_preset(name: str) -> Quantized:
    """Return the quantizer that `name` stands for: `[rotated-]FAMILY[-wBITS[aBITS]][-gGROUP|-channel]`, or a fixed one.

    What is left out is the family's own, and a plain method (`rtn`, `gptq`, `awq`, `hqq`) has no grid of its own. With
    `aBITS` (inputs rounded, too) and no group a row has one scale. So `gptq-paper-w3`, `gptq-llmcompressor-w3-g64`,
    `rtn-w8a8`, `gptq-w4a8-g128`, `rotated-gptq-w3-g64`, `bnb-fp4`.

    Raises:
        CoolbitsError: if `name` is no such name.
    """
    if name in FIXED:
        return _whole(FIXED[name])
    match = _PATTERN.fullmatch(name)
    rows = match is not None and (match["channel"] or match["activations"])
    if (
        match is None
        or (match["rotated"] and match["family"].startswith(("awq", "hqq")))
        or (match["family"] in PLAIN and not (match["bits"] and (match["group"] or rows)))
    ):
        raise CoolbitsError(
            f"quantizer {name!r}: no such preset; allowed are {', '.join(FIXED)}; {', '.join(FAMILIES)}, a grid behind "
            f"if wanted (gptq-paper-w3-g64); {', '.join(PLAIN)} with a grid (rtn-w3-g64, gptq-w4-channel, rtn-w8a8); "
            f"rtn and gptq of any kind also as rotated-gptq-w3-g64"
        )
    family = (FAMILIES | PLAIN)[match["family"]]
    bits, size = int(match["bits"] or family.bits), family.group_size
    if match["group"] or rows:
        size = int(match["group"]) if match["group"] else None
    return _whole(
        family.method(bits, size),
        rotation=Rotation(seed=0) if match["rotated"] else None,
        activations=Activations(bits=int(match["activations"]), symmetric=True) if match["activations"] else None,
    )


def _whole(method: Method, rotation: Rotation | None = None, activations: Activations | None = None) -> Quantized:
    return Quantized(method=method, rotation=rotation, activations=activations, head=False, save_model=False)
