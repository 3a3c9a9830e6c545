"""What the routes take and give, beside states."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

from flowneer_async import Page, Run, Status, Version, Waiting
from flowneer_async.fastapi.writing import plain

TENANT = "tenant"
"""The tag of a run that says whose it is."""

REQUEST = "http.request"
"""The tag with the hash of the request that started a run under an Idempotency-Key."""

_LONGEST_DELAY = 10 * 366 * 24 * 3600  # seconds

_TEXT = r"^[^\x00]*$"
_TAG_NAME = r"^[^@:\x00][^:\x00]*$"

Text = Annotated[str, StringConstraints(pattern=_TEXT, max_length=200)]
"""What every store can keep and find."""

TagName = Annotated[str, StringConstraints(pattern=_TAG_NAME, max_length=100)]

Tags = Annotated[
    dict[TagName, Text],
    WithJsonSchema(
        {
            "type": "object",
            "propertyNames": {"pattern": _TAG_NAME, "maxLength": 100},
            "additionalProperties": {"type": "string", "pattern": _TEXT, "maxLength": 200},
        }
    ),
]

Tag = Annotated[str, StringConstraints(pattern=r"^[^@:\x00][^:\x00]*:[^\x00]*$", max_length=300)]
"""`name:value`."""

Unset = SkipJsonSchema[None]
"""An option that may be left out, but not be sent as null."""

Delay = Annotated[float, Field(ge=0, le=_LONGEST_DELAY, allow_inf_nan=False)]
Deadline = Annotated[float, Field(gt=0, le=_LONGEST_DELAY, allow_inf_nan=False)]


class _Query(BaseModel):
    model_config = ConfigDict(extra="forbid")


class StartQuery(_Query):
    """How a run is to be started."""

    key: Text = Field("", description="What it shares a limit with.")
    priority: int = Field(0, ge=-(2**31), lt=2**31, description="Runs of a higher one begin first.")
    delay: Delay | Unset = Field(None, description="Seconds until it begins.")
    deadline: Deadline | Unset = Field(None, description="Seconds after which it fails.")
    tag: list[Tag] = Field([], max_length=20, description="name:value, to find it by.")


class FindQuery(_Query):
    """Which runs are meant."""

    status: list[Status] = Field([], description="Any of these; all where there is none.")
    flow: Text | Unset = None
    tag: list[Tag] = Field([], max_length=20, description="name:value; all of them.")
    limit: int = Field(100, ge=1, le=1000)
    after: Text | Unset = Field(None, description="The `next` of the page before.")


class VersionQuery(_Query):
    """Which versions of a run are meant."""

    after: int = Field(-1, ge=-1, lt=10**18)
    limit: int = Field(100, ge=1, le=1000)


class ResumeBody(BaseModel):
    """How a run is to go on: with the answer that it asks for, at step `at`, where several ask."""

    model_config = ConfigDict(extra="forbid")
    answer: object = None
    at: str | None = None


class ForkBody(BaseModel):
    """From which version a new run is to go on."""

    model_config = ConfigDict(extra="forbid")
    seq: int = Field(ge=0, lt=10**18)
    tags: Tags = {}


class Accepted(BaseModel):
    """A run that the service has accepted: it is stored, and will be run."""

    run_id: str
    flow: str


class Cancelled(BaseModel):
    """`is_cancelling`: the run, and its children, are being cancelled; False where it was over already."""

    run_id: str
    is_cancelling: bool


class WaitView(BaseModel):
    """What a run waits for at a step: a moment, a signal, or an answer to a question."""

    kind: Literal["sleep", "signal", "answer", "doubt"]
    step: str
    until: datetime | None
    name: str | None
    question: object

    @classmethod
    def of(cls, waiting: Waiting) -> "WaitView":
        """The same of what the flow says."""
        until = None if waiting.until is None else moment(waiting.until)
        question = plain(waiting.question)
        return cls(kind=waiting.kind, step=waiting.step, until=until, name=waiting.name, question=question)


class RunView(BaseModel):
    """A run; `head` is the number of its last version, `first` that of the first one kept."""

    run_id: str
    flow: str
    status: Status
    error: str | None
    head: int
    first: int
    fork_of: str | None
    created: datetime
    updated: datetime
    tags: Mapping[str, str]

    @classmethod
    def of(cls, run: Run) -> "RunView":
        """What a client may know of a run."""
        return cls.model_validate(_facts(run))


class RunDetails(RunView):
    """A run, and what it waits for."""

    waits: list[WaitView]

    @classmethod
    def with_waits(cls, run: Run, waits: tuple[Waiting, ...]) -> "RunDetails":
        """What a client may know of a run that waits so."""
        return cls.model_validate({**_facts(run), "waits": [WaitView.of(each) for each in waits]})


class RunPage(BaseModel):
    """Some runs, the newest first; `next` leads to those after them."""

    runs: list[RunView]
    next: str | None

    @classmethod
    def of(cls, page: Page) -> "RunPage":
        """The same of a page of the store."""
        return cls(runs=[RunView.of(run) for run in page.runs], next=page.next)


class VersionView(BaseModel):
    """One version of a run: `step` is the path of the step that made it, empty for the first."""

    version: str
    seq: int
    parent: str | None
    step: str
    step_index: int
    created: datetime
    is_marker: bool

    @classmethod
    def of(cls, version: Version) -> "VersionView":
        """What a client may know of a version beside its state."""
        return cls(
            version=version.id,
            seq=version.seq,
            parent=version.parent,
            step=version.path,
            step_index=version.step_index,
            created=moment(version.timestamp),
            is_marker=version.is_marker,
        )


class VersionPage(BaseModel):
    """Some versions of a run, the oldest first; `next` is the `after` that leads to those after them."""

    versions: list[VersionView]
    next: int | None


class VersionState(BaseModel):
    """A version of a run, and the state it stood for."""

    version: VersionView
    state: dict[str, object]


class VersionDiff(BaseModel):
    """What a version changed: the keys of the state that have a new value, and those that are gone."""

    version: str
    parent: str | None
    changed: dict[str, object]
    removed: list[str]


class HealthView(BaseModel):
    """Can the service accept runs?"""

    is_ok: bool
    running: int


def moment(ms: int) -> datetime:
    """A time, from Unix ms."""
    return datetime.fromtimestamp(ms / 1000, UTC)


def _facts(run: Run) -> dict[str, object]:
    names = ("run_id", "flow", "status", "error", "head", "first", "fork_of")
    facts: dict[str, object] = {name: getattr(run, name) for name in names}
    tags = {name: value for name, value in run.tags.items() if name[:1] != "@" and name != REQUEST}
    return {**facts, "created": moment(run.created), "updated": moment(run.updated), "tags": tags}
