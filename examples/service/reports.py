"""A long report: page after page, each of them stored when it is written."""

from datetime import datetime
from typing import TypeAlias

from pydantic import BaseModel, Field

from flowneer_async import Context, FlowBuilder, fragment

from .outside import Outside

Ctx: TypeAlias = Context[Outside]


class Report(BaseModel):
    title: str = Field(max_length=100, examples=["All about tea"])
    pages: int = Field(default=20, ge=1, le=200)
    text: list[str] = []


async def begin(report: Report) -> None:
    report.text = []


async def write(report: Report, ctx: Ctx) -> None:
    report.text.append(await ctx.deps.write(ctx.index + 1))


async def bind(report: Report) -> None:
    report.text.append(f"the end of {report.title}")


def of_the_night(time: datetime) -> Report:
    """What the schedule begins with."""
    return Report(title=f"The night of {time:%d %B %Y}")


report = (
    FlowBuilder("report", Report)
    .start_with(begin)
    .batch(lambda report: range(report.pages), fragment(Report).then(write), name="pages")
    .then(bind)
)
