import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coolbits.ptq.export.words import pack_words, unpack_words


@given(
    st.integers(1, 8).flatmap(
        lambda bits: st.tuples(
            st.just(bits),
            st.integers(1, 70).flatmap(
                lambda columns: st.lists(
                    st.lists(st.integers(0, (1 << bits) - 1), min_size=columns, max_size=columns),
                    min_size=1,
                    max_size=3,
                )
            ),
        )
    )
)
def test_what_is_packed_reads_back(case):
    bits, rows = case
    codes = torch.tensor(rows, dtype=torch.uint8)
    words = pack_words(codes, bits)
    assert words.dtype == torch.int32
    assert words.shape == (len(rows), -(-len(rows[0]) * bits // 32))
    assert torch.equal(unpack_words(words, bits, len(rows[0])), codes)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_a_row_is_one_number_whose_lowest_bits_are_the_first_code(bits):
    codes = torch.randint(1 << bits, (1, 64), generator=torch.Generator().manual_seed(bits), dtype=torch.uint8)
    number = sum(code << (bits * place) for place, code in enumerate(codes[0].tolist()))
    words = [(number >> shift) & 0xFFFFFFFF for shift in range(0, 64 * bits, 32)]
    assert [word & 0xFFFFFFFF for word in pack_words(codes, bits)[0].tolist()] == words


def test_32_codes_of_3_bits_lie_in_3_words_as_autogptq_writes_them():
    codes = torch.arange(32, dtype=torch.uint8)[None] % 8
    low, middle, high = (word & 0xFFFFFFFF for word in pack_words(codes, 3)[0].tolist())
    values = codes[0].tolist()
    # Eleventh and twenty-second codes are cut in two, with 2 and 1 bits in the earlier word.
    assert low == sum(values[i] << (3 * i) for i in range(10)) | (values[10] & 3) << 30
    assert middle == values[10] >> 2 | sum(values[11 + i] << (3 * i + 1) for i in range(10)) | (values[21] & 1) << 31
    assert high == values[21] >> 1 | sum(values[22 + i] << (3 * i + 2) for i in range(10))
