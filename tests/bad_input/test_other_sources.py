"""What conversations, fine-tuning, pretrained models, images, classifiers and analyses refuse: in one sentence."""

import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from coolbits import cli
from coolbits.artifacts.files import write_json
from coolbits.artifacts.hashing import file_digest
from coolbits.study.plan import make_plan

pytestmark = pytest.mark.slow

Change = Callable[[Any], object]

WEIGHTS = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
TRAINED = {"batch_images": 8, "epochs": 1, "optimizer": "AdamW-32", "peak_lr": 0.1}
TRAINED |= {"model": "resnet-micro", "schedule": {"kind": "cosine", "warmup": 0}}
TUNED = {"batch_examples": 4, "optimizer": "AdamW-32", "peak_lr": 0.1, "schedule": {"kind": "cosine"}}
TUNED |= {"sequence_length": 64, "start": {"run": "trunk", "tokens": 640}}
TUNED |= {"data": {"kind": "files", "paths": ["chats.jsonl"], "examples": 8, "validation_fraction": 0.4}}
SECTIONS = {
    "averages": {},
    "evaluations": {},
    "figures": {},
    "finetuning": {"tuned": TUNED},
    "vision": {
        "rows": {"data": {"kind": "idx", "path": "idx"}} | TRAINED,
        "pictures": {"data": {"kind": "folder", "path": "pictures", "size": 8}} | TRAINED,
    },
    "analyses": {
        "memory": {"analysis": {"kind": "memory", "models": ["micro-neox"], "optimizers": ["AdamW-32"]}},
        "theory": {"analysis": {"kind": "theory", "rows": 8, "columns": 8, "seeds": 1}, "runs": ["trunk"]},
    },
}
MADE = ("conversations", "images")
JOBS = ("conversations", "finetuned", "pretrained", "images", "classifier", "analysis")


def chat(*turns: tuple[str, str]) -> dict[str, Any]:
    """A conversation of (role, content)."""
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def lines(*values: Any) -> bytes:
    return "".join(f"{json.dumps(value)}\n" for value in values).encode()


CHATS = lines(*(chat(("user", f"is it {number}?"), ("assistant", "bad cafe")) for number in range(40)))


def idx(values: Any) -> bytes:
    array = np.asarray(values, np.uint8)
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def write_sources(folder: Path, checkpoint: Path) -> int:
    """Write conversations, images, pictures and two pretrained models; return the parameters of the one in a folder."""
    (folder / "chats.jsonl").write_bytes(CHATS)
    (folder / "idx").mkdir()
    for split, count in (("train", 40), ("t10k", 12)):
        labels = np.arange(count) % 3
        images = np.broadcast_to(labels[:, None, None] * 100, (count, 8, 8))
        (folder / "idx" / f"{split}-images-idx3-ubyte").write_bytes(idx(images))
        (folder / "idx" / f"{split}-labels-idx1-ubyte").write_bytes(idx(labels))
    for split in ("train", "val"):
        for shade in (0, 200):
            (folder / "pictures" / split / str(shade)).mkdir(parents=True)
            Image.new("L", (9, 9), shade).save(folder / "pictures" / split / str(shade) / "one.png")
    (folder / "model").mkdir()
    for name in WEIGHTS:
        shutil.copyfile(checkpoint / name, folder / "model" / name)
    (folder / "tiny.gguf").write_bytes(b"GGUF, but not quite")
    return sum(tensor.numel() for tensor in load_file(checkpoint / "model.safetensors").values())


@pytest.fixture(scope="module")
def sources(made, tmp_path_factory):
    """The results of the study so far, and one that makes more of them; conversations and images are made."""
    folder = made.copy(tmp_path_factory.mktemp("sources"))
    count = write_sources(folder.path, made.artifacts("checkpoint-0")[-1])
    pretrained = {
        name: {"source": {"kind": kind, "path": path}, "parameters": count, "tokens": "1M"}
        for name, kind, path in (("folder", "directory", "model"), ("packed", "gguf", "tiny.gguf"))
    }
    study = yaml.safe_load((folder.path / "study.yaml").read_text()) | SECTIONS | {"pretrained": pretrained}
    (folder.path / "study.yaml").write_text(json.dumps(study))
    plan = make_plan(folder.path / "study.yaml")
    for kind in JOBS:
        for number, node in enumerate(plan.of_kind(kind)):
            recipe = folder.recipe(f"{kind}-{number}")
            (job,) = (job for job in plan.jobs(kind) if node in job.nodes)
            write_json(recipe, replace(job, nodes=(node,)).to_json())
            if kind in MADE:
                assert cli.main([kind, str(recipe), str(folder.path / "results")]) == 0
    return folder


@pytest.fixture
def folder(sources, here):
    """A copy of all that, to be spoiled."""
    return sources.copy(here)


def file(name: str, spoil: Change) -> Change:
    """Spoil a file that was planned with as it is then."""

    def change(folder):
        before = file_digest(folder.path / name)
        spoil(folder.path / name)
        for recipe in (folder.path / "recipes").iterdir():
            recipe.write_text(recipe.read_text().replace(before, file_digest(folder.path / name)))

    return change


def content(value: bytes) -> Change:
    return lambda path: path.write_bytes(value)


def part(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def part_of(name: str) -> Change:
    """Cut off a file that was planned with whole."""
    return lambda folder: part(folder.path / name)


def memory_model(node: dict[str, Any]) -> dict[str, Any]:
    """Return the model of an analysis of memory."""
    return node["recipe"]["analysis"]["models"][0]["model"]


def gone(name: str) -> Change:
    return lambda folder: (folder.path / name).unlink()


def recipe(job: str, **values: Any) -> Change:
    """Change the recipe of a job."""
    return lambda folder: folder.edit(job, lambda node: node["recipe"].update(values))


def spoiled(job: str, name: str, spoil: Change) -> Change:
    """Spoil a file of a job's last artifact, which then counts as made so."""
    return lambda folder: folder.spoil(job, name, spoil, -1)


def chats(*rows: Any) -> Change:
    return file("chats.jsonl", content(lines(*rows)))


def not_finite(path: Path) -> None:
    tensors = {name: torch.full_like(tensor, torch.nan) for name, tensor in load_file(path).items()}
    save_file(tensors, path, {"format": "pt"})


def with_code(path: Path) -> None:
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | own))


def with_many_tokens(path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.add_tokens([f"<{number}>" for number in range(10)])
    tokenizer.save(str(path))


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


IMAGES, LABELS, ONE = "train-images-idx3-ubyte", "train-labels-idx1-ubyte", "pictures/train/0/one.png"
HUB = {"kind": "hub", "id": "a/b"}
HELD_OUT = {"validation_fraction": 0.4, "seed": 0}
ASKED, ANSWERED = ("user", "is it?"), ("assistant", "it is")
OFFLINE = "the Hugging Face hub cannot be reached (no network, or HF_HUB_OFFLINE is set) and no copy is cached"
OTHER_DIGEST = "its SHA-256 is ..., but the recipe's `sha256` is ..."
UNREADABLE = "cannot be read as part of a model"
STEP = "results/checkpoint/..."

CONVERSATIONS = [
    (
        chats(chat(ASKED, ANSWERED), chat(("robot", "beep"), ANSWERED)),
        "...chats.jsonl, line 2: message 0 has the role 'robot'; allowed are system, user, assistant",
    ),
    (
        chats(chat(ASKED)),
        "...chats.jsonl, line 1: no turn of the assistant answers another, so there is nothing to learn",
    ),
    (
        chats(chat(ASKED, ("assistant", 5))),
        "...chats.jsonl, line 1: message 1 has no text under the key `content`",
    ),
    (
        chats({"text": "no turns"}),
        "...chats.jsonl, line 1: there is no list of messages under the key `messages`",
    ),
    (chats([ASKED]), "...chats.jsonl, line 1: holds a list; keys and values are expected"),
    (
        file("chats.jsonl", content(b'{"messages": "caf\xe9"}\n')),
        "...chats.jsonl, line 1: not valid UTF-8 (invalid continuation byte)",
    ),
    (
        chats(chat(ASKED, ANSWERED)),
        "data.examples: 8 train conversations with an answer within 64 tokens are wanted, but ... of ... have one",
    ),
    (
        recipe("conversations-0", sequence_length=2),
        "data.examples: 8 train conversations with an answer within 2 tokens are wanted, but 0 of 16 have one",
    ),
    (
        recipe("conversations-0", template="tokenizer"),
        "template: the tokenizer brings no chat template of its own; choose one of plain, tulu",
    ),
    (part_of("chats.jsonl"), f"...chats.jsonl: {OTHER_DIGEST}"),
    (gone("chats.jsonl"), "...chats.jsonl: no such file"),
    (
        recipe("conversations-0", source=HUB | {"split": "train", "revision": "main", "examples": 8, **HELD_OUT}),
        f"dataset a/b: {OFFLINE}",
    ),
]
FINETUNED = [
    (
        spoiled("checkpoint-0", "model.safetensors", not_finite),
        f"{STEP}model.safetensors: ... holds values that are not finite",
    ),
    (
        spoiled("checkpoint-0", "config.json", content(b"[]")),
        f"{STEP}config.json: holds a list; keys and values are expected",
    ),
    (
        spoiled("conversations-0", "train.parquet", part),
        "results/conversations/...train.parquet: not readable as conversations (...)",
    ),
    (
        spoiled("conversations-0", "validation.parquet", Path.unlink),
        "results/conversations/...validation.parquet: no such file; conversations have one for each split",
    ),
    (
        recipe("finetuned-0", hub={"id": "a/b", "revision": "main", "parameters": 5}),
        f"model a/b: {OFFLINE}",
    ),
]
PRETRAINED = [
    (recipe("pretrained-0", parameters=7), "pretrained.parameters: the model has ..., the study says 7"),
    (recipe("pretrained-0", source=HUB), f"model a/b: {OFFLINE}"),
    (file("model/config.json", content(b"{")), f"...model/config.json: {UNREADABLE} (...)"),
    (
        file("model/config.json", with_code),
        "...model/config.json: auto_map: the model brings Python code of its own, which a study never runs, and "
        "`coolbits quantize` only with --trust-remote-code",
    ),
    (
        file("model/model.safetensors", part),
        f"...model/model.safetensors: {UNREADABLE} (...); safetensors are expected",
    ),
    (
        lambda folder: file("model/model.safetensors", folder.plant)(folder),
        f"...model/model.safetensors: {UNREADABLE} (...); safetensors are expected",
    ),
    (file("model/model.safetensors", not_finite), "...model/model.safetensors: ... holds values that are not finite"),
    (file("model/tokenizer.json", content(b"{}")), "...model: the tokenizer cannot be opened (...)"),
    (
        file("model/tokenizer.json", with_many_tokens),
        "pretrained: the tokenizer has 310 tokens, but the model embeds 300",
    ),
    (part_of("model/model.safetensors"), f"...model/model.safetensors: {OTHER_DIGEST}"),
    (gone("model/tokenizer.json"), "...model/tokenizer.json: no such file"),
]
PACKED = [
    (lambda folder: None, "...tiny.gguf: cannot be read as a model in GGUF (...)"),
    (file("tiny.gguf", content(b"")), "...tiny.gguf: cannot be read as a model in GGUF (...)"),
    (part_of("tiny.gguf"), f"...tiny.gguf: {OTHER_DIGEST}"),
    (gone("tiny.gguf"), "...tiny.gguf: no such file"),
]
IDX = [
    (
        file(f"idx/{IMAGES}", part),
        f"...{IMAGES}: 1,272 bytes of data, but its header says 2,560; copy it anew",
    ),
    (
        file(f"idx/{IMAGES}", lambda path: path.write_bytes(gzip.compress(path.read_bytes())[:30])),
        f"...{IMAGES}: not a whole gzip file (...); copy it anew",
    ),
    (
        file(f"idx/{IMAGES}", content(b"pictures")),
        f"...{IMAGES}: not an IDX file of unsigned bytes; it begins with 70696374",
    ),
    (
        file(f"idx/{LABELS}", content(idx(np.zeros((40, 2))))),
        f"...{LABELS}: an IDX file of 2 dimensions where 1 were expected",
    ),
    (
        file(f"idx/{LABELS}", content(idx(range(39)))),
        f"...{LABELS}: 39 labels for the 40 images of {IMAGES}",
    ),
    (
        file("idx/t10k-labels-idx1-ubyte", content(idx(range(12)))),
        "images.source: class 11 in test, but train has only 3 classes",
    ),
    (part_of(f"idx/{IMAGES}"), f"...{IMAGES}: {OTHER_DIGEST}"),
    (gone(f"idx/{LABELS}"), f"...{LABELS}: no such file"),
    (recipe("images-0", source=HUB | {"size": 8}), f"dataset a/b: {OFFLINE}"),
]
PICTURES = [
    (lambda folder: zeros(folder.path / ONE), f"...{ONE}: not a readable picture (cannot identify image file ...)"),
    (part_of(ONE), "...pictures: the digest of its file list is ..., but the recipe's is ..."),
    (gone(ONE), "...pictures/train/0: no picture; known are files that end in .bmp, ..."),
    (lambda folder: shutil.rmtree(folder.path / "pictures"), "...pictures/train: no such folder"),
]
CLASSIFIERS = [
    (
        recipe("classifier-0", batch_images=1000),
        "batch_images: 1000 is too many, for 40 images in 1 epochs",
    ),
    (
        lambda folder: folder.edit("classifier-0", lambda node: node["recipe"]["model"]["config"].update(depth=[1])),
        "model.config.depth is not a key of resnet; known are depths, ...",
    ),
    (
        spoiled("images-0", "train_images.npy", part),
        "results/images/...: not readable as images (...); delete it to have it made again",
    ),
    (
        spoiled("images-0", "test_labels.npy", content(b"")),
        "results/images/...: not readable as images (...); delete it to have it made again",
    ),
    (
        spoiled("images-0", "index.json", content(b"{}")),
        "results/images/...: not readable as images (...); delete it to have it made again",
    ),
    (
        lambda folder: folder.configure("classifier-0", execution={"device": "cuda"}),
        "execution.device: cuda is asked for, but there is no CUDA device here; take cpu or auto",
    ),
]
ANALYSES = [
    (
        lambda folder: folder.edit("analysis-0", lambda node: memory_model(node)["config"].update(hiden_size=32)),
        "model.config.hiden_size is not a key of gpt_neox; known are attention_bias, ...",
    ),
    (
        lambda folder: folder.edit("analysis-0", lambda node: memory_model(node).update(architecture="lstm")),
        "not a recipe of this version: analysis.memory.models.0.model.architecture: should be ...; found 'lstm'",
    ),
]
THEORY = [
    (
        spoiled("checkpoint-0", "state.safetensors", part),
        f"{STEP}state.safetensors: cannot be read as the states of an optimizer (...); safetensors are expected",
    ),
    (
        spoiled("checkpoint-0", "state.safetensors", Path.unlink),
        f"{STEP}state.safetensors: no such file",
    ),
]
ROWS = {
    "conversations-0": CONVERSATIONS,
    "finetuned-0": FINETUNED,
    "pretrained-0": PRETRAINED,
    "pretrained-1": PACKED,
    "images-0": IDX,
    "images-1": PICTURES,
    "classifier-0": CLASSIFIERS,
    "analysis-0": ANALYSES,
    "analysis-1": THEORY,
}


@pytest.mark.parametrize(
    ("job", "spoil", "message"),
    [pytest.param(job, *row, id=f"{job}: {row[1]:.60}") for job, rows in ROWS.items() for row in rows],
)
def test_a_source_that_cannot_be_used(stage_refused, folder, job, spoil, message):
    spoil(folder)
    stage_refused(job, message)
