"""What a process of a service holds: tasks, files, and what is in memory of runs."""

from collections.abc import Mapping

import httpx


async def held(client: httpx.AsyncClient) -> Mapping[str, int]:
    """How much of each kind, now."""
    found: Mapping[str, int] = (await client.get("/held")).json()
    return found


async def holds_no_more(client: httpx.AsyncClient, before: Mapping[str, int]) -> bool:
    """Is that, of each kind, as much as before, or less?"""
    now = await held(client)
    return all(now[name] <= number for name, number in before.items())
