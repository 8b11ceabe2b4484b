"""Sets of images: every source gives arrays of equal squares, and a bad one is refused in one sentence."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coolbits.artifacts.errors import CoolbitsError
from coolbits.data.formats import Row
from coolbits.data.hub import Opened
from coolbits.study.recipes.vision import Digits, HubImages, ImageFolder, Images
from coolbits.vision import sources
from coolbits.vision.arrays import open_images
from coolbits.vision.folders import listing_digest
from coolbits.vision.idx import read_idx
from coolbits.vision.images import build_images
from coolbits.vision.pictures import square


def made(recipe, locations, tmp_path: Path, name: str = "out"):
    out = tmp_path / name
    out.mkdir()
    return build_images(recipe, locations, out), out


@pytest.fixture
def picture_folder(tmp_path: Path) -> Path:
    """Pictures of two classes, cats grey and dogs red, some wide and some tall."""
    for split, count in (("train", 3), ("val", 1)):
        for name, colour in (("cat", (90, 90, 90)), ("dog", (200, 0, 0))):
            place = tmp_path / "pictures" / split / name
            place.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (20 + number, 24), colour).save(place / f"{number}.png")
            (place / "notes.txt").write_text("no picture")
    return tmp_path / "pictures"


def folder_recipe(root: Path) -> Images:
    return Images(source=ImageFolder(size=8, sha256=listing_digest(root, ("train", "val"))))


def test_the_digits_are_all_there_once(tmp_path):
    summary, out = made(Images(source=Digits()), [], tmp_path)
    assert summary == {
        **{"train_images": 1438, "test_images": 359, "channels": 1, "height": 8, "width": 8},
        "classes": 10,
    }
    train, test = (open_images(out, split) for split in ("train", "test"))
    from sklearn.datasets import load_digits

    both = np.concatenate([train.pixels, test.pixels])[:, 0].reshape(1797, 64)
    order, expected = np.lexsort(both.T), load_digits().data * 15
    np.testing.assert_array_equal(both[order], expected[np.lexsort(expected.T)])
    assert set(test.labels) == set(range(10))


def test_idx_files_become_arrays(idx_folder, images):
    train, test = (open_images(images, split) for split in ("train", "test"))
    paths = [Path(path) for path in idx_folder.locations]
    expected = read_idx(paths[0], 3)
    np.testing.assert_array_equal(train.pixels[:, 0], expected)
    np.testing.assert_array_equal(train.labels, read_idx(paths[1], 1))
    np.testing.assert_array_equal(test.pixels[:, 0], read_idx(paths[2], 3))
    assert train.mean == pytest.approx(expected.mean(), rel=1e-6)
    assert train.std == pytest.approx(expected.std(), rel=1e-6)
    assert isinstance(train.pixels, np.memmap)


def test_the_same_recipe_gives_the_same_bytes(idx_folder, tmp_path):
    _, first = made(idx_folder.recipe, idx_folder.locations, tmp_path, "first")
    _, second = made(idx_folder.recipe, idx_folder.locations, tmp_path, "second")
    files = sorted(path.name for path in first.iterdir())
    assert files == ["index.json", "test_images.npy", "test_labels.npy", "train_images.npy", "train_labels.npy"]
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in files)


def test_another_file_than_the_recipe_names_is_refused(idx_folder, tmp_path):
    recipe = idx_folder.recipe
    idx_folder.write("t10k-labels-idx1-ubyte", np.zeros(12))
    with pytest.raises(CoolbitsError, match="its SHA-256 is"):
        made(recipe, idx_folder.locations, tmp_path)


def test_labels_that_do_not_fit_the_images_are_refused(idx_folder, tmp_path):
    idx_folder.write("t10k-labels-idx1-ubyte", np.zeros(11))
    with pytest.raises(CoolbitsError, match="11 labels for the 12 images"):
        made(idx_folder.recipe, idx_folder.locations, tmp_path)
    idx_folder.write("t10k-labels-idx1-ubyte", np.full(12, 7))
    with pytest.raises(CoolbitsError, match="class 7 in test, but train has only 3 classes"):
        made(idx_folder.recipe, idx_folder.locations, tmp_path, "again")


def test_a_stray_label_makes_no_classes(idx_folder, tmp_path):
    idx_folder.write("train-labels-idx1-ubyte", np.append(np.arange(39) % 3, 200))
    sentence = r"train-labels-idx1-ubyte\.gz: no image has the label 3, but there are some with 200"
    with pytest.raises(CoolbitsError, match=sentence):
        made(idx_folder.recipe, idx_folder.locations, tmp_path)
    idx_folder.write("train-labels-idx1-ubyte", 1 + np.arange(40) % 2)
    assert made(idx_folder.recipe, idx_folder.locations, tmp_path, "from one")[0]["classes"] == 3


def test_images_without_pixels_are_refused(idx_folder, tmp_path):
    idx_folder.write("train-images-idx3-ubyte", np.zeros((40, 0, 6)))
    with pytest.raises(CoolbitsError, match=r"images\.source: images of \(1, 0, 6\) in train have no pixels"):
        made(idx_folder.recipe, idx_folder.locations, tmp_path)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_folder_of_pictures_becomes_squares_in_its_order(picture_folder, tmp_path, threads):
    out = tmp_path / "out"
    out.mkdir()
    summary = build_images(folder_recipe(picture_folder), [str(picture_folder)], out, threads)
    assert (summary["train_images"], summary["test_images"]) == (6, 2)
    train = open_images(out, "train")
    assert train.classes == ("cat", "dog")
    assert train.pixels.shape == (6, 3, 8, 8)
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert train.pixels[0, :, 0, 0].tolist() == [90, 90, 90]
    assert train.pixels[5, :, 7, 7].tolist() == [200, 0, 0]


def test_hidden_files_are_no_pictures_and_names_may_be_any_bytes(picture_folder, tmp_path):
    cats = picture_folder / "train" / "cat"
    before = listing_digest(picture_folder, ("train", "val"))
    (cats / "._0.png").write_bytes(b"what macOS keeps of 0.png")
    assert listing_digest(picture_folder, ("train", "val")) == before
    (cats / "0.png").rename(cats / os.fsdecode(b"\xff.png"))
    summary, _ = made(folder_recipe(picture_folder), [str(picture_folder)], tmp_path)
    assert summary["train_images"] == 6


def test_a_folder_that_changed_is_refused(picture_folder, tmp_path):
    recipe = folder_recipe(picture_folder)
    (picture_folder / "train" / "cat" / "0.png").unlink()
    with pytest.raises(CoolbitsError, match="the digest of its file list is"):
        made(recipe, [str(picture_folder)], tmp_path)


def test_a_picture_that_cannot_be_read_is_named(picture_folder, tmp_path):
    (picture_folder / "train" / "dog" / "1.png").write_bytes(b"no picture at all")
    with pytest.raises(CoolbitsError, match=r"dog/1\.png: not a readable picture"):
        made(folder_recipe(picture_folder), [str(picture_folder)], tmp_path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda root: (root / "train").rename(root / "gone"), "train: no such folder"),
        (lambda root: [path.unlink() for path in (root / "val/cat").glob("*.png")], "val/cat: no picture"),
        (lambda root: (root / "val/cat").rename(root / "val/bird"), "the class 'bird' is not among those of train"),
        (lambda root: (root / "val/cat").rename(root / "val" / os.fsdecode(b"caf\xe9")), "must be valid UTF-8"),
    ],
    ids=["no folder", "empty class", "unknown class", "a class in Latin-1"],
)
def test_a_folder_without_its_parts_is_refused(picture_folder, tmp_path, change, sentence):
    change(picture_folder)
    with pytest.raises(CoolbitsError, match=sentence):
        made(folder_recipe(picture_folder), [str(picture_folder)], tmp_path)


@pytest.mark.parametrize(("dtype", "mode"), [(np.uint16, "I;16"), (np.int32, "I"), (np.float32, "F")])
def test_a_picture_of_more_than_8_bits_is_refused(picture_folder, tmp_path, dtype, mode):
    """Pillow makes nearly all of it white: of 65,536 levels it keeps the lowest 256."""
    path = picture_folder / "train" / "dog" / "1.tiff"
    Image.fromarray(np.linspace(0, 65_535, 24 * 24).reshape(24, 24).astype(dtype)).save(path)
    with pytest.raises(CoolbitsError, match=rf"dog/1\.tiff: a picture of mode {mode}; allowed are those of 8 bits"):
        made(folder_recipe(picture_folder), [str(picture_folder)], tmp_path)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_pictures_of_every_mode_of_8_bits_become_rgb(mode):
    found = square(Image.new("RGB", (6, 6), (255, 255, 255)).convert(mode), 4, "here")
    assert found.shape == (3, 4, 4) and found.min() == 255


def test_the_square_is_the_centre_with_the_shorter_side_scaled():
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = 255
    found = square(Image.fromarray(pixels), 5, "here")
    assert found.shape == (3, 5, 5)
    assert found[:, :, 1:4].min() == 255  # bilinear: only the border knows of the black beside it


def hub(rows, commits=("a" * 40, "b" * 40), asked=None):
    """Play a hub whose branch moves between the two openings."""
    now = iter(commits)

    def opened(source):
        if asked is not None:
            asked.append((source.split, source.revision))
        items = (Row(f"dataset {source.id}, row 1", row, 1) for row in rows)
        return Opened(2 * len(rows), items, next(now))

    return opened


def test_a_dataset_of_the_hub_is_streamed(monkeypatch, tmp_path):
    rows = [{"image": Image.new("L", (9, 12), 40 * number), "label": number} for number in range(3)]
    monkeypatch.setattr(sources, "open_dataset", hub(rows))
    summary, out = made(Images(source=HubImages(id="some/images", size=4)), [], tmp_path)
    assert summary["classes"] == 3
    assert open_images(out, "test").pixels[2, :, 1, 1].tolist() == [80, 80, 80]


@pytest.mark.parametrize("commit", ["a" * 40, None])
def test_both_splits_are_read_at_the_commit_that_the_summary_keeps(monkeypatch, tmp_path, commit):
    rows, asked = [{"image": Image.new("L", (4, 4)), "label": 0}], []
    monkeypatch.setattr(sources, "open_dataset", hub(rows, (commit, "b" * 40), asked))
    summary, _ = made(Images(source=HubImages(id="some/images", size=4)), [], tmp_path)
    assert summary["commit"] == commit
    assert asked == [("train", "main"), ("validation", commit or "main")]


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"picture": None, "label": 0}, "no field 'image'; there are picture, label"),
        ({"image": "cat.png", "label": 0}, "expected a picture, found str"),
        ({"image": Image.new("L", (4, 4)), "label": "cat"}, "the label 'cat' is no number of a class"),
        ({"image": Image.new("L", (4, 4)), "label": -1}, "the label -1 is no number of a class"),
    ],
    ids=["no field", "no picture", "text label", "hidden label"],
)
def test_rows_of_the_hub_that_do_not_fit_are_refused(monkeypatch, tmp_path, row, sentence):
    monkeypatch.setattr(sources, "open_dataset", hub([row]))
    with pytest.raises(CoolbitsError, match=sentence):
        made(Images(source=HubImages(id="some/images", size=4)), [], tmp_path)


def test_an_artifact_that_was_changed_is_refused(images):
    np.save(images / "train_labels.npy", np.zeros(3, np.int64))
    with pytest.raises(CoolbitsError, match=r"index\.json says"):
        open_images(images, "train")
    assert len(open_images(images, "test")) == 12
