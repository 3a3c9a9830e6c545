"""What the environment says about this service."""

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """`tokens` are the shops by their secret; a page of a report takes `pace` seconds."""

    database: str
    outside: str
    tokens: Mapping[str, str]
    port: int
    pace: float

    @classmethod
    def from_environment(cls) -> "Settings":
        """DATABASE is a file, or a postgresql:// address; TOKENS is `secret=shop secret=shop`."""
        tokens = os.environ.get("TOKENS", "tea-please=tea coffee-please=coffee")
        return cls(
            database=os.environ.get("DATABASE", "shop.db"),
            outside=os.environ.get("OUTSIDE", "shop.outside.db"),
            tokens=dict(word.split("=", 1) for word in tokens.split()),
            port=int(os.environ.get("PORT", "8000")),
            pace=float(os.environ.get("PACE", "0.5")),
        )
