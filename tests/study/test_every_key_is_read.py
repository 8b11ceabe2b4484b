"""Config that cannot lie: small studies run through all stages, and every key of every recipe is read by something.

Reading is an access to the attribute by coolbits' own code: of the study file by the plan, of a recipe by a stage. What
validators and estimates of cost look at is not read by that. Where the hub would be asked, files made here play it.
"""

import copy
import importlib.util
import json
import lzma
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import coolbits.data.sources
import coolbits.models.hub
import coolbits.pretrained.stage
import coolbits.study.sources
from coolbits.artifacts.code import Slice
from coolbits.artifacts.store import Store
from coolbits.models.files import save_model
from coolbits.stages import STAGES
from coolbits.study import data_choices, finetuning_choices, quantizer_choices, schema
from coolbits.study.plan import KINDS, make_plan
from coolbits.study.recipes import analysis, averaging, calibration, data, evaluation, finetuning, methods, training
from coolbits.study.recipes.base import Recipe
from coolbits.study.workflow import Workflow

pytestmark = pytest.mark.slow

Read = dict[type[Recipe], set[str]]

# Parts of the study file that are passed on whole: each key becomes that of the same name in the recipe, which refuses
# a key that it does not know. So it is read where the recipe's is.
PASSED_ON: dict[type[Recipe], type[Recipe]] = {
    analysis.TheorySettings: analysis.Theory,
    data_choices.HubCorpus: data.HubSource,
    data_choices.TrainedTokenizer: data.TrainedTokenizer,
    finetuning_choices.BuiltQuestionsChoice: finetuning.BuiltQuestions,
    finetuning_choices.FileConversationsChoice: finetuning.FileConversations,
    finetuning_choices.HubConversationsChoice: finetuning.HubConversations,
    quantizer_choices.DocumentsChoice: calibration.Documents,
}
CALIBRATES = "the plan makes a parent of it: the set of tokens, whose recipe is read"
# What no study makes: parts that others have in common, and a schedule that a plan always makes from a trunk and a
# branch; it is there for who calls the schedules themselves.
NEVER_MADE = {evaluation.OnWindows, methods.OnGrid, training.WSD}
ESTIMATES = {
    f"coolbits.study.{name}"
    for name in ("cost", "durations", "fits", "footprint", "measure_cost", "quantization_memory", "training_memory")
}
UNREAD = {
    (methods.AWQ, "calibration"): CALIBRATES,
    (methods.GPTQ, "calibration"): CALIBRATES,
    (averaging.Average, "kind"): "what an average is follows from weights and decay; its kind is for people",
    (schema.Study, "defaults"): "merged into every run before the study is checked",
}
MODEL = {
    "preset": "micro-neox",
    "config": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
}
CLASSIFIER = {
    "model": {"preset": "resnet-micro", "config": {"embedding_size": 4, "hidden_sizes": [4], "depths": [1]}},
    "optimizer": {"kind": "sgd"},
    "schedule": {"kind": "cosine", "warmup": "5%"},
    "peak_lr": 0.01,
    "epochs": 1,
    "batch_images": 4,
}
TUNED = {
    "optimizer": {"kind": "adamw"},
    "schedule": {"kind": "cosine"},
    "peak_lr": 1e-3,
    "batch_examples": 8,
    "sequence_length": 256,
    "precision": "float32",
}
CALIBRATION = {"sequences": 8, "sequence_length": 32}
LOCAL = {"kind": "files", "paths": ["corpus.jsonl"]}
GRID = {"bits": 3, "group_size": 32}
ONE = {"of": "final", "averages": []}
FEW = {"windows": 2, "sequence_length": 32}

STUDIES: list[dict[str, Any]] = [
    {
        "study": "trained",
        "data": {
            "corpus": LOCAL,
            "tokenizer": {"kind": "bpe", "vocabulary_size": 300, "training_bytes": 50_000},
            "validation_fraction": 0.2,
        },
        "defaults": {
            "model": MODEL,
            "optimizer": {"kind": "adamw"},
            "peak_lr": 0.01,
            "sequence_length": 32,
            "batch_tokens": 256,
            "precision": "float32",
            "divergence": {"window_steps": 2},
        },
        "runs": {
            "trunk": {
                "schedule": {"kind": "constant", "warmup": 256},
                "tokens": 2560,
                "checkpoints": {"every": 1280, "at": [256]},
                "cooldowns": {"at": 2560, "length": 512, "data_seed": [7, 8], "checkpoints": {"every": 256}},
                "telemetry": {"every": 1280},
            },
            "cosine": {"schedule": {"kind": "cosine", "warmup": "20%"}, "tokens": 1280, "optimizer": {"kind": "sgd"}},
            "linear": {"schedule": {"kind": "linear", "warmup": "20%"}, "tokens": 1280, "optimizer": {"kind": "adamc"}},
            "wsd": {
                "schedule": {"kind": "wsd", "warmup": "20%", "decay": "20%"},
                "tokens": 1280,
                "optimizer": {"kind": "muon"},
            },
        },
        "averages": {
            "lawa": {"kind": "lawa", "run": "trunk", "window": 2, "every": 1280, "checkpoints": {"at": [2560]}},
            "ema": {"kind": "ema", "run": "trunk", "window": 2, "every": 1280, "decay": 0.5},
            "soup": {"kind": "soup", "run": "trunk"},
            "merge": {"kind": "merge", "run": "trunk", "weights": [0.3, 0.7]},
        },
        "finetuning": {
            "qa": {"start": {"run": "wsd", "tokens": 1280}, "data": {"kind": "embedded", "examples": 16}, **TUNED},
            "chat": {
                "start": {"run": "wsd"},
                "data": {"kind": "files", "paths": ["chat.jsonl"], "examples": 16, "validation_fraction": 0.3},
                **TUNED,
            },
        },
        "quantizers": {
            "rtn": {"method": {"kind": "rtn", "grid": GRID | {"search": {"steps": 4}}}, "save_model": True},
            "gptq": {"method": {"kind": "gptq", "grid": GRID, "calibration": CALIBRATION}, "rotation": {}},
            "awq": {"method": {"kind": "awq", "grid": GRID, "steps": 2, "clip_steps": 2, "calibration": CALIBRATION}},
            "random": {
                "method": {"kind": "gptq", "grid": GRID, "calibration": {"kind": "random", **CALIBRATION}},
                "activations": {},
            },
            "hqq": {"method": {"kind": "hqq", "grid": GRID | {"symmetric": False}, "steps": 2}},
            "nf4": {"method": {"kind": "nf4"}},
            "int8": {"method": {"kind": "int8"}},
        },
        "evaluations": {
            "loss": {"measure": {"kind": "loss", **FEW}, "runs": ["linear", "qa"], **ONE},
            "averages": {"measure": {"kind": "loss", **FEW}, "quantizers": [], "of": "final"},
            "tasks": {
                "measure": {"kind": "tasks", "tasks": ["coolbits_cloze"], "limit": 2},
                "quantizers": ["rtn"],
                "runs": ["linear"],
                **ONE,
            },
            "curvature": {
                "measure": {"kind": "curvature", "probes": 2, "eigenvalues": 2, "iterations": 4, **FEW},
                "runs": ["linear"],
                **ONE,
            },
            "prediction": {
                "measure": {"kind": "prediction", "probes": 2, **FEW},
                "quantizers": ["rtn"],
                "runs": ["linear"],
                **ONE,
            },
            "landscape": {
                "measure": {"kind": "landscape", "points": 2, **FEW},
                "quantizers": ["rtn"],
                "runs": ["trunk"],
                "stride": 1280,
                "averages": [],
            },
        },
        "analyses": {
            "memory": {"analysis": {"kind": "memory", "models": ["micro-neox"], "optimizers": ["AdamW-32", "Muon-8L"]}},
            "theory": {"analysis": {"kind": "theory", "rows": 8, "columns": 8, "seeds": 1}, "runs": ["wsd"]},
        },
        "figures": {"memory": {"figure": "memory"}},
        "claims": ["decay-lowers-loss"],
    },
    {
        "study": "given",
        "data": {
            "corpus": {"kind": "embedded"},
            "tokenizer": {"kind": "local", "path": "model", "vocabulary_size": 264},
        },
        "pretrained": {
            "folder": {"source": {"kind": "directory", "path": "model"}, "parameters": 0, "tokens": "1M"},
            "packed": {"source": {"kind": "gguf", "path": "model.gguf"}, "parameters": 0, "tokens": "1M"},
        },
        "quantizers": {
            "files": {
                "method": {"kind": "gptq", "grid": GRID},
                "calibration": {
                    "kind": "documents",
                    "source": {"kind": "files", "paths": ["corpus.jsonl"]},
                    **CALIBRATION,
                },
            },
            "windows": {"method": {"kind": "gptq", "grid": GRID}, "calibration": CALIBRATION | {"kind": "windows"}},
        },
        "evaluations": {"loss": {"measure": {"kind": "loss", **FEW}}},
        "vision": {
            "digits": {
                **CLASSIFIER,
                "batch_images": 512,
                "augmentation": [{"kind": "shift", "pixels": 1}, {"kind": "resized-crop"}],
            },
            "idx": {**CLASSIFIER, "data": {"kind": "idx", "path": "idx"}},
            "folder": {**CLASSIFIER, "data": {"kind": "folder", "path": "pictures", "size": 8}},
        },
    },
    {
        "study": "hub",
        "data": {
            "corpus": {"kind": "hub", "id": "some/text"},
            "tokenizer": {"kind": "hub", "id": "some/model", "vocabulary_size": 264},
        },
        "pretrained": {"hub": {"source": {"kind": "hub", "id": "some/model"}, "parameters": 0, "tokens": "1M"}},
        "finetuning": {
            "chat": {
                "start": {"hub": {"id": "some/model", "parameters": 0, "tokens": "1M"}},
                "data": {"kind": "hub", "id": "some/chat", "examples": 16, "validation_fraction": 0.3},
                **TUNED,
            }
        },
        "evaluations": {"loss": {"measure": {"kind": "loss", **FEW}}},
        "vision": {"hub": {**CLASSIFIER, "data": {"kind": "hub", "id": "some/pictures", "size": 8}}},
    },
]


def all_recipes() -> Iterator[type[Recipe]]:
    """Yield every kind of recipe and of part of the study file."""
    waiting = [Recipe]
    while waiting:
        found = waiting.pop().__subclasses__()
        waiting += found
        yield from found


def counts(reader: str, recipe: type[Recipe]) -> bool:
    """Whether an access by the module `reader` means that a value of this recipe has an effect."""
    plans = reader.startswith("coolbits.study.") and not reader.startswith("coolbits.study.recipes.")
    if reader in ESTIMATES or (plans and recipe.__module__.startswith("coolbits.study.recipes.")):
        return False
    return reader.startswith("coolbits.")


def discriminates(recipe: type[Recipe], key: str) -> bool:
    """Whether a key has one value in a recipe: it is read, by pydantic, to tell the recipe from its alternatives."""
    annotation = recipe.model_fields[key].annotation
    return get_origin(annotation) is Literal and len(get_args(annotation)) == 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the studies read: text, conversations, a model with its tokenizer, pictures."""
    folder = tmp_path_factory.mktemp("studies")
    with lzma.open(coolbits.study.sources.EMBEDDED, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"][:1500] for _, line in zip(range(60), lines, strict=False)]
    rows = [json.dumps({"text": text, "source": "made"}) + "\n" for text in texts]
    (folder / "corpus.jsonl").write_text("".join(rows))
    with lzma.open(folder / "small.jsonl.xz", "wt", encoding="utf-8") as packed:
        packed.writelines(rows)
    with (folder / "chat.jsonl").open("w") as chat:
        chat.writelines(json.dumps({"messages": messages(number)}) + "\n" for number in range(60))
    save_tiny_llama(folder)
    (folder / "model.gguf").write_bytes(b"played by the directory")
    write_pictures(folder)
    return folder


def messages(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"is it {number}?"}, {"role": "assistant", "content": f"it is {number}"}]


def save_tiny_llama(folder: Path) -> None:
    entries = ["<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Backend(models.BPE({entry: number for number, entry in enumerate(entries)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>", pad_token="<end>")
    tokenizer.save_pretrained(folder / "tokenizer")
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    save_model(LlamaForCausalLM(LlamaConfig(vocab_size=264, **sizes)), folder / "tokenizer", folder / "model")


def write_pictures(folder: Path) -> None:
    (folder / "idx").mkdir()
    for split, count in (("train", 12), ("t10k", 6)):
        for name, values in (("images-idx3", np.zeros((count, 8, 8))), ("labels-idx1", np.arange(count) % 2)):
            header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
            (folder / "idx" / f"{split}-{name}-ubyte").write_bytes(header + values.astype(np.uint8).tobytes())
    for place in (f"{split}/{name}/{number}.png" for split in ("train", "val") for name in "ab" for number in range(4)):
        path = folder / "pictures" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (9, 9), 100).save(path)


class PlayedDataset:
    """What `datasets.load_dataset_builder` gives, and the stream that it gives, as far as they are looked at."""

    info = SimpleNamespace(splits={})
    hash = "0123456789" * 4

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name

    def as_streaming_dataset(self, _split: str) -> "PlayedDataset":
        return self

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if self.name == "some/pictures":
            return iter([{"image": Image.new("L", (9, 9)), "label": number % 2} for number in range(12)])
        file = {"some/text": "corpus.jsonl", "some/chat": "chat.jsonl"}[self.name]
        return (json.loads(line) for line in (self.folder / file).read_text().splitlines())


@pytest.fixture(scope="module")
def read(folder: Path) -> Iterator[Read]:
    """The keys that were read when all studies were planned and made, by recipe."""
    found: Read = defaultdict(set)
    validators = {
        validator.func.__code__
        for recipe in all_recipes()
        for validator in recipe.__pydantic_decorators__.model_validators.values()
    }
    plain = Recipe.__getattribute__

    def tracked(self: Recipe, name: str) -> Any:
        if name in type(self).__pydantic_fields__:
            reader = sys._getframe(1)
            if counts(reader.f_globals.get("__name__", ""), type(self)) and reader.f_code not in validators:
                found[type(self)].add(name)
        return plain(self, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recipe, "__getattribute__", tracked)
        play_the_hub(patch, folder)
        for study in STUDIES:
            make(study, folder)
    yield found


def play_the_hub(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let the hub, the embedded corpus and the reader of GGUF files be played by what is in the folder."""
    import datasets
    import huggingface_hub
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def gguf(_path: Path, dtype: Any) -> Any:
        model = folder / "model"
        return AutoModelForCausalLM.from_pretrained(model, dtype=dtype), AutoTokenizer.from_pretrained(model)

    patch.setattr(datasets, "load_dataset_builder", lambda name, *_, **__: PlayedDataset(folder, name))
    patch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(folder / "model"))
    patch.setattr(coolbits.models.hub, "snapshot_download", lambda *_, **__: str(folder / "model"))
    patch.setattr(coolbits.pretrained.stage, "read_gguf", gguf)
    for module in (coolbits.study.sources, coolbits.data.sources):
        patch.setattr(module, "EMBEDDED", folder / "small.jsonl.xz")


def make(study: dict[str, Any], folder: Path) -> None:
    """Plan a study as the workflow does, and run all of its jobs."""
    study = copy.deepcopy(study)
    size = sum(parameter.numel() for parameter in LlamaForCausalLM.from_pretrained(folder / "model").parameters())
    starts = [one["start"] for one in study.get("finetuning", {}).values()]
    for model in [*study.get("pretrained", {}).values(), *(start["hub"] for start in starts if "hub" in start)]:
        model["parameters"] = size
    path = folder / f"{study['study']}.yaml"
    path.write_text(json.dumps(study))
    plan, root = make_plan(path), folder / "results"
    assert [task.job.kind for kind in KINDS for task in Workflow(plan, root).tasks(kind)]
    for kind in KINDS:
        for job in plan.jobs(kind):
            importlib.import_module(STAGES[kind]).run(job, Store(root, Slice(STAGES[kind], {STAGES[kind]: "today"})))


def test_every_key_of_every_recipe_is_read(read: Read) -> None:
    def is_read(recipe: type[Recipe], key: str) -> bool:
        onward = PASSED_ON.get(recipe)
        passed = onward is not None and key in onward.model_fields and is_read(onward, key)
        return key in read[recipe] or passed or discriminates(recipe, key) or (recipe, key) in UNREAD

    recipes = [recipe for recipe in all_recipes() if recipe.__module__.startswith("coolbits.")]
    unread = [
        f"{recipe.__module__}.{recipe.__name__}.{key}"
        for recipe in recipes
        if recipe not in NEVER_MADE
        for key in recipe.model_fields
        if not is_read(recipe, key)
    ]
    assert unread == []
    assert len(recipes) > 80


def test_the_exceptions_are_still_exceptions(read: Read) -> None:
    assert [(recipe, key) for recipe, key in UNREAD if key in read[recipe]] == []
    assert all(importlib.util.find_spec(name) for name in ESTIMATES)
    assert {recipe for recipe in NEVER_MADE if read[recipe]} == set()
    for recipe in PASSED_ON:
        assert [key for key in recipe.model_fields if key not in read[recipe] and not discriminates(recipe, key)]
