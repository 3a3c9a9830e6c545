"""The cursor: a path and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowneer_async.cursor import Frame, decode, encode
from tests.support.trees import QUICK

# What the names of steps may be: printable texts, with all that means something in a path or in a URL.
names = st.text(
    st.characters(exclude_categories=["C", "Z"]) | st.sampled_from(" /[]%25#?é日~@"), min_size=1, max_size=200
).filter(lambda name: name[0] != "@")
marks = st.sampled_from(["@error", "@begun", "@undo"])
frames = st.builds(Frame, names | marks, st.none() | st.integers(0, 10**12), st.integers(0, 10**6))


@QUICK
@given(st.lists(frames, max_size=5))
def test_a_path_leads_back_to_its_frames(cursor: list[Frame]) -> None:
    """decode(encode(cursor)) == cursor, whatever the steps are called."""
    assert decode(encode(cursor)) == tuple(cursor)


@QUICK
@given(st.lists(frames, max_size=5), st.lists(frames, max_size=5))
def test_two_cursors_have_two_paths(one: list[Frame], other: list[Frame]) -> None:
    """No name can be made to look like another place."""
    assert (encode(one) == encode(other)) == (one == other)


@pytest.mark.parametrize(
    ("cursor", "path"),
    [
        ((), ""),
        ((Frame("fetch"),), "fetch"),
        ((Frame("emails", 12), Frame("send")), "emails[12]/send"),
        ((Frame("emails", 12, 1), Frame("send", round=2)), "emails~1[12]/send~2"),
        ((Frame("charge"), Frame("@begun")), "charge/@begun"),
        ((Frame("a~1@b"),), "a%7E1%40b"),
        ((Frame("größe messen"),), "größe messen"),
        ((Frame("a/b[1] 100%"),), "a%2Fb%5B1%5D 100%25"),
    ],
)
def test_a_path_can_be_read_by_people(cursor: tuple[Frame, ...], path: str) -> None:
    """Only what has a meaning in a path is escaped."""
    assert encode(cursor) == path
    assert decode(path) == cursor


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "a/",
        "/a",
        "a//b",
        "a[",
        "a[]",
        "a[x]",
        "a[-1]",
        "a[1]b",
        "[1]",
        "a]",
        "a[1][2]",
        "@",
        "a~",
        "a~0",
        "a~x",
        "a[1]~1",
        "a@b",
    ],
)
def test_what_is_no_path_is_refused(path: str) -> None:
    """Reading it raises ValueError, which shows it."""
    with pytest.raises(ValueError, match="is no frame of a cursor"):
        decode(path)
