"""Two services, each a process of its own: the routes of an engine, and a handler that makes one durable insert."""

import signal
import socket
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from time import process_time
from typing import TypeAlias

import uvicorn
from fastapi import FastAPI, Response
from pydantic import BaseModel

from benchmarks import bare
from flowneer_async import FlowBuilder
from flowneer_async.engine import Engine
from flowneer_async.fastapi import flow_router
from flowneer_stores import SqliteStore

Make: TypeAlias = Callable[[Path], FastAPI]
"""Makes an app whose file is in this folder."""

OURS, PEER, CPU = "/flows/order/runs", "/orders", "/cpu"

_IDLE = 600  # seconds for which a connection may be idle: longer than anything here takes


class Line(BaseModel):
    article: str
    number: int


class Order(BaseModel):
    customer: str
    lines: list[Line]
    note: str | None = None
    is_confirmed: bool = False


class Placed(BaseModel):
    run_id: str
    flow: str


ORDER = Order(customer="c-1024", lines=[Line(article=f"a-{number}", number=number) for number in range(1, 5)])


async def confirm(order: Order) -> None:
    order.is_confirmed = True


def ours(folder: Path) -> FastAPI:
    """The routes of an engine, to which a flow of one step is known."""
    engine = Engine(SqliteStore(folder / "ours.db"), [FlowBuilder("order", Order).then(confirm)])
    app = FastAPI(lifespan=engine.lifespan)
    app.include_router(flow_router(engine, allow_anonymous=True))
    return _with_cpu(app)


def peer(folder: Path) -> FastAPI:
    """Validates the same body, inserts it, and answers with the same."""
    numbers = count(1)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with bare.opened(folder / "peer.db") as db:
            app.state.db = db
            yield

    app = FastAPI(lifespan=lifespan)

    async def place(order: Order, response: Response) -> Placed:
        number = next(numbers)
        await app.state.db.execute(bare.INSERT, (number, 0, order.model_dump_json()))
        response.headers["Location"] = f"/orders/{number}"
        return Placed(run_id=f"{number:032}", flow="order")

    app.add_api_route(PEER, place, methods=["POST"], status_code=202)
    return _with_cpu(app)


@contextmanager
def served(make: Make, folder: Path) -> Generator[int]:
    """An app under uvicorn, in a process of its own; gives its port. It answers whoever connects once it has begun."""
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(make, folder, there))
    process.start()
    try:
        yield int(here.recv())
    finally:
        process.terminate()
        process.join()
    assert process.exitcode in (0, -signal.SIGTERM), process.exitcode


def _serve(make: Make, folder: Path, there: Connection) -> None:
    # Named TCP, or asyncio leaves Nagle's algorithm on: then each response waits for some 40 ms.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(256)
        there.send(listening.getsockname()[1])
        config = uvicorn.Config(make(folder), log_level="critical", access_log=False, timeout_keep_alive=_IDLE)
        uvicorn.Server(config).run([listening])


def _with_cpu(app: FastAPI) -> FastAPI:
    """It tells, too, how much of the processor it has used."""

    async def cpu() -> float:
        return process_time()

    app.add_api_route(CPU, cpu)
    return app
