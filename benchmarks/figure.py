"""One line of the table: what was measured, beside what, and what is promised."""

from dataclasses import dataclass
from statistics import median, quantiles

KB = 1024
MB = 1024 * KB


@dataclass(frozen=True, slots=True)
class Figure:
    """`kept` says whether the promise is kept; None where nothing is promised. `ratio` is NaN without a peer."""

    name: str
    ours: str
    peer: str
    ratio: float
    limit: str = ""
    kept: bool | None = None
    spread: str = ""
    """Between which ratios the middle half of the rounds was, where there were rounds."""

    @property
    def verdict(self) -> str:
        return {True: "ok", False: "OVER", None: ""}[self.kept]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Seconds that the two took, round by round."""

    ours: list[float]
    peer: list[float]

    @property
    def our_median(self) -> float:
        return median(self.ours)

    @property
    def peer_median(self) -> float:
        return median(self.peer)

    @property
    def ratio(self) -> float:
        """The median of the rounds' own ratios: what slows a whole round down leaves it as it is."""
        return median(self._ratios)

    @property
    def spread(self) -> str:
        """The middle half of the rounds' ratios: wide where something else was at work on the machine."""
        low, _, high = quantiles(self._ratios, method="inclusive") if len(self.ours) > 1 else self._ratios * 3
        return f"{low:.2f} – {high:.2f}"

    def turned(self) -> "Pairs":
        """The other one first: for a figure where more is better."""
        return Pairs(self.peer, self.ours)

    def each(self, count: int) -> "Pairs":
        """Seconds for one of so many."""
        return Pairs([ours / count for ours in self.ours], [peer / count for peer in self.peer])

    def beyond(self) -> "Pairs":
        """What ours takes more than the other."""
        return Pairs([ours - peer for ours, peer in zip(self.ours, self.peer, strict=True)], self.peer)

    @property
    def _ratios(self) -> list[float]:
        return [ours / peer for ours, peer in zip(self.ours, self.peer, strict=True)]


def times(name: str, pairs: Pairs, most: float | None = None) -> Figure:
    """How many times as long ours takes; at most `most` times is promised."""
    limit = "" if most is None else f"≤ {most:g} ×"
    kept = None if most is None else pairs.ratio <= most
    return Figure(name, duration(pairs.our_median), duration(pairs.peer_median), pairs.ratio, limit, kept, pairs.spread)


def duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def size(count: float) -> str:
    for unit, whole in (("MB", MB), ("KB", KB)):
        if abs(count) >= whole:
            return f"{count / whole:.2f} {unit}"
    return f"{count:.0f} B"
