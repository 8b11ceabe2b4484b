import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coolbits.artifacts.hashing import canonical_json, digest_of, file_digest

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_canonical_json_keeps_the_value(value):
    assert json.loads(canonical_json(value)) == value


@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_the_order_of_keys_does_not_matter(value):
    assert digest_of(value) == digest_of(dict(reversed(value.items())))


def test_an_integer_and_a_float_are_told_apart():
    assert canonical_json({"x": 1}) != canonical_json({"x": 1.0})


@pytest.mark.parametrize("value", [math.nan, math.inf, {1: 2}, object(), {"x": [b"bytes"]}])
def test_what_has_no_stable_form_is_refused(value):
    with pytest.raises(ValueError, match=r"canonical form|not text"):
        canonical_json(value)


def test_file_digest_is_sha256(tmp_path):
    path = tmp_path / "empty"
    path.write_bytes(b"")
    assert file_digest(path) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
