"""RedactedStore: what is hidden, and that nothing else is."""

import re
from itertools import pairwise
from random import Random
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowneer_async import (
    BadOption,
    BrokenChain,
    CorruptVersion,
    FlowBuilder,
    ReadOnly,
    Run,
    export_run,
    import_run,
    verify,
)
from flowneer_async.encoding import JSON
from flowneer_async.store import resolve
from flowneer_async.testing.chains import body_of, chain_of
from flowneer_async.versions import checked, fold
from flowneer_stores import MemoryStore, RedactedStore
from tests.support.states import Drawn, keep, texts_in

HIDDEN = "«redacted»"
# Each path with its parts: a key of an object, a number of a list; "*" is any key, -1 any item.
PATHS: dict[str, tuple[str | int, ...]] = {
    "a": ("a",),
    "*": ("*",),
    "a.b": ("a", "b"),
    "*.b": ("*", "b"),
    "*.*": ("*", "*"),
    "a[*]": ("a", -1),
    "b[0]": ("b", 0),
    "b[1].a": ("b", 1, "a"),
    "*[*].a": ("*", -1, "a"),
    "*[*].*": ("*", -1, "*"),
    "*.*.*": ("*", "*", "*"),
    "a[*][*]": ("a", -1, -1),
    "c d": ("c d",),
    '["c d"].a': ("c d", "a"),
    'a["q\\"[*]."]': ("a", 'q"[*].'),
    "*.7": ("*", "7"),
    "none.of": ("none", "of"),
}


def hidden(value: object, paths: list[tuple[str | int, ...]]) -> object:
    """The same in another way, on values instead of their JSON."""
    if () in paths:
        return HIDDEN
    if isinstance(value, dict):
        return {key: hidden(part, _left(paths, str(key), "*")) for key, part in cast(dict[Any, object], value).items()}
    if isinstance(value, (list, tuple)):
        parts = [hidden(part, _left(paths, at, -1)) for at, part in enumerate(cast(list[object], value))]
        return parts if isinstance(value, list) else tuple(parts)
    return value


def _left(paths: list[tuple[str | int, ...]], at: str | int, each: str | int) -> list[tuple[str | int, ...]]:
    return [path[1:] for path in paths if path and type(path[0]) is type(at) and path[0] in (at, each)]


async def shown(store: MemoryStore, *paths: str) -> dict[str, object]:
    """The state of run@0 as it is shown."""
    return (await resolve(RedactedStore(store, paths), "run@0")).state


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.randoms(use_true_random=False), st.integers(1, 25), st.lists(st.sampled_from(sorted(PATHS)), max_size=4))
async def test_what_is_hidden_is_nowhere_and_all_else_is_there(random: Random, length: int, paths: list[str]) -> None:
    """For any states and paths: no hidden value, and no fact, is in any byte given; all else is as in the store."""
    drawn, plain = Drawn(random, length), MemoryStore()
    await keep(plain, drawn.versions)
    await plain.send("run", "go", b'"<payload>"')
    store = RedactedStore(plain, paths)
    wanted = [hidden(state, [PATHS[path] for path in paths]) for state in drawn.states]
    versions = list(await store.versions("run"))
    assert [fold_of(versions[version.base : version.seq + 1]) for version in versions] == wanted
    assert [(await store.resolve(version.id)).state for version in versions] == wanted
    for version, original in zip(versions, drawn.versions, strict=True):
        assert version._replace(body=b"", digest=b"", parent_digest=b"") == original._replace(
            body=b"", digest=b"", parent_digest=b""
        )
        assert version.is_marker == original.is_marker
    given = b"".join(version.body for version in versions) + repr(await store.signals("run")).encode()
    visible = {text for state in wanted for text in texts_in(state)}
    secrets = {text for state in drawn.states for text in texts_in(state)} - visible
    for secret in [*(secret.encode() for secret in secrets), *drawn.facts, b"<payload>"]:
        assert secret not in given
    original_digests = {digest for version in drawn.versions[1:] for digest in (version.digest, version.parent_digest)}
    if secrets or drawn.facts:
        assert not original_digests & {version.parent_digest for version in versions} - {b""}


def fold_of(chain: list[Any]) -> dict[str, object]:
    return {key: JSON.load(text) for key, text in fold(checked(chain[-1].id, chain)).items()}


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 25), st.data())
async def test_a_chain_is_the_same_however_it_is_read(random: Random, length: int, data: st.DataObject) -> None:
    """A page of versions, and what a version folds from, are parts of one chain; a later page needs no earlier one."""
    plain = MemoryStore()
    await keep(plain, Drawn(random, length).versions)
    whole = list(await RedactedStore(plain, ["a", "*.b"]).versions("run"))
    assert checked(whole[-1].id, whole) == whole
    assert all(
        after.parent_digest == (before.digest if after.is_keyframe else b"") for before, after in pairwise(whole)
    )
    first = data.draw(st.integers(0, length - 1))
    last = data.draw(st.integers(first, length - 1))
    store = RedactedStore(plain, ["a", "*.b"])
    assert list(await store.versions("run", first, last)) == whole[first : last + 1]
    assert list(await store.chain(f"run@{last}")) == whole[whole[last].base : last + 1]


@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(2, 25), st.data())
async def test_a_pruned_run_is_shown_from_its_first_version_on(
    random: Random, length: int, data: st.DataObject
) -> None:
    """What was dropped is not needed to show the rest, which is a chain of its own."""
    drawn, plain = Drawn(random, length), MemoryStore()
    await keep(plain, drawn.versions)
    await plain.drop("run", data.draw(st.integers(1, length)))
    store = RedactedStore(plain, ["a"])
    versions = list(await store.versions("run"))
    assert versions[0].seq == (await store.read("run")).first
    assert checked(versions[-1].id, versions) == versions
    assert fold_of(versions[versions[-1].base - versions[0].seq :]) == hidden(drawn.states[-1], [("a",)])


async def test_a_text_that_grows_is_still_stored_as_splices() -> None:
    """A list that one path leads into, and that a version added to, does not become a whole list in each version."""
    flow = FlowBuilder[dict[str, Any]]("grow")
    names = [f"step{number}" for number in range(20)]

    def add(state: dict[str, Any]) -> None:
        state["users"].append({"name": "n" * 50, "email": f"secret-{len(state['users'])}"})

    for number, name in enumerate(names):
        flow = flow.then(add, name=name) if number else flow.start_with(add, name=name)
    plain = MemoryStore()
    await flow.with_versioned_checkpoint(plain).run({"users": []}, run_id="run")
    versions = await RedactedStore(plain, ["users[*].email"]).versions("run")
    assert not any(b"secret" in version.body for version in versions)
    assert all(len(version.body) < 200 for version in versions if version.seq > 4 and not version.is_keyframe)


@pytest.mark.parametrize(
    ("path", "state", "shown_state"),
    [
        ("password", {"password": "x", "user": "u"}, {"password": HIDDEN, "user": "u"}),
        ("card.number", {"card": {"number": 42, "of": "u"}}, {"card": {"number": HIDDEN, "of": "u"}}),
        ("users[*].email", {"users": [{"email": "x"}, {"n": 1}]}, {"users": [{"email": HIDDEN}, {"n": 1}]}),
        ("*.token", {"a": {"token": {"t": [1]}}, "b": 1}, {"a": {"token": HIDDEN}, "b": 1}),
        ("users[1]", {"users": (1, 2)}, {"users": (1, HIDDEN)}),
        ("a.7", {"a": {7: "x", 8: "y"}}, {"a": {7: HIDDEN, 8: "y"}}),
        ("a[*]", {"a": {"x": 1}}, {"a": {"x": 1}}),
        ("a.*", {"a": [1]}, {"a": [1]}),
        ("a.x", {"a": b"x"}, {"a": b"x"}),
        ("a", {"a": b"x"}, {"a": HIDDEN}),
    ],
)
async def test_paths_lead_to_values(path: str, state: dict[str, object], shown_state: dict[str, object]) -> None:
    """Into keys of objects and items of lists, also of tuples and of dicts whose keys are no texts; never into both."""
    store = MemoryStore()
    await keep(store, chain_of("run", [body_of(**state)]))
    assert await shown(store, path) == shown_state


@pytest.mark.parametrize(
    "path", ["", ".", ".a", "a.", "a..b", "[*]", "[0].a", "a[", "a[x]", "a[*]b", 'a["x]', "a[01]", '"a"']
)
def test_a_path_that_cannot_be_read_is_refused(path: str) -> None:
    """A typing error would show what was to be hidden."""
    with pytest.raises(BadOption, match=re.escape(repr(path))):
        RedactedStore(MemoryStore(), [path])


async def test_damage_is_not_made_whole() -> None:
    """New digests are made for what is undamaged only: the originals are checked first."""
    versions = chain_of("run", [body_of(n=number) for number in range(4)])
    damaged, holed = MemoryStore(), MemoryStore()
    await keep(damaged, [*versions[:2], versions[2]._replace(body=body_of(n=7)), versions[3]])
    await keep(holed, versions)
    del holed._kept["run"].versions[2]
    for reading in (RedactedStore(damaged, []).versions("run"), RedactedStore(damaged, []).chain("run@3")):
        with pytest.raises(CorruptVersion):
            await reading
    with pytest.raises(BrokenChain):
        await RedactedStore(holed, []).versions("run")


@pytest.mark.parametrize("kept", [1000, 150, 1])
async def test_what_is_shown_is_verified_and_exported(kept: int) -> None:
    """As any store, however it is read; and nothing that is hidden is in the export."""
    plain, other = MemoryStore(), MemoryStore()
    await keep(
        plain, chain_of("run", [body_of(n=number, s=f"<{number}>") for number in range(1000)], range(0, 1000, 7))
    )
    await plain.drop("run", kept)
    store = RedactedStore(plain, ["s"])
    assert (await verify(store)).damages == ()
    lines = [line async for line in export_run(store, "run")]
    assert not re.search(b"<[0-9]", b"".join(lines))
    await import_run(other, lines)
    assert list(await other.versions("run")) == list(await store.versions("run"))
    assert (await other.resolve("run@999")).state == {"n": 999, "s": HIDDEN}


async def test_a_run_cannot_be_run_through_it() -> None:
    """Its steps would work on what is shown instead of the values."""
    plain = MemoryStore()

    def fail(state: dict[str, Any]) -> None:
        raise ValueError

    def step(state: dict[str, Any]) -> None:
        pass

    flow = FlowBuilder[dict[str, Any]]("flow").start_with(step).then(fail)
    with pytest.raises(Exception, match="fail"):
        await flow.with_versioned_checkpoint(plain).run({"password": "x"}, run_id="run")
    shown = RedactedStore(plain, ["password"])
    before: Run = await plain.read("run")
    with pytest.raises(ReadOnly):
        await flow.with_versioned_checkpoint(shown).run(run_id="run")
    with pytest.raises(ReadOnly):
        await flow.resume_from("run@0", shown).run(run_id="fork")
    assert await plain.read("run") == before
