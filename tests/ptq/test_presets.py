import subprocess
import sys
from collections.abc import Iterator

import pytest

from coolbits.artifacts.errors import CoolbitsError
from coolbits.ptq.presets import FAMILIES, FIXED, quantizer_preset
from coolbits.study.load import parse_study
from coolbits.study.recipes.base import Recipe
from coolbits.study.recipes.calibration import Documents, Windows
from coolbits.study.recipes.methods import AWQ, GPTQ, HQQ, RTN, Codebook, Grid, Int8
from coolbits.study.recipes.ptq import Activations, Quantized, Rotation


@pytest.mark.parametrize("bits", [3, 4])
@pytest.mark.parametrize(
    ("family", "damping", "step"), [("gptq-paper", 0.01, 0.0025), ("gptq-paper-damp05", 0.05, 0.01)]
)
def test_the_papers_preset_has_the_librarys_defaults_of_its_time(
    family: str, damping: float, step: float, bits: int
) -> None:
    method = quantizer_preset(f"{family}-w{bits}").method
    assert isinstance(method, GPTQ)
    assert method.grid == Grid(bits=bits, group_size=128, symmetric=True)
    assert (method.order, method.static_groups, method.sequential) == ("activation", False, "layer")
    assert (method.damping, method.damping_step, method.precision) == (damping, step, "float32")
    assert method.damping_accumulates == (family == "gptq-paper")
    # It gives up when the damping reaches 1.
    assert damping + (method.damping_attempts - 1) * step < 1 <= damping + method.damping_attempts * step + 1e-9
    assert isinstance(method.calibration, Documents)
    assert method.calibration.sequences == 1024
    assert method.calibration.source.files == ("en/c4-train.00001-of-01024.json.gz",)


@pytest.mark.parametrize(
    ("name", "order", "static", "symmetric", "damping", "sequential"),
    [
        ("gptq-gptqmodel-head", "group-aware", False, True, 0.05, "layer"),
        ("gptq-llmcompressor", "activation", True, True, 0.01, "block"),
        ("gptq-ist", "natural", False, False, 0.01, "block"),
    ],
)
def test_what_others_call_gptq(
    name: str, order: str, static: bool, symmetric: bool, damping: float, sequential: str
) -> None:
    method = quantizer_preset(name).method
    assert isinstance(method, GPTQ)
    assert (method.order, method.static_groups, method.sequential) == (order, static, sequential)
    assert (method.grid.symmetric, method.damping, method.grid.search) == (symmetric, damping, None)
    assert (method.precision, method.damping_accumulates) == ("float32", False)


@pytest.mark.parametrize(
    ("name", "quantizer"),
    [
        ("rtn-w3-g64", Quantized(method=RTN(grid=Grid(bits=3, group_size=64)))),
        ("gptq-w2-g32", Quantized(method=GPTQ(grid=Grid(bits=2, group_size=32)))),
        ("gptq-w8-channel", Quantized(method=GPTQ(grid=Grid(bits=8)))),
        ("hqq-w4-g64", Quantized(method=HQQ(grid=Grid(bits=4, group_size=64, symmetric=False)))),
        ("awq-w4-g128", Quantized(method=AWQ(grid=Grid(bits=4, group_size=128, symmetric=False)))),
        ("rtn-w8a8", Quantized(method=RTN(grid=Grid(bits=8)), activations=Activations(bits=8))),
        (
            "gptq-w4a8-g128",
            Quantized(method=GPTQ(grid=Grid(bits=4, group_size=128)), activations=Activations(bits=8)),
        ),
        (
            "rotated-gptq-w3-g64",
            Quantized(method=GPTQ(grid=Grid(bits=3, group_size=64)), rotation=Rotation(seed=0)),
        ),
        ("bnb-fp4", Quantized(method=Codebook(kind="fp4", block_size=64, double=False))),
        ("bnb-nf4", Quantized(method=Codebook(kind="nf4", block_size=64, double=False))),
        ("bnb-int8", Quantized(method=Int8(threshold=6.0))),
    ],
)
def test_a_name_says_method_grid_activations_and_rotation(name: str, quantizer: Quantized) -> None:
    assert quantizer_preset(name) == quantizer


@pytest.mark.parametrize("family", FAMILIES)
def test_a_familys_grid_may_be_chosen_and_nothing_else_changes(family: str) -> None:
    own, chosen = quantizer_preset(family).method, quantizer_preset(f"{family}-w3-g64").method
    assert isinstance(own, GPTQ | AWQ)
    assert (chosen.bits, chosen.group_size) == (3, 64)
    assert chosen == own.model_copy(update={"grid": own.grid.model_copy(update={"bits": 3, "group_size": 64})})
    assert quantizer_preset(f"{family}-channel").method.group_size is None


@pytest.mark.parametrize(
    "name", [*FAMILIES, *FIXED, "gptq-paper-w4a8", "rotated-gptq-ist-w3-g64", "rotated-gptq-llmcompressor-w8a8"]
)
def test_every_preset_sets_every_field_of_every_recipe_in_it_and_leaves_none_to_a_default(name: str) -> None:
    assert list(left_to_defaults(quantizer_preset(name))) == []


def left_to_defaults(recipe: Recipe, path: str = "") -> Iterator[str]:
    """Yield the paths of the fields that whoever made `recipe` did not set; `kind` is the class itself."""
    for field in type(recipe).model_fields:
        if field not in recipe.model_fields_set | {"kind"}:
            yield path + field
        if isinstance(value := getattr(recipe, field), Recipe):
            yield from left_to_defaults(value, f"{path}{field}.")


def test_a_field_left_to_its_default_is_found_however_deep() -> None:
    quantizer = Quantized(method=RTN(grid=Grid(bits=4, group_size=64, symmetric=True)), rotation=None, head=False)
    assert list(left_to_defaults(quantizer)) == ["method.grid.search", "activations", "save_model"]


@pytest.mark.parametrize(
    "name", ["gptq-w9-g64", "rtn-w3-g0", "rtn-w3", "gptq", "rotated-awq-w4-g64", "gptq-paper-w4-g", "bnb-nf4-w4"]
)
def test_another_name_is_refused_with_those_allowed(name: str) -> None:
    with pytest.raises(CoolbitsError, match=f"quantizer '{name}': no such preset; allowed are bnb-fp4, .* gptq-paper"):
        quantizer_preset(name)


def test_a_study_may_change_keys_of_a_preset() -> None:
    calibration = {"kind": "windows", "sequences": 8, "sequence_length": 32}
    study = parse_study(
        {
            "study": "small",
            "analyses": {
                "memory": {"analysis": {"kind": "memory", "models": ["micro-neox"], "optimizers": ["AdamW-32"]}}
            },
            "quantizers": {
                "paper": "gptq-paper-w3",
                "own": {"preset": "gptq-paper-w3", "method": {"damping": 0.1, "calibration": calibration}},
            },
        }
    )
    paper, own = study.quantizers["paper"].method, study.quantizers["own"].method
    assert paper == quantizer_preset("gptq-paper-w3").method
    assert isinstance(own, GPTQ)
    assert own.calibration == Windows(sequences=8, sequence_length=32)
    assert own == paper.model_copy(update={"damping": 0.1, "calibration": own.calibration})


def test_presets_need_no_torch() -> None:
    code = "import sys, coolbits.ptq.presets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
