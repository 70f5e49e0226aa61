"""Complex exponential smoothing with a season (Svetunkov, Kourentzes & Ord 2022), "full".

Level and season have two parts each, of which one is observed, and two coefficients each. A pass
backward over the known values with usual coefficients starts the states; those of a series are
fitted in passes forward. Results are bit by bit the same for a series alone and among others.
"""

from __future__ import annotations

import numpy as np

from tsclust_model._kernels.cache import inlined, kernel

_STEP = 1e-4  # of a coefficient, for slopes

_UNOBSERVED = 1.0 / 1.1  # of the observed part, at the start

_LEAST_ERROR = 1e-12  # of the sum of squares: no likelihood is infinite

_TINY, _LARGEST_LOG = 1e-300, 700.0

_LEAST_DAMPING, _MOST_DAMPING, _ENOUGH, _MOST_RUNS = 1e-4, 1e2, 3e-3, 20


@inlined
def _pattern(values, season, out):
    """Mean distance from the centred moving average at each place of a season, centred."""
    half, n = season // 2, len(values)
    counts = np.zeros(season)
    for place in range(season):
        out[place] = 0.0
    ends = 0.5 if season % 2 == 0 else 1.0
    for t in range(half, n - half):
        total = ends * (values[t - half] + values[t + half])
        for j in range(1 - half, half):
            total += values[t + j]
        out[t % season] += values[t] - total / season
        counts[t % season] += 1.0
    mean = 0.0
    for place in range(season):
        out[place] /= max(counts[place], 1.0)
        mean += out[place] / season
    for place in range(season):
        out[place] -= mean


@inlined
def _weights(coefficients, out):
    """What the parts of level and season, and the error, weigh in each part a period later."""
    for j in range(2):
        first, second = coefficients[2 * j], coefficients[2 * j + 1]
        out[4 * j], out[4 * j + 1] = 1.0 - second, first - second
        out[4 * j + 2], out[4 * j + 3] = 1.0 - first, first + second


@inlined
def _advance(error, weights, state, seasons, place):
    """Parts of the level and of one place of the season, a period after an error."""
    seen, hidden = state[0], state[1]
    state[0] = seen - weights[0] * hidden + weights[1] * error
    state[1] = seen + weights[2] * hidden + weights[3] * error
    seen, hidden = seasons[place, 0], seasons[place, 1]
    seasons[place, 0] = seen - weights[4] * hidden + weights[5] * error
    seasons[place, 1] = seen + weights[6] * hidden + weights[7] * error


@inlined
def _start(values, pattern, coefficients, state, seasons):
    """States before the first period, shapes (2,) and (season, 2), from a backward pass."""
    n, season, weights = len(values), len(pattern), np.empty(8)
    _weights(coefficients, weights)
    state[0] = 0.0
    for t in range(n - season, n):
        state[0] += values[t] / season
    state[1] = state[0] * _UNOBSERVED
    for place in range(season):
        seasons[place, 0], seasons[place, 1] = pattern[place], pattern[place] * _UNOBSERVED
    for t in range(n - 1, -1, -1):
        error = values[t] - state[0] - seasons[t % season, 0]
        _advance(error, weights, state, seasons, t % season)
    for place in range(1, season):  # and on to before the first period, for the pass forward
        _advance(0.0, weights, state.copy(), seasons, place)
    _advance(0.0, weights, state, seasons, 0)


@inlined
def _run(values, coefficients, state, seasons, errors):
    """A pass forward, in which the states go along; `errors` has shape (n,)."""
    weights = np.empty(8)
    _weights(coefficients, weights)
    w0, w1, w2, w3 = weights[0], weights[1], weights[2], weights[3]
    w4, w5, w6, w7 = weights[4], weights[5], weights[6], weights[7]
    seen, hidden, place = state[0], state[1], 0
    for t in range(len(values)):  # as `_advance`, in registers
        own, other = seasons[place, 0], seasons[place, 1]
        error = values[t] - seen - own
        errors[t] = error
        seen, hidden = seen - w0 * hidden + w1 * error, seen + w2 * hidden + w3 * error
        seasons[place, 0] = own - w4 * other + w5 * error
        seasons[place, 1] = own + w6 * other + w7 * error
        place = place + 1 if place + 1 < len(seasons) else 0
    state[0], state[1] = seen, hidden


@inlined
def _ahead(n, coefficients, state, seasons, out):
    """Forecasts after `n` periods; the states go along."""
    weights = np.empty(8)
    _weights(coefficients, weights)
    for k in range(len(out)):
        place = (n + k) % len(seasons)
        out[k] = state[0] + seasons[place, 0]
        _advance(0.0, weights, state, seasons, place)


@inlined
def _loss(errors, coefficients, usual, spread, floor):
    """log(SSE) with the prior's part, and SSE."""
    squares = floor
    for t in range(len(errors)):
        squares += errors[t] * errors[t]
    total = np.log(squares)
    for j in range(4):
        apart = (coefficients[j] - usual[j]) / spread[j]
        total += apart * apart / len(errors)
    return total, squares


@inlined
def _equations(errors, coefficients, usual, spread, squares, normal, right):
    """Normal equations of the next step (Gauss-Newton); `errors` has shape (5, n)."""
    slopes = np.empty(4)
    for a in range(4):
        right[a] = 0.0
        for b in range(4):
            normal[a, b] = 0.0
    for t in range(errors.shape[1]):
        for a in range(4):
            slopes[a] = errors[a + 1, t] - errors[0, t]
            right[a] -= slopes[a] * errors[0, t]
            for b in range(a + 1):
                normal[a, b] += slopes[a] * slopes[b]
    for a in range(4):
        right[a] /= _STEP
        for b in range(a + 1):
            normal[a, b] /= _STEP * _STEP
        own = squares / (errors.shape[1] * spread[a] * spread[a])
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
def _forward(known, coefficients, first, first_seasons, state, seasons, errors):
    """A pass from the first states."""
    for part in range(2):
        state[part] = first[part]
        for place in range(len(seasons)):
            seasons[place, part] = first_seasons[place, part]
    _run(known, coefficients, state, seasons, errors)


@inlined
def _fit(known, season, settings, coefficients, out):
    """The likeliest coefficients (Levenberg-Marquardt) and their forecasts; neither if SSE is not
    finite."""
    usual, spread, low, high = settings[0], settings[1], settings[2], settings[3]
    n, pattern, errors = len(known), np.empty(season), np.empty((5, len(known)))
    first, first_seasons = np.empty(2), np.empty((season, 2))
    state, seasons = np.empty(2), np.empty((season, 2))
    normal, right, step = np.empty((4, 4)), np.empty(4), np.empty(4)
    _pattern(known, season, pattern)
    _start(known, pattern, usual, first, first_seasons)
    floor = _TINY
    for t in range(n):
        floor += _LEAST_ERROR * known[t] * known[t]
    best, tried, damping = np.inf, usual.copy(), _LEAST_DAMPING
    for _ in range(_MOST_RUNS):
        _forward(known, tried, first, first_seasons, state, seasons, errors[0])
        loss, squares = _loss(errors[0], tried, usual, spread, floor)
        if loss < best:
            best = loss
            _ahead(n, tried, state, seasons, out)
            for j in range(4):
                coefficients[j] = tried[j]
            for j in range(4):
                tried[j] += _STEP
                _forward(known, tried, first, first_seasons, state, seasons, errors[j + 1])
                tried[j] = coefficients[j]
            _equations(errors, tried, usual, spread, squares, normal, right)
            damping *= 0.1
        elif best < np.inf and damping < _MOST_DAMPING:
            damping = max(10.0 * damping, 100.0 * _LEAST_DAMPING)
        else:
            break
        _solved(normal, right, damping, step)
        gain = 0.0
        for j in range(4):
            tried[j] = min(max(coefficients[j] + step[j], low[j]), high[j])
            gain += (tried[j] - coefficients[j]) * right[j] / squares
        if gain < _ENOUGH:
            break


@kernel
def ces(values, starts, at, rows, origins, on_logs, season, beyond, settings, coefficients, out):
    """Coefficients, shape (n, 4), and forecasts of the pairs of series and origin in `at`.

    See `series.ces.ces_forecasts`. `settings` has shape (4, 4): usual coefficients, the spread of
    their prior, and their limits; `beyond` is how far forecasts go, in ranges of the known values.
    Pairs with less than two seasons, or one value only in the last two, are left as they are.
    """
    for i in at:
        known = values[rows[i], starts[rows[i]] : origins[i]]
        n = len(known)
        if n < 2 * season or known[n - 2 * season :].min() == known[n - 2 * season :].max():
            continue
        low, high = known.min(), known.max()
        reach = beyond * (high - low)
        _fit(np.log1p(known) if on_logs else known, season, settings, coefficients[i], out[i])
        if np.isnan(out[i, 0]):
            continue
        for k in range(out.shape[1]):
            found = np.expm1(min(out[i, k], _LARGEST_LOG)) if on_logs else out[i, k]
            out[i, k] = min(max(found, low - reach), high + reach)
