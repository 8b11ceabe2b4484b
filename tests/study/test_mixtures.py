"""What no column of a table tells apart is refused where figures or claims would pool it."""

from typing import Any

import pytest

from coolbits.artifacts.errors import CoolbitsError
from coolbits.settings import HORIZON, SETTING
from coolbits.study.mixtures import NO_SETTING
from coolbits.study.optimizer_names import optimizer_preset
from coolbits.study.recipes.results import TRAJECTORY_COLUMNS

MUON = {"kind": "muon"}
# Two values of each field of a run that has no column.
UNTOLD = {
    "schedule.warmup": (128, 256),
    "sequence_length": (16, 32),
    "batch_tokens": (64, 128),
    "precision": ("bfloat16", "float32"),
    "clip_norm": (1.0, 0.5),
    "divergence.loss_factor": (1.5, 2.0),
    "optimizer.momentum": (0.9, 0.95),
    "optimizer.scale": ("match_rms_adamw", "spectral"),
    "optimizer.nesterov": (True, False),
    "optimizer.newton_schulz_steps": (5, 6),
    "optimizer.beta1": (0.8, 0.9),
    "optimizer.eps": (1e-8, 1e-6),
}


def field(run: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A run with another value at a dotted key."""
    name, _, below = key.partition(".")
    return run | {name: field(run.get(name, {}), below, value) if below else value}


@pytest.fixture
def wsd(tiny: dict[str, Any]) -> dict[str, Any]:
    """One run, under Muon and at one rate, of a study that has figures, and a quantizer that needs no sequences."""
    run: dict[str, Any] = tiny["runs"]["wsd"] | {"peak_lr": 1e-2, "optimizer": MUON}
    tiny |= {"runs": {"wsd": run}, "averages": {}}
    del tiny["quantizers"]["gptq-w4"]
    return run


@pytest.mark.parametrize("key", UNTOLD)
def test_a_grid_over_a_field_without_a_column_is_refused(tiny: Any, planned: Any, wsd: Any, key: str) -> None:
    tiny["runs"]["wsd"] = field(wsd, key, list(UNTOLD[key]))
    with pytest.raises(CoolbitsError, match=rf"^runs\.wsd\.{key}: is .*a study of its own, or leave `figures`"):
        planned(tiny)


@pytest.mark.parametrize("key", UNTOLD)
def test_so_are_runs_under_two_names(tiny: Any, planned: Any, wsd: Any, key: str) -> None:
    one, other = (field(wsd, key, value) for value in UNTOLD[key])
    tiny["runs"] = {"one": one, "other": other}
    with pytest.raises(CoolbitsError, match=rf"^runs\.one\.{key}: is .* in runs\.other, which no column"):
        planned(tiny)


def test_two_models_of_one_preset_are_refused(tiny: Any, planned: Any, wsd: Any) -> None:
    models = [{"preset": "micro-neox", "config": {"num_hidden_layers": layers}} for layers in (2, 3)]
    tiny["runs"]["wsd"] = wsd | {"model": models}
    with pytest.raises(CoolbitsError, match=r"^runs\.wsd\.model\.config\.num_hidden_layers: is 2, and 3, which"):
        planned(tiny)


def test_a_cooldown_counts_as_a_wsd_run(tiny: Any, planned: Any, wsd: Any) -> None:
    trunk = {"schedule": {"kind": "constant", "warmup": 128}, "tokens": 960, "optimizer": MUON, "clip_norm": 0.5}
    tiny["runs"]["trunk"] = trunk | {"cooldowns": {"at": 960, "length": 320}}
    with pytest.raises(CoolbitsError, match=r"^runs\.wsd\.clip_norm: is 1\.0, and 0\.5 in runs\.trunk"):
        planned(tiny)


def test_a_whole_schedule_is_not_told_by_its_length(tiny: Any, planned: Any, wsd: Any) -> None:
    """The tables have it, and figures do not look: a cosine's budget says it, but for the warmup."""
    tiny["runs"]["cosine"] = wsd | {"schedule": {"kind": "cosine", "warmup": [128, 256]}}
    with pytest.raises(CoolbitsError, match=r"^runs\.cosine\.schedule\.warmup: is 128, and 256, which"):
        planned(tiny)


def test_claims_alone_are_reason_enough_and_nothing_else_is(tiny: Any, planned: Any, wsd: Any) -> None:
    tiny["runs"]["wsd"] = wsd | {"precision": ["bfloat16", "float32"]}
    tiny["figures"] = {}
    planned(tiny)
    with pytest.raises(CoolbitsError, match=r"^runs\.wsd\.precision"):
        planned(tiny | {"claims": ["muon-vs-adamw"]})


def test_runs_that_no_shown_table_has_may_differ(tiny: Any, planned: Any, wsd: Any) -> None:
    tiny["runs"]["ablation"] = wsd | {"precision": "float32"}
    tiny["evaluations"]["loss"]["runs"] = ["wsd"]
    planned(tiny)


@pytest.mark.parametrize(
    "differing",
    [
        {"seed": [0, 1]},
        {"data_seed": [0, 1]},
        {"log": [640, 1280]},
        {"telemetry": [{"every": 640}, None]},
        {"peak_lr": [1e-2, 3e-2]},
        {"tokens": [1280, 2560]},
        {"schedule": {"kind": "wsd", "warmup": "10%", "decay": ["25%", "50%"]}, "tokens": [1280, 2560]},
        {"optimizer": [MUON, MUON | {"beta2": 0.9}, MUON | {"weight_decay": 0}, {"kind": "adamw"}]},
        {"optimizer": [optimizer_preset("Muon-8L"), optimizer_preset("Muon-8L-b256"), optimizer_preset("Muon-8D")]},
        {"model": ["micro-neox", "micro-llama"]},
    ],
    ids=lambda differing: " and ".join(differing),
)
def test_what_columns_tell_seeds_and_what_moves_no_weight_may_differ(
    tiny: Any, planned: Any, wsd: Any, differing: dict[str, Any]
) -> None:
    tiny["runs"]["wsd"] = wsd | differing
    planned(tiny)


def test_one_recipe_under_two_names_is_one_trajectory(tiny: Any, planned: Any, wsd: Any) -> None:
    tiny["runs"]["again"] = wsd
    plan = planned(tiny)
    assert len({track.name for track in plan.tracks}) == len(plan.tracks) / 2


def test_settings_are_told_apart_by_what_figures_and_claims_go_by(tiny: Any, planned: Any, wsd: Any) -> None:
    """`decay` of a horizon is made of three columns."""
    told = {*SETTING, *HORIZON, "decay_tokens", "decay_shape", "final_fraction"} - {"decay"}
    (track, *_) = planned(tiny).tracks
    assert set(track.columns) - NO_SETTING == told
    assert told <= set(TRAJECTORY_COLUMNS)
