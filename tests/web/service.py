"""A small service over HTTP: flows with states of every kind, two tenants, and clients of theirs."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, NotRequired, TypedDict

import httpx
import msgspec
from fastapi import Depends, FastAPI, Header, HTTPException
from pydantic import BaseModel

from flowneer_async import Context, FlowBuilder, Run, VersionStore
from flowneer_async.engine import Engine
from flowneer_async.fastapi import flow_router, health_router
from flowneer_stores import MemoryStore


class Approval(BaseModel):
    by: str
    amount: int = 0


@dataclass
class Order:
    item: str
    notes: list[str] = field(default_factory=list)
    approval: Approval | None = None


class Ticket(TypedDict):
    title: str
    steps: NotRequired[list[str]]


class Job(msgspec.Struct):
    what: str
    done: bool = False


class Page(BaseModel):
    url: str
    words: int = 0


def reserve(state: Order) -> None:
    state.notes.append("reserved")


def ship(state: Order) -> None:
    state.notes.append("shipped")


def fetch(state: dict[str, Any]) -> None:
    state["pages"] = 3


def fail(state: dict[str, Any]) -> None:
    if not state.get("is_well"):
        raise RuntimeError("secret")


async def ask(state: dict[str, Any], ctx: Context[object]) -> None:
    state["answer"] = await ctx.interrupt({"which": "colour"})


def handle(state: Ticket) -> None:
    state["steps"] = ["handled"]


def work(state: Job) -> None:
    state.done = True


def count(state: Page) -> None:
    state.words = len(state.url)


order = (
    FlowBuilder("order", Order).start_with(reserve).wait_for("approved", into="approval", schema=Approval).then(ship)
)
report = FlowBuilder("report").start_with(fetch)
failing = FlowBuilder("failing").start_with(fetch).then(fail)
asking = FlowBuilder("asking").start_with(ask).wait_for("done")
ticket = FlowBuilder("ticket", Ticket).start_with(handle)
job = FlowBuilder("job", Job).start_with(work)
page = FlowBuilder("page", Page).start_with(count)

FLOWS: Sequence[FlowBuilder[Any]] = (order, report, failing, asking, ticket, job, page)

PEOPLE = {"Bearer of-alice": "alice", "Bearer of-bob": "bob"}


def auth(authorization: Annotated[str, Header()] = "") -> str:
    """Who asks: 401 for nobody."""
    if authorization not in PEOPLE:
        raise HTTPException(401, headers={"WWW-Authenticate": "Bearer"})
    return PEOPLE[authorization]


@dataclass
class Service:
    app: FastAPI
    engine: Engine
    alice: httpx.AsyncClient
    bob: httpx.AsyncClient
    nobody: httpx.AsyncClient

    async def started(self, flow: str, state: object, *until: str) -> str:
        """The id of a new run of Alice's, when it stands so."""
        response = await self.alice.post(f"/flows/{flow}/runs", json=state)
        assert response.status_code == 202, response.text
        run_id: str = response.json()["run_id"]
        await self.stands(run_id, *until or ("completed",))
        return run_id

    async def stands(self, run_id: str, *statuses: str) -> Run:
        """The run, when it stands so."""
        store = self.engine.store
        async with store.changes(run_id) as changed:
            while (run := await store.read(run_id)).status not in statuses or run.begun is None:
                await changed()
        return run


def app_of(engine: Engine) -> FastAPI:
    """An app with the routes of an engine, and nothing else."""
    app = FastAPI(lifespan=engine.lifespan)
    app.include_router(flow_router(engine, dependencies=[Depends(auth)], tenant=auth, max_body=100_000))
    app.include_router(health_router(engine))
    return app


@asynccontextmanager
async def service(
    flows: Sequence[FlowBuilder[Any]] = FLOWS, store: VersionStore | None = None
) -> AsyncIterator[Service]:
    """A service at work."""
    engine = Engine(store or MemoryStore(), flows=flows)
    app = app_of(engine)
    async with (
        engine.lifespan(app),
        client_of(app, "Bearer of-alice") as alice,
        client_of(app, "Bearer of-bob") as bob,
        client_of(app) as nobody,
    ):
        yield Service(app, engine, alice, bob, nobody)


def client_of(app: Any, authorization: str = "", root_path: str = "") -> httpx.AsyncClient:
    """Somebody who talks to an app."""
    headers = {"authorization": authorization} if authorization else {}
    transport = httpx.ASGITransport(app, root_path=root_path)
    return httpx.AsyncClient(transport=transport, base_url="http://service", headers=headers)
