"""Parameters and FLOPs of a model recipe by arithmetic: what planning needs, without torch."""

from dataclasses import dataclass

from coolbits.models.shapes import Shape, shape_of
from coolbits.study.recipes.training import Model


@dataclass(frozen=True)
class Counts:
    """Parameters by role, as `coolbits.optim.groups.parameter_roles` assigns them; a tied head counts as 0."""

    embedding: int
    head: int
    matrices: int
    vectors: int

    @property
    def total(self) -> int:
        """All parameters, each counted once."""
        return self.embedding + self.head + self.matrices + self.vectors


def parameter_counts(model: Model) -> Counts:
    """Count the parameters of the model that `build_model` would make.

    Raises:
        CoolbitsError: if the recipe's sizes are missing or do not fit together.
    """
    shape = shape_of(model)
    learned_positions = shape.positions if model.architecture == "gpt2" else 0
    return Counts(
        embedding=(shape.vocabulary + learned_positions) * shape.width,
        head=0 if shape.tied else shape.vocabulary * shape.width,
        matrices=shape.layers * _block_matrices(shape),
        vectors=shape.layers * (_block_biases(shape) + _block_norms(model.architecture, shape)) + _norm(shape),
    )


def flops_per_token(model: Model, sequence_length: int) -> int:
    """Return the floating-point operations of one training token, forward and backward.

    6 for each weight that a token is multiplied with (matrices of the blocks and the head, tied or not; looking up an
    embedding is free), and 12 * layers * heads * head width * sequence length for scores and their weighted sum. The
    causal mask's zeros are counted as work, as in PaLM (Chowdhery et al. 2022, appendix B).
    """
    shape = shape_of(model)
    multiplied = parameter_counts(model).matrices + shape.vocabulary * shape.width
    return 6 * multiplied + 12 * shape.layers * shape.heads * shape.head_width * sequence_length


def _block_matrices(shape: Shape) -> int:
    queries, keys = shape.heads * shape.head_width, shape.key_value_heads * shape.head_width
    mlp = (3 if shape.gated else 2) * shape.inner_width
    return shape.width * (2 * queries + 2 * keys + mlp)


def _block_biases(shape: Shape) -> int:
    queries, keys = shape.heads * shape.head_width, shape.key_value_heads * shape.head_width
    attention = queries + 2 * keys + shape.width
    mlp = (2 if shape.gated else 1) * shape.inner_width + shape.width
    return shape.attention_bias * attention + shape.mlp_bias * mlp


def _block_norms(architecture: str, shape: Shape) -> int:
    queries_and_keys = {
        "olmo2": (shape.heads + shape.key_value_heads) * shape.head_width,
        "qwen3": 2 * shape.head_width,
    }
    return 2 * _norm(shape) + queries_and_keys.get(architecture, 0)


def _norm(shape: Shape) -> int:
    return shape.width if shape.gated else 2 * shape.width
