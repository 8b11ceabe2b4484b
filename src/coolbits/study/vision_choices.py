"""The section `vision` of a study file, as a person writes it: lengths in epochs, lists as grids."""

from typing import Annotated, Any, Literal

from pydantic import Field

from coolbits.study.recipes.base import Recipe
from coolbits.study.recipes.training import Divergence, Optimizer, Precision
from coolbits.study.recipes.vision import Augmentation, Digits, HubImages, Unchanged
from coolbits.study.units import Percentage


class IdxChoice(Recipe):
    """MNIST, Fashion-MNIST, or another set in their format."""

    kind: Literal["idx"] = "idx"
    path: str = Field(
        description="folder with the four files under their usual names (train-images-idx3-ubyte, ...), with .gz or "
        "without; a relative one starts at the study file's folder"
    )


class FolderChoice(Recipe):
    """Folders of pictures, one a class."""

    kind: Literal["folder"] = "folder"
    path: str = Field(description="a relative one starts at the study file's folder")
    train: str = Field("train", description="subfolder whose subfolders are the classes")
    test: str = Field("val", description="the same of the held-out images")
    size: int = Field(
        gt=0, description="pixels of the square stored: the shorter side is scaled to it, the centre kept"
    )


class ImageModelChoice(Recipe):
    """A classifier by preset, with arguments of its Hugging Face config on top."""

    preset: str = Field(description="resnet-micro, resnet-18, resnet-50")
    config: dict[str, Any] = Field({}, description="arguments of the Hugging Face config that differ from the preset")


class EpochScheduleChoice(Recipe):
    """A learning-rate schedule over the epochs of the run."""

    kind: Literal["constant", "cosine", "linear"]
    warmup: Annotated[float, Field(ge=0)] | Percentage = Field(
        description="linear from 0: epochs, or a share of the run such as 5%"
    )
    final_fraction: float = Field(0.0, ge=0, le=1, description="share of the peak rate left at the end")


class VisionRun(Recipe):
    """One training of an image classifier, or a grid of them: any field may be a list."""

    data: Annotated[Digits | IdxChoice | FolderChoice | HubImages, Field(discriminator="kind")] = Digits()
    model: ImageModelChoice
    optimizer: Optimizer
    schedule: EpochScheduleChoice
    peak_lr: float = Field(gt=0, description="highest learning rate of the schedule")
    epochs: int = Field(gt=0, description="passes over the training images")
    batch_images: int = Field(gt=1, description="images a step, all in one pass: batch norm sees them together")
    seed: int = Field(0, ge=0, description="of the initial weights, the order of the images and their augmentation")
    input_size: int | None = Field(
        None, gt=0, description="pixels of the square that the model sees; null: the images' own"
    )
    augmentation: Augmentation = Unchanged()
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="of the training loss alone")
    clip_norm: float | None = Field(
        None, gt=0, description="global L2 norm to which gradients are clipped; null: never"
    )
    precision: Precision = Field("float32", description="of convolutions and matrix products")
    divergence: Divergence = Divergence()
    log_steps: int = Field(10, gt=0, description="a row of metrics every so many steps")
