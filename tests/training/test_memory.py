"""Memory survives JSON to the last bit, and metrics keep their types."""

import json

from hypothesis import given
from hypothesis import strategies as st

from coolbits.loops.divergence import LossHistory
from coolbits.training.memory import Memory, Update, metrics_frame, metrics_row

numbers = st.floats(allow_nan=False, allow_infinity=False)
updates = st.builds(Update, st.integers(1), numbers, numbers, numbers, st.text())
memories = st.builds(
    Memory,
    st.integers(0),
    st.text(),
    st.builds(LossHistory, st.none() | numbers, st.lists(numbers).map(tuple)),
    st.none() | updates,
)


@given(memories)
def test_memory_comes_back_from_json_as_it_was(memory: Memory) -> None:
    assert Memory.from_json(json.loads(json.dumps(memory.to_json())), [], []) == memory


def test_a_branch_goes_on_but_has_its_own_metrics() -> None:
    update = Update(4, 1.5, 0.1, 2.0, "digest")
    trunk = Memory(4, "digest", LossHistory(2.0, (1.5,)), update, [metrics_row(update, 64, 3.0)])
    branch = trunk.branch()
    assert branch.rows == []
    assert branch.to_json() == trunk.to_json()


def test_metrics_have_the_same_columns_and_types_with_and_without_rows() -> None:
    rows = [metrics_row(Update(4, 1.5, 0.1, 2.0, "digest"), 64, 3.0)]
    assert metrics_frame(rows).to_dict("records") == [
        {
            "step": 4,
            "tokens": 256,
            "loss": 1.5,
            "lr": 0.1,
            "grad_norm": 2.0,
            "weight_norm": 3.0,
            "data_digest": "digest",
        }
    ]
    assert metrics_frame([]).dtypes.equals(metrics_frame(rows).dtypes)
