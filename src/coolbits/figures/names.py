"""The figures by name, and the tables that each is drawn from. Needs no plotting library, so that planning is quick."""

FIGURES = {
    "tokens": ("loss",),
    "peak-rate": ("loss",),
    "weight-decay": ("loss",),
    "schedules": ("loss",),
    "averages": ("loss",),
    "optimizers": ("loss", "metrics"),
    "norms": ("loss", "metrics"),
    "states": ("loss",),
    "tasks": ("tasks",),
    "quantizers": ("loss",),
    "curvature": ("curvature",),
    "prediction": ("prediction",),
    "landscape": ("landscape",),
    "vision": ("vision",),
    "finetuning": ("finetuning",),
    "memory": ("memory",),
    "theory": ("theory",),
    "telemetry": ("telemetry",),
    "telemetry-layers": ("telemetry",),
}

# What a figure's `options` may name.
OPTIONS: dict[str, tuple[str, ...]] = {
    "tokens": ("quantizers",),
    "peak-rate": ("quantizers", "optimizer"),
    "weight-decay": ("quantizers", "optimizer"),
    "schedules": ("quantizers",),
    "averages": ("quantizers",),
    "optimizers": ("quantizers", "model", "optimizers", "peak_lr"),
    "norms": ("model", "optimizers", "peak_lr"),
    "states": ("model",),
    "tasks": ("quantizers",),
    "quantizers": ("runs", "quantizers"),
    "curvature": (),
    "prediction": ("quantizers",),
    "landscape": ("quantizers", "runs"),
    "vision": ("images", "model"),
    "finetuning": ("run",),
    "memory": ("models", "optimizers"),
    "theory": (),
    "telemetry": ("runs", "measures"),
    "telemetry-layers": ("runs", "optimizers", "measure"),
}

# Tables that a figure shows besides, where the study has them.
BESIDES = {"quantizers": ("tasks",)}
