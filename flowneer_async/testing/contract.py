"""The whole contract of a store, to be run by the tests of each."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import wraps
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import pytest

from flowneer_async.store import VersionStore
from flowneer_async.testing.cancelling import CancellingContract
from flowneer_async.testing.dropping import DroppingContract
from flowneer_async.testing.due import DueContract
from flowneer_async.testing.finding import FindingContract
from flowneer_async.testing.flows import FlowsContract
from flowneer_async.testing.purging import PurgingContract
from flowneer_async.testing.reading import ReadingContract
from flowneer_async.testing.runs import RunsContract
from flowneer_async.testing.signals import SignalsContract
from flowneer_async.testing.waking import WakingContract
from flowneer_async.testing.watching import WatchingContract
from flowneer_async.testing.writing import WritingContract

_LONGEST = 60.0  # seconds: a store that never answers fails its test

Made: TypeAlias = VersionStore | AbstractAsyncContextManager[VersionStore]
Kind = TypeVar("Kind", bound=type)


@asynccontextmanager
async def _entered(made: Made) -> AsyncGenerator[VersionStore, None]:
    if isinstance(made, AbstractAsyncContextManager):
        async with made as store:
            yield store
    else:
        yield made


def _on_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """An async test of an entered store, as a test that needs no plugin and cannot meet another's settings."""

    @wraps(test)
    def run(self: object, store: Made, **fixtures: object) -> None:
        async def main() -> None:
            async with asyncio.timeout(_LONGEST), _entered(store) as entered:
                await test(self, store=entered, **fixtures)

        asyncio.run(main())

    return run


def _each_on_a_loop(contract: Kind) -> Kind:
    for name in dir(contract):
        test = getattr(contract, name)
        if name.startswith("test_") and iscoroutinefunction(test):
            setattr(contract, name, _on_a_loop(test))
    return contract


@_each_on_a_loop
class StoreContract(
    CancellingContract,
    FindingContract,
    FlowsContract,
    DroppingContract,
    DueContract,
    PurgingContract,
    ReadingContract,
    RunsContract,
    SignalsContract,
    WakingContract,
    WatchingContract,
    WritingContract,
):
    """Every promise of `VersionStore`, as a pytest class: derive one from it whose name begins with Test.

    `make_store` gives a new and empty store for each test, either one to be used as it is, or one to be entered with
    `async with`. Every test runs on an asyncio loop of its own, whichever plugins for async tests there are.
    """

    def make_store(self, tmp_path: Path) -> Made:
        """A new store; files of it go into `tmp_path`."""
        raise NotImplementedError(f"{type(self).__name__} needs a method make_store(self, tmp_path)")

    @pytest.fixture
    def store(self, tmp_path: Path) -> Made:
        """The store of one test."""
        return self.make_store(tmp_path)
