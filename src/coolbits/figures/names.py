"""The figures by name, and the tables that each is drawn from. Needs no plotting library, so that planning is quick."""

FIGURES = {
    "tokens": ("loss",),
    "peak-rate": ("loss",),
    "schedules": ("loss",),
    "averages": ("loss",),
    "optimizers": ("loss", "metrics"),
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
}

# Tables that a figure shows besides, where the study has them.
BESIDES = {"quantizers": ("tasks",)}
