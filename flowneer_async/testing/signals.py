"""The contract of send and signals."""

import asyncio
from dataclasses import replace
from typing import get_args

import pytest

from flowneer_async.errors import UnknownRun
from flowneer_async.store import VersionStore
from flowneer_async.testing.chains import EARLY, new_run, owned
from flowneer_async.versions import Signal, Status

_EACH = bytes(range(256))
_PAYLOADS = [b"null", b'{"approved":true}', b"", b"\0", _EACH, _EACH[::-1], "€ü😀".encode("utf-16"), _EACH * 4096]


class SignalsContract:
    """Whatever is sent to a run is kept, once and for all, and in order."""

    async def test_signals_are_kept_in_the_order_they_were_sent(self, store: VersionStore) -> None:
        """Each is numbered from 1, and read as it was given back when it was sent."""
        await store.create(new_run())
        sent = [await store.send("run", name, name.encode()) for name in ("b", "a", "b")]
        assert list(await store.signals("run")) == sent
        assert sent == [Signal("run", n + 1, "bab"[n], b"bab"[n : n + 1], sent[n].sent) for n in range(3)]
        assert all(signal.sent > EARLY for signal in sent)

    async def test_a_signal_that_is_copied_keeps_its_time(self, store: VersionStore) -> None:
        """A time that is given is the signal's, any number of ms; without one it is the store's own."""
        await store.create(new_run())
        times = [EARLY, EARLY - 1, 0, 2**53]
        sent = [await store.send("run", "go", b"1", time) for time in times]
        assert [signal.sent for signal in sent] == times
        assert (await store.send("run", "now", b"1")).sent > EARLY
        assert list(await store.signals("run"))[:4] == sent
        assert [signal.number for signal in await store.signals("run")] == [1, 2, 3, 4, 5]

    async def test_a_run_without_signals_has_none(self, store: VersionStore) -> None:
        """An empty list, for a run that is there."""
        await owned(store)
        assert list(await store.signals("run")) == []

    @pytest.mark.parametrize("run_id", ["none", "", "run@0", "RUN", "ru", "run%", "run\0", "r" * 5000])
    async def test_an_unknown_run_has_no_signals(self, store: VersionStore, run_id: str) -> None:
        """To send to a run that is not there, or to ask for its signals, is an error that names it."""
        await store.create(new_run())
        for use in (store.send(run_id, "go", b"1"), store.signals(run_id)):
            with pytest.raises(UnknownRun) as caught:
                await use
            assert caught.value.run_id == run_id
        assert list(await store.signals("run")) == []

    async def test_a_signal_to_an_unknown_run_fails_alone(self, store: VersionStore) -> None:
        """Of many that are sent at once, those for runs that are there are kept."""
        await store.create(new_run())
        done = await asyncio.gather(
            *(store.send(run_id, "go", b"1") for run_id in ("none", "run", "neither", "run")), return_exceptions=True
        )
        assert [type(each) for each in done] == [UnknownRun, Signal, UnknownRun, Signal]
        assert [signal.number for signal in await store.signals("run")] == [1, 2]

    async def test_signals_sent_at_once_are_all_kept(self, store: VersionStore) -> None:
        """Many tasks send to few runs: each signal has a number of its own, and none is left out."""
        for run in range(3):
            await store.create(new_run(f"run-{run}"))
        sent = await asyncio.gather(*(store.send(f"run-{n % 3}", f"s{n}", b"%d" % n) for n in range(90)))
        for run in range(3):
            kept = list(await store.signals(f"run-{run}"))
            assert kept == sorted(sent[run::3], key=lambda signal: signal.number)
            assert [signal.number for signal in kept] == list(range(1, 31))
            assert {(signal.name, signal.payload) for signal in kept} == {
                (f"s{n}", b"%d" % n) for n in range(run, 90, 3)
            }

    async def test_every_byte_of_a_payload_is_kept(self, store: VersionStore) -> None:
        """A payload is bytes, and no business of the store."""
        await store.create(new_run())
        for payload in _PAYLOADS:
            assert (await store.send("run", "go", payload)).payload == payload
        assert [signal.payload for signal in await store.signals("run")] == _PAYLOADS

    async def test_any_text_is_a_name(self, store: VersionStore) -> None:
        """Signs that mean something elsewhere, long names, and the same one twice."""
        names = ["ü€😀", "", "a'b\"; DROP TABLE signals --", "two\nlines", "n" * 5000, "%", "%"]
        await store.create(new_run())
        for name in names:
            await store.send("run", name, b"1")
        assert [signal.name for signal in await store.signals("run")] == names

    async def test_a_name_that_is_no_unicode_stops_nobody(self, store: VersionStore) -> None:
        """A name that cannot be written is kept in some form or refused; the signals beside it are kept."""
        await store.create(new_run())
        await store.create(new_run("other"))
        await asyncio.gather(store.send("run", "\ud800", b"1"), store.send("other", "go", b"1"), return_exceptions=True)
        assert [signal.name for signal in await store.signals("other")] == ["go"]
        number = len(await store.signals("run")) + 1
        assert (await store.send("run", "go", b"1")).number == number

    async def test_a_signal_needs_no_lease(self, store: VersionStore) -> None:
        """It is sent while somebody owns the run, who notices nothing of it: the run, its chain and lease stay."""
        run = await owned(store, stored=2)
        before = await store.read("run"), list(await store.versions("run"))
        await store.send("run", "go", b"1")
        read = await store.read("run")
        assert (replace(read, wake=None), list(await store.versions("run"))) == before
        await run.append(2, 4)
        await store.release(run.lease, "completed")
        assert (await store.read("run")).status == "completed"

    @pytest.mark.parametrize("status", get_args(Status))
    async def test_a_run_takes_signals_however_it_stands(self, store: VersionStore, status: Status) -> None:
        """Waiting or long over: what is sent is kept, and a claim that was about to be made is still good."""
        run = await owned(store)
        await store.send("run", "before", b"1")
        await store.release(run.lease, status)
        free = await store.read("run")
        await store.send("run", "after", b"2")
        assert replace(await store.read("run"), wake=free.wake) == free
        await store.claim(free)
        assert [signal.name for signal in await store.signals("run")] == ["before", "after"]

    async def test_signals_and_versions_at_once_are_all_kept(self, store: VersionStore) -> None:
        """While a run appends, others send to it, and neither is in the other's way."""
        run = await owned(store, length=21, stored=1)

        async def append() -> None:
            for seq in range(1, 21):
                await run.append(seq, seq + 1)

        await asyncio.gather(append(), *(store.send("run", "go", b"%d" % n) for n in range(20)))
        assert list(await store.versions("run")) == run.versions
        assert {signal.payload for signal in await store.signals("run")} == {b"%d" % n for n in range(20)}

    async def test_signals_of_one_run_are_not_those_of_another(self, store: VersionStore) -> None:
        """Each run counts its own, however similar the ids are."""
        for run_id in ("run", "run.", "Run"):
            await store.create(new_run(run_id))
        for run_id in ("run", "run.", "run"):
            await store.send(run_id, run_id, b"1")
        assert [(signal.run_id, signal.number) for signal in await store.signals("run")] == [("run", 1), ("run", 2)]
        assert [(signal.run_id, signal.number) for signal in await store.signals("run.")] == [("run.", 1)]
        assert list(await store.signals("Run")) == []

    async def test_signals_that_were_read_stay_what_they_were(self, store: VersionStore) -> None:
        """What is sent later is not in a list that was read before, nor is what its reader does in the store."""
        await store.create(new_run())
        first = await store.send("run", "go", b"1")
        read = await store.signals("run")
        second = await store.send("run", "go", b"2")
        assert list(read) == [first]
        if isinstance(read, list):
            read.clear()
        assert list(await store.signals("run")) == [first, second]
