"""The whole contract of a store, to be run by the tests of each."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import cast

import pytest

from flowneer_async.store import VersionStore
from flowneer_async.testing.cancelling import CancellingContract
from flowneer_async.testing.flows import FlowsContract
from flowneer_async.testing.reading import ReadingContract
from flowneer_async.testing.runs import RunsContract
from flowneer_async.testing.writing import WritingContract


class StoreContract(CancellingContract, FlowsContract, ReadingContract, RunsContract, WritingContract):
    """Every promise of `VersionStore`, as a pytest class: derive one from it whose name begins with Test.

    `make_store` gives a new and empty store, either one to be used as it is, or one to be entered (`async with`).
    The tests are async; pytest-asyncio runs them in either of its modes, and so does the plugin that comes with anyio.
    """

    pytestmark = pytest.mark.anyio

    def make_store(self, tmp_path: Path) -> VersionStore | AbstractAsyncContextManager[VersionStore]:
        """A new store; files of it go into `tmp_path`."""
        raise NotImplementedError(
            f"{type(self).__name__} has to say how a store is made: def make_store(self, tmp_path)"
        )

    @pytest.fixture
    def anyio_backend(self) -> str:
        """What the tests are run on."""
        return "asyncio"

    @pytest.fixture
    async def store(self, tmp_path: Path, anyio_backend: str) -> AsyncIterator[VersionStore]:
        """The store of one test, closed after it."""
        made = self.make_store(tmp_path)
        async with AsyncExitStack() as stack:
            if isinstance(made, AbstractAsyncContextManager):
                made = await stack.enter_async_context(cast(AbstractAsyncContextManager[VersionStore], made))
            yield made
