"""States of the kind that flows have, the same ones each time: records of texts, numbers, flags and lists."""

from random import Random
from typing import Any, TypeAlias

import orjson

State: TypeAlias = dict[str, Any]

WORDS = (
    "order",
    "invoice",
    "customer",
    "Zürich",
    "café",
    "東京",
    "price",
    "shipped",
    "pending",
    "parcel",
    "the",
    "of",
    "a",
)


def text(random: Random, length: int) -> str:
    """Words, cut to `length` characters."""
    return " ".join(random.choices(WORDS, k=length // 2 + 1))[:length]


def record(random: Random, number: int) -> State:
    """About 250 bytes of JSON."""
    return {
        "id": number,
        "name": text(random, 24),
        "price": round(random.uniform(1, 500), 2),
        "stock": random.randrange(10_000),
        "score": random.random(),
        "active": random.random() < 0.8,
        "note": text(random, 60) if number % 3 else None,
        "tags": random.choices(WORDS, k=4),
        "history": [random.randrange(100_000) for _ in range(6)],
    }


def records(random: Random, size: int) -> list[State]:
    """Records that take about `size` bytes of JSON."""
    found: list[State] = []
    while size > 0:
        found.append(record(random, len(found)))
        size -= len(orjson.dumps(found[-1])) + 1
    return found


def keyed(random: Random, size: int) -> State:
    """A counter, and 19 keys of records, `size` bytes in all."""
    return {"counter": 0} | {f"part_{number}": records(random, size // 19) for number in range(19)}


def tree(random: Random, size: int) -> State:
    """Nested dicts, five levels of them, with records as leaves."""
    regions: State = {}
    for region in range(10):
        shops = {f"shop-{shop}": {"stock": {"items": records(random, size // 100)}} for shop in range(10)}
        regions[f"region-{region}"] = {"open": True, "shops": shops}
    return regions
