"""Weight decays compared: error along training, and full-precision against quantized loss (paper A, Figure 19)."""

from coolbits.figures.sweeps import Sweep

NAME = "weight-decay"
_SWEEP = Sweep(NAME, "weight_decay", "weight decay", "weight decays", "{:g}".format)
draw, caption = _SWEEP.draw, _SWEEP.caption
