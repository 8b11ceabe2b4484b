"""Write a quantized model in the format of other software, and read it back before anyone else does."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.files import creating, write_json
from coolbits.models.files import load_model, save_model
from coolbits.models.head import output_head, untie_head
from coolbits.models.layers import IntegerLayer
from coolbits.models.own_code import forget_own_code
from coolbits.models.quantized import QuantizedModel, apply_model, read_quantized
from coolbits.ptq.export.compressed_tensors import COMPRESSED_TENSORS
from coolbits.ptq.export.formats import Format, integer_layers
from coolbits.ptq.export.gptq_format import GPTQ_FORMAT
from coolbits.ptq.export.source import Source, find_source
from coolbits.ptq.export.verify import verify
from coolbits.ptq.target import check_target

FORMATS = {each.name: each for each in (COMPRESSED_TENSORS, GPTQ_FORMAT)}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
PROVENANCE = "coolbits.json"
_NEAR = 2**-7  # relative: bfloat16 rounds by half of that, float16 by more where its numbers lose digits


@dataclass(frozen=True)
class Exported:
    """What was written: the bytes of its weights, and how many modules were read back and found equal."""

    bytes: int
    modules: int


def export_model(
    artifact: Path, format_name: str, out: Path, model: Path | None = None, dtype: str = "float32"
) -> Exported:
    """Write the quantized model in `artifact` to the new directory `out`, whole or not at all.

    The codes are written as they are; nothing is quantized again. With `float32` the weights that a reader gets are
    those of `layer.weight()`, bit for bit, and the weights that are not quantized are written as they were stored;
    another dtype rounds scales and those weights.
    `model` is the directory of the model before quantization, if it is not where the artifact says.

    Raises:
        CoolbitsError: if `out` exists or cannot be made, the format cannot hold the model or the dtype its scales, or
            a file is missing.
    """
    form = find_format(format_name)
    check_target(out)
    return write_export(find_source(artifact, model), form, out, dtype)


def find_format(name: str) -> Format:
    """Return the format of that name.

    Raises:
        CoolbitsError: if there is none.
    """
    if name not in FORMATS:
        raise CoolbitsError(f"{name!r}: no such format; allowed are {', '.join(FORMATS)}")
    return FORMATS[name]


def write_export(source: Source, form: Format, out: Path, dtype: str = "float32") -> Exported:
    """Write the model of `source` to `out`: see `export_model`."""
    quantized = read_quantized(source.directory)
    check_expressible(quantized, form, str(source.directory))
    exact = dtype == "float32"
    loaded = load_model(source.model, dtype=None if exact else DTYPES[dtype])
    modules = dict(loaded.named_modules())
    rounds = quantized.activations is not None
    check_modules({name: modules.get(name) for name in quantized.layers}, form, str(source.directory), rounds)
    apply_model(loaded, QuantizedModel({}, quantized.replaced), str(source.directory))
    layers = _rounded(integer_layers(quantized), dtype, source.directory)
    head = output_head(loaded)
    config = form.config(quantized, _unquantized(modules, quantized), head is not None and head[0] in layers)
    untie_head(loaded, layers)
    loaded.config.quantization_config = config
    codes = {
        f"{name}.{part}": tensor.contiguous()
        for name, layer in layers.items()
        for part, tensor in form.tensors(layer, config).items()
    }
    rest = {key: tensor for key, tensor in loaded.state_dict().items() if key.removesuffix(".weight") not in layers}
    if exact:
        rest |= quantized.replaced  # float32, whatever the model's own dtype
        loaded.float()  # not what is in `rest`: config.json names the model's dtype, in which readers compute
    with creating(out) as staging:
        save_model(loaded, source.model, staging, rest | codes)
        forget_own_code(staging)
        origin = {"format": form.name, "dtype": dtype, "exact": exact}
        write_json(staging / PROVENANCE, origin | source.provenance)
        verify(staging, layers, rest, form, config)
        size = sum(path.stat().st_size for path in staging.glob("*.safetensors"))
    return Exported(size, len(layers))


def check_expressible(quantized: QuantizedModel, form: Format, source: str) -> None:
    """Refuse a model that the format cannot hold.

    Raises:
        CoolbitsError: saying why, and which formats can.
    """
    if (reason := form.why_not(quantized)) is not None:
        able = [other.name for other in FORMATS.values() if other.why_not(quantized) is None]
        instead = f"{' and '.join(able)} can" if able else _instead(quantized.activations is not None)
        raise CoolbitsError(f"{source}: the format {form.name} cannot hold this model: {reason}; {instead}")


def check_modules(modules: Mapping[str, nn.Module | None], form: Format, source: str, rounds: bool) -> None:
    """Refuse modules to quantize, by name, that readers of the format put no codes into; None is a missing one.

    Readers replace `nn.Linear` alone: GPT-2's `Conv1D` is none, and a class derived from it, such as Falcon's, may read
    the weight that codes replace. `rounds`: whether the modules are to round activations, too.

    Raises:
        CoolbitsError: naming the module and its class.
    """
    for name, module in modules.items():
        if type(module) is not nn.Linear:
            kind = "missing" if module is None else type(module).__name__
            raise CoolbitsError(
                f"{source}: the format {form.name} cannot hold this model: {name} is {kind}, and readers put codes "
                f"into `nn.Linear` alone; {_instead(rounds)}"
            )


def _rounded(layers: Mapping[str, IntegerLayer], dtype: str, source: Path) -> dict[str, IntegerLayer]:
    """Return the layers with scales of that dtype.

    Raises:
        CoolbitsError: if it has no number near one of them, naming the layer.
    """
    rounded = {name: replace(layer, scales=layer.scales.to(DTYPES[dtype])) for name, layer in layers.items()}
    for name, layer in layers.items():
        lost = (rounded[name].scales.float() - layer.scales).abs() > _NEAR * layer.scales
        if lost.any():
            scale = float(layer.scales[lost][0])
            raise CoolbitsError(
                f"{source}: --dtype {dtype}: it cannot hold {scale:.2g}, a scale of {name}; allowed are float32 and "
                "bfloat16"
            )
    return rounded


def _instead(rounds: bool) -> str:
    """Say what holds a model that no format can; one that rounds activations, as it runs, is no plain model either."""
    return "no format can" + ("" if rounds else ", only the dequantized model (`save_model`, --save-model)")


def _unquantized(modules: Mapping[str, nn.Module], quantized: QuantizedModel) -> list[str]:
    """Return the linear layers that are not quantized, such as the head."""
    return [name for name, each in modules.items() if isinstance(each, nn.Linear) and name not in quantized.layers]
