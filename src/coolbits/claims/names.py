"""The claims by name, in the order of the page. Needs no numerical library, so that planning is quick."""

# Those on analyses, by the kind of analysis that they need.
OF_ANALYSES = {
    "memory": ("memory-all-8-bit", "memory-adamw-in-32-bit"),
    "theory": ("theorem-1-adamw", "theorem-2-sgdm", "theorem-3-muon"),
}
# Open questions on the error of models: the variants, and when they are compared with their 32-bit twins.
_VARIANTS = ("muon-8l", "muon-8d", "hybrid-8d", "hybrid-8l", "adamw-8d", "sgdm-8l", "sgdm-8d")
_WHEN = ("", "-at-equal-loss-after-cooldown", "-at-equal-loss-at-constant-rate", "-at-constant-rate")

CLAIMS = (
    "decay-raises-error",
    "decay-raises-error-at-equal-tokens",
    "decay-lowers-loss",
    "flat-while-constant",
    "decay-not-tokens",
    "wsd-vs-cosine",
    "higher-rate-lowers-error",
    "higher-rate-lowers-error-at-equal-loss",
    "averaging-beats-decay-at-low-bits",
    "decay-beats-averaging-at-full-precision",
    "averaging-lowers-error",
    "soup-beats-ingredients",
    "larger-weight-decay-lowers-error",
    "adamc-equals-adamw",
    "decay-raises-sharpness",
    "decay-raises-sharpness-at-equal-tokens",
    "decay-raises-trace",
    "decay-raises-trace-at-equal-tokens",
    "higher-rate-lowers-sharpness",
    "higher-rate-lowers-trace",
    "muon-vs-adamw",
    "muon-vs-adamw-at-equal-loss-after-cooldown",
    "muon-vs-adamw-at-equal-loss-at-constant-rate",
    "muon-8l-trains-as-well",
    "muon-8d-trains-as-well",
    "adamw-8d-trains-as-well",
    "adamw-8l-unstable",
    "sgdm-8l-trains-as-well",
    "sgdm-8d-trains-as-well",
    "tasks-muon-8l-trains-as-well",
    "muon-beats-adamw",
    "muon-8l-beats-adamw",
    "hybrid-8d-costs-loss",
    "hybrid-8l-costs-loss",
    "vision-sgdm-8l-trains-as-well",
    "vision-sgdm-8d-trains-as-well",
    "vision-adamw-8d-trains-as-well",
    "vision-adamw-8l-unstable",
    "vision-adamw-8d-min0-trains-as-well",
    "vision-adamw-8l-min0-unstable",
    "finetuning-muon-8l-trains-as-well",
    "finetuning-muon-8d-trains-as-well",
    "finetuning-adamw-8d-trains-as-well",
    "finetuning-adamw-8l-unstable",
    *(name for names in OF_ANALYSES.values() for name in names),
    *(f"{variant}-error{when}" for variant in _VARIANTS for when in _WHEN),
)
