"""The contract of find and count."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from random import Random
from typing import Any, get_args

import pytest

from flowneer_async.errors import BadOption
from flowneer_async.store import EVERY_STATUS, Lease, RunFilter, VersionStore
from flowneer_async.testing.chains import EARLY, counting, new_run, owned
from flowneer_async.versions import Run, Status

_ODD = [
    "", " ", "a'b", 'a"b', "a.b", "$.a", "$", "a\\", "a\\\"", "[0]", "%", "_", "a,b", "a=b", "{}", "null", "1",
    "ü€😀", "A", "a", "\n\t", "\x1f", "\x7f", "'; DROP TABLE runs --", "t" * 5000,
]  # fmt: skip
"""Names and values of tags that mean something elsewhere."""

_NO_CURSORS = ["", "nonsense", "run-1", "1; DROP TABLE runs", "1'", "\0", "\ud800", "½", "9" * 30, "1" * 5000]

_ANY = RunFilter()


def _fits(run: Run, wanted: RunFilter) -> bool:
    """What a store has to find, said once more."""
    return (
        run.status in wanted.status
        and (wanted.flow is None or run.flow == wanted.flow)
        and all(run.tags.get(name) == value for name, value in wanted.tags.items())
        and (wanted.owned is None or (run.owner is not None) == wanted.owned)
        and (wanted.created_after is None or wanted.created_after <= run.created)
        and (wanted.created_before is None or run.created < wanted.created_before)
        and (wanted.updated_after is None or wanted.updated_after <= run.updated)
        and (wanted.updated_before is None or run.updated < wanted.updated_before)
        and (wanted.begun_after is None or (run.begun is not None and wanted.begun_after <= run.begun))
        and (wanted.key is None or run.key == wanted.key)
        and (wanted.cancelling is None or run.cancelling == wanted.cancelling)
    )


async def _pages(store: VersionStore, runs: RunFilter, limit: int) -> AsyncGenerator[Sequence[Run], None]:
    after: str | None = None
    while True:
        page = await store.find(runs, limit, after)
        assert len(page.runs) == limit or page.next is None
        yield page.runs
        if page.next is None:
            return
        after = page.next


async def _ids(store: VersionStore, runs: RunFilter = _ANY, limit: int = 1000) -> list[str]:
    return [run.run_id async for page in _pages(store, runs, limit) for run in page]


async def _stored(store: VersionStore, run: Run, ends: Status | None = None, error: str | None = None) -> Lease:
    lease = await store.create(run)
    assert lease is not None
    if ends is not None:
        await store.release(lease, ends, error)
    return lease


async def _mixed(store: VersionStore) -> list[Run]:
    """Runs that differ in all that they are found by, in the order they were stored."""
    ends: list[Status | None] = [None, *get_args(Status)]
    tags = [{}, {"team": "a"}, {"team": "b"}, {"team": "a", "day": "1"}]
    for number in range(48):
        run = replace(
            new_run(f"run-{number}"),
            flow=f"flow-{number % 5 % 2}",
            tags=tags[number % 4],
            created=EARLY + number * 31 % 48 // 2,
            begun=None if number % 7 == 0 else EARLY + number * 29 % 48 // 3,
            key=["", "a", "b'"][number % 11 % 3],
        )
        await _stored(store, run, ends[number % 6])
        if number % 13 % 2:
            await store.ask_cancel(run.run_id)
    return [await store.read(f"run-{number}") for number in range(48)]


def _filters(runs: Sequence[Run]) -> Iterator[RunFilter]:
    """Each filter alone, then many of them together."""
    updated = sorted({run.updated for run in runs})
    later = updated[len(updated) // 2]
    each: Mapping[str, Sequence[Any]] = {
        "status": [
            *(frozenset({status}) for status in get_args(Status)),
            frozenset({"failed", "waiting"}),
            frozenset(),
        ],
        "flow": ["flow-0", "flow-1", "flow", "FLOW-0", ""],
        "tags": [{"team": "a"}, {"team": "a", "day": "1"}, {"day": "1"}, {"team": "1"}, {"none": ""}, {}],
        "owned": [True, False],
        "created_after": [0, EARLY, EARLY + 5, EARLY + 30],
        "created_before": [0, EARLY, EARLY + 12, EARLY + 30],
        "updated_after": [0, updated[0], later, updated[-1], updated[-1] + 1],
        "updated_before": [0, updated[0], later, updated[-1], updated[-1] + 1],
        "begun_after": [0, EARLY, EARLY + 8, EARLY + 30],
        "key": ["", "a", "b'", "A", "none"],
        "cancelling": [True, False],
    }
    yield _ANY
    for name, values in each.items():
        yield from (replace(_ANY, **{name: value}) for value in values)
    random = Random(4)
    for _ in range(80):
        names = random.sample(list(each), random.randint(2, 6))
        yield replace(_ANY, **{name: random.choice(each[name]) for name in names})


class FindingContract:
    """The runs that are asked for are found, each of them once, and no others."""

    async def test_every_filter_finds_the_runs_it_means(self, store: VersionStore) -> None:
        """By all that runs are found by, each alone and together: those that fit, the newest first."""
        runs = await _mixed(store)
        for wanted in _filters(runs):
            expected = [run for run in reversed(runs) if _fits(run, wanted)]
            assert list((await store.find(wanted, 48)).runs) == expected, wanted
            assert dict(await store.count(wanted)) == Counter(run.status for run in expected), wanted

    async def test_an_empty_store_has_no_runs(self, store: VersionStore) -> None:
        """One page without any, and no number of any status."""
        page = await store.find(_ANY, 10)
        assert (list(page.runs), page.next) == ([], None)
        assert dict(await store.count(_ANY)) == {}

    async def test_only_statuses_that_are_there_are_counted(self, store: VersionStore) -> None:
        """A status that no run has is no key; the numbers are those of the runs as they stand now."""
        lease = await _stored(store, new_run("a"))
        await _stored(store, new_run("b"), "failed")
        assert dict(await store.count(_ANY)) == {"running": 1, "failed": 1}
        await store.release(lease, "failed")
        assert dict(await store.count(_ANY)) == {"failed": 2}
        assert dict(await store.count(RunFilter(EVERY_STATUS - {"failed"}))) == {}

    async def test_any_text_is_a_tag(self, store: VersionStore) -> None:
        """Names and values that mean something elsewhere find the runs that have them, and no others."""
        for number, text in enumerate(_ODD):
            await _stored(store, replace(new_run(f"name-{number}"), tags={text: "x"}))
            await _stored(store, replace(new_run(f"value-{number}"), tags={"is": text}))
        for number, text in enumerate(_ODD):
            assert await _ids(store, RunFilter(tags={text: "x"})) == [f"name-{number}"], text
            assert await _ids(store, RunFilter(tags={"is": text})) == [f"value-{number}"], text
            assert dict((await store.read(f"value-{number}")).tags) == {"is": text}

    async def test_a_run_may_have_many_tags(self, store: VersionStore) -> None:
        """All that are asked for have to be there, in whichever order; a value of another name is not enough."""
        tags = {text: str(number) for number, text in enumerate(_ODD)}
        await _stored(store, replace(new_run(), tags=tags))
        await _stored(store, replace(new_run("other"), tags={**tags, "a": "0"}))
        assert dict((await store.read("run")).tags) == tags
        assert await _ids(store, RunFilter(tags=dict(reversed(tags.items())))) == ["run"]
        assert await _ids(store, RunFilter(tags={"%": tags["%"]})) == ["other", "run"]
        assert await _ids(store, RunFilter(tags={"%": tags["_"]})) == []
        assert await _ids(store, RunFilter(tags={**tags, "more": ""})) == []

    async def test_tags_that_were_passed_may_be_changed_afterwards(self, store: VersionStore) -> None:
        """A store keeps the tags it was given, not the caller's mapping of them."""
        tags = {"team": "a"}
        await _stored(store, replace(new_run(), tags=tags))
        tags["team"] = "b"
        assert dict((await store.read("run")).tags) == {"team": "a"}
        assert await _ids(store, RunFilter(tags={"team": "a"})) == ["run"]

    async def test_a_run_is_owned_from_when_it_is_taken_until_it_is_given_back(self, store: VersionStore) -> None:
        """Created or claimed, it is found among the owned ones, however it stood before; released, among the others."""
        lease = await _stored(store, new_run())
        for _ in range(2):
            assert (await _ids(store, RunFilter(owned=True)), await _ids(store, RunFilter(owned=False))) == (
                ["run"],
                [],
            )
            await store.release(lease, "running")
            assert (await _ids(store, RunFilter(owned=True)), await _ids(store, RunFilter(owned=False))) == (
                [],
                ["run"],
            )
            lease = await store.claim(await store.read("run"))

    async def test_a_time_begins_inclusive_and_ends_exclusive(self, store: VersionStore) -> None:
        """*After* is that moment or later, *before* is before it: what is after and before one time is nothing."""
        for number in range(5):
            await _stored(store, replace(new_run(f"run-{number}"), created=EARLY + number))
        two = EARLY + 2
        assert await _ids(store, RunFilter(created_after=two)) == ["run-4", "run-3", "run-2"]
        assert await _ids(store, RunFilter(created_before=two)) == ["run-1", "run-0"]
        assert await _ids(store, RunFilter(created_after=two, created_before=two + 1)) == ["run-2"]
        assert await _ids(store, RunFilter(created_after=two, created_before=two)) == []

    async def test_runs_that_were_found_are_whole(self, store: VersionStore) -> None:
        """Every field is that of the run when it is read: head, first, status, error, owner, steps, tags, fork_of."""
        fork = replace(
            new_run("fork"), fork_of="run@2", tags={"ü": "'", "": ""}, steps=("ü", "b/c"), state_type="Order"
        )
        await _stored(store, fork, "failed", "it's ‘broken’")
        copy = replace(new_run("copy"), first=3, seal=b"\0\xff")
        await store.create(copy, counting("copy", 5, keyframes=(0, 3))[3:])
        pruned = await owned(store, stored=0)
        pruned.versions = counting("run", 6, keyframes=(0, 4))
        await pruned.append(0, 6)
        await store.drop("run", 1)
        found = (await store.find(_ANY, 10)).runs
        assert list(found) == [await store.read(run_id) for run_id in ("run", "copy", "fork")]
        assert [(run.first, run.head) for run in found] == [(4, 5), (3, 4), (0, -1)]
        assert (found[2].fork_of, found[2].status, found[2].error) == ("run@2", "failed", "it's ‘broken’")

    @pytest.mark.parametrize("limit", [1, 2, 7, 29, 30, 31, 1000])
    async def test_every_run_is_on_one_page(self, store: VersionStore, limit: int) -> None:
        """Of any size: the newest first, each once; there is a next page exactly where there are more runs."""
        await asyncio.gather(*(_stored(store, new_run(f"old-{number}")) for number in range(20)))
        for number in range(10):
            await _stored(store, replace(new_run(f"run-{number}"), created=EARLY - number, updated=EARLY - number))
        pages = [[run.run_id for run in page] async for page in _pages(store, _ANY, limit)]
        assert [len(page) for page in pages[:-1]] == [limit] * (29 // limit)
        found = [run_id for page in pages for run_id in page]
        assert found[:10] == [f"run-{number}" for number in range(9, -1, -1)]
        assert sorted(found[10:]) == sorted(f"old-{number}" for number in range(20))

    async def test_a_filter_holds_on_every_page(self, store: VersionStore) -> None:
        """Pages are of the runs that fit, however many others are between them."""
        for number in range(20):
            await _stored(store, replace(new_run(f"run-{number}"), flow="seven" if number % 7 == 0 else "flow"))
        wanted = RunFilter(flow="seven")
        assert [len(page) async for page in _pages(store, wanted, 2)] == [2, 1]
        assert await _ids(store, wanted, 1) == ["run-14", "run-7", "run-0"]

    @pytest.mark.parametrize("limit", [1, 2, 3, 5])
    async def test_runs_that_come_and_go_between_pages_move_no_others(self, store: VersionStore, limit: int) -> None:
        """Runs are stored and purged after every page: those that stay are found once, and none that came meanwhile."""
        left = [f"run-{number}" for number in range(23, -1, -1)]
        for run_id in reversed(left):
            await _stored(store, new_run(run_id), "completed")
        numbers = count()
        async for page in _pages(store, _ANY, limit):
            assert [run.run_id for run in page] == left[:limit]
            # The last one of the page, by which the next page may be found; the next one, and the very last.
            purged = [*left[:limit][-1:], *left[limit : limit + 1], *left[limit + 1 :][-1:]]
            left = [run_id for run_id in left[limit:] if run_id not in purged]
            for run_id in purged:
                await store.purge(run_id)
                await _stored(store, new_run(f"new-{next(numbers)}"), "completed")
                await _stored(store, new_run(run_id), "completed")
        assert left == []

    async def test_a_run_that_is_stored_meanwhile_is_on_no_later_page(self, store: VersionStore) -> None:
        """Not even where the newest ones, which were on the page before, are gone."""
        for number in range(8):
            await _stored(store, new_run(f"run-{number}"), "completed")
        first = await store.find(_ANY, 2)
        for number in (7, 6, 5):
            await store.purge(f"run-{number}")
        for number in range(3):
            await _stored(store, new_run(f"new-{number}"), "completed")
        second = await store.find(_ANY, 10, first.next)
        assert [run.run_id for run in second.runs] == ["run-4", "run-3", "run-2", "run-1", "run-0"]
        assert await _ids(store) == ["new-2", "new-1", "new-0", *(run.run_id for run in second.runs)]

    async def test_runs_that_change_between_pages_stay_on_theirs(self, store: VersionStore) -> None:
        """A run is found where it was stored, not where it was changed last."""
        leases = [await _stored(store, new_run(f"run-{number}")) for number in range(9)]
        seen = list[str]()
        async for page in _pages(store, _ANY, 2):
            seen += [run.run_id for run in page]
            for number in (0, 1, 7, 8):
                await store.release(leases[number], "failed")
                leases[number] = await store.claim(await store.read(f"run-{number}"))
        assert seen == [f"run-{number}" for number in range(8, -1, -1)]

    @pytest.mark.parametrize("after", _NO_CURSORS, ids=range(len(_NO_CURSORS)))
    async def test_a_page_after_nonsense_is_refused(self, store: VersionStore, after: str) -> None:
        """What no page has given leads to no page: the error names the option."""
        await _stored(store, new_run())
        with pytest.raises(BadOption) as caught:
            await store.find(_ANY, 10, after)
        assert caught.value.option == "after"

    async def test_runs_are_found_while_others_are_stored(self, store: VersionStore) -> None:
        """Many ask and many store at once: whoever asks finds all that were there before."""
        for number in range(10):
            await _stored(store, new_run(f"run-{number}"))
        before = {f"run-{number}" for number in range(10)}
        done = await asyncio.gather(
            *(_ids(store, limit=3) for _ in range(5)),
            *(_stored(store, new_run(f"new-{number}"), "failed") for number in range(10)),
        )
        assert all(before <= set(found) for found in done if isinstance(found, list))
        assert dict(await store.count(_ANY)) == {"running": 10, "failed": 10}
