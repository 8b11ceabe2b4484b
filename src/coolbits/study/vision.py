"""From the study's `vision` to nodes: sets of images, and the classifiers trained on them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.hashing import file_digest
from coolbits.artifacts.node import Node, make_node
from coolbits.study.mistakes import sentence
from coolbits.study.optimizer_names import optimizer_name, states_label
from coolbits.study.recipes import vision as recipes
from coolbits.study.schema import Study
from coolbits.study.vision_choices import FolderChoice, IdxChoice, VisionRun
from coolbits.vision.folders import listing_digest
from coolbits.vision.presets import ImageCounts, image_counts, image_preset


class _Set(NamedTuple):
    """What planning takes a set for that it has not read: images for training, held out; what each is, in pixels."""

    train: int
    test: int
    channels: int
    size: int
    classes: int


_ASSUMED = {"digits": _Set(1_438, 359, 1, 8, 10), "idx": _Set(60_000, 10_000, 1, 28, 10)}
_IMAGENET = (1_281_167, 50_000)


@dataclass
class Vision:
    """The nodes of a study's vision runs.

    `classifiers` come with the columns that describe them in tables, one that several entries want once for each;
    `locations` say where images lie, `batches` which classifiers one job makes, `scale` what the study is, for
    captions.
    """

    images: list[Node] = field(default_factory=list)
    classifiers: list[tuple[Node, dict[str, Any]]] = field(default_factory=list)
    locations: dict[str, list[str]] = field(default_factory=dict)
    batches: dict[str, str] = field(default_factory=dict)
    scale: str = ""

    @property
    def nodes(self) -> list[Node]:
        """Images and classifiers."""
        return [*self.images, *(node for node, _ in self.classifiers)]


def vision(study: Study, folder: Path) -> Vision:
    """Resolve the vision runs of a study whose relative paths start at `folder`.

    Raises:
        CoolbitsError: if a file or a preset is missing, or lengths contradict each other, naming the run and the key.
    """
    found = Vision()
    for name, points in study.vision.items():
        for run in points:
            images, paths = _images(run, folder, f"vision.{name}.data")
            found.locations[f"images/{images.name}"] = [str(path) for path in paths]
            node = _classifier(name, run, images)
            if any(row["run"] == name and known.name == node.name for known, row in found.classifiers):
                continue  # two points of a grid that come to the same recipe are one
            found.images.append(images)
            found.classifiers.append((node, _columns(name, run, images, node)))
            found.batches.setdefault(f"classifier/{node.name}", _batch(study, name, run, node))
    found.scale = _scale(study, [columns for _, columns in found.classifiers])
    return found


def training_flops(classifier: Node, images: Node) -> float:
    """Estimate the floating-point operations of a training, the evaluations included."""
    epochs = recipes.Classifier.read(classifier.recipe).epochs
    return 1.1 * count_classifier(classifier, images).flops * _assumed(images).train * epochs


def count_classifier(classifier: Node, images: Node) -> ImageCounts:
    """Count what training a classifier on a set of images takes."""
    recipe, seen = recipes.Classifier.read(classifier.recipe), _assumed(images)
    return image_counts(recipe.model, seen.channels, seen.classes, recipe.input_size or seen.size)


def vision_bytes(node: Node, parents: dict[str, Node]) -> int:
    """Estimate the bytes on disk of a set of images, or of a classifier on one of those in `parents`, by name."""
    if node.kind == "images":
        made = _assumed(node)
        return (made.train + made.test) * made.channels * made.size**2
    return 4 * count_classifier(node, parents[node.parents["images"].name]).parameters


def pictures_to_decode(images: Node) -> int:
    """Return how many pictures making a set of images decodes, about; arrays take none."""
    made = _assumed(images)
    return 0 if images.recipe["source"]["kind"] in _ASSUMED else made.train + made.test


def _assumed(images: Node) -> _Set:
    source = recipes.Images.read(images.recipe).source
    if isinstance(source, recipes.Digits | recipes.IdxFiles):
        return _ASSUMED[source.kind]
    most = source.images if isinstance(source, recipes.HubImages) else None
    train, test = (min(count, most or count) for count in _IMAGENET)
    return _Set(train, test, channels=3, size=source.size, classes=1000)


def _images(run: VisionRun, folder: Path, key: str) -> tuple[Node, list[Path]]:
    source, label, paths = _source(run, folder, key)
    return make_node("images", label, recipes.Images(source=source).identity(), {}), paths


def _source(run: VisionRun, folder: Path, key: str) -> tuple[recipes.ImageSource, str, list[Path]]:
    match run.data:
        case IdxChoice(path=path):
            paths = [_idx_file(folder / path, name, key) for name in recipes.IDX_FILES]
            digests = tuple(file_digest(path) for path in paths)
            return recipes.IdxFiles(sha256=digests), _slug(Path(path).name), paths
        case FolderChoice(path=path, train=train, test=test, size=size):
            root = (folder / path).resolve()
            try:
                digest = listing_digest(root, (train, test))
            except CoolbitsError as error:
                raise CoolbitsError(f"{key}.path: {error}") from None
            source = recipes.ImageFolder(train=train, test=test, size=size, sha256=digest)
            return source, f"{_slug(root.name)}-{size}", [root]
        case recipes.HubImages() as source:
            return source, f"{_slug(source.id.rpartition('/')[2])}-{source.size}", []
        case digits:
            return digits, "digits", []


def _idx_file(folder: Path, name: str, key: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path.resolve()
    raise CoolbitsError(f"{key}.path: {folder / name} is no file, with .gz or without")


def _classifier(name: str, run: VisionRun, images: Node) -> Node:
    try:
        recipe = recipes.Classifier(
            model=image_preset(run.model.preset, **run.model.config),
            schedule=_schedule(run),
            **{key: getattr(run, key) for key in _SAME},
        )
    except ValidationError as error:
        raise CoolbitsError(sentence(error, {}, f"vision.{name}")) from None
    except CoolbitsError as error:
        raise CoolbitsError(f"vision.{name}.model: {error}") from None
    optimizer = optimizer_name(run.optimizer).lower().replace("+", "-").replace("/", "-")
    label = f"{_slug(run.model.preset)}-{_label(images)}-{optimizer}-lr{run.peak_lr:g}-s{run.seed}"
    return make_node("classifier", label, recipe.identity(), {"images": images.ref})


_SAME = recipes.Classifier.model_fields.keys() & VisionRun.model_fields.keys() - {"model", "schedule"}


def _schedule(run: VisionRun) -> recipes.EpochSchedule:
    warmup = run.schedule.warmup
    epochs = float(warmup.rstrip("% ")) / 100 * run.epochs if isinstance(warmup, str) else warmup
    kind, final = run.schedule.kind, run.schedule.final_fraction
    return recipes.EpochSchedule(kind=kind, warmup_epochs=epochs, final_fraction=final)


def _columns(name: str, run: VisionRun, images: Node, classifier: Node) -> dict[str, Any]:
    return {
        "run": name,
        "trajectory": classifier.name,
        "images": _label(images),
        "model": run.model.preset,
        "optimizer": run.optimizer.kind,
        "states": states_label(run.optimizer),
        "beta2": getattr(run.optimizer, "beta2", None),
        "weight_decay": run.optimizer.weight_decay,
        "schedule": run.schedule.kind,
        "peak_lr": run.peak_lr,
        "seed": run.seed,
        "epochs": run.epochs,
        "batch_images": run.batch_images,
    }


def _batch(study: Study, name: str, run: VisionRun, node: Node) -> str:
    match study.execution.training_jobs:
        case "trajectory":
            return node.name
        case "family":
            return f"{study.study}-{name}-s{run.seed}"
        case _:
            return f"{study.study}-{name}"


def _scale(study: Study, rows: list[dict[str, Any]]) -> str:
    def several(name: str) -> Iterator[Any]:
        return iter(sorted({row[name] for row in rows}))

    models, images = (", ".join(several(name)) for name in ("model", "images"))
    epochs, seeds = " or ".join(map(str, several("epochs"))), len(list(several("seed")))
    return f"{study.study}: {models} on {images}, {epochs} epochs, {seeds} seed{'s' if seeds > 1 else ''}"


def _label(images: Node) -> str:
    return images.name.rpartition("-")[0]


def _slug(text: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in text.lower()).strip("-")[:40] or "images"
