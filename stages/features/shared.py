"""What several functions make of the same bars is computed once: nothing else changes.

Inside ``with sharing():`` a function marked `shared` keeps what it returned, and gives it again
for the same arrays and settings. Arrays are the same if they are one object, as the columns of
one stretch of bars are. What is given twice is read-only: to change it, copy it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

_held: ContextVar[dict[Any, Any] | None] = ContextVar("held", default=None)


@contextmanager
def sharing() -> Iterator[None]:
    """Keep what shared functions return until the end of the block; each thread keeps its own."""
    token = _held.set({})
    try:
        yield
    finally:
        _held.reset(token)


def shared(function: Kernel) -> Kernel:
    """Mark a function of arrays and numbers whose result depends on nothing else."""
    get, array = _held.get, np.ndarray

    @wraps(function)
    def run(*args: Any, **settings: Any) -> Any:
        held = get()
        if held is None or settings:
            return function(*args, **settings)
        key = (function, *[id(a) if type(a) is array else a for a in args])
        found = held.get(key)
        if found is None:
            # the arrays are kept too: while they live nothing else can have their id
            found = held[key] = _lent(function(*args)), args
        return found[0]

    return cast(Kernel, run)


def _lent(made: Any) -> Any:
    """An array, or each of a few, as it may be given to many."""
    if isinstance(made, tuple):
        return tuple(_lent(part) for part in made)
    made = made[...]
    made.setflags(write=False)
    return made


def owner(x: np.ndarray) -> np.ndarray | None:
    """The writeable array of which `x` is a read-only look at all numbers; None if there is none.

    For kernels that are compiled for writeable arrays, and write to none that they are given.
    """
    base = x.base
    if type(base) is np.ndarray and base.shape == x.shape and x.flags.c_contiguous:
        return base if base.flags.carray and base.dtype == x.dtype else None
    return None
