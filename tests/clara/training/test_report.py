from __future__ import annotations

from collections import Counter
from statistics import mean, median_low

from hypothesis import given
from hypothesis import strategies as st

from clara.training.report import BINS, Lengths


@given(st.lists(st.integers(0, 3000), min_size=1))
def test_lengths_agree_with_counting_them_out(found: list[int]) -> None:
    lengths = Lengths()
    for length in found:
        lengths.add(length)
    assert (lengths.total, lengths.longest) == (len(found), max(found))
    assert abs(lengths.mean - mean(found)) < 1e-9
    assert lengths.quantile(0.5) == median_low(found)
    assert lengths.quantile(1) == max(found)
    counts = Counter[int]()
    for low, high, texts in lengths.bins():
        counts[low] = sum(low <= length and (high is None or length <= high) for length in found)
        assert texts == counts[low]
    assert counts.total() == len(found)


def test_a_length_at_the_usual_limit_shares_no_bin_with_one_over_it() -> None:
    assert 256 in BINS


def test_no_texts_have_no_lengths() -> None:
    nothing = Lengths()
    assert (nothing.total, nothing.longest, nothing.mean, nothing.quantile(0.5)) == (0, 0, 0, 0)
