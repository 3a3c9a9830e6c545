"""The world outside of the shops: a warehouse, a bank, a carrier, a library; what they did is in a file of their own.

Each call bears a key. One that was there before has been done, and is not done again: so a step that begins anew after
a crash charges nobody twice.
"""

import asyncio
import sqlite3
from collections.abc import Mapping
from types import TracebackType
from typing import Literal, Self, TypeAlias

Item: TypeAlias = Literal["tea", "cup", "samovar", "glass"]

SCHEMA = """
CREATE TABLE IF NOT EXISTS effects (number INTEGER PRIMARY KEY, key TEXT UNIQUE NOT NULL, what TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS stock (item TEXT PRIMARY KEY, number INTEGER NOT NULL CHECK (number >= 0));
INSERT OR IGNORE INTO stock VALUES ('tea', 100), ('cup', 100), ('samovar', 5), ('glass', 5);
"""


class OutOfStock(Exception):
    """There is less left than was ordered."""


class Broken(Exception):
    """The carrier has looked into the box."""


class Outside:
    """To be entered; a page takes `pace` seconds to be written."""

    def __init__(self, path: str, pace: float) -> None:
        self._path, self._pace = path, pace

    def __enter__(self) -> Self:
        self._db = sqlite3.connect(self._path)
        self._db.executescript(SCHEMA)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._db.close()

    async def take(self, items: Mapping[Item, int], key: str) -> None:
        """Take all of it out of the stock, or nothing; raises OutOfStock."""
        try:
            self._move(items, -1, f"take {_listed(items)}", key)
        except sqlite3.IntegrityError:
            raise OutOfStock from None

    async def put_back(self, items: Mapping[Item, int], key: str) -> None:
        self._move(items, +1, f"put back {_listed(items)}", key)

    async def charge(self, cents: int, key: str) -> str:
        """The number of the payment."""
        with self._db:
            return f"payment-{self._note(f'charge {cents}', key)[0]}"

    async def refund(self, payment: str, key: str) -> None:
        with self._db:
            self._note(f"refund {payment}", key)

    async def ship(self, items: Mapping[Item, int], key: str) -> str:
        """The number of the parcel; raises Broken for what is made of glass."""
        if "glass" in items:
            raise Broken
        with self._db:
            return f"parcel-{self._note(f'ship {_listed(items)}', key)[0]}"

    async def write(self, page: int) -> str:
        """A page of a report, which takes its time."""
        await asyncio.sleep(self._pace)
        return f"page {page}: all is well"

    def _move(self, items: Mapping[Item, int], sign: int, what: str, key: str) -> None:
        with self._db:
            _, is_new = self._note(what, key)
            if is_new:
                update = "UPDATE stock SET number = number + ? WHERE item = ?"
                self._db.executemany(update, [(sign * number, item) for item, number in items.items()])

    def _note(self, what: str, key: str) -> tuple[int, bool]:
        """The number of an effect, and whether it is new."""
        note = self._db.execute("INSERT OR IGNORE INTO effects (key, what) VALUES (?, ?)", (key, what))
        (number,) = self._db.execute("SELECT number FROM effects WHERE key = ?", (key,)).fetchone()
        return int(number), note.rowcount == 1


def _listed(items: Mapping[Item, int]) -> str:
    return ", ".join(f"{number} {item}" for item, number in items.items())
