"""Named image classifiers, and their size by arithmetic. Needs no torch, so that planning is quick.

ResNets are those of He et al. 2016 (with the stride in the 3 x 3 convolution, as is usual today); `resnet-micro` is
ours, for digits on one core: all convolutions but the stem and a shortcut, 92 % of the weights, are large enough for
8-bit states.
"""

from dataclasses import dataclass
from typing import Any

from coolbits.artifacts.errors import CoolbitsError
from coolbits.study.recipes.vision import ImageModel

_EXPANSION = 4  # of a bottleneck's last convolution


@dataclass(frozen=True)
class ImageCounts:
    """The parameters of a model, and what one training image costs.

    `flops` are those of both passes. The forward pass keeps `kept` numbers in the training's precision for the backward
    pass, and of each of `pooled` maxima where it was, an int64.
    """

    parameters: int
    flops: int
    kept: int
    pooled: int


def _resnet(depths: list[int], widths: list[int], layer_type: str, stem: int = 64) -> dict[str, Any]:
    return {"embedding_size": stem, "hidden_sizes": widths, "depths": depths, "layer_type": layer_type}


_PRESETS = {
    "resnet-micro": _resnet([1, 1, 1], [32, 64, 128], "basic", stem=32),
    "resnet-18": _resnet([2, 2, 2, 2], [64, 128, 256, 512], "basic"),
    "resnet-50": _resnet([3, 4, 6, 3], [256, 512, 1024, 2048], "bottleneck"),
}


def image_preset(name: str, **config: Any) -> ImageModel:
    """Return the model called `name`, with the arguments of `config` on top.

    Raises:
        CoolbitsError: if there is no such preset.
    """
    if name not in _PRESETS:
        raise CoolbitsError(f"no preset {name!r}; there are {', '.join(_PRESETS)}")
    return ImageModel(config=_PRESETS[name] | config)


def image_counts(model: ImageModel, channels: int, classes: int, size: int) -> ImageCounts:
    """Count for images of `size` pixels square.

    Forward and backward are 6 FLOPs for each weight and place that it is multiplied with. Kept are the image, what
    convolutions give, and what activations behind them give, which all but shortcuts have.
    """
    config = model.config
    stem, widths = config["embedding_size"], config["hidden_sizes"]
    place = -(-size // 2)
    layers = [(stem, channels, 7, place)]  # outputs, inputs, kernel, places a side
    shortcuts = []
    place, inputs = -(-place // 2), stem
    pooled = stem * place**2
    for stage, (width, depth) in enumerate(zip(widths, config["depths"], strict=True)):
        for block in range(depth):
            stride = 2 if stage and not block else 1
            before, place = place, -(-place // stride)
            layers += _block(config["layer_type"], inputs, width, before, place)
            if stride > 1 or inputs != width:
                shortcuts.append((width, inputs, 1, place))
            inputs = width
    convolutions = layers + shortcuts
    weights = [outputs * inner * kernel**2 for outputs, inner, kernel, _ in convolutions]
    norms = sum(2 * outputs for outputs, *_ in convolutions)
    head = (inputs + 1) * classes
    multiplied = sum(count * side**2 for count, (*_, side) in zip(weights, convolutions, strict=True))
    made, passed = (sum(outputs * side**2 for outputs, *_, side in some) for some in (layers, shortcuts))
    kept = channels * size**2 + 2 * made + passed + pooled
    return ImageCounts(sum(weights) + norms + head, 6 * (multiplied + head), kept, pooled)


def _block(kind: str, inputs: int, width: int, before: int, place: int) -> list[tuple[int, int, int, int]]:
    if kind == "basic":
        return [(width, inputs, 3, place), (width, width, 3, place)]
    inner = width // _EXPANSION
    return [(inner, inputs, 1, before), (inner, inner, 3, place), (width, inner, 1, place)]
