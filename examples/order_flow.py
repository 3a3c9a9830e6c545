"""What becomes of an order: stock, payment, approval, parcels. Should a step fail, all before it is undone, in reverse.

The steps talk to a warehouse, a bank and so on, which are `ctx.deps`. With each call goes a key, by which those outside
tell a second call after a crash from a new one. Only the bank takes no keys.
"""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from order_outside import Outside

from flowneer_async import Context, FlowBuilder, fragment, reducers

LARGE = 100_00  # cents

Ctx: TypeAlias = Context[Outside]


@dataclass
class Approval:
    granted: bool
    by: str


@dataclass
class Order:
    items: dict[str, int]  # how many of each
    cents: int
    patience: float  # how many seconds an approval may take
    payment: int | None = None
    approval: Approval | None = None
    parcels: list[str] = field(default_factory=list[str])
    problem: str | None = None


class NotGranted(Exception):
    """Somebody has looked at the order, and refused it."""


async def reserve(order: Order, ctx: Ctx) -> None:
    await ctx.deps.take(order.items, key=ctx.idempotency_key)


async def release(order: Order, ctx: Ctx) -> None:
    await ctx.deps.put_back(order.items, key=ctx.idempotency_key)


async def charge(order: Order, ctx: Ctx) -> None:
    """Asked twice, the bank charges twice. So this is done at most once."""
    order.payment = await ctx.deps.charge(ctx.run_id, order.cents)


async def was_charged(order: Order, ctx: Ctx) -> bool:
    """After a crash in the middle of `charge`: let us see. What that step would have changed is changed here."""
    order.payment = await ctx.deps.payment_of(ctx.run_id)
    return order.payment is not None


async def refund(order: Order, ctx: Ctx) -> None:
    await ctx.deps.tell("bank", f"refund payment {order.payment}", key=ctx.idempotency_key)


def size(order: Order) -> Literal["large", "small"]:
    return "large" if order.cents > LARGE else "small"


async def approve_by_rule(order: Order) -> None:
    order.approval = Approval(True, by="the rule for small orders")


async def check_approval(order: Order) -> None:
    if order.approval is None or not order.approval.granted:
        raise NotGranted


async def ship(order: Order, ctx: Ctx) -> None:
    item = str(ctx.item)
    await ctx.deps.ship(order.items[item], item, key=ctx.idempotency_key)
    order.parcels.append(item)


async def recall(order: Order, ctx: Ctx) -> None:
    await ctx.deps.tell("carrier", f"bring back {ctx.item}", key=ctx.idempotency_key)


async def mail(order: Order, ctx: Ctx) -> None:
    await ctx.deps.tell("mail", f"on their way: {', '.join(order.parcels)}", key=ctx.idempotency_key)


async def log(order: Order, ctx: Ctx) -> None:
    await ctx.deps.tell("log", f"sold for {order.cents} cents", key=ctx.idempotency_key)


async def apologise(order: Order, ctx: Ctx) -> None:
    """Something has failed, and what was done before is undone by now."""
    assert ctx.failure is not None
    order.problem = f"{ctx.failure.error} in {ctx.failure.step}"
    await ctx.deps.tell("mail", f"we are sorry, we cannot deliver: {order.problem}", key=ctx.idempotency_key)


ask_somebody = (
    fragment(Order)
    .wait_for("approval", into="approval", schema=Approval, timeout=lambda order: order.patience)
    .then(check_approval)
)

# `on_error="wait"`: a lane that is cut off in the middle of `ship` may have shipped, and would not be recalled.
FLOW = (
    FlowBuilder("order", Order)
    .start_with(reserve, compensate=release)
    .then(charge, delivery="at_most_once", verify=was_charged, compensate=refund)
    .branch(size, {"large": ask_somebody, "small": approve_by_rule})
    .batch(
        lambda order: order.items,
        fragment(Order).then(ship, compensate=recall),
        name="parcels",
        concurrency=3,
        on_error="wait",
        reducer={"parcels": reducers.append},
    )
    .parallel([mail, log], name="notify")
    .on_error(apologise)
)
