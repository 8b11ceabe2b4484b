"""Recipes of the vision experiment: a set of images, and a classifier trained on it."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from coolbits.study.recipes.base import HubId, Recipe
from coolbits.study.recipes.training import Divergence, Optimizer, Precision

IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


class Digits(Recipe):
    """The 1,797 handwritten digits of 8 x 8 pixels that ship with scikit-learn (UCI, Alpaydin and Kaynak 1998)."""

    kind: Literal["digits"] = "digits"
    test_fraction: float = Field(0.2, gt=0, lt=1, description="share of the images held out, by a shuffle")


class IdxFiles(Recipe):
    """Four IDX files under their usual names, as MNIST and Fashion-MNIST come, gzipped or not.

    Where they lie on this machine is in the job's `locations["images/NAME"]`, in the order of `IDX_FILES`.
    """

    kind: Literal["idx"] = "idx"
    sha256: tuple[str, ...] = Field(min_length=4, max_length=4, description="digest of each file, as it lies there")


class ImageFolder(Recipe):
    """Folders of pictures, one a class, for training and for test; the folder is in `locations["images/NAME"]`."""

    kind: Literal["folder"] = "folder"
    train: str = Field("train", description="subfolder whose subfolders are the classes")
    test: str = Field("val", description="the same of the held-out images")
    size: int = Field(
        gt=0, description="pixels of the square stored: the shorter side is scaled to it, the centre kept"
    )
    sha256: str = Field(description="digest of the list of files: relative paths and sizes")


class HubImages(Recipe):
    """A Hugging Face dataset of pictures, streamed once."""

    kind: Literal["hub"] = "hub"
    id: HubId = Field(description="for example ILSVRC/imagenet-1k, which asks for a login")
    config: str | None = None
    revision: str = Field("main", description="a commit, tag or branch; a commit makes the recipe reproducible")
    train: str = Field("train", description="split of the training images")
    test: str = Field("validation", description="split of the held-out images")
    image_field: str = "image"
    label_field: str = "label"
    images: int | None = Field(None, gt=0, description="take only the first so many of each split")
    size: int = Field(
        gt=0, description="pixels of the square stored: the shorter side is scaled to it, the centre kept"
    )


ImageSource = Annotated[Digits | IdxFiles | ImageFolder | HubImages, Field(discriminator="kind")]


class Images(Recipe):
    """A set of labelled images, in `train` and `test`, as arrays of bytes. No parents."""

    source: ImageSource


class ImageModel(Recipe):
    """A Hugging Face image classifier by `model_type`, and the arguments of its config.

    Channels and classes are those of the images.
    """

    architecture: Literal["resnet"] = "resnet"
    config: dict[str, Any]


class Unchanged(Recipe):
    """No augmentation."""

    kind: Literal["none"] = "none"


class Shift(Recipe):
    """A random shift by whole pixels, edges repeated, and a random mirror image."""

    kind: Literal["shift"] = "shift"
    pixels: int = Field(gt=0, description="at most so many, in each direction")
    flip: bool = Field(True, description="mirror half of the images")


class ResizedCrop(Recipe):
    """A random rectangle of the image scaled to the input (Szegedy et al. 2015), and a random mirror image."""

    kind: Literal["resized-crop"] = "resized-crop"
    smallest_area: float = Field(0.08, gt=0, le=1, description="share of the image's area that is kept at least")
    flip: bool = Field(True, description="mirror half of the images")


Augmentation = Annotated[Unchanged | Shift | ResizedCrop, Field(discriminator="kind")]


class EpochSchedule(Recipe):
    """A learning-rate schedule in epochs; the stage, which knows how many images there are, makes steps of them."""

    kind: Literal["constant", "cosine", "linear"]
    warmup_epochs: float = Field(ge=0, description="linear from 0")
    final_fraction: float = Field(0.0, ge=0, le=1, description="share of the peak rate left at the end")


class Classifier(Recipe):
    """An image classifier trained to its end. Parent: `images`."""

    model: ImageModel
    optimizer: Optimizer
    schedule: EpochSchedule
    peak_lr: float = Field(gt=0)
    epochs: int = Field(gt=0)
    batch_images: int = Field(gt=1, description="images a step, all in one pass: batch norm sees them together")
    seed: int = Field(ge=0, description="of the initial weights, the order of the images and their augmentation")
    input_size: int | None = Field(
        None, gt=0, description="pixels of the square that the model sees; null: the images' own"
    )
    augmentation: Augmentation = Unchanged()
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="of the training loss alone")
    clip_norm: float | None = Field(
        None, gt=0, description="global L2 norm to which gradients are clipped; null: never"
    )
    precision: Precision = Field("float32", description="of convolutions and matrix products; weights stay float32")
    divergence: Divergence = Divergence()
    log_steps: int = Field(10, gt=0, description="a row of metrics every so many steps")

    @model_validator(mode="after")
    def _warmup_within(self) -> Self:
        if self.schedule.warmup_epochs >= self.epochs:
            raise ValueError(f"schedule.warmup: {self.schedule.warmup_epochs:g} epochs, but the run has {self.epochs}")
        return self
