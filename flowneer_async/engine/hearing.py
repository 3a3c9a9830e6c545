"""Hearing at once that the process is to end, whoever else hears it too."""

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def hearing(told: Callable[[], None]) -> Generator[None]:
    """Call `told` when the process gets SIGTERM or SIGINT, and then whoever handled it before.

    A web server hears them too, but ends what it has begun before it tells its application: streams of events would
    keep it waiting for ever. A signal that nobody handles ends the process, as ever. Outside the main thread, where no
    signal can be heard, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    before = {number: handler for number, handler in handlers.items() if callable(handler)}

    def hear(number: int, frame: FrameType | None) -> None:
        told()
        before[signal.Signals(number)](number, frame)

    for number in before:
        signal.signal(number, hear)
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is hear:
                signal.signal(number, handler)
