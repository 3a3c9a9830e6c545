"""One replaced stretch: found between two texts, and made in a long one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowneer_async.splice import Splice, Text, splice_between
from tests.support.trees import QUICK

# Characters of one to four bytes, some of which share their first bytes or their last ones.
characters = st.text(st.sampled_from("ab1éèĩŀ日本旦ץ😀😁"), max_size=8)


@st.composite
def near_texts(draw: st.DrawFn) -> tuple[str, str]:
    """Two texts with a common start and a common end, often of more than the 64 bytes that a search begins with."""
    start, end = (draw(characters) * draw(st.sampled_from([1, 10, 100, 3000])) for _ in range(2))
    return start + draw(characters) + end, start + draw(characters) + end


def ends_of_characters(text: bytes) -> list[int]:
    return [at for at in range(len(text) + 1) if at == len(text) or text[at] & 0xC0 != 0x80]


def shortest(before: bytes, after: bytes) -> Splice:
    """The slow and plain way: the longest common start, then the longest common end, of whole characters."""
    most = min(len(before), len(after))
    start = next(at for at in range(most + 1) if at == most or before[at] != after[at])
    start = max(at for at in ends_of_characters(after) if at <= start)
    left = most - start
    ending = next(at for at in range(left + 1) if at == left or before[-1 - at] != after[-1 - at])
    ending = max(len(after) - at for at in ends_of_characters(after) if len(after) - at <= ending)
    return Splice(start, len(before) - ending - start, after[start : len(after) - ending])


@QUICK
@given(near_texts())
def test_a_splice_is_the_shortest_of_whole_characters(texts: tuple[str, str]) -> None:
    """It makes the second text of the first, changes no more than it has to, and cuts no character in two."""
    before, after = (text.encode() for text in texts)
    cut = splice_between(before, after)
    assert before[: cut.at] + cut.text + before[cut.at + cut.removed :] == after
    assert cut == shortest(before, after)
    for part in (before[: cut.at], cut.text, before[cut.at + cut.removed :]):
        part.decode()


def test_equal_texts_have_an_empty_splice() -> None:
    """Nothing is removed, and nothing put in."""
    cut = splice_between("é".encode() * 100, "é".encode() * 100)
    assert (cut.removed, cut.text) == (0, b"")


LENGTHS = [0, 1, 4_000, 32 * 1024 - 1, 32 * 1024, 32 * 1024 + 1, 70_000, 200_000]


@QUICK
@given(st.sampled_from(LENGTHS), st.data())
def test_a_long_text_takes_splices_like_a_short_one(length: int, data: st.DataObject) -> None:
    """Chunks or not, the text is what slicing the whole would have made of it; and the middle may be read too."""
    naive = bytes(number % 251 for number in range(length))
    text = Text(naive)
    for _ in range(data.draw(st.integers(0, 8))):
        at = data.draw(st.integers(0, len(naive)) | st.sampled_from([0, len(naive)]))
        removed = data.draw(st.integers(0, len(naive) - at) | st.just(min(9, len(naive) - at)))
        new = b"new" * data.draw(st.sampled_from([0, 1, 50, 30_000]))
        text.splice(Splice(at, removed, new))
        naive = naive[:at] + new + naive[at + removed :]
        assert text.join() == naive


@QUICK
@given(st.sampled_from(LENGTHS), st.integers(0, 100), st.integers(1, 100_000))
def test_a_splice_beyond_the_end_is_an_error(length: int, before_end: int, too_far: int) -> None:
    """Whether it begins there or only ends there."""
    for at in (length + too_far, max(0, length - before_end)):
        with pytest.raises(ValueError, match="outside"):
            Text(b"x" * length).splice(Splice(at, length - at + too_far if at < length else too_far, b""))
