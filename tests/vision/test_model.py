"""Classifiers: built alike for a seed, of the size that planning counts, refused in one sentence."""

import pytest
import torch
from transformers import ResNetForImageClassification

from coolbits.artifacts.errors import CoolbitsError
from coolbits.optim.groups import parameter_roles
from coolbits.study.recipes.vision import ImageModel
from coolbits.vision.model import build_classifier
from coolbits.vision.presets import image_counts, image_preset

DIGITS = tuple("0123456789")


def test_a_seed_decides_the_weights():
    one, same, other = (build_classifier(image_preset("resnet-micro"), 1, DIGITS, seed) for seed in (0, 0, 1))
    assert isinstance(one, ResNetForImageClassification) and one.training
    assert all(a.equal(b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not one.classifier[1].weight.equal(other.classifier[1].weight)
    assert one.config.id2label[3] == "3"


@pytest.mark.parametrize(
    ("name", "parameters"), [("resnet-micro", None), ("resnet-18", 11_689_512), ("resnet-50", 25_557_032)]
)
def test_planning_counts_the_parameters_that_are_built(name, parameters):
    with torch.device("meta"):
        config = build_classifier(image_preset("resnet-micro"), 3, DIGITS, 0).config
        for key, value in image_preset(name).config.items():
            setattr(config, key, value)
        config.num_labels = 1000
        built = sum(parameter.numel() for parameter in ResNetForImageClassification(config).parameters())
    counted = image_counts(image_preset(name), 3, 1000, 224).parameters
    assert counted == built
    assert parameters in (None, counted)


@pytest.mark.parametrize(("name", "billions"), [("resnet-18", 1.81), ("resnet-50", 4.09)])
def test_planning_counts_the_multiplications_of_the_papers(name, billions):
    assert image_counts(image_preset(name), 3, 1000, 224).flops / 6e9 == pytest.approx(billions, rel=0.01)


@pytest.mark.parametrize(("precision", "number"), [("float32", 4), ("bfloat16", 2)])
@pytest.mark.parametrize(
    ("name", "channels", "size"), [("resnet-micro", 1, 16), ("resnet-18", 3, 64), ("resnet-50", 3, 64)]
)
def test_planning_counts_what_autograd_keeps_of_an_image(name, channels, size, precision, number):
    model, kept = build_classifier(image_preset(name), channels, DIGITS, 0), {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    def measured(images):
        kept.clear()
        rounding = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), rounding:
            logits = model(pixel_values=torch.rand(images, channels, size, size)).logits
        return sum(kept.values()), logits  # what is kept stays as long as logits, so that no address is used twice

    counted = image_counts(image_preset(name), channels, len(DIGITS), size)
    an_image = (measured(6)[0] - measured(2)[0]) / 4  # the rest is weights
    assert an_image == pytest.approx(number * counted.kept + 8 * counted.pooled, rel=0.02)


def test_every_convolution_of_the_micro_model_but_the_stem_and_shortcuts_is_large_enough_for_8_bit_states():
    model = build_classifier(image_preset("resnet-micro"), 1, DIGITS, 0)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters() if parameter.ndim == 4}
    small = [name for name, size in sizes.items() if size < 4096]
    assert all("embedder" in name or "shortcut" in name for name in small)
    assert sum(sizes.values()) - sum(sizes[name] for name in small) > 0.95 * sum(sizes.values())


def test_roles_of_a_classifier():
    model = build_classifier(image_preset("resnet-micro"), 1, DIGITS, 0)
    roles = parameter_roles(model)
    assert roles.keys() == dict(model.named_parameters()).keys()
    assert {role for name, role in roles.items() if name.endswith("convolution.weight")} == {"kernel"}
    assert {role for name, role in roles.items() if "normalization" in name} == {"vector"}
    assert roles["classifier.1.weight"] == "head"
    assert roles["classifier.1.bias"] == "vector"


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"depth": [1]}, "model.config.depth is not a key of resnet; known are .*depths"),
        ({"num_channels": 4}, "model.config.num_channels is not a key"),
        ({"layer_type": "dense"}, "model.config of resnet is refused: .*dense"),
        ({"hidden_act": "sine"}, "model.config of resnet is refused: .*sine"),
    ],
)
def test_a_config_that_cannot_be_is_refused(config, sentence):
    with pytest.raises(CoolbitsError, match=sentence):
        build_classifier(ImageModel(config=config), 1, DIGITS, 0)


def test_an_unknown_preset_names_those_there_are():
    with pytest.raises(CoolbitsError, match="no preset 'resnet-9000'; there are resnet-micro"):
        image_preset("resnet-9000")
