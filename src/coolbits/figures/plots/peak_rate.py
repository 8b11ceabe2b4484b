"""Peak learning rates compared: error along training, and full-precision against quantized loss (paper A, Figure 6)."""

from coolbits.figures.selection import rate_label
from coolbits.figures.sweeps import Sweep

NAME = "peak-rate"
_SWEEP = Sweep(NAME, "peak_lr", "peak learning rate", "peak learning rates", rate_label)
draw, caption = _SWEEP.draw, _SWEEP.caption
