"""Write a quantized model in the format of other software, and read it back before anyone else does."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.files import replacing, write_json
from coolbits.models.files import load_model, save_model
from coolbits.models.head import output_head, untie_head
from coolbits.models.quantized import QuantizedModel, apply_model, read_quantized
from coolbits.ptq.export.compressed_tensors import COMPRESSED_TENSORS
from coolbits.ptq.export.formats import Format, integer_layers
from coolbits.ptq.export.gptq_format import GPTQ_FORMAT
from coolbits.ptq.export.source import Source, find_source
from coolbits.ptq.export.verify import verify

FORMATS = {each.name: each for each in (COMPRESSED_TENSORS, GPTQ_FORMAT)}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
PROVENANCE = "coolbits.json"


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
    those of `layer.weight()`, bit for bit; another dtype rounds scales and the weights that are not quantized.
    `model` is the directory of the model before quantization, if it is not where the artifact says.

    Raises:
        CoolbitsError: if `out` exists, the format cannot hold the model, or a file is missing.
    """
    form = find_format(format_name)
    if out.exists():
        raise CoolbitsError(f"{out}: exists already; choose another --out")
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
    loaded = load_model(source.model, dtype=DTYPES[dtype])
    apply_model(loaded, QuantizedModel({}, quantized.replaced), str(source.directory))
    layers = {
        name: replace(layer, scales=layer.scales.to(DTYPES[dtype])) for name, layer in integer_layers(quantized).items()
    }
    head = output_head(loaded)
    config = form.config(quantized, _unquantized(loaded, quantized, form), head is not None and head[0] in layers)
    untie_head(loaded, layers)
    loaded.config.quantization_config = config
    codes = {
        f"{name}.{part}": tensor.contiguous()
        for name, layer in layers.items()
        for part, tensor in form.tensors(layer, config).items()
    }
    rest = {key: tensor for key, tensor in loaded.state_dict().items() if key.removesuffix(".weight") not in layers}
    with replacing(out) as staging:
        save_model(loaded, source.model, staging, rest | codes)
        origin = {"format": form.name, "dtype": dtype, "exact": dtype == "float32"}
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
        instead = (
            f"{' and '.join(able)} can"
            if able
            else "no format can, only the dequantized model (`save_model`, --save-model)"
        )
        raise CoolbitsError(f"{source}: the format {form.name} cannot hold this model: {reason}; {instead}")


def _unquantized(model: PreTrainedModel, quantized: QuantizedModel, form: Format) -> list[str]:
    """Return the linear layers that are not quantized, such as the head.

    Raises:
        CoolbitsError: if a quantized module is no `nn.Linear`, which is all that readers put codes into.
    """
    modules = dict(model.named_modules())
    for name in quantized.layers:
        if not isinstance(modules.get(name), nn.Linear):
            kind = type(modules[name]).__name__ if name in modules else "missing"
            raise CoolbitsError(f"{form.name}: {name} is {kind} in this model; the formats hold `nn.Linear` alone")
    return [name for name, each in modules.items() if isinstance(each, nn.Linear) and name not in quantized.layers]
