"""Complex exponential smoothing with a season (Svetunkov, Kourentzes & Ord 2022), "full".

Level and season have two parts each, of which one is observed, and two coefficients each. A run
passes over the known values backward, which starts the states, and then forward. Lanes are runs
with coefficients of their own, which vector code takes at once. Results are bit by bit the same
for a series alone and among others.
"""

from __future__ import annotations

import numpy as np

from tsclust_model._kernels.cache import inlined, kernel

LANES = 8

_STEP = 1e-4  # between the lanes, for slopes

_UNOBSERVED = 1.0 / 1.1  # of the observed part, at the start

_LEAST_ERROR = 1e-12  # of the sum of squares: no likelihood is infinite

_TINY, _LARGEST_LOG = 1e-300, 700.0

_LEAST_DAMPING, _MOST_DAMPING, _ENOUGH, _MOST_RUNS = 1e-4, 1e2, 1e-2, 20


@inlined
def _pattern(values, season, out):
    """Mean distance from the centred moving average at each place of a season, centred."""
    half, n = season // 2, len(values)
    counts = np.zeros(season)
    out[:] = 0.0
    ends = 0.5 if season % 2 == 0 else 1.0
    for t in range(half, n - half):
        total = ends * (values[t - half] + values[t + half])
        for j in range(1 - half, half):
            total += values[t + j]
        out[t % season] += values[t] - total / season
        counts[t % season] += 1.0
    out /= np.maximum(counts, 1.0)
    out -= out.mean()


@inlined
def _move(error, lanes, level, season):
    """States one period later, after errors; `level` and `season` have shape (2, LANES)."""
    for q in range(LANES):
        a0, a1, b0, b1 = lanes[0, q], lanes[1, q], lanes[2, q], lanes[3, q]
        e, seen, hidden = error[q], level[0, q], level[1, q]
        level[0, q] = seen - (1.0 - a1) * hidden + (a0 - a1) * e
        level[1, q] = seen + (1.0 - a0) * hidden + (a0 + a1) * e
        seen, hidden = season[0, q], season[1, q]
        season[0, q] = seen - (1.0 - b1) * hidden + (b0 - b1) * e
        season[1, q] = seen + (1.0 - b0) * hidden + (b0 + b1) * e


@inlined
def _pass(values, backward, lanes, level, seasons, errors):
    """All periods in one direction; `errors` has shape (n, LANES)."""
    n, season = len(values), len(seasons)
    place = n % season if backward else season - 1
    for i in range(n):
        t = n - 1 - i if backward else i
        if backward:
            place = (place if place else season) - 1
        else:
            place = place + 1 if place + 1 < season else 0
        for q in range(LANES):
            errors[t, q] = values[t] - level[0, q] - seasons[place, 0, q]
        _move(errors[t], lanes, level, seasons[place])


@inlined
def run(values, pattern, lanes, level, seasons, errors):
    """Both passes of all lanes; what is left are the states after the last value."""
    n, season = len(values), len(pattern)
    mean = values[n - season :].mean()
    level[0], level[1] = mean, mean * _UNOBSERVED
    for place in range(season):
        seasons[place, 0], seasons[place, 1] = pattern[place], pattern[place] * _UNOBSERVED
    _pass(values, True, lanes, level, seasons, errors)
    nothing, one = np.zeros(LANES), level.copy()
    for place in range(season):  # from before the first period to its own season
        _move(nothing, lanes, one, seasons[place])
        if place == 0:
            level[:] = one
    _pass(values, False, lanes, level, seasons, errors)


@inlined
def ahead(n, lanes, level, seasons, out):
    """Forecasts of the first lane after `n` periods; the states go along."""
    nothing, season = np.zeros(LANES), len(seasons)
    for k in range(len(out)):
        place = (n + k) % season
        out[k] = level[0, 0] + seasons[place, 0, 0]
        _move(nothing, lanes, level, seasons[place])


@inlined
def _in_lanes(coefficients, lanes):
    """The coefficients in every lane, and a step of each in one of the next four."""
    for j in range(4):
        lanes[j] = coefficients[j]
        lanes[j, j + 1] += _STEP


@inlined
def _loss(errors, coefficients, usual, spread, floor):
    """log(SSE) of the first lane with the prior's part, and SSE."""
    squares = floor
    for t in range(len(errors)):
        squares += errors[t, 0] * errors[t, 0]
    total = np.log(squares)
    for j in range(4):
        apart = (coefficients[j] - usual[j]) / spread[j]
        total += apart * apart / len(errors)
    return total, squares


@inlined
def _equations(errors, coefficients, usual, spread, squares, normal, right):
    """Normal equations of the next step (Gauss-Newton)."""
    normal[:], right[:] = 0.0, 0.0
    slopes = np.empty(4)
    for t in range(len(errors)):
        for a in range(4):
            slopes[a] = (errors[t, a + 1] - errors[t, 0]) / _STEP
            right[a] -= slopes[a] * errors[t, 0]
            for b in range(a + 1):
                normal[a, b] += slopes[a] * slopes[b]
    for a in range(4):
        own = squares / (len(errors) * spread[a] * spread[a])
        normal[a, a] += own
        right[a] -= own * (coefficients[a] - usual[a])


@inlined
def _solved(normal, right, damping, out):
    """Cholesky's solution where the diagonal counts `damping` more."""
    root = np.zeros((4, 4))
    for a in range(4):
        for b in range(a + 1):
            total = normal[a, b] * (1.0 + damping) if a == b else normal[a, b]
            for c in range(b):
                total -= root[a, c] * root[b, c]
            root[a, b] = np.sqrt(max(total, _TINY)) if a == b else total / root[b, b]
    for a in range(4):
        total = right[a]
        for c in range(a):
            total -= root[a, c] * out[c]
        out[a] = total / root[a, a]
    for a in range(3, -1, -1):
        for c in range(a + 1, 4):
            out[a] -= root[c, a] * out[c]
        out[a] /= root[a, a]


@inlined
def fit(known, season, settings, coefficients, out):
    """The likeliest coefficients (Levenberg-Marquardt) and their forecasts; neither if SSE is not
    finite."""
    usual, spread, low, high = settings[0], settings[1], settings[2], settings[3]
    pattern, errors = np.empty(season), np.empty((len(known), LANES))
    lanes, level, seasons = np.empty((4, LANES)), np.empty((2, LANES)), np.empty((season, 2, LANES))
    normal, right, step = np.empty((4, 4)), np.empty(4), np.empty(4)
    _pattern(known, season, pattern)
    floor = _LEAST_ERROR * (known * known).sum() + _TINY
    best, tried, damping = np.inf, usual.copy(), _LEAST_DAMPING
    for _ in range(_MOST_RUNS):
        _in_lanes(tried, lanes)
        run(known, pattern, lanes, level, seasons, errors)
        loss, squares = _loss(errors, tried, usual, spread, floor)
        gain = best - loss
        if gain > 0.0:
            best, coefficients[:] = loss, tried
            ahead(len(known), lanes, level, seasons, out)
            if gain < _ENOUGH:
                break
            _equations(errors, tried, usual, spread, squares, normal, right)
            damping *= 0.1
        elif best < np.inf and damping < _MOST_DAMPING:
            damping = max(10.0 * damping, 100.0 * _LEAST_DAMPING)
        else:
            break
        _solved(normal, right, damping, step)
        for j in range(4):
            tried[j] = min(max(coefficients[j] + step[j], low[j]), high[j])


@kernel
def ces(values, starts, at, rows, origins, on_logs, season, beyond, settings, out):
    """Forecasts of pairs of series and origin, those of `at`; see `series.ces.ces_forecasts`.

    `settings` has shape (4, 4): usual coefficients, the spread of their prior, and their limits;
    `beyond` is how far forecasts go, in ranges of the known values. Pairs with less than two
    seasons, or one value only in the last two, are left as they are.
    """
    coefficients = np.empty(4)
    for i in at:
        known = values[rows[i], starts[rows[i]] : origins[i]]
        n = len(known)
        if n < 2 * season or known[n - 2 * season :].min() == known[n - 2 * season :].max():
            continue
        low, high = known.min(), known.max()
        reach = beyond * (high - low)
        fit(np.log1p(known) if on_logs else known, season, settings, coefficients, out[i])
        for k in range(out.shape[1]):
            found = np.expm1(min(out[i, k], _LARGEST_LOG)) if on_logs else out[i, k]
            out[i, k] = min(max(found, low - reach), high + reach)
