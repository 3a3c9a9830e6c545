"""Errors cross the border of a process, as a pool of processes makes them do."""

import pickle

import pytest

from flowneer_async import FlowChanged, FlowError, FlowneerError, SchemaTooNew, StateNotSerializable, UnknownVersion


@pytest.mark.parametrize(
    "error",
    [
        FlowError("step", "run-1", ValueError("why"), 3),
        FlowChanged("run-1", ["a", "b"], ["b", "a"]),
        StateNotSerializable("$.order.items[3]", "is of type X", step="pay"),
        SchemaTooNew("runs.db", 9, 1),
        UnknownVersion("run-1@7"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_comes_back_with_all_that_it_holds(error: FlowneerError) -> None:
    """Its type, its message and its fields, though it is made of other arguments than its message."""
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert {name: str(value) for name, value in vars(back).items()} == {n: str(v) for n, v in vars(error).items()}
