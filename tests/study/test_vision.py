"""The section `vision`: grids of classifiers, what names them, and mistakes named in one sentence."""

import copy
import gzip
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from coolbits.artifacts.errors import CoolbitsError
from coolbits.study.cost import study_cost
from coolbits.study.durations import job_seconds
from coolbits.study.load import parse_study
from coolbits.study.plan import make_plan, resolve
from coolbits.study.recipes.results import VISION_COLUMNS
from coolbits.study.recipes.vision import IDX_FILES, Classifier, Images
from coolbits.vision.images import build_images

FASHION = Path(__file__).resolve().parents[2] / "workflow" / "studies" / "vision-fashion-mnist.yaml"

STUDY = {
    "study": "seen",
    "vision": {
        "digits": {
            "data": {"kind": "digits"},
            "model": "resnet-micro",
            "optimizer": {"preset": ["SGDM-32", "SGDM-8L", "AdamW-8D"], "weight_decay": 0.01},
            "schedule": {"kind": "cosine", "warmup": "10%"},
            "peak_lr": 0.03,
            "epochs": 4,
            "batch_images": 64,
            "input_size": 16,
            "seed": [0, 1],
        }
    },
    "figures": {"vision": {"figure": "vision"}},
}


@pytest.fixture
def study():
    """A study of vision alone as plain values, free to change."""
    return copy.deepcopy(STUDY)


def plan_of(study, folder=Path()):
    return resolve(parse_study(study), folder)


def test_held_out_images_take_room_on_disk_and_time_to_decode_too(study):
    def planned(**source):
        hub = {"kind": "hub", "id": "ILSVRC/imagenet-1k", "size": 256} | source
        plan = plan_of(study | {"vision": {"seen": study["vision"]["digits"] | {"data": hub}}})
        (job,) = plan.jobs("images")
        weights = 4 * sum(plan.weights.get((node.kind, node.name), 0) for node in plan.of_kind("classifier"))
        return study_cost(plan, {}).bytes - weights, job_seconds(job, plan)

    (whole, long), (some, short) = planned(), planned(images=60_000)
    assert whole - some == (1_281_167 - 60_000) * 3 * 256**2
    assert long / short == pytest.approx((1_281_167 + 50_000) / (60_000 + 50_000), rel=0.05)


def test_a_grid_shares_its_images_and_ends_in_a_figure(study):
    plan = plan_of(study)
    (images,) = plan.of_kind("images")
    classifiers = plan.of_kind("classifier")
    assert len(classifiers) == 6
    assert all(node.parents == {"images": images.ref} for node in classifiers)
    assert sum("-sgdm-8l-lr0.03-s1-" in node.name for node in classifiers) == 1
    (table,), (figure,) = plan.of_kind("table"), plan.of_kind("figure")
    assert len(table.parents) == 6
    assert all(row["columns"].keys() == VISION_COLUMNS.keys() for row in table.recipe["rows"])
    assert figure.parents == {"vision": table.ref}
    assert figure.recipe["scale"] == "seen: resnet-micro on digits, 4 epochs, 2 seeds"
    assert plan.targets() == [figure]


def test_claims_are_judged_on_the_table_of_images(study):
    plan = plan_of(study | {"claims": ["vision-sgdm-8l-trains-as-well"]})
    (table,), (claims,) = plan.of_kind("table"), plan.of_kind("claims")
    assert claims.parents == {"vision": table.ref}
    assert claims.recipe["scale"] == "seen: resnet-micro on digits, 4 epochs, 2 seeds"


def test_names_of_optimizers_and_shares_of_the_run_are_resolved(study):
    recipes = [Classifier.read(node.recipe) for node in plan_of(study).of_kind("classifier")]
    stored = {
        (recipe.optimizer.kind, tuple(recipe.optimizer.states.model_dump()), recipe.optimizer.weight_decay)
        for recipe in recipes
    }
    assert stored == {("sgd", ("momentum",), 0.01), ("adamw", ("exp_avg", "exp_avg_sq"), 0.01)}
    assert {recipe.schedule.warmup_epochs for recipe in recipes} == {0.4}
    study["vision"]["digits"]["schedule"]["warmup"] = 1.5
    assert Classifier.read(plan_of(study).of_kind("classifier")[0].recipe).schedule.warmup_epochs == 1.5


@pytest.mark.parametrize(("together", "jobs"), [("trajectory", 6), ("family", 2), ("run", 1)])
def test_classifiers_are_trained_in_as_many_jobs_as_asked(study, together, jobs):
    plan = plan_of(study | {"execution": {"training_jobs": together}})
    assert len(plan.jobs("classifier")) == jobs
    assert sum(len(job.nodes) for job in plan.jobs("classifier")) == 6


def test_two_entries_of_one_recipe_share_classifiers_and_have_rows_of_their_own(study):
    """Claims compare within an entry: the 32-bit form that two entries name is the peer in both."""
    study["vision"]["again"] = study["vision"]["digits"] | {"optimizer": {"preset": ["SGDM-32"], "weight_decay": 0.01}}
    plan = plan_of(study | {"execution": {"training_jobs": "run"}})
    (table,) = plan.of_kind("table")
    assert len(plan.of_kind("classifier")) == len(table.parents) == 6
    assert Counter(row["columns"]["run"] for row in table.recipe["rows"]) == {"digits": 6, "again": 2}
    assert [len(job.nodes) for job in plan.jobs("classifier")] == [6]


def test_two_points_of_a_grid_that_come_to_one_recipe_have_one_row(study):
    study["vision"]["digits"]["schedule"] = [{"kind": "cosine", "warmup": warmup} for warmup in ("10%", 0.4)]
    plan = plan_of(study)
    assert len(plan.of_kind("classifier")) == len(plan.of_kind("table")[0].recipe["rows"]) == 6


def test_vision_beside_runs_changes_none_of_their_nodes(study, tiny):
    alone, both = plan_of(tiny), plan_of(tiny | {"vision": study["vision"]})
    added = {(node.kind, node.name) for node in both.nodes} - {(node.kind, node.name) for node in alone.nodes}
    assert {kind for kind, _ in added} == {"images", "classifier", "table"}
    assert {node.fingerprint for node in alone.nodes} <= {node.fingerprint for node in both.nodes}


@pytest.mark.parametrize(
    ("key", "value", "changed"),
    [
        ("data", {"kind": "digits", "test_fraction": 0.3}, {"images", "classifier"}),
        ("model", {"preset": "resnet-micro", "config": {"hidden_act": "gelu"}}, {"classifier"}),
        ("peak_lr", 0.1, {"classifier"}),
        ("epochs", 5, {"classifier"}),
        ("batch_images", 32, {"classifier"}),
        ("augmentation", {"kind": "shift", "pixels": 1}, {"classifier"}),
        ("label_smoothing", 0.1, {"classifier"}),
        ("clip_norm", 1.0, {"classifier"}),
    ],
)
def test_what_decides_the_bytes_is_identity(study, key, value, changed):
    before = plan_of(study)
    study["vision"]["digits"][key] = value
    after = plan_of(study)
    for kind in ("images", "classifier"):
        same = {node.fingerprint for node in before.of_kind(kind)} == {node.fingerprint for node in after.of_kind(kind)}
        assert same == (kind not in changed)


def test_idx_files_are_named_by_digest_and_found_by_location(study, tmp_path):
    folder = tmp_path / "fashion"
    folder.mkdir()
    for name in IDX_FILES:
        (folder / name).write_bytes(name.encode())
    study["vision"]["digits"]["data"] = {"kind": "idx", "path": "fashion"}
    plan = plan_of(study, tmp_path)
    (images,) = plan.of_kind("images")
    assert images.name.startswith("fashion-")
    assert [Path(path).name for path in plan.locations[f"images/{images.name}"]] == list(IDX_FILES)
    assert plan.jobs("images")[0].locations == plan.locations
    (folder / IDX_FILES[3]).unlink()
    with pytest.raises(CoolbitsError, match=r"vision\.digits\.data\.path: .*t10k-labels-idx1-ubyte is no file"):
        plan_of(study, tmp_path)


def write_idx(folder, images, seed):
    """Write the four files of a set of noise, 28 x 28 pixels and ten classes, in the format of MNIST, gzipped."""
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for name in IDX_FILES:
        shape = (images, 28, 28) if "images" in name else (images,)
        values = generator.integers(0, 256, shape) if len(shape) > 1 else np.arange(images) % 10
        sizes = struct.pack(f">{len(shape)}I", *shape)
        (folder / f"{name}.gz").write_bytes(
            gzip.compress(bytes([0, 0, 8, len(shape)]) + sizes + values.astype(np.uint8).tobytes())
        )


def test_the_study_of_fashion_mnist_is_planned_from_its_files(tmp_path):
    """Every variant at two rates with three seeds, on one set of images, which is what the claims need."""
    file = tmp_path / "workflow" / "studies" / FASHION.name
    file.parent.mkdir(parents=True)
    file.write_text(FASHION.read_text())
    with pytest.raises(CoolbitsError, match=r"vision\.sgdm\.data\.path: .*train-images-idx3-ubyte is no file"):
        make_plan(file)
    write_idx(tmp_path / "downloads" / "fashion-mnist", 16, seed=0)
    plan = make_plan(file)
    (images,), (claims,) = plan.of_kind("images"), plan.of_kind("claims")
    (table,) = plan.of_kind("table")
    rows = [row["columns"] for row in table.recipe["rows"]]
    trained = Counter((row["optimizer"], row["states"], row["peak_lr"]) for row in rows)
    assert set(trained.values()) == {3} and len(trained) == (2 * 3 + 2) * 2
    assert {row["images"] for row in rows} == {"fashion-mnist"}
    assert claims.parents == {"vision": table.ref}
    out = tmp_path / "images"
    out.mkdir()
    summary = build_images(Images.read(images.recipe), list(plan.locations[f"images/{images.name}"]), out)
    assert (summary["train_images"], summary["test_images"], summary["classes"]) == (16, 16, 10)


def test_a_folder_is_named_by_its_list_of_files(study, tmp_path):
    for split in ("train", "val"):
        (tmp_path / "pets" / split / "cat").mkdir(parents=True)
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "pets" / split / "cat" / "0.png")
    study["vision"]["digits"]["data"] = {"kind": "folder", "path": "pets", "size": 8}
    (images,) = plan_of(study, tmp_path).of_kind("images")
    assert images.name.startswith("pets-8-")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "pets" / "val" / "cat" / "1.png")
    assert plan_of(study, tmp_path).of_kind("images")[0].fingerprint != images.fingerprint


def test_what_it_costs_is_said_before(study, tmp_path):
    plan = plan_of(study)
    cost = study_cost(plan, ())
    assert cost.flops == cost.naive_flops > 1e10
    assert cost.bytes > 6 * 4 * 300_000
    assert all(job_seconds(job, plan) > 8 for job in plan.jobs("classifier"))
    study["vision"]["digits"]["data"] = {"kind": "hub", "id": "ILSVRC/imagenet-1k", "size": 256}
    pictures = plan_of(study)
    assert job_seconds(pictures.jobs("images")[0], pictures) > 3600
    assert study_cost(pictures, ()).bytes > 250e9


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("data", {"kind": "mnist"}, "vision.digits.data.kind: should be one of 'digits'"),
        ("model", "resnet-9000", "vision.digits.model: no preset 'resnet-9000'; there are"),
        ("optimizer", "SGD-8L", "vision.digits.optimizer: no 'SGD-8L'; allowed are"),
        ("schedule", {"kind": "wsd", "warmup": 1}, "vision.digits.schedule.kind: should be 'constant', 'cosine'"),
        ("schedule", {"kind": "cosine", "warmup": 4}, "vision.digits.schedule.warmup: 4 epochs, but the run has 4"),
        ("batch_images", 1, "vision.digits.batch_images: should be greater than 1; found 1"),
        ("epoch", 3, "vision.digits: unknown key 'epoch'; allowed: data, model"),
        ("data", {"kind": "folder", "path": "gone", "size": 8}, "gone/train: no such folder"),
    ],
)
def test_a_mistake_is_named_in_one_sentence(study, tmp_path, key, value, sentence):
    study["vision"]["digits"][key] = value
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    with pytest.raises(CoolbitsError) as raised:
        make_plan(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_study_must_want_something(study, tiny):
    with pytest.raises(CoolbitsError, match="runs: missing; a study has runs, vision"):
        parse_study({"study": "empty"})
    with pytest.raises(CoolbitsError, match="data: missing; it is required for runs"):
        parse_study({key: value for key, value in tiny.items() if key != "data"})
    with pytest.raises(CoolbitsError, match="needs the table 'loss'"):
        plan_of(study | {"figures": {"tokens": {"figure": "tokens"}}})
