"""Searches for the candidate of least loss: races and exhaustive ones."""

from collections.abc import Callable

import pytest
import torch

from coolbits.ptq.search import Losses, Objective, Sample, best_first, race


def tabled(
    losses: torch.Tensor, charged: list[list[int]] | None = None, drawn: bool = True
) -> tuple[Losses, Objective]:
    """A search among candidates whose losses [candidates, units] or [candidates, units, pieces] are in a table.

    It notes in `charged` how many units each candidate was charged, time by time.
    """
    table = losses if losses.dim() == 3 else losses[..., None]

    def found(index: int, units: torch.Tensor) -> torch.Tensor:
        if charged is not None:
            charged[index].append(len(units))
        return table[index, units]

    parts = tuple(torch.arange(table.shape[1]).split(1))
    return found, Objective(parts, lambda _weights, _units: torch.empty(0), drawn)


def raced(losses: torch.Tensor, drawn: bool = True) -> tuple[int | None, list[int]]:
    """The winner of a race, and how many units each candidate was charged."""
    charged: list[list[int]] = [[] for _ in losses]
    found, objective = tabled(losses, charged, drawn)
    return race(found, len(losses), objective), list(map(sum, charged))


def test_the_best_first_search_charges_no_part_that_cannot_matter() -> None:
    losses = torch.tensor([[9.0, 1, 1], [2, 2, 2], [1, 5, 0], [3, 3, 3], [2, 2, 2]])
    charged: list[list[int]] = [[] for _ in losses]
    found, objective = tabled(losses, charged)
    assert best_first(found, 5, objective) == 1
    assert list(map(len, charged)) == [1, 3, 2, 2, 3]  # the last ends with the same loss, but later


@pytest.mark.parametrize("search", [race, best_first])
def test_a_search_without_a_finite_loss_scales_nothing(search: Callable[..., int | None]) -> None:
    found, objective = tabled(torch.full((3, 2), torch.nan))
    assert search(found, 3, objective) is None


@pytest.mark.parametrize("search", [race, best_first])
@pytest.mark.parametrize("drawn", [True, False])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_cannot_win(search: Callable[..., int | None], drawn: bool, value: float) -> None:
    """Not even the candidate in the middle, by whose losses a race draws, or one that is finite at first."""
    losses = torch.tensor([3.0, 2.0, 1.0, 2.5])[:, None].repeat(1, 64)
    losses[2, 5:9] = losses[1, ::3] = value
    found, objective = tabled(losses, drawn=drawn)
    assert search(found, 4, objective) == 3


@pytest.mark.parametrize("drawn", [True, False])
@pytest.mark.parametrize("units", [1, 2, 3, 8, 17, 500])
def test_equals_go_to_the_earliest(drawn: bool, units: int) -> None:
    same = torch.rand(units, generator=torch.Generator().manual_seed(0))
    assert raced(torch.stack([same + 1, same, same, same]), drawn)[0] == 1
    assert raced(torch.zeros(4, units), drawn)[0] == 0


@pytest.mark.parametrize("drawn", [True, False])
def test_a_race_over_one_unit_is_a_comparison(drawn: bool) -> None:
    losses = torch.tensor([[3.0], [1.0], [2.0]])
    assert raced(losses, drawn) == (1, [1, 1, 1])


@pytest.mark.parametrize("seed", range(20))
def test_a_race_finds_the_best_of_separate_candidates_from_a_part_of_the_units(seed: int) -> None:
    """Tokens' losses spread over four orders of magnitude, and each candidate errs in its own way by a third."""
    generator = torch.Generator().manual_seed(seed)
    tokens = (2.3 * torch.randn(4096, generator=generator)).exp()
    own = (0.3 * torch.randn(20, 4096, generator=generator)).exp()
    levels = 1 + 0.1 * torch.randperm(20, generator=generator)
    winner, charged = raced(levels[:, None] * tokens * own)
    assert winner == int((levels[:, None] * tokens * own).sum(1).argmin())
    assert sum(charged) < 0.3 * 20 * 4096


@pytest.mark.parametrize("drawn", [True, False])
@pytest.mark.parametrize("units", [2, 5, 8, 33, 512])
@pytest.mark.parametrize("seed", range(5))
def test_who_loses_less_everywhere_never_drops_out(seed: int, units: int, drawn: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    losses = torch.rand(6, units, 3, generator=generator) ** 8
    best = seed % 6
    losses[best] = losses.amin(0) * torch.rand(units, 3, generator=generator)
    assert raced(losses, drawn)[0] == best


def test_a_race_is_not_misled_by_the_many_tokens_that_hardly_matter() -> None:
    """One token of 4,096 decides, as a massive activation does; by the others alone the last candidate is best."""
    losses = torch.tensor([1.0, 0.9, 0.8, 0.7])[:, None].repeat(1, 4096)
    losses[:, 1234] = torch.tensor([1e4, 2e4, 3e4, 4e4])
    assert raced(losses)[0] == 0


def test_a_race_does_not_end_with_more_than_its_pilot_loses() -> None:
    """One candidate loses a little less on all tokens but a few, which its pilot protects, and there very much."""
    generator = torch.Generator().manual_seed(0)
    losses = torch.rand(20, 4096, generator=generator) * torch.linspace(1.1, 1.2, 20)[:, None]
    losses[0] *= 0.5
    losses[0, :4] = 1e3
    assert int(losses.sum(1).argmin()) == 1
    assert raced(losses)[0] == 1


@pytest.mark.parametrize("drawn", [True, False])
def test_a_race_charges_equals_everything_once(drawn: bool) -> None:
    noise = torch.rand(4, 100, generator=torch.Generator().manual_seed(0))
    assert raced(noise, drawn)[1] == [100] * 4


def test_a_race_runs_alike_every_time() -> None:
    losses = torch.rand(20, 300, generator=torch.Generator().manual_seed(0)) + torch.linspace(0, 1, 20)[:, None]
    torch.manual_seed(1)
    first = raced(losses)
    torch.manual_seed(2)
    assert raced(losses) == first


def test_a_priority_sample_estimates_sums_without_bias() -> None:
    """Over many samples, which differ in what follows what, their mean is the sum; the variance, too, is as it says."""
    generator = torch.Generator().manual_seed(0)
    sizes = (2 * torch.randn(200, generator=generator, dtype=torch.float64)).exp()
    values = sizes * torch.rand(200, generator=generator, dtype=torch.float64)
    sums, variances = [], []
    for _ in range(2000):
        places = torch.randperm(200, generator=generator)
        sample = Sample.of(sizes[places])
        taken, weights = values[places][sample.order[:20]], sample.weights(20)
        sums.append(weights @ taken)
        variances.append((weights * (weights - 1)) @ taken.square())
    found = torch.stack(sums)
    assert abs(float(found.mean() - values.sum())) < 0.02 * float(values.sum())
    assert float(found.var()) < 1.2 * float(torch.stack(variances).mean())
    assert torch.equal(sample.weights(200), torch.ones(200, dtype=torch.float64))
