"""Variants side by side: optimizers and the precision of their states, each at its best setting among those tried."""

from dataclasses import dataclass

import pandas as pd

from coolbits.figures.selection import demand, of_variant, rate_label, variant_looks
from coolbits.rows import runs
from coolbits.settings import HORIZON, TUNED, VARIANT, best_settings, largest_group, of_setting


@dataclass(frozen=True)
class Compared:
    """Runs of several variants that are alike in model and horizon.

    `tried` has the end of every run; `shown` whole runs, each variant's at its setting of lowest full-precision loss.
    Of a variant whose runs all diverged it has those at the setting that lasted longest.
    """

    tried: pd.DataFrame
    shown: pd.DataFrame

    @property
    def ends(self) -> pd.DataFrame:
        """The ends of the runs shown."""
        return self.shown[self.shown.final.astype(bool)]

    def lost(self) -> str:
        """Say how many of each variant's runs diverged, shown or not, as a sentence after a space; nothing if none did.

        All settings and seeds tried count.
        """
        counts = []
        for variant, look in variant_looks(self.tried).items():
            lost = of_variant(self.tried, variant).outcome == "diverged"
            if lost.any():
                counts.append(f"{look.label} {lost.sum()} of {len(lost)}")
        return f" Runs that diverged, of all tried: {', '.join(counts)}." if counts else ""


def peak_rates(shown: pd.DataFrame) -> str:
    """Say each variant's peak rate: `AdamW-32 at 0.01; ...`; where it always diverged, that it lasted longest."""
    found = []
    for variant, look in variant_looks(shown).items():
        rows = of_variant(shown, variant)
        lost = ", where it lasted longest" if (rows.outcome == "diverged").all() else ""
        found.append(f"{look.label} at {rate_label(rows.peak_lr.iloc[0])}{lost}")
    return "; ".join(found)


def settings_shown(tried: pd.DataFrame) -> pd.DataFrame:
    """Return for each variant of comparable ends its best setting; where all diverged, that which lasted longest."""
    return pd.concat([best_settings(tried), _longest(tried)]).drop_duplicates(list(VARIANT))


def compared(figure: str, rows: pd.DataFrame) -> Compared:
    """Return the runs of the model and horizon that most variants share.

    Raises:
        CoolbitsError: if no two variants share any.
    """
    whole = runs(rows)
    last = whole[whole.final.astype(bool)]
    alike = ["model", *HORIZON]
    groups = last.assign(variant=last.optimizer + "-" + last.states).groupby(alike, dropna=False)
    counts = groups.variant.nunique()[groups.base_loss.count() > 0]
    if counts.empty or counts.max() < 2:
        demand(figure, rows.iloc[:0], "two optimizers, or precisions of states, with equal model, schedule and budget")
    tried = of_setting(last, largest_group(counts))
    settings = settings_shown(tried)
    paths = tried.merge(settings, on=list(settings)).path
    return Compared(tried, whole[whole.path.isin(paths)])


def _longest(tried: pd.DataFrame) -> pd.DataFrame:
    """Return for each variant of which runs diverged the setting at which they lasted longest."""
    tuned = [*VARIANT, *TUNED]
    lost = tried[tried.outcome == "diverged"]
    lasted = lost.groupby(tuned, dropna=False).diverged_step.mean().reset_index()
    return lasted.sort_values("diverged_step", ascending=False).drop_duplicates(list(VARIANT))[tuned]
