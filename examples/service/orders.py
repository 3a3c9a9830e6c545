"""What becomes of an order: stock, payment, approval, parcel. Should a step fail, all before it is undone."""

from datetime import timedelta
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, Field

from flowneer_async import Context, FlowBuilder, fragment

from .outside import Item, Outside

Ctx: TypeAlias = Context[Outside]

PRICES: dict[Item, int] = {"tea": 4_90, "cup": 12_00, "samovar": 249_00, "glass": 3_50}  # cents
LARGE = 100_00  # cents
PATIENCE = timedelta(days=3)


class Approval(BaseModel):
    granted: bool
    by: str


class Order(BaseModel):
    """A client gives the items; the rest is what has become of them."""

    items: dict[Item, Annotated[int, Field(ge=1, le=100)]] = Field(min_length=1, examples=[{"tea": 2, "cup": 1}])
    cents: int = 0
    payment: str | None = None
    approval: Approval | None = None
    parcel: str | None = None
    problem: str | None = None


class NotGranted(Exception):
    """Somebody has looked at the order, and refused it."""


async def take_down(order: Order) -> None:
    """Nobody but us says what an order costs, whether it is paid, and who has approved of it."""
    order.cents = sum(PRICES[item] * number for item, number in order.items.items())
    order.payment = order.approval = order.parcel = order.problem = None


async def reserve(order: Order, ctx: Ctx) -> None:
    await ctx.deps.take(order.items, key=ctx.idempotency_key)


async def release(order: Order, ctx: Ctx) -> None:
    await ctx.deps.put_back(order.items, key=ctx.idempotency_key)


async def charge(order: Order, ctx: Ctx) -> None:
    order.payment = await ctx.deps.charge(order.cents, key=ctx.idempotency_key)


async def refund(order: Order, ctx: Ctx) -> None:
    assert order.payment is not None
    await ctx.deps.refund(order.payment, key=ctx.idempotency_key)
    order.payment = None


def size(order: Order) -> Literal["large", "small"]:
    return "large" if order.cents > LARGE else "small"


async def approve(order: Order) -> None:
    order.approval = Approval(granted=True, by="the rule for small orders")


async def check_approval(order: Order) -> None:
    if order.approval is None or not order.approval.granted:
        raise NotGranted


async def ship(order: Order, ctx: Ctx) -> None:
    order.parcel = await ctx.deps.ship(order.items, key=ctx.idempotency_key)


async def apologise(order: Order, ctx: Ctx) -> None:
    """Something has failed, and what was done before it is undone by now."""
    assert ctx.failure is not None
    order.problem = f"{ctx.failure.error} in {ctx.failure.step}"


ask_somebody = (
    fragment(Order)
    .wait_for("approval", into="approval", schema=Approval, timeout=PATIENCE.total_seconds())
    .then(check_approval)
)

order = (
    FlowBuilder("order", Order)
    .start_with(take_down)
    .then(reserve, compensate=release)
    .then(charge, compensate=refund, retries=3)
    .branch(size, {"large": ask_somebody, "small": approve})
    .then(ship)
    .on_error(apologise)
)
