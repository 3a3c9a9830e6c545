"""`python -m benchmarks [--quick] [NAME …]`: measure everything, or the named subjects, and show a table."""

import asyncio
from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator, Callable

from rich.console import Console

from benchmarks import (
    control,
    differ,
    engine,
    growth,
    idle,
    lanes,
    memory,
    peers,
    plain,
    postgres,
    report,
    resolve,
    service,
    steps,
    waking,
    wrapped,
)
from benchmarks.figure import Figure
from benchmarks.measure import FULL, QUICK, Scale

SUBJECTS: dict[str, Callable[[Scale], AsyncIterator[Figure]]] = {
    "differ": differ.figures,
    "steps": steps.figures,
    "postgres": postgres.figures,
    "wrapped": wrapped.figures,
    "growth": growth.figures,
    "resolve": resolve.figures,
    "plain": plain.figures,
    "control": control.figures,
    "lanes": lanes.figures,
    "memory": memory.figures,
    "engine": engine.figures,
    "waking": waking.figures,
    "idle": idle.figures,
    "service": service.figures,
    "peers": peers.figures,
}


def main() -> None:
    """Only a whole and full measurement goes into README.md."""
    args = _arguments()
    console = Console()
    results: list[tuple[str, list[Figure]]] = []
    for name in args.names or SUBJECTS:
        with console.status(f"measuring: {name}"):
            results.append((name, asyncio.run(_all(SUBJECTS[name](QUICK if args.quick else FULL)))))
    report.show(results)
    if not args.names and not args.quick:
        report.write(results)


def _arguments() -> Namespace:
    parser = ArgumentParser(prog="python -m benchmarks", description="Measure the engine.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these: {', '.join(SUBJECTS)}")
    parser.add_argument("--quick", action="store_true", help="the least that goes through every line")
    args = parser.parse_args()
    for name in args.names:
        if name not in SUBJECTS:
            parser.error(f"{name!r} is none of {', '.join(SUBJECTS)}")
    return args


async def _all(figures: AsyncIterator[Figure]) -> list[Figure]:
    return [figure async for figure in figures]


if __name__ == "__main__":
    main()
