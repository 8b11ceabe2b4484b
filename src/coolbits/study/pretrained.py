"""From the study's `pretrained` to nodes: each model, its tokenizer, and the corpus in its tokens."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.hashing import file_digest
from coolbits.artifacts.node import Node, make_node
from coolbits.models.tokenizer_files import TEMPLATES, TOKENIZER_FILES
from coolbits.study.measurements import Point
from coolbits.study.pretrained_choices import DirectoryChoice, GGUFChoice, PretrainedChoice
from coolbits.study.recipes import pretrained as recipes
from coolbits.study.recipes.data import PretrainedTokenizer, TokenizerRecipe
from coolbits.study.recipes.results import TRAJECTORY_COLUMNS
from coolbits.study.schema import Study
from coolbits.study.sources import DataNodes, slug

SOURCE = "pretrained"
_WEIGHT_FILES = ("config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json")


@dataclass(frozen=True)
class Pretrained:
    """The pretrained models as points to measure, the tokenizers and shards that they read with, where files lie."""

    points: list[Point]
    data: list[Node]
    locations: dict[str, list[str]]


def pretrained(study: Study, data: DataNodes, folder: Path) -> Pretrained:
    """Resolve the pretrained models of a study whose relative paths start at `folder`.

    Each reads the study's corpus in the tokens of its own tokenizer.

    Raises:
        CoolbitsError: if a file is missing, or a name is also that of a run.
    """
    made = Pretrained([], [], {})
    for name, choice in study.pretrained.items():
        if name in study.runs or name in study.finetuning:
            raise CoolbitsError(f"pretrained.{name}: a run has this name, too; evaluations could not tell them apart")
        source, place = _source(choice, folder, f"pretrained.{name}.source.path")
        recipe = recipes.Pretrained(source=source, parameters=choice.parameters, dtype=choice.dtype)
        node = make_node("pretrained", slug(name), recipe.identity(), {})
        if place is not None:
            made.locations[f"{node.kind}/{node.name}"] = [str(place)]
        own = TokenizerRecipe(tokenizer=PretrainedTokenizer(end_of_text=choice.end_of_text)).identity()
        tokenizer = make_node("tokenizer", slug(name), own, {"model": node.ref})
        read = data.read_by(tokenizer, study.data.shard_tokens) if study.data else data
        made.data.extend(read.nodes[1:])
        made.points.append(Point(node, _columns(name, choice, node), node.name, data=read))
    return made


def _source(
    choice: PretrainedChoice, folder: Path, key: str
) -> tuple[recipes.HubWeights | recipes.DirectoryWeights | recipes.GGUFWeights, Path | None]:
    match choice.source:
        case GGUFChoice(path=path):
            file = (folder / path).resolve()
            if not file.is_file():
                raise CoolbitsError(f"{key}: {file} is no file")
            return recipes.GGUFWeights(sha256=file_digest(file)), file
        case DirectoryChoice(path=path):
            directory = (folder / path).resolve()
            if not directory.is_dir():
                raise CoolbitsError(f"{key}: {directory}: no such folder")
            patterns = (*_WEIGHT_FILES, *TOKENIZER_FILES, TEMPLATES)
            files = sorted({file for pattern in patterns for file in directory.glob(pattern)})
            if not any(file.suffix == ".safetensors" for file in files):
                raise CoolbitsError(f"{key}: {directory} holds no safetensors; weights are read from nothing else")
            names = tuple(file.relative_to(directory).as_posix() for file in files)
            return recipes.DirectoryWeights(names=names, sha256=tuple(map(file_digest, files))), directory
        case hub:
            return hub, None


def _columns(name: str, choice: PretrainedChoice, node: Node) -> dict[str, Any]:
    """Return the columns of a pretrained model: what is not known of its training is null."""
    known = {
        "run": name,
        "trajectory": node.name,
        "family": name,
        "model": name,
        "parameters": choice.parameters,
        "tokens": choice.tokens,
        "source": SOURCE,
        "final": True,
    }
    unknown = dict.fromkeys((*TRAJECTORY_COLUMNS, "data_seed", "step", "lr", "phase", "average", "window"))
    return unknown | known
