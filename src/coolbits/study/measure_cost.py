"""What the measures of an evaluation cost, by arithmetic: tokens that pass through the model, vectors that are kept."""

from coolbits.study.recipes.evaluation import Curvature, Landscape, Loss, Measure, OnWindows, Prediction

_GRADIENT = 3  # passes: a forward one, and a backward one worth two
_PRODUCT = 9  # of Hessian and vector: a gradient, and its differentiation, which is worth two


def forward_tokens(measure: Loss | OnWindows) -> int:
    """Return the tokens of forward passes that a measure is worth, at most."""
    scored = measure.windows * measure.sequence_length
    match measure:
        case Curvature():
            return scored * _PRODUCT * (measure.probes + measure.iterations)
        case Prediction():
            return scored * (2 + _GRADIENT + _PRODUCT * (1 + measure.probes))
        case Landscape():
            return scored * (measure.points**2 + 3)
        case _:
            return scored


def kept_vectors(measure: Measure) -> int:
    """Return the copies of the weights, or vectors as long, that a measure keeps beside the model's gradients."""
    match measure:
        case Curvature():
            return measure.iterations + 4
        case Prediction() | Landscape():
            return 6
        case _:
            return 1
