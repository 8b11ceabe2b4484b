"""Recipes of training: model, optimizer, schedule, trajectory, checkpoint. Steps are integers, resolved by the plan."""

from typing import Annotated, Any, Literal

from pydantic import Field

from coolbits.study.recipes.base import Recipe

# Of matrix products; weights are float32 under both.
Precision = Literal["bfloat16", "float32"]
DecayShape = Literal["linear", "sqrt", "cosine"]


class Model(Recipe):
    """A Hugging Face architecture by `model_type`, and every argument of its config that is not the library default."""

    architecture: Literal["gpt_neox", "llama", "olmo2", "qwen3", "gpt2"]
    config: dict[str, Any] = Field(description="keyword arguments of the Hugging Face config, vocab_size included")


class Storage(Recipe):
    """How one optimizer state is stored between updates: as it is, or as 8-bit codes and a float32 scale per block.

    `linear`: equal steps up to the block's largest magnitude; `dynamic`: the codebook of Dettmers et al. 2022.
    """

    codec: Literal["float32", "linear", "dynamic"] = "float32"
    block_size: int = Field(2048, gt=0, description="consecutive elements of the flattened state that share a scale")
    smallest: int = Field(4096, ge=0, description="a state with fewer elements stays float32")


class AdamStates(Recipe):
    """Storage of Adam's first and second moments."""

    exp_avg: Storage = Storage()
    exp_avg_sq: Storage = Storage()


class MomentumStates(Recipe):
    """Storage of the momentum."""

    momentum: Storage = Storage()


class MuonStates(Recipe):
    """Storage of the momentum of the matrices, and of AdamW's moments for the other tensors."""

    momentum: Storage = Storage()
    exp_avg: Storage = Storage()
    exp_avg_sq: Storage = Storage()


class AdamW(Recipe):
    """AdamW (Loshchilov & Hutter 2019): decoupled weight decay, multiplied by the learning rate."""

    kind: Literal["adamw"] = "adamw"
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    states: AdamStates = AdamStates()


class AdamC(Recipe):
    """AdamW with corrected weight decay (Defazio 2025): the decay is `lr**2 / peak_lr * weight_decay` a step."""

    kind: Literal["adamc"] = "adamc"
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    states: AdamStates = AdamStates()


class SGD(Recipe):
    """Stochastic gradient descent with momentum and decoupled weight decay."""

    kind: Literal["sgd"] = "sgd"
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(0.1, ge=0)
    states: MomentumStates = MomentumStates()


class Muon(Recipe):
    """Muon for matrices inside the blocks, AdamW for embeddings, head, norms and biases, all at one learning rate.

    `scale` names the factor of an orthogonalized update of shape (m, n): `match_rms_adamw` is 0.2 * sqrt(max(m, n))
    (Moonlight), `spectral` is sqrt(m / n) with m the outputs (dion).
    """

    kind: Literal["muon"] = "muon"
    momentum: float = Field(0.95, ge=0, lt=1)
    nesterov: bool = False
    newton_schulz_steps: int = Field(5, ge=1)
    scale: Literal["match_rms_adamw", "spectral"] = "match_rms_adamw"
    weight_decay: float = Field(0.1, ge=0)
    beta1: float = Field(0.9, ge=0, lt=1, description="of AdamW for the other tensors")
    beta2: float = Field(0.95, ge=0, lt=1, description="of AdamW for the other tensors")
    eps: float = Field(1e-8, gt=0, description="of AdamW for the other tensors")
    states: MuonStates = MuonStates()


Optimizer = Annotated[AdamW | AdamC | SGD | Muon, Field(discriminator="kind")]


class Constant(Recipe):
    """Linear warmup from 0, then the peak rate for ever: the trunk."""

    kind: Literal["constant"] = "constant"
    warmup_steps: int = Field(ge=0)


class Cosine(Recipe):
    """Linear warmup, then a half cosine down to `final_fraction` of the peak at `total_steps`."""

    kind: Literal["cosine"] = "cosine"
    warmup_steps: int = Field(ge=0)
    total_steps: int = Field(gt=0)
    final_fraction: float = Field(0.0, ge=0, le=1)


class Linear(Recipe):
    """Linear warmup, then a straight line down to `final_fraction` of the peak at `total_steps`."""

    kind: Literal["linear"] = "linear"
    warmup_steps: int = Field(ge=0)
    total_steps: int = Field(gt=0)
    final_fraction: float = Field(0.0, ge=0, le=1)


class WSD(Recipe):
    """Warmup, stable, decay in one piece: the schedule that a trunk and a cooldown branch make up together."""

    kind: Literal["wsd"] = "wsd"
    warmup_steps: int = Field(ge=0)
    total_steps: int = Field(gt=0)
    decay_steps: int = Field(gt=0)
    decay_shape: DecayShape = "linear"
    final_fraction: float = Field(0.0, ge=0, le=1)


class Cooldown(Recipe):
    """The decay of a branch that starts at `start_step` of a trunk and ends `decay_steps` later."""

    kind: Literal["cooldown"] = "cooldown"
    warmup_steps: int = Field(ge=0, description="of the trunk: the rate at the start is the trunk's there")
    start_step: int = Field(ge=0)
    decay_steps: int = Field(gt=0)
    decay_shape: DecayShape = "linear"
    final_fraction: float = Field(0.0, ge=0, le=1)


Schedule = Annotated[Constant | Cosine | Linear | WSD | Cooldown, Field(discriminator="kind")]


class Divergence(Recipe):
    """When a trajectory is called diverged: a non-finite loss, or a running one far above the first or the best."""

    loss_factor: float = Field(
        1.5, gt=1, description="diverged when the smoothed loss exceeds the first loss times this"
    )
    window_steps: int = Field(20, gt=0, description="steps over which the loss is averaged")
    relapse_steps: int = Field(
        100,
        gt=0,
        description="also diverged when the loss averaged over so many steps exceeds `loss_factor` times the lowest "
        "such average before, or a tenth of the first loss if that is more",
    )


class Telemetry(Recipe):
    """What is measured inside the optimizer during training: its states, their codes and what rounding does to them."""

    every_steps: int = Field(gt=0, description="a row for each tensor every so many steps")
    tensors: int = Field(6, gt=0, description="tensors looked at, spread evenly over the model's matrices and tables")


class Trajectory(Recipe):
    """One pretraining run, without its end: two budgets of the same recipe are the same run for as long as both last.

    Parents: `shards`, `tokenizer` and, for a branch, `start` (the trunk's checkpoint it starts from).
    """

    model: Model
    optimizer: Optimizer
    schedule: Schedule
    peak_lr: float = Field(gt=0)
    seed: int = Field(ge=0, description="of the initial weights")
    data_seed: int = Field(ge=0, description="of the order of the data")
    sequence_length: int = Field(gt=1, description="tokens a sequence")
    batch_tokens: int = Field(gt=0, description="tokens a step; a multiple of sequence_length")
    precision: Precision = Field("bfloat16", description="of matrix products; weights stay float32")
    clip_norm: float = Field(1.0, gt=0, description="global L2 norm to which gradients are clipped")
    divergence: Divergence = Divergence()
    log_steps: int = Field(10, gt=0, description="a row of metrics every so many steps")
    telemetry: Telemetry | None = Field(None, description="null: none is gathered")


class Checkpoint(Recipe):
    """The state of a trajectory after `step` updates. Parents are the trajectory's."""

    trajectory: Trajectory
    step: int = Field(ge=0)
