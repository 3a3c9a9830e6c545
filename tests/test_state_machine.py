"""Random runs, failures, crashes, resumes and forks: both stores, and a plain dict, in lock step."""

import asyncio
import dataclasses
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from flowneer_async import Context, FlowBuilder, FlowError, VersionStore
from flowneer_async.testing import Crash, CrashingStore
from flowneer_stores import MemoryStore, SqliteStore
from tests.support.chains import stored_states

State = dict[str, Any]

# Steps ----------------------------------------------------------------------------------------------------------------


def append(state: State) -> None:
    state["list"].append({"n": len(state["list"]), "at": [state["seed"]]})


def lengthen(state: State) -> None:
    state["text"] = state.get("text", "") + f"ü{state['seed']}" * 40


def replace(state: State) -> None:
    state["temporary"] = {"x": state["seed"], "long": list(range(state["seed"] % 50))}


def nothing(state: State) -> None:
    """A marker."""


def remove(state: State) -> None:
    state.pop("temporary")
    state["list"][0]["n"] = state["seed"] / 2


def shorten(state: State) -> None:
    state["text"] = state["text"][3:]


STEPS: tuple[Callable[[State], None], ...] = (append, lengthen, replace, nothing, remove, shorten)


@dataclass(frozen=True)
class Trouble:
    """What happens to one call of run: at `step` it fails or is torn down, or its store dies at append `at`."""

    step: int = -1
    error: type[BaseException] = ValueError
    at: int = 0
    stored: bool = False


def step_number(index: int) -> Callable[[State, Context[Trouble]], None]:
    def call(state: State, ctx: Context[Trouble]) -> None:
        if index == ctx.deps.step:
            state["half"] = "done"  # what a step changed before it failed is no part of any version
            raise ctx.deps.error
        STEPS[index](state)

    return call


FLOW = FlowBuilder[State]("random")
for number, each in enumerate(STEPS):
    FLOW = FLOW.then(step_number(number), name=each.__name__)

no_trouble = st.just(Trouble())
step_trouble = st.builds(Trouble, st.integers(0, len(STEPS) - 1), st.sampled_from((ValueError, Crash)))
store_trouble = st.builds(Trouble, at=st.integers(1, len(STEPS)), stored=st.booleans())
troubles = no_trouble | step_trouble | store_trouble

# Model ----------------------------------------------------------------------------------------------------------------


@dataclass
class Chain:
    """What is known of a run: what its root holds, how many steps were passed there, and the state at each version."""

    first: State
    passed: int = 0
    origin: str = ""
    """The version it was forked from."""
    states: list[State] = field(default_factory=list[State])

    @property
    def done(self) -> bool:
        return self.passed + len(self.states) - 1 == len(STEPS)

    def go_on(self, trouble: Trouble) -> bool:
        """Make the versions that one call of run makes, until it is done or in trouble; is it done?"""
        left = trouble.at
        while not self.done:
            step = self.passed + len(self.states) - 1
            if step == trouble.step:
                return False
            left -= 1
            if left or trouble.stored:
                self._step(step)
            if not left:
                return False
        return True

    def begin(self, trouble: Trouble) -> bool:
        """Make the root, and go on."""
        if trouble.at != 1 or trouble.stored:
            self.states.append(deepcopy(self.first))
        return trouble.at != 1 and self.go_on(dataclasses.replace(trouble, at=max(0, trouble.at - 1)))

    def _step(self, index: int) -> None:
        state = deepcopy(self.states[-1])
        STEPS[index](state)
        self.states.append(state)


class DyingStore(CrashingStore):
    """Dies at the append of that number: the root is the first, and what makes no version does not count."""

    async def _commit(self, name: str, work: Callable[[VersionStore], Awaitable[Any]]) -> Any:
        return await (work(self._alive) if name in ("claim", "release") else super()._commit(name, work))


# Machine --------------------------------------------------------------------------------------------------------------


class Histories(RuleBasedStateMachine):
    """Whatever happens, every store holds what the model does."""

    runs = Bundle("runs")

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[str, Chain] = {}
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.stores = self.loop.run(self.open())

    async def open(self) -> tuple[VersionStore, ...]:
        sqlite = await self.stack.enter_async_context(SqliteStore(Path(self.folder.name) / "runs.db"))
        return MemoryStore(), sqlite

    def teardown(self) -> None:
        self.loop.run(self.stack.aclose())
        self.loop.close()
        self.folder.cleanup()

    @rule(target=runs, seed=st.integers(0, 1000), trouble=troubles)
    def start(self, seed: int, trouble: Trouble) -> str:
        """A new run."""
        return self.begin(f"run-{len(self.model)}", Chain({"seed": seed, "list": []}), trouble)

    @rule(target=runs, origin=runs, data=st.data(), trouble=troubles)
    def fork(self, origin: str, data: st.DataObject, trouble: Trouble) -> str:
        """A new run from any version of any other."""
        source = self.model[origin]
        if not source.states:
            return origin
        seq = data.draw(st.integers(0, len(source.states) - 1))
        chain = Chain(source.states[seq], source.passed + seq, f"{origin}@{seq}")
        return self.begin(f"fork-{len(self.model)}", chain, trouble)

    @rule(run_id=runs, trouble=troubles)
    def resume(self, run_id: str, trouble: Trouble) -> None:
        """The same id again: it goes on, or gives its result; one that died before its root was stored begins anew."""
        chain = self.model[run_id]
        if chain.states:
            self.call(run_id, None, trouble, chain.go_on(trouble))
        else:
            self.begin(run_id, chain, trouble)

    def begin(self, run_id: str, chain: Chain, trouble: Trouble) -> str:
        self.model[run_id] = chain
        done = chain.begin(trouble)
        self.call(run_id, None if chain.origin else chain.first, trouble, done, chain.origin)
        return run_id

    def call(self, run_id: str, state: State | None, trouble: Trouble, done: bool, origin: str = "") -> None:
        """Do it with every store, and compare how it ended."""
        for store in self.stores:
            used = DyingStore(store, trouble.at, "after" if trouble.stored else "before") if trouble.at else store
            bound = FLOW.resume_from(origin, used) if origin else FLOW.with_versioned_checkpoint(used)
            self.loop.run(self.compared(bound, run_id, deepcopy(state), trouble, done))

    async def compared(
        self, flow: FlowBuilder[State], run_id: str, state: State | None, trouble: Trouble, done: bool
    ) -> None:
        chain = self.model[run_id]
        if not done:
            with pytest.raises((FlowError, Crash)):
                await flow.run(state, run_id=run_id, deps=trouble)
            return
        result = await flow.run(state, run_id=run_id, deps=trouble)
        assert result.state == chain.states[-1]
        assert (result.version, result.status) == (f"{run_id}@{len(chain.states) - 1}", "completed")

    @invariant()
    def every_version_is_what_the_model_says(self) -> None:
        """Chains are whole, and hold the states of the model, in every store."""
        for store in self.stores:
            for run_id, chain in self.model.items():
                assert self.loop.run(stored_states(store, run_id)) == chain.states
                if chain.states:
                    run = self.loop.run(store.read(run_id))
                    assert run.owner is None
                    assert run.status != "completed" or chain.done


def checked(examples: int, *more: Phase) -> None:
    chosen = settings(
        max_examples=examples,
        stateful_step_count=15,
        deadline=None,
        phases=[Phase.reuse, Phase.generate, *more],
        suppress_health_check=[HealthCheck.too_slow],
    )
    run_state_machine_as_test(Histories, settings=chosen)


def test_whatever_happens_every_store_holds_what_the_model_does() -> None:
    """Some random histories."""
    checked(15)


@pytest.mark.torture
def test_whatever_happens_for_long_every_store_holds_what_the_model_does() -> None:
    """Many random histories, and the shortest of those that fail."""
    checked(1500, Phase.shrink)
