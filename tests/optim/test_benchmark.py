"""The benchmark of optimizers: to what its ratios are, and what becomes of a peer that does not run."""

import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import PreTrainedModel

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "optimizers.py"
BITSANDBYTES = "bitsandbytes AdamW8bit"

Table = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def script() -> SimpleNamespace:
    """What the script defines."""
    return SimpleNamespace(**runpy.run_path(str(BENCHMARK)))


@pytest.fixture(scope="module")
def model(script: SimpleNamespace) -> PreTrainedModel:
    return script.make_model("micro-neox", 1, "cpu")


@pytest.fixture
def tabulate(script: SimpleNamespace) -> Callable[[dict[str, list[float]]], Table]:
    """The cells, by row and column, of the table of optimizers whose steps took so many seconds in each round."""

    def make(seconds: dict[str, list[float]]) -> Table:
        known = {entry.name: entry for entry in [*map(script.ours, script.OURS), *script.peers()]}
        results = {name: script.Measured(values, state_bytes=1_000_000) for name, values in seconds.items()}
        text = script.table([known[name] for name in seconds], results, parameters=500_000, bytes_a_second=1e9)
        head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines())
        return {row[0]: dict(zip(head, row, strict=True)) for row in rows}

    return make


def test_ratios_are_of_each_round_to_float32_and_to_bitsandbytes(tabulate: Callable[..., Table]) -> None:
    table = tabulate(
        {
            **{"AdamW-32": [0.1, 0.2, 0.4], "AdamW-8D": [0.2, 0.3, 0.4], BITSANDBYTES: [0.4, 0.5, 0.5]},
            **{"Muon-32": [1.0, 1.0, 1.0], "Muon-8L": [1.5, 1.25, 1.0]},
        }
    )
    to_float32, to_peer = "to float32, median (range)", "to bitsandbytes, median (range)"
    assert table["AdamW-8D"][to_float32] == "1.50 (1.00 to 2.00)"
    assert table["AdamW-8D"][to_peer] == "0.60 (0.50 to 0.80)"
    assert table[BITSANDBYTES][to_peer] == "1.00 (1.00 to 1.00)"
    assert (table["Muon-8L"][to_float32], table["Muon-8L"][to_peer]) == ("1.25 (1.00 to 1.50)", "–")


def test_without_bitsandbytes_there_is_no_such_column(tabulate: Callable[..., Table]) -> None:
    assert not any("bitsandbytes" in column for column in tabulate({"AdamW-8D": [1.0]})["AdamW-8D"])


def test_what_was_not_measured_has_no_ratio(tabulate: Callable[..., Table]) -> None:
    assert tabulate({"AdamW-8D": [1.0]})["AdamW-8D"]["to float32, median (range)"] == "–"


def test_bytes_moved_are_those_of_weights_gradients_and_states(tabulate: Callable[..., Table]) -> None:
    """4 + 4 + 4 bytes a parameter and the states twice: 8 MB, in 16 ms half of what 1 GB/s could move."""
    row = tabulate({"AdamW-8D": [0.016]})["AdamW-8D"]
    assert (row["moved, MB"], row["bandwidth"]) == ("8", "50%")


class TestFailures:
    @staticmethod
    def broken(script: SimpleNamespace, needs: str | None) -> object:
        def make(model: PreTrainedModel) -> object:
            raise RuntimeError("no such GPU\nand more about it")

        return script.Entry("broken", "AdamW-32", make, needs)

    def test_a_peer_that_does_not_run_is_named_and_left_out(
        self, script: SimpleNamespace, model: PreTrainedModel, capsys: pytest.CaptureFixture[str]
    ) -> None:
        entries = [self.broken(script, "torch"), script.ours("AdamW-8L")]
        results = script.measure_all(entries, model, "cpu", rounds=2, steps=1)
        assert {name: len(result.seconds) for name, result in results.items()} == {"AdamW-8L": 2}
        said = capsys.readouterr().err
        assert said.count("broken is left out: RuntimeError: no such GPU\n") == 1 and "more about it" not in said

    def test_an_optimizer_of_ours_must_run(self, script: SimpleNamespace, model: PreTrainedModel) -> None:
        with pytest.raises(RuntimeError, match="no such GPU"):
            script.measure_all([self.broken(script, None)], model, "cpu", rounds=1, steps=1)
