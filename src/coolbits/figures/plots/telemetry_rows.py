"""The rows of telemetry that figures show: of each variant the runs at one setting."""

import numpy as np
import pandas as pd

from coolbits.artifacts.errors import CoolbitsError
from coolbits.figures.plots.telemetry_panels import BY_CODEC
from coolbits.figures.selection import Options, Tables, check_options, demand, names_in, rate_label
from coolbits.study.optimizer_names import display_name

_SETTING = ["model", "schedule", "peak_lr", "weight_decay", "beta2"]


def variant_rows(figure: str, tables: Tables, options: Options) -> pd.DataFrame:
    """Return each variant's runs at the setting that most variants share, whole: a trunk, then its decay if it has one.

    Column `variant` is the optimizer's name in paper B. What codes do is what the variant's own do, or linear ones if
    its states are float32. Option `runs`: of these runs alone.

    Raises:
        CoolbitsError: for an unknown option, or if there is no telemetry of the runs.
    """
    check_options(figure, options)
    rows = demand(figure, tables["telemetry"], "runs with telemetry")
    if "runs" in options:
        asked = names_in(options["runs"])
        rows = rows[rows.run.isin(asked)]
        if rows.empty:
            raise CoolbitsError(f"figure {figure}: no telemetry of the runs {asked}; give names of runs that have it")
    rows = rows[rows.schedule != "cooldown"].drop_duplicates(["family", "step", "parameter", "state"], keep="last")
    named = [display_name(kind, states) for kind, states in zip(rows.optimizer, rows.states, strict=True)]
    float32 = rows.codec == "float32"
    by_codec = {name: np.where(float32, rows[f"{name}_linear"], rows[name]) for name in BY_CODEC}
    rows = rows.assign(variant=named, **by_codec)
    counts = rows.groupby(_SETTING, dropna=False).variant.nunique().rename("variants").reset_index()
    rows = rows.merge(counts, on=_SETTING)
    ranked = rows.sort_values(["variants", *_SETTING], ascending=[False, *[True] * len(_SETTING)], kind="stable")
    model = ranked.model.iloc[0]
    chosen = ranked[ranked.model == model].drop_duplicates("variant")[["variant", *_SETTING]]
    return rows.merge(chosen, on=list(chosen)).sort_values(["variant", "family", "tokens"], kind="stable")


def rates(rows: pd.DataFrame) -> str:
    """Say each variant's peak rate: `AdamW-32 0.01, ...`."""
    settings = rows.drop_duplicates("variant").sort_values("variant")
    pairs = zip(settings.variant, settings.peak_lr, strict=True)
    return ", ".join(f"{variant} {rate_label(rate)}" for variant, rate in pairs)
