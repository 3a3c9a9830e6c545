"""What becomes of an order: stock, payment, approval, parcel. Should a step fail, all before it is undone."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, TypeAlias

from flowneer_async import Context, FlowBuilder, fragment

from .outside import Item, Outside

Ctx: TypeAlias = Context[Outside]

PRICES: dict[Item, int] = {"tea": 4_90, "cup": 12_00, "samovar": 249_00, "glass": 3_50}  # cents
LARGE = 100_00  # cents
PATIENCE = timedelta(days=3)


@dataclass
class Approval:
    granted: bool
    by: str


@dataclass
class Order:
    items: Mapping[Item, int]
    cents: int
    payment: str | None = None
    approval: Approval | None = None
    parcel: str | None = None
    problem: str | None = None


class NotGranted(Exception):
    """Somebody has looked at the order, and refused it."""


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
    .start_with(reserve, compensate=release)
    .then(charge, compensate=refund, retries=3)
    .branch(size, {"large": ask_somebody, "small": approve})
    .then(ship)
    .on_error(apologise)
)
