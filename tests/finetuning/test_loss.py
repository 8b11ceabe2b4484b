"""The loss on learned tokens: against a float64 sum by hand, whatever the padding and the micro batches."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from coolbits.finetuning.encoding import Example
from coolbits.finetuning.examples import Examples, pad
from coolbits.finetuning.loss import accumulate_gradient, split_rows, validate
from coolbits.models.build import build_model
from coolbits.study.recipes.training import Model

VOCABULARY = 40
GPT_NEOX = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
MODELS = {
    "gpt_neox": GPT_NEOX,
    "llama": GPT_NEOX | {"num_key_value_heads": 1},
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    config = MODELS[request.param] | {"vocab_size": VOCABULARY, "max_position_embeddings": 32}
    return build_model(Model(architecture=request.param, config=config), 0).eval()


@pytest.fixture
def examples() -> list[Example]:
    random = np.random.default_rng(0)
    made = []
    for length in (5, 19, 2, 11):
        learned = random.random(length) < 0.5
        learned[-1], learned[0] = True, False
        made.append(Example(random.integers(0, VOCABULARY, length).astype(np.int32), learned))
    return made


def nats_by_hand(model: Any, example: Example) -> float:
    """Sum -log p of the learned tokens of one conversation, without a batch, in float64."""
    tokens = torch.from_numpy(example.tokens.astype(np.int64))[None]
    with torch.no_grad():
        logits = model(input_ids=tokens).logits[0].double()
    logs = functional.log_softmax(logits, -1)
    return -sum(float(logs[place - 1, example.tokens[place]]) for place in np.flatnonzero(example.learned))


def right_by_hand(model: Any, example: Example) -> bool:
    """Whether every learned token of one conversation is the most probable one, without a batch."""
    with torch.no_grad():
        probable = model(input_ids=torch.from_numpy(example.tokens.astype(np.int64))[None]).logits[0].argmax(-1)
    return all(probable[place - 1] == example.tokens[place] for place in np.flatnonzero(example.learned))


def test_only_learned_tokens_count_and_padding_changes_nothing(model: Any, examples: list[Example]) -> None:
    nats = sum(nats_by_hand(model, example) for example in examples)
    learned = sum(example.learned.sum() for example in examples)
    loss = accumulate_gradient(model, pad(examples), "float32", None)
    assert loss.item() == pytest.approx(nats / learned, rel=1e-6)
    alone = [accumulate_gradient(model, pad([example]), "float32", None).item() for example in examples]
    by_hand = [nats_by_hand(model, example) / example.learned.sum() for example in examples]
    assert alone == pytest.approx(by_hand, rel=1e-6)


def test_the_token_that_pads_does_not_matter(model: Any, examples: list[Example]) -> None:
    batch = pad(examples)
    other = type(batch)(np.where(batch.attended == 0, 17, batch.tokens), batch.attended, batch.labels)
    losses = [accumulate_gradient(model, each, "float32", None).item() for each in (batch, other)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("rows", [1, 3])
def test_micro_batches_change_neither_the_loss_nor_the_gradient(model: Any, examples: list[Example], rows: int) -> None:
    found = []
    for micro in (None, rows):
        model.zero_grad()
        loss = accumulate_gradient(model, pad(examples), "float32", micro).item()
        found.append((loss, torch.cat([parameter.grad.flatten() for parameter in model.parameters()])))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-7)


def test_micro_batches_are_cut_to_their_own_longest(examples: list[Example]) -> None:
    assert [part.tokens.shape for part in split_rows(pad(examples), 2)] == [(2, 19), (2, 11)]


def test_validation_is_the_mean_over_all_learned_tokens_and_counts_whole_answers(
    model: Any, examples: list[Example]
) -> None:
    greedy = []
    for example in examples:
        tokens, place = example.tokens.copy(), int(np.flatnonzero(example.learned)[0])
        with torch.no_grad():
            logits = model(input_ids=torch.from_numpy(tokens.astype(np.int64))[None]).logits[0]
        tokens[place] = logits[place - 1].argmax()
        learned = np.arange(len(tokens)) == place
        greedy.append(Example(tokens, learned))
    made = [*examples, *greedy]
    starts = np.cumsum([0, *(len(each.tokens) for each in made)])
    joined = Examples(
        np.concatenate([each.tokens for each in made]), np.concatenate([each.learned for each in made]), starts
    )
    scores = validate(model, joined, "float32", 3)
    learned = sum(int(each.learned.sum()) for each in made)
    assert scores["tokens"] == learned
    assert scores["loss"] == pytest.approx(sum(nats_by_hand(model, each) for each in made) / learned, rel=1e-6)
    assert scores["exact"] == sum(right_by_hand(model, each) for each in made) / len(made)
    assert len(greedy) / len(made) <= scores["exact"] < 1
