"""The world outside of an order: the desk that takes it, a warehouse, a bank, a carrier; all of it in one SQLite file.

Every effect is a row, and is said. One whose key is there already has been done, and is not done again; only the bank
takes no keys.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import NamedTuple, Self

SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (number INTEGER PRIMARY KEY, items TEXT NOT NULL, patience REAL NOT NULL);
CREATE TABLE IF NOT EXISTS effects (number INTEGER PRIMARY KEY, key TEXT UNIQUE, who TEXT NOT NULL, what TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS stock (item TEXT PRIMARY KEY, number INTEGER NOT NULL CHECK (number >= 0));
INSERT OR IGNORE INTO stock VALUES ('tea', 100), ('cup', 100), ('samovar', 5), ('glass', 5);
"""
PRICES = {"tea": 4_90, "cup": 12_00, "samovar": 249_00, "glass": 3_50}  # cents


class OutOfStock(Exception):
    """There is less left than was ordered."""


class Broken(Exception):
    """The carrier has looked into the box."""


class Ordered(NamedTuple):
    """What somebody has ordered, and how long they would wait."""

    run_id: str
    items: dict[str, int]
    patience: float


class Outside:
    """`slow` is how many seconds each effect takes after it is done: time to kill whoever waits for it."""

    def __init__(self, path: str, slow: float = 0, say: Callable[[str], None] = print) -> None:
        self._db, self._slow, self._say = sqlite3.connect(path), slow, say

    def __enter__(self) -> Self:
        self._db.executescript(SCHEMA)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._db.close()

    # The desk

    def order(self, items: Mapping[str, int], patience: float) -> Ordered:
        """Take an order down, and give it a number."""
        text = " ".join(f"{item}={number}" for item, number in items.items())
        with self._db:
            found = self._db.execute("INSERT INTO orders (items, patience) VALUES (?, ?)", (text, patience))
        return Ordered(f"order-{found.lastrowid}", dict(items), patience)

    def orders(self) -> list[Ordered]:
        """All orders, in the order they came."""
        rows = self._db.execute("SELECT number, items, patience FROM orders ORDER BY number")
        return [Ordered(f"order-{number}", counted(text.split()), patience) for number, text, patience in rows]

    # The warehouse

    async def take(self, items: Mapping[str, int], key: str) -> None:
        """Take it all or nothing; raises OutOfStock."""
        await self._move({item: -number for item, number in items.items()}, f"take {listed(items)}", key)

    async def put_back(self, items: Mapping[str, int], key: str) -> None:
        await self._move(items, f"put back {listed(items)}", key)

    async def _move(self, items: Mapping[str, int], what: str, key: str) -> None:
        try:
            with self._db:
                if is_new := self._note("warehouse", what, key):
                    update = "UPDATE stock SET number = number + ? WHERE item = ?"
                    self._db.executemany(update, [(number, item) for item, number in items.items()])
        except sqlite3.IntegrityError:
            raise OutOfStock from None
        await self._said("warehouse", what, is_new)

    # The bank

    async def charge(self, order: str, cents: int) -> int:
        """Charge the card, each time that it is called; the number of the payment."""
        with self._db:
            self._note("bank", f"charge {cents} cents for {order}", None)
        await self._said("bank", f"charge {cents} cents for {order}", True)
        return self._last_payment(order) or 0

    async def payment_of(self, order: str) -> int | None:
        """The number of the last payment for an order, if there was one."""
        payment = self._last_payment(order)
        self._say(f"  bank: {order} was {'not ' if payment is None else ''}charged before")
        return payment

    def _last_payment(self, order: str) -> int | None:
        query = "SELECT max(number) FROM effects WHERE who = 'bank' AND what LIKE 'charge % for ' || ?"
        found: tuple[int | None] = self._db.execute(query, (order,)).fetchone()
        return found[0]

    # The others

    async def ship(self, number: int, item: str, key: str) -> None:
        """Raises Broken for what is made of glass."""
        if item == "glass":
            raise Broken
        await self.tell("carrier", f"ship {number} {item}", key)

    async def tell(self, who: str, what: str, key: str) -> None:
        """Have somebody do something."""
        with self._db:
            is_new = self._note(who, what, key)
        await self._said(who, what, is_new)

    def _note(self, who: str, what: str, key: str | None) -> bool:
        insert = "INSERT OR IGNORE INTO effects (key, who, what) VALUES (?, ?, ?)"
        return self._db.execute(insert, (key, who, what)).rowcount == 1

    async def _said(self, who: str, what: str, is_new: bool) -> None:
        self._say(f"  {who}: {what}" if is_new else f"  {who}: {what} (was done before)")
        await asyncio.sleep(self._slow)


def counted(words: list[str]) -> dict[str, int]:
    """`["tea=2", "cup=1"]` as numbers; raises ValueError."""
    items: dict[str, int] = {}
    for item, _, number in (word.partition("=") for word in words):
        if item not in PRICES or not number.isdecimal() or not int(number):
            raise ValueError(f"{item}={number}: say how many of {', '.join(PRICES)}, tea=2")
        items[item] = items.get(item, 0) + int(number)
    return items


def listed(items: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {item}" for item, number in items.items())
