"""Every error that this package raises.

    FlowneerError
    ├── DefinitionError              a mistake in a flow, found while it is built
    │   ├── BadName                  a flow, a step or a run id with a name that cannot be used
    │   ├── DuplicateName            two steps, or anchors, of one name
    │   ├── BadStep                  a step that cannot be called with (state) or (state, ctx)
    │   ├── BadOption                an option of a step, a flow or a store that makes no sense
    │   └── PluginCollision          two plugins, or a plugin and the builder, with a method of one name
    ├── StateError                   a state that cannot be kept
    │   ├── BadState                 no mapping, dataclass, pydantic model or msgspec Struct
    │   ├── StateTypeUnknown         a stored state that needs a type which the flow does not name
    │   └── StateNotSerializable     a value that would not come back as it is
    ├── RunError                     a run that cannot start, go on or finish
    │   ├── FlowError                a step failed
    │   ├── StepReturned             a step returned a value instead of changing the state
    │   ├── UnknownAnchor            a step wants to go on where there is no anchor
    │   ├── TooManyVisits            an anchor was jumped to more often than it allows
    │   ├── UnknownCase              a router named a case that its branch does not have
    │   ├── SignalTimeout            a signal did not come in time
    │   ├── BadSignal                a signal whose payload is not what the flow waits for
    │   ├── RunOver                  a signal for a run that is completed
    │   ├── NotWaiting               an answer for a run that has not asked
    │   ├── StoreNeeded              a step that waits, in a run that no store keeps
    │   ├── FailedBefore             the cause of a FlowError, where the step failed before the run went on
    │   ├── Undone                   the run failed before, and what it had done was undone
    │   ├── StepOver                 a task that a step has left behind asks something of the run
    │   ├── BadTransaction           a step uses its transaction in a way that cannot be kept
    │   ├── NotFinished              the result of a run that goes on was asked for
    │   ├── CircuitOpen              a step was not called, for it has failed too often in a row
    │   ├── StepLimitReached         a run would do more steps than it may
    │   ├── MergeConflict            lanes that changed one key, and nothing says what becomes of it
    │   ├── CannotReduce             a reducer that was given values that it is not for
    │   ├── StateMissing             a run that has no stored state was started without one
    │   ├── RunBusy                  another owner works on this run
    │   ├── Fenced                   another owner has taken this run over
    │   ├── FlowChanged              the steps that a run has passed are not those of the flow
    │   ├── ForeignRun               the run belongs to another flow
    │   ├── HalfCopied               the run is a copy that was not finished
    │   ├── EngineStopped            the engine is not, or no longer, at work
    │   ├── UnknownFlow              the engine has no flow of this name
    │   ├── NotCompleted             the run is over, and has no result
    │   ├── Parked                   the run's process has died too often in a row
    │   ├── DeadlineExceeded         the run was not over at its deadline
    │   └── ChildFailed              a run that a step has called was not completed
    └── StoreError                   a store that cannot do what it was asked
        ├── UnknownRun  UnknownVersion
        ├── CorruptVersion  BrokenChain  CorruptRun  VersionConflict
        ├── CorruptSignal  Forged  NotEncrypted  UnknownKey
        ├── NotADatabase  SchemaTooNew
        ├── ReadOnly  StateTooLarge  TooManyVersions
        ├── RunExists  BadExport  NoTransactions
        ├── ExtraMissing  StoreFull  StoreClosed  StoreFailed
        └── StoreBusy                the store cannot be used just now
            └── StoreUnreachable     its server cannot be reached

Messages hold ids, names, keys, types and sizes: never a value of the state, which may be a secret.
"""

from flowneer_async.errors.definition import (
    BadName,
    BadOption,
    BadStep,
    DefinitionError,
    DuplicateName,
    PluginCollision,
)
from flowneer_async.errors.engine import (
    ChildFailed,
    DeadlineExceeded,
    EngineStopped,
    NotCompleted,
    Parked,
    UnknownFlow,
)
from flowneer_async.errors.family import FlowneerError
from flowneer_async.errors.run import (
    BadSignal,
    BadTransaction,
    CannotReduce,
    CircuitOpen,
    FailedBefore,
    Fenced,
    FlowChanged,
    FlowError,
    ForeignRun,
    HalfCopied,
    MergeConflict,
    NotFinished,
    NotWaiting,
    RunBusy,
    RunError,
    RunOver,
    SignalTimeout,
    StateMissing,
    StepLimitReached,
    StepOver,
    StepReturned,
    StoreNeeded,
    TooManyVisits,
    Undone,
    UnknownAnchor,
    UnknownCase,
)
from flowneer_async.errors.state import BadState, StateError, StateNotSerializable, StateTypeUnknown
from flowneer_async.errors.store import (
    BadExport,
    BrokenChain,
    CorruptRun,
    CorruptSignal,
    CorruptVersion,
    ExtraMissing,
    Forged,
    NotADatabase,
    NotEncrypted,
    NoTransactions,
    ReadOnly,
    RunExists,
    SchemaTooNew,
    StateTooLarge,
    StoreBusy,
    StoreClosed,
    StoreError,
    StoreFailed,
    StoreFull,
    StoreUnreachable,
    TooManyVersions,
    UnknownKey,
    UnknownRun,
    UnknownVersion,
    VersionConflict,
)

__all__ = [
    "BadExport",
    "BadName",
    "BadOption",
    "BadSignal",
    "BadState",
    "BadStep",
    "BadTransaction",
    "BrokenChain",
    "CannotReduce",
    "ChildFailed",
    "CircuitOpen",
    "CorruptRun",
    "CorruptSignal",
    "CorruptVersion",
    "DeadlineExceeded",
    "DefinitionError",
    "DuplicateName",
    "EngineStopped",
    "ExtraMissing",
    "FailedBefore",
    "Fenced",
    "FlowChanged",
    "FlowError",
    "FlowneerError",
    "ForeignRun",
    "Forged",
    "HalfCopied",
    "MergeConflict",
    "NoTransactions",
    "NotADatabase",
    "NotCompleted",
    "NotEncrypted",
    "NotFinished",
    "NotWaiting",
    "Parked",
    "PluginCollision",
    "ReadOnly",
    "RunBusy",
    "RunError",
    "RunExists",
    "RunOver",
    "SchemaTooNew",
    "SignalTimeout",
    "StateError",
    "StateMissing",
    "StateNotSerializable",
    "StateTooLarge",
    "StateTypeUnknown",
    "StepLimitReached",
    "StepOver",
    "StepReturned",
    "StoreBusy",
    "StoreClosed",
    "StoreError",
    "StoreFailed",
    "StoreFull",
    "StoreNeeded",
    "StoreUnreachable",
    "TooManyVersions",
    "TooManyVisits",
    "Undone",
    "UnknownAnchor",
    "UnknownCase",
    "UnknownFlow",
    "UnknownKey",
    "UnknownRun",
    "UnknownVersion",
    "VersionConflict",
]
