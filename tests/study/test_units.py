import pytest
from pydantic import TypeAdapter, ValidationError

from coolbits.study.units import Length, Tokens, length_in_tokens, si, si_bytes

TOKENS, LENGTH = TypeAdapter(Tokens), TypeAdapter(Length)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("200k", 200_000),
        ("1.2M", 1_200_000),
        ("100B", 10**11),
        ("7", 7),
        (12, 12),
        (3e6, 3_000_000),
        ("16.67760128B", 16_677_601_280),
    ],
)
def test_tokens_are_read_as_people_write_them(text, count):
    assert TOKENS.validate_python(text) == count


@pytest.mark.parametrize("text", ["12 apples", "-3", "1.5", 0, -1, "1e3", None, [1]])
def test_other_counts_are_refused(text):
    with pytest.raises(ValidationError):
        TOKENS.validate_python(text)


@pytest.mark.parametrize(("text", "tokens"), [("20%", 200), ("0%", 0), (0.5, 500), ("300", 300), (0, 0)])
def test_a_length_is_tokens_or_a_share_of_the_run(text, tokens):
    assert length_in_tokens(LENGTH.validate_python(text), total=1000) == tokens


@pytest.mark.parametrize("text", ["100%", "120%", 1.5, -1, "a fifth"])
def test_other_lengths_are_refused(text):
    with pytest.raises(ValidationError):
        LENGTH.validate_python(text)


def test_counts_are_said_with_a_suffix():
    assert [si(count) for count in (12, 288_640, 999_999, 12_000_000, 1.5e9)] == ["12", "289k", "1M", "12M", "1.5B"]
    assert [si_bytes(count) for count in (12, 288_640, 14.2e9, 2e12)] == ["12 B", "289 kB", "14.2 GB", "2 TB"]
