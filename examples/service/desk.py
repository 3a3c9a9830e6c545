"""Taking orders: a client says which items, and we what they cost, whose order it is, and that it is accepted once."""

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Response
from pydantic import BaseModel, Field

from flowneer_async.engine import Engine
from flowneer_async.fastapi import get_engine

from .auth import Shop
from .orders import PRICES, Order, order
from .outside import Item

Number = Annotated[int, Field(ge=1, le=100)]
Key = Annotated[str | None, Header(pattern=r"^[\w.-]{1,60}$")]


class Wanted(BaseModel):
    items: dict[Item, Number] = Field(min_length=1, examples=[{"tea": 2, "cup": 1}])


class Accepted(BaseModel):
    run_id: str
    cents: int


def order_router(shop_of: Shop) -> APIRouter:
    router = APIRouter(tags=["order"])

    @router.post("/orders", status_code=202)
    async def take_down(
        wanted: Wanted,
        response: Response,
        engine: Annotated[Engine, Depends(get_engine)],
        shop: Annotated[str, Depends(shop_of)],
        idempotency_key: Key = None,
    ) -> Accepted:
        """An order. With an Idempotency-Key it is one, however often it is sent."""
        cents = sum(PRICES[item] * number for item, number in wanted.items.items())
        run_id = None if idempotency_key is None else f"order-{shop}-{idempotency_key}"
        handle = await engine.start(order, Order(wanted.items, cents), run_id=run_id, tags={"tenant": shop})
        response.headers["Location"] = f"/runs/{handle.run_id}"
        return Accepted(run_id=handle.run_id, cents=cents)

    return router
