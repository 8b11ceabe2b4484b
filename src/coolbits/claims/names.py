"""The claims by name, in the order of the page. Needs no numerical library, so that planning is quick."""

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
    "averaging-lowers-error",
    "soup-beats-ingredients",
    "larger-weight-decay-lowers-error",
    "adamc-equals-adamw",
    "muon-vs-adamw",
    "muon-vs-adamw-at-equal-loss",
)
