"""A shop in a terminal. What becomes of an order is written in order_flow.py: read that first.

    python examples/order.py start tea=2 cup=1          a small order goes straight through
    python examples/order.py start samovar=1 tea=1      one of more than 100.00 waits for somebody's approval
    python examples/order.py approve order-2            from any terminal; or refuse it
    python examples/order.py list
    python examples/order.py status order-2             --mermaid draws it
    python examples/order.py resume                     goes on with what was killed, and with what has waited too long

Some things to try:

    start --slow 2 tea=2           kill it half-way, with Ctrl-C or `kill -9`, and `resume`
    start --patience 10 samovar=1  let the time pass, and `resume`: the card is refunded, the stock released
    start glass=1 cup=1            glass breaks on the way
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from order_flow import FLOW, Order
from order_outside import PRICES, Ordered, Outside, counted, listed

from flowneer_async import FlowBuilder, FlowneerError, RunBusy, Status, UnknownRun, Waiting, World
from flowneer_stores import SqliteStore

STANDING = {
    "running": "is under way, or was killed",
    "cancelled": "was interrupted",
    "failed": "has failed",
    "completed": "is on its way",
}


class Shop:
    """What the commands do."""

    def __init__(self, flow: FlowBuilder[Order], outside: Outside, world: World) -> None:
        self._flow, self._outside, self._world = flow, outside, world

    async def start(self, items: dict[str, int], patience: float) -> None:
        await self._run(self._outside.order(items, patience))

    async def answer(self, run_id: str, granted: bool) -> None:
        ordered = self._find(run_id)
        if await self._is_over(ordered):
            raise ValueError(f"nobody asks: {await self._standing(ordered)}")
        await self._flow.signal(run_id, "approval", {"granted": granted, "by": "you"})
        await self._run(ordered)

    async def resume(self, run_id: str | None) -> None:
        for ordered in self._outside.orders() if run_id is None else [self._find(run_id)]:
            if run_id or not await self._is_over(ordered):
                try:
                    await self._run(ordered)
                except RunBusy as busy:
                    print(busy)

    async def list(self) -> None:
        for ordered in self._outside.orders():
            print(f"{listed(ordered.items)}: {await self._standing(ordered)}")

    async def status(self, run_id: str) -> None:
        ordered = self._find(run_id)
        print(f"{listed(ordered.items)}, {cents(ordered) / 100:.2f}: {await self._standing(ordered)}")
        plan = await self._flow.plan_resume(run_id)
        for mark, paths in (("done", plan.skipped), (plan.status, plan.again)):
            for path in paths:
                print(f"  {mark:<9} {path}")

    async def mermaid(self, run_id: str) -> None:
        print(self._flow.to_mermaid((await self._flow.plan_resume(run_id)).progress))

    async def _run(self, ordered: Ordered) -> None:
        """Begin an order, or go on with it: an order that was killed before it began begins now."""
        order = Order(ordered.items, cents(ordered), ordered.patience)
        print(f"{ordered.run_id}: {listed(ordered.items)}")
        result = await self._flow.run(order, run_id=ordered.run_id, deps=self._outside, world=self._world)
        print(standing(result.run_id, result.status, result.waits, result.state))

    async def _standing(self, ordered: Ordered) -> str:
        """How it stands with an order; nothing is done to it."""
        try:
            plan = await self._flow.plan_resume(ordered.run_id)
        except UnknownRun:
            return f"{ordered.run_id} has not begun"
        stored = await self._flow.resolve(plan.version)
        return standing(plan.run_id, plan.status, plan.waits, stored.state)

    async def _is_over(self, ordered: Ordered) -> bool:
        try:
            return (await self._flow.plan_resume(ordered.run_id)).status == "completed"
        except UnknownRun:
            return False

    def _find(self, run_id: str) -> Ordered:
        for ordered in self._outside.orders():
            if ordered.run_id == run_id:
                return ordered
        raise ValueError(f"{run_id}: no such order, see list")


def cents(ordered: Ordered) -> int:
    return sum(PRICES[item] * number for item, number in ordered.items.items())


def standing(run_id: str, status: Status, waits: Sequence[Waiting], order: Order) -> str:
    """How it stands with an order, in a line."""
    if status == "waiting":
        until = datetime.fromtimestamp((waits[0].until or 0) / 1000)
        return f"{run_id} waits for an approval until {until:%H:%M:%S}"
    if order.problem:
        return f"{run_id} failed, and all was undone: {order.problem}"
    return f"{run_id} {STANDING[status]}"


async def run(options: argparse.Namespace, world: World) -> None:
    """Do what the command line says; raises ValueError and FlowneerError."""
    outside = str(Path(options.db).with_suffix(".outside.db"))
    with Outside(outside, getattr(options, "slow", 0)) as deps:
        async with SqliteStore(options.db, now=world.now) as store:
            shop = Shop(FLOW.with_versioned_checkpoint(store), deps, world)
            match options.command:
                case "start":
                    await shop.start(counted(options.items), options.patience)
                case "approve" | "refuse":
                    await shop.answer(options.order, options.command == "approve")
                case "resume":
                    await shop.resume(options.order)
                case "status" if options.mermaid:
                    await shop.mermaid(options.order)
                case "status":
                    await shop.status(options.order)
                case _:
                    await shop.list()


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    about, _, more = (__doc__ or "").partition("\n\n")
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=about, epilog=more, formatter_class=style)
    parser.add_argument("--db", default="orders.db", help="where the runs are stored (default: %(default)s)")
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("start")
    start.add_argument("items", nargs="+", metavar="ITEM=NUMBER")
    start.add_argument("--patience", type=float, default=60, metavar="SECONDS", help="for an approval (default: 60)")
    commands.add_parser("approve").add_argument("order")
    commands.add_parser("refuse").add_argument("order")
    resume = commands.add_parser("resume")
    resume.add_argument("order", nargs="?")
    for parts in (start, resume):
        parts.add_argument("--slow", type=float, default=0, metavar="SECONDS", help="let every effect take so long")
    status = commands.add_parser("status")
    status.add_argument("order")
    status.add_argument("--mermaid", action="store_true", help="as a Mermaid flowchart")
    commands.add_parser("list")
    return parser.parse_args(argv)


def main(argv: Sequence[str], world: World = World()) -> int:  # noqa: B008 - it is a value
    try:
        asyncio.run(run(arguments(argv), world))
    except (ValueError, FlowneerError) as error:
        print(f"order: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped: `resume` goes on.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
