"""How many parameters the models of a plan have."""

from collections.abc import Iterable, Mapping

from coolbits.artifacts.node import Node
from coolbits.models.counts import parameter_counts
from coolbits.study.recipes.training import Model

# The parent that is the model of which a node is made; an average has as many parameters as each of its members.
_BEHIND = ("member.0", "start", "model")


def model_weights(nodes: Iterable[Node]) -> dict[tuple[str, str], int]:
    """Return the parameters of each model of text, and of the model behind what is made of one, by kind and name.

    `nodes` come after their parents. A model of the hub has as many as the study says.
    """
    weights: dict[tuple[str, str], int] = {}
    for node in nodes:
        count = _weights(node, weights)
        if count is not None:
            weights[node.kind, node.name] = count
    return weights


def _weights(node: Node, known: Mapping[tuple[str, str], int]) -> int | None:
    if node.kind == "checkpoint":
        return parameter_counts(Model.read(node.recipe["trajectory"]["model"])).total
    if node.kind == "pretrained":
        return int(node.recipe["parameters"])
    if node.kind == "finetuned" and node.recipe["hub"]:
        return int(node.recipe["hub"]["parameters"])
    behind = next((node.parents[role] for role in _BEHIND if role in node.parents), None)
    return known.get((behind.kind, behind.name)) if behind else None
