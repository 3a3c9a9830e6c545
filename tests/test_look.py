"""The look at values: what orjson would write as something else is seen wherever bytes changed."""

import random
from collections.abc import Iterator
from enum import IntEnum
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowneer_async.look import is_plain, is_plain_within
from tests.support.trees import LONG, QUICK, trees


class Level(IntEnum):
    LOW = 1


ALIEN: list[Any] = [(), (1, 2), ([],), float("nan"), float("inf"), UUID(int=1), Level.LOW]
"""What orjson writes without asking."""

BUILDS = ["list of small", "list of large", "dict", "mixed", "one by one"]


def grown(rng: random.Random, build: str, depth: int) -> Any:
    """A tree of some kilobytes."""
    if depth == 0 or rng.random() < 0.05:
        return rng.choice([1, 2.5, None, "é" * rng.randrange(80), True, "x" * rng.randrange(40), [], {}])
    kind = rng.choice(["list", "dict"]) if build == "mixed" else "dict" if build == "dict" else "list"
    width = 1 if build == "one by one" and depth > 3 else rng.randrange(1, 40 if depth == 1 else 8)
    if build == "list of large" and depth == 1:
        return ["日本" * rng.randrange(600) for _ in range(4)]
    parts = [grown(rng, build, depth - 1) for _ in range(width)]
    return parts if kind == "list" else {f"ké{number}": part for number, part in enumerate(parts)}


def containers(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, dict)) and value:
        yield value
        for part in value if isinstance(value, list) else value.values():
            yield from containers(part)


def planted(tree: Any, alien: object, rng: random.Random) -> None:
    """Put `alien` in the place of some part."""
    found = rng.choice(list(containers(tree)))
    found[rng.choice(range(len(found)) if isinstance(found, list) else list(found))] = alien


def spans(value: Any, at: int = 0) -> Iterator[tuple[int, int]]:
    """The bytes, first to last, of each part that is no plain JSON: the slow and plain way."""
    if type(value) in (list, dict):
        inner = at + 1
        for key, part in enumerate(value) if isinstance(value, list) else value.items():
            inner += 0 if isinstance(value, list) else len(orjson.dumps(key)) + 1
            yield from spans(part, inner)
            inner += len(orjson.dumps(part)) + 1
    elif not is_plain(value):
        yield at, at + len(orjson.dumps(value))


def check_look(seed: int, build: str, aliens: list[object], stretches: list[tuple[float, float]]) -> None:
    rng = random.Random(seed)
    tree = [grown(rng, build, 5), grown(rng, build, 3)]
    plain_size = len(orjson.dumps(tree))
    for start, length in stretches:
        first = int(start * plain_size)
        assert is_plain_within(tree, plain_size, first, min(plain_size, first + int(length * plain_size)))
    for alien in aliens:
        planted(tree, alien, rng)
    size = len(orjson.dumps(tree))
    for first, last in spans(tree):
        # Its first byte, its last one, all of it, and a little of it with some of what is around.
        for a, b in ((first, first + 1), (last - 1, last), (first, last), (first - 9, first + 1), (last - 1, last + 9)):
            assert not is_plain_within(tree, size, max(a, 0), min(b, size)), (a, b)
        assert not is_plain_within(tree, size, first - 1, size)


stretches = st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0.0, 0.001, 0.1, 0.6, 1.0])), max_size=5)
aliens = st.lists(st.sampled_from(ALIEN), min_size=1, max_size=3)


@QUICK
@given(st.integers(0, 10**6), st.sampled_from(BUILDS), aliens, stretches)
def test_what_overlaps_the_changed_bytes_is_seen(
    seed: int, build: str, planted: list[object], places: list[tuple[float, float]]
) -> None:
    """A value without an alien is plain everywhere; one with aliens is not where a stretch touches one of them."""
    check_look(seed, build, planted, places)


@pytest.mark.torture
@LONG
@given(st.integers(0, 10**6), st.sampled_from(BUILDS), aliens, stretches)
def test_what_overlaps_the_changed_bytes_is_seen_for_long(
    seed: int, build: str, planted: list[object], places: list[tuple[float, float]]
) -> None:
    """The same law for many more trees."""
    check_look(seed, build, planted, places)


@QUICK
@given(trees)
def test_json_is_plain(tree: object) -> None:
    """Whatever its shape."""
    assert is_plain(tree)


@pytest.mark.parametrize("alien", ALIEN, ids=repr)
def test_an_alien_is_seen_at_any_depth(alien: object) -> None:
    """As the value itself, in a list, in a dict, and a hundred levels deep."""
    deep = alien
    for _ in range(50):
        deep = {"a": 1, "b": [deep]}
    for value in (alien, [alien], {"a": alien}, deep):
        assert not is_plain(value)


def test_a_stretch_between_two_parts_is_part_of_what_holds_them() -> None:
    """Bytes removed inside of a tuple leave an empty stretch there, which is the tuple's."""
    tree = [list(range(1_000)), (1, 2), list(range(1_000))]
    size, at = len(orjson.dumps(tree)), orjson.dumps(tree).index(b"[1,2]")
    assert not is_plain_within(tree, size, at + 2, at + 2)
