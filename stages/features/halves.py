"""Windows from their halves: sums whose work grows with the logarithm of the window.

A window of 60 bars is one of 32, one of 16, one of 8 and one of 4 in a row, the largest the newest,
and each of these is two of half its size. So 60 bars take 8 additions a row and not 59, a value
depends on the numbers of its window alone, and rounding grows with the logarithm too (Higham
(1993), "The accuracy of floating point summation", SIAM J. Scientific Computing 14(4)). Spreads
are merged as by Chan, Golub & LeVeque (1983), "Algorithms for computing the sample variance", The
American Statistician 37(3): nothing cancels, and what stands still has a spread of exactly 0.

Arrays are flat, and the bar before stands `step` numbers earlier, as in `stages.features.loops`.
For a few rows, as a stream asks for, the same additions are made for these rows alone.
"""

import numpy as np
from numba import njit

NEAR = 1e-6  # of its mean: a spread below it is found in two passes over the window
FEW = 4  # bars, up to which the halves of each window are added up on their own


@njit(cache=True, nogil=True)
def sums(x: np.ndarray, out: np.ndarray, bars: int, step: int) -> None:
    """Sum of each window."""
    _decayed(x, out, 1.0, bars, step)


@njit(cache=True, nogil=True)
def means(x: np.ndarray, out: np.ndarray, bars: int, step: int) -> None:
    """Mean of each window."""
    _decayed(x, out, 1.0, bars, step)
    for i in range(len(out)):
        out[i] /= bars


@njit(cache=True, nogil=True)
def smooth_evenly(
    x: np.ndarray, out: np.ndarray, bars: int, step: int, speed: float, weight: float
) -> None:
    """Exponential average of each window at one speed, whose weights sum to `weight`, over it."""
    _decayed(x, out, 1.0 - speed, bars, step)
    scale = speed / weight if weight != 0.0 else np.nan
    for i in range(len(out)):
        out[i] *= scale


@njit(cache=True, nogil=True)
def weight_of(speed: float, bars: int) -> float:
    """Sum of the weights of the bars of a window: 1 but for what an endless one would add."""
    weight = 0.0
    for _ in range(bars):
        weight += speed * (1.0 - weight)
    return weight


@njit(cache=True, nogil=True, error_model="numpy")
def deviations(x: np.ndarray, out: np.ndarray, bars: int, step: int, flat: float) -> None:
    """Standard deviation of each window, 0 where it stands still within rounding."""
    mean = _squares(x, out, bars, step)
    share = 1.0 / (bars - 1)
    for i in range(len(out)):
        sd = np.sqrt(out[i] * share)
        if sd <= NEAR * abs(mean[i]):  # the means that were merged are rounded too coarsely
            sd = np.sqrt(_squares_of_one(x, i, bars, step) * share)
        out[i] = 0.0 if sd <= flat * abs(mean[i]) else sd


@njit(cache=True, nogil=True, error_model="numpy")
def comoments(x: np.ndarray, y: np.ndarray, out: np.ndarray, bars: int, step: int) -> None:
    """Mean product of the distances from both means of the window."""
    out[:] = np.nan
    rows = len(x) - (bars - 1) * step
    if rows <= 0:
        return
    alone = rows <= FEW * step
    made = np.empty(rows), np.empty(rows), out[(bars - 1) * step :]
    room = max(bars // 2, 1) * rows if alone else len(x)
    held = np.empty(room), np.empty(room), np.empty(room)
    room = 0 if alone else room
    other = np.empty(room), np.empty(room), np.empty(room)
    size, before = 1, 0
    while size <= bars:
        if bars & size:
            first = (bars % (2 * size) - size) * step
            if size == 1:
                block = x[first:], y[first:], np.zeros(rows)
            elif alone:
                _halve_products(x[first:], y[first:], held, size, rows, step)
                block = held
            else:
                block = held[0][first:], held[1][first:], held[2][first:]
            _absorb_products(made, block, before, size)
            before += size
        if 2 * size <= bars and not alone:
            length = len(x) - (2 * size - 1) * step
            held, other = _double_products(x, y, held, other, size, length, step)
        size *= 2
    for i in range(rows):
        made[2][i] /= bars


@njit(cache=True, nogil=True)
def _decayed(x: np.ndarray, out: np.ndarray, decay: float, bars: int, step: int) -> None:
    """Sum of each window, each bar times `decay` to the power of its age."""
    out[:] = np.nan
    rows = len(x) - (bars - 1) * step
    if rows <= 0:
        return
    last, alone = out[(bars - 1) * step :], rows <= FEW * step
    room = bars * rows if alone else len(x)
    part, other = (np.empty(room) if alone else x.copy()), np.empty(0 if alone else room)
    size, factor, length, begun = 1, decay, len(x), False
    while size <= bars:
        if bars & size:
            first = (bars % (2 * size) - size) * step  # older bars than these are in `last`
            if alone:
                _halve(x[first:], part, decay, size, rows, step)
                first = 0
            now = part[first:]
            for i in range(rows):
                last[i] = factor * last[i] + now[i] if begun else now[i]
            begun = True
        if 2 * size <= bars and not alone:
            length -= size * step
            newer = part[size * step :]
            for i in range(length):
                other[i] = factor * part[i] + newer[i]
            part, other = other, part
        factor *= factor
        size *= 2


@njit(cache=True, nogil=True)
def _halve(x: np.ndarray, part: np.ndarray, decay: float, size: int, rows: int, step: int) -> None:
    """The sums of `size` bars of the first `rows` rows, by halves: into the front of `part`."""
    if size == 1:
        part[:rows] = x[:rows]
        return
    factor, now, apart = decay, x, step
    while size > 1:
        size //= 2
        for k in range(size):
            to, at = k * rows, 2 * k * apart
            if rows <= FEW:  # a slice costs more than the few numbers in it
                for i in range(rows):
                    part[to + i] = factor * now[at + i] + now[at + apart + i]
            else:
                older, newer, out = now[at:], now[at + apart :], part[to:]
                for i in range(rows):
                    out[i] = factor * older[i] + newer[i]
        factor, now, apart = factor * factor, part, rows


@njit(cache=True, nogil=True, error_model="numpy")
def _squares(x: np.ndarray, out: np.ndarray, bars: int, step: int) -> np.ndarray:
    """Mean of each window; the sum of the squared distances from it goes to `out`."""
    mean = np.full(len(x), np.nan)
    out[:] = np.nan
    rows = len(x) - (bars - 1) * step
    if rows <= 0:
        return mean
    alone, begin = rows <= FEW * step, (bars - 1) * step
    made = mean[begin:], out[begin:]
    room = max(bars // 2, 1) * rows if alone else len(x)
    held = np.empty(room), np.empty(room)
    room = 0 if alone else room
    other = np.empty(room), np.empty(room)
    size, before = 1, 0
    while size <= bars:
        if bars & size:
            first = (bars % (2 * size) - size) * step
            if size == 1:
                block = x[first:], np.zeros(rows)
            elif alone:
                _halve_squares(x[first:], held, size, rows, step)
                block = held
            else:
                block = held[0][first:], held[1][first:]
            _absorb_squares(made, block, before, size)
            before += size
        if 2 * size <= bars and not alone:
            length = len(x) - (2 * size - 1) * step
            held, other = _double_squares(x, held, other, size, length, step)
        size *= 2
    return mean


@njit(cache=True, nogil=True, error_model="numpy")
def _squares_of_one(x: np.ndarray, at: int, bars: int, step: int) -> float:
    """Sum of the squared distances from the mean of the window that ends `at`, in two passes."""
    total, out = 0.0, 0.0
    for k in range(bars):
        total += x[at - k * step]
    mean = total / bars
    for k in range(bars):
        out += (x[at - k * step] - mean) ** 2
    return out


# below, what is held is a mean and squares, or two means and products


@njit(cache=True, nogil=True, error_model="numpy")
def _absorb_squares(made, block, before, size):  # type: ignore[no-untyped-def]
    """Merge `size` bars into the `before` that are newer, or older; the first are taken over."""
    a, b, now, of = made[0], made[1], block[0], block[1]
    share = size / (before + size)
    weight = before * share
    for i in range(len(a)):
        if before == 0:
            a[i], b[i] = now[i], of[i] + 0.0 * now[i]  # a NaN stays one: it has no spread
        else:
            right = now[i] - a[i]
            a[i] += right * share
            b[i] += of[i] + right * right * weight


@njit(cache=True, nogil=True)
def _double_squares(x, held, other, size, rows, step):  # type: ignore[no-untyped-def]
    """Mean and squares of twice as many bars, `rows` of them; and the room of the old ones."""
    if size == 1:
        _pair_squares(x, x[step:], held[0], held[1], rows)
        return held, other
    p, q, mean, square = held[0], held[1], other[0], other[1]
    newer, of, weight = p[size * step :], q[size * step :], 0.5 * size
    for i in range(rows):
        right = newer[i] - p[i]
        square[i] = q[i] + of[i] + right * right * weight
        mean[i] = 0.5 * (p[i] + newer[i])
    return other, held


@njit(cache=True, nogil=True)
def _pair_squares(x, newer, mean, square, rows):  # type: ignore[no-untyped-def]
    for i in range(rows):
        right = newer[i] - x[i]
        mean[i] = 0.5 * (x[i] + newer[i])
        square[i] = right * right * 0.5


@njit(cache=True, nogil=True)
def _halve_squares(x, held, size, rows, step):  # type: ignore[no-untyped-def]
    """As `_halve`, of two bars or more."""
    p, q = held
    for k in range(size // 2):
        to, at = k * rows, 2 * k * step
        if rows > FEW:
            _pair_squares(x[at:], x[at + step :], p[to:], q[to:], rows)
            continue
        for i in range(rows):  # a slice costs more than the few numbers in it
            right = x[at + step + i] - x[at + i]
            p[to + i] = 0.5 * (x[at + i] + x[at + step + i])
            q[to + i] = right * right * 0.5
    size, weight = size // 2, 1.0
    while size > 1:
        size //= 2
        for k in range(size):
            at, to = 2 * k * rows, k * rows
            after = at + rows
            for i in range(rows):
                right = p[after + i] - p[at + i]
                q[to + i] = q[at + i] + q[after + i] + right * right * weight
                p[to + i] = 0.5 * (p[at + i] + p[after + i])
        weight *= 2.0


@njit(cache=True, nogil=True, error_model="numpy")
def _absorb_products(made, block, before, size):  # type: ignore[no-untyped-def]
    """As `_absorb_squares`."""
    a, b, c = made
    now, beside, of = block
    share = size / (before + size)
    weight = before * share
    for i in range(len(a)):
        if before == 0:
            a[i], b[i], c[i] = now[i], beside[i], of[i] + 0.0 * (now[i] * beside[i])
        else:
            right, up = now[i] - a[i], beside[i] - b[i]
            a[i] += right * share
            b[i] += up * share
            c[i] += of[i] + right * up * weight


@njit(cache=True, nogil=True)
def _double_products(x, y, held, other, size, rows, step):  # type: ignore[no-untyped-def]
    """As `_double_squares`."""
    if size == 1:
        _pair_products(x, y, held, rows, step)
        return held, other
    p, q, r = held
    n, weight = size * step, 0.5 * size
    p_newer, q_newer, r_newer = p[n:], q[n:], r[n:]
    u, v, w = other
    for i in range(rows):
        right, up = p_newer[i] - p[i], q_newer[i] - q[i]
        w[i] = r[i] + r_newer[i] + right * up * weight
        u[i] = 0.5 * (p[i] + p_newer[i])
        v[i] = 0.5 * (q[i] + q_newer[i])
    return other, held


@njit(cache=True, nogil=True)
def _pair_products(x, y, held, rows, step):  # type: ignore[no-untyped-def]
    """Means and product of two bars."""
    p, q, r = held
    x_newer, y_newer = x[step:], y[step:]
    for i in range(rows):
        right, up = x_newer[i] - x[i], y_newer[i] - y[i]
        p[i], q[i] = 0.5 * (x[i] + x_newer[i]), 0.5 * (y[i] + y_newer[i])
        r[i] = right * up * 0.5


@njit(cache=True, nogil=True)
def _halve_products(x, y, held, size, rows, step):  # type: ignore[no-untyped-def]
    """As `_halve`, of two bars or more."""
    p, q, r = held
    for k in range(size // 2):
        to, at = k * rows, 2 * k * step
        if rows > FEW:
            made = p[to:], q[to:], r[to:]
            _pair_products(x[at:], y[at:], made, rows, step)
            continue
        for i in range(rows):
            right, up = x[at + step + i] - x[at + i], y[at + step + i] - y[at + i]
            p[to + i] = 0.5 * (x[at + i] + x[at + step + i])
            q[to + i] = 0.5 * (y[at + i] + y[at + step + i])
            r[to + i] = right * up * 0.5
    size, weight = size // 2, 1.0
    while size > 1:
        size //= 2
        for k in range(size):
            at, to = 2 * k * rows, k * rows
            after = at + rows
            for i in range(rows):
                right, up = p[after + i] - p[at + i], q[after + i] - q[at + i]
                r[to + i] = r[at + i] + r[after + i] + right * up * weight
                p[to + i] = 0.5 * (p[at + i] + p[after + i])
                q[to + i] = 0.5 * (q[at + i] + q[after + i])
        weight *= 2.0
