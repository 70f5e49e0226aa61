"""Compiled passes over series: exponential filters, Theta, and windows before an origin.

Series are rows of an array whose columns are periods; a row has values from ``starts[i]`` up to,
but not including, ``stops[i]``. An origin is the number of columns that are known: its forecasts
begin in the column of that number. A step counts from 1. Results are bit by bit the same for a
series alone and among others. Callers pass C-ordered float64 and int64 arrays.
"""

from __future__ import annotations

import numpy as np

from tsclust_model._kernels.cache import inlined, kernel

_SEASONALITY_TEST = 1.645  # 90% of a normal distribution, as in the M4 competition's Theta

_TINY = 1e-300

_FEWEST_FOR_A_TREND = 5  # values, or a season: less may be the season alone

_NO_SCALE = 1e-12  # of a series that has been zero so far

_LEAST_SPREAD = 0.05  # of the scale: two calm seasons do not make the next one certain


@inlined
def _first_season(series, season, levels, seasonals, sizes):
    """Start every filter of a scale at the first season's mean and its share of the pattern."""
    n = min(season, len(series))
    mean = series[:n].mean()
    for f in range(len(levels)):
        levels[f] = mean
        for place in range(season):
            known = len(series) >= season
            seasonals[place, f] = (series[place] - mean) * sizes[f] if known else 0.0


@inlined
def _step(value, unit, counts, filters, memory, state, scale, place):
    """One period for every filter of a scale; `unit` turns its errors into those of the series."""
    alpha, beta, phi, gamma = filters[0], filters[1], filters[2], filters[3]
    level, trend, error = state[0][scale], state[1][scale], state[2][scale]
    seasonal = state[3][scale, place]
    for f in range(len(level)):
        ahead = level[f] + phi[f] * trend[f]
        miss = value - ahead - seasonal[f]
        error[f] = memory * error[f] + counts * (unit * miss) * (unit * miss)
        level[f] = ahead + alpha[f] * miss
        trend[f] = phi[f] * trend[f] + beta[f] * alpha[f] * miss
        seasonal[f] += gamma[f] * (1.0 - alpha[f]) * miss


@inlined
def _weights(errors, power, prior, weights):
    """Weights that start from `prior` and fall with the filters' squared errors."""
    floor = errors.mean() * 1e-9 + _TINY
    least = errors.min() + floor
    for f in range(len(errors)):
        weights[f] = prior[f] * (least / (errors[f] + floor)) ** (0.5 * power)


@inlined
def _weighted(weights, level, damped, trend, seasonal):
    total = 0.0
    for f in range(len(level)):
        total += weights[f] * (level[f] + damped[f] * trend[f] + seasonal[f])
    return total


@inlined
def _ahead(state, weights, damped, t, season, on_logs, out):
    """The weighted forecasts of all filters after `t` periods."""
    level, trend, _, seasonal = state
    total = weights.sum()
    for k in range(len(out)):
        place = (t + k) % season
        found = _weighted(weights[0], level[0], damped[k], trend[0], seasonal[0, place])
        if on_logs:
            share = weights[1].sum()
            mean = _weighted(weights[1], level[1], damped[k], trend[1], seasonal[1, place])
            if share > 0.0:
                found += share * np.expm1(min(mean / share, 60.0))
        out[k] = found / total


@inlined
def _run(series, ends, season, filters, limits, prior, on_logs, state, weights, damped, out):
    """One pass of the filters; forecasts where `ends` says how many values are known, rising."""
    memory, most = limits
    level, trend, error, seasonal = state
    logs = np.log1p(np.maximum(series, 0.0))
    trend[:], error[:] = 0.0, 0.0
    _first_season(series, season, level[0], seasonal[0], filters[4])
    if on_logs:
        _first_season(logs, season, level[1], seasonal[1], filters[4])
    at = 0
    for t in range(len(series) + 1):
        while at < len(ends) and ends[at] < t:
            at += 1
        if at < len(ends) and ends[at] == t:
            power = min(max(t - season, 0), most)
            _weights(error.ravel(), power, prior.ravel(), weights.ravel())
            _ahead(state, weights, damped, t, season, on_logs, out[at])
        if t == len(series):
            break
        counts = 1.0 if t >= season else 0.0
        place = t % season
        _step(series[t], 1.0, counts, filters, memory, state, 0, place)
        if on_logs:
            _step(logs[t], 1.0 + series[t], counts, filters, memory, state, 1, place)


@kernel
def bank(values, starts, stops, rows, origins, season, filters, limits, prior, on_logs, out):
    """Forecasts of many exponential filters, averaged by how well each has done so far.

    See `series.base_forecasts.bank_forecasts`. `filters` has shape (5, n_filters): alpha, beta,
    phi, gamma and the share of the first season's pattern; `limits` are the memory of the errors
    and the most periods that count. `prior` has shape (2, n_filters): the weights before any error,
    on the values and on their logarithms. `out` has shape (n, n_origins, horizon).
    """
    n_filters, horizon = filters.shape[1], out.shape[2]
    level = np.empty((2 if on_logs else 1, n_filters))
    trend, error, weights = np.empty_like(level), np.empty_like(level), np.empty_like(level)
    state = (level, trend, error, np.empty((len(level), season, n_filters)))
    damped = np.zeros((horizon, n_filters))  # the last row is 0 until it is its turn
    power = np.ones(n_filters)
    for k in range(horizon):
        power *= filters[2]
        damped[k] = damped[k - 1] + power
    for i in rows:
        series = values[i, starts[i] : stops[i]]
        ends = origins - starts[i]
        own = (ends > 0) & (ends < season) & (ends <= len(series))
        for at in np.flatnonzero(own):  # the first season starts the filters: nothing after it may
            known, end, found = series[: ends[at]], ends[at : at + 1], out[i, at : at + 1]
            _run(known, end, season, filters, limits, prior, on_logs, state, weights, damped, found)
        first = np.searchsorted(ends, max(season, 1))
        if first < len(ends) and len(series) >= season:
            ends, found = ends[first:], out[i, first:]
            _run(
                series, ends, season, filters, limits, prior, on_logs, state, weights, damped, found
            )


@kernel
def filter_weights(values, starts, stops, rows, season, filters, limits, on_logs, out):
    """Weights of the filters of `bank` at the end of each series, without a prior.

    `out` has shape (n, 2, n_filters); without `on_logs` its second half stays as it is.
    """
    n_filters = filters.shape[1]
    level = np.empty((2 if on_logs else 1, n_filters))
    trend, error, weights = np.empty_like(level), np.empty_like(level), np.empty_like(level)
    state = (level, trend, error, np.empty((len(level), season, n_filters)))
    never, nothing = np.empty(0, dtype=np.int64), np.empty((0, 0))
    for i in rows:
        series = values[i, starts[i] : stops[i]]
        prior = np.ones_like(level)
        _run(
            series, never, season, filters, limits, prior, on_logs, state, weights, nothing, nothing
        )
        power = min(max(len(series) - season, 0), limits[1])
        _weights(error.ravel(), power, prior.ravel(), weights.ravel())
        out[i, : len(level)] = weights


@inlined
def _is_seasonal(series, season):
    """Whether the autocorrelation at a season stands out of those at shorter lags."""
    n = len(series)
    centred = series - series.mean()
    variance = (centred * centred).sum()
    if variance <= 0.0:
        return False
    squares = 0.0
    found = 0.0
    for lag in range(1, season + 1):
        found = (centred[lag:] * centred[: n - lag]).sum() / variance
        if lag < season:
            squares += found * found
    return abs(found) > _SEASONALITY_TEST * np.sqrt((1.0 + 2.0 * squares) / n)


@inlined
def _moving_average(series, season, out):
    """Centred mean over a season, NaN at both ends; an even season counts its ends half."""
    half = season // 2
    out[:] = np.nan
    for t in range(half, len(series) - half):
        total = 0.0
        for j in range(-half, half + 1):
            total += series[t + j] * (0.5 if season % 2 == 0 and abs(j) == half else 1.0)
        out[t] = total / season


@inlined
def _pattern(series, average, season, ratios, out):
    """Mean ratio to (or difference from) the moving average at each place, centred."""
    counts = np.zeros(season)
    out[:] = 0.0
    for t in range(len(series)):
        if not np.isnan(average[t]):
            place = t % season
            out[place] += series[t] / average[t] if ratios else series[t] - average[t]
            counts[place] += 1.0
    for place in range(season):
        out[place] = out[place] / counts[place] if counts[place] else (1.0 if ratios else 0.0)
    mean = out.mean()
    for place in range(season):
        out[place] = out[place] / mean if ratios else out[place] - mean


@kernel
def theta(values, starts, stops, rows, origins, season, alphas, out):
    """The classic Theta forecasts; see `tsclust_model.series.base_forecasts.theta_forecasts`."""
    pattern = np.empty(season)
    level, squares = np.empty(len(alphas)), np.empty(len(alphas))
    for i in rows:
        for at in range(len(origins)):
            stop = origins[at]
            if stop <= starts[i] or stop > stops[i]:
                continue
            series = values[i, starts[i] : stop].copy()
            n = len(series)
            ratios = series.min() > 0.0
            pattern[:] = 1.0 if ratios else 0.0
            if season > 1 and n >= 2 * season and _is_seasonal(series, season):
                average = np.empty(n)
                _moving_average(series, season, average)
                _pattern(series, average, season, ratios, pattern)
            for t in range(n):
                place = t % season
                series[t] = series[t] / pattern[place] if ratios else series[t] - pattern[place]
            middle = (n - 1) / 2.0
            slope, spread = 0.0, 0.0
            for t in range(n):
                slope += (t - middle) * series[t]
                spread += (t - middle) * (t - middle)
            slope = slope / spread if n > max(season, _FEWEST_FOR_A_TREND) else 0.0
            level[:], squares[:] = series[0], 0.0
            for t in range(1, n):
                for a in range(len(alphas)):
                    miss = series[t] - level[a]
                    squares[a] += miss * miss
                    level[a] += alphas[a] * miss
            best = squares.argmin()
            alpha = alphas[best]
            drift = (1.0 - (1.0 - alpha) ** n) / alpha
            for k in range(out.shape[2]):
                place = (n + k) % season
                found = level[best] + 0.5 * slope * (k + drift)
                out[i, at, k] = found * pattern[place] if ratios else found + pattern[place]


@inlined
def _observe(moments, known, t, lags, shift):
    """Add the period `t` to the sums of products of its lags, 1 and itself."""
    n = len(lags)
    for a in range(n + 2):
        left = known[t] - shift if a == n + 1 else 1.0
        if a < n:
            left = known[t - lags[a]] - shift
        for b in range(a + 1):
            right = known[t] - shift if b == n + 1 else 1.0
            if b < n:
                right = known[t - lags[b]] - shift
            moments[a, b] += left * right


@inlined
def _centred(moments, n_lags, move, scale, out):
    """The sums of products had every value been ``(x - move) / scale``; lower triangle."""
    one = n_lags
    for a in range(n_lags + 2):
        for b in range(a + 1):
            of_a = 0.0 if a == one else move
            of_b = 0.0 if b == one else move
            sum_a = moments[max(a, one), min(a, one)]
            sum_b = moments[max(b, one), min(b, one)]
            found = moments[a, b] - of_a * sum_b - of_b * sum_a + of_a * of_b * moments[one, one]
            unit = (1.0 if a == one else scale) * (1.0 if b == one else scale)
            out[a, b] = found / unit


@inlined
def _solve(sums, size, out):
    """Cholesky's solution of the normal equations whose right side is the last row of `sums`."""
    for a in range(size):
        for b in range(a + 1):
            total = sums[a, b]
            for c in range(b):
                total -= sums[a, c] * sums[b, c]
            sums[a, b] = np.sqrt(max(total, _TINY)) if a == b else total / sums[b, b]
    for a in range(size):
        total = sums[size, a]
        for c in range(a):
            total -= sums[a, c] * out[c]
        out[a] = total / sums[a, a]
    for a in range(size - 1, -1, -1):
        for c in range(a + 1, size):
            out[a] -= sums[c, a] * out[c]
        out[a] /= sums[a, a]


@inlined
def _recurse(known, lags, weights, level, scale, reach, out):
    """Forecasts of the regression, each from those before it; `reach` holds them in units."""
    n = len(known)
    for k in range(len(out)):
        found = weights[len(lags)]
        for a in range(len(lags)):
            at = n + k - lags[a]
            value = known[at] if at < n else out[at - n]
            found += weights[a] * (value - level) / scale
        out[k] = min(max(level + scale * found, reach[0]), reach[1])


@kernel
def regression(values, starts, stops, rows, origins, season, lags, prior, settings, out):
    """Autoregressions on `lags`; see `series.base_forecasts.regression_forecasts`.

    `prior` has shape (n_lags + 2, n_lags + 2): the lower triangle of mean products of the lags, 1
    and the value. `settings` are the periods that it counts for, and the ridge.
    """
    n_lags, longest = len(lags), lags[-1]
    moments, sums = np.empty_like(prior), np.empty_like(prior)
    weights = np.empty(n_lags + 1)
    counted, ridge = settings
    for i in rows:
        series = values[i, starts[i] : stops[i]]
        if len(series) <= longest:
            continue
        shift = series[:longest].mean()
        moments[:] = 0.0
        change, low, high = 0.0, series[0], series[0]
        at = np.searchsorted(origins - starts[i], longest + 1)
        for t in range(len(series) + 1):
            if at < len(origins) and origins[at] - starts[i] == t:
                level = series[max(t - 2 * season, 0) : t].mean()
                scale = change / (t - season)
                if scale > 1e-9 * (high - low):
                    _centred(moments, n_lags, level - shift, scale, sums)
                    trace = 0.0
                    for a in range(n_lags + 2):
                        for b in range(a + 1):
                            sums[a, b] += counted * prior[a, b]
                        trace += sums[a, a] if a < n_lags else 0.0
                    for a in range(n_lags + 1):
                        sums[a, a] += ridge * trace / n_lags + _TINY if a < n_lags else 1e-9
                    _solve(sums, n_lags + 1, weights)
                    reach = (low - (high - low), high + (high - low))
                    _recurse(series[:t], lags, weights, level, scale, reach, out[i, at])
                else:
                    out[i, at] = series[t - 1]
                at += 1
            if t == len(series):
                break
            low, high = min(low, series[t]), max(high, series[t])
            if t >= season:
                change += abs(series[t] - series[t - season])
            if t >= longest:
                _observe(moments, series, t, lags, shift)


@inlined
def _mean_change(series, lag):
    total = 0.0
    for t in range(lag, len(series)):
        total += abs(series[t] - series[t - lag])
    return total / max(len(series) - lag, 1)


@inlined
def _slope(recent):
    middle = (len(recent) - 1) / 2.0
    total, spread = 0.0, 0.0
    for t in range(len(recent)):
        total += (t - middle) * recent[t]
        spread += (t - middle) * (t - middle)
    return total / spread if spread > 0.0 else 0.0


@kernel
def windows(values, starts, series, origins, season, usual, least, lags, spans, units, out):
    """What is known at pairs of series and origin; see `tsclust_model.series.features`.

    `units` gets the level, the scale and the recent scale of each pair, `out` its lags, means,
    deviation, slope, level and length; NaN where the history is too short.
    """
    recent = max(season, 3) if season == 1 else season
    for row in range(len(series)):
        known = values[series[row], starts[series[row]] : origins[row]]
        n = len(known)
        level = known[max(n - recent, 0) :].mean()
        lag = season if n > season else 1
        scale = max(_mean_change(known, lag), 1e-3 * abs(level))
        if scale < _NO_SCALE:
            scale = least
        if n <= season:
            scale = max(scale, usual * abs(level))
        spread = _mean_change(known[max(n - 3 * lag, 0) :], lag) if n > season else scale
        if n < 2 * season:
            spread = max(spread, usual * abs(level))
        elif season > 1 and known[n - 2 * season :].max() == known[n - 2 * season :].min():
            spread = 0.0  # a ward that has closed: what was before says nothing of what comes
        units[row, 0], units[row, 1] = level, scale
        units[row, 2] = max(spread, _LEAST_SPREAD * scale)
        column = 0
        for lag in lags:
            out[row, column] = (known[n - lag] - level) / scale if lag <= n else np.nan
            column += 1
        for span in spans:
            out[row, column] = (known[max(n - span, 0) :].mean() - level) / scale
            column += 1
        two_seasons = known[max(n - 2 * recent, 0) :]
        out[row, column] = two_seasons.std() / scale
        out[row, column + 1] = _slope(two_seasons) * recent / scale
        out[row, column + 2] = np.log1p(abs(level))
        out[row, column + 3] = scale / (abs(level) + 1.0)
        out[row, column + 4] = n


@inlined
def _variance_left(rest, other):
    """1 - var(rest) / var(rest + other), not below 0: how strong `other` is."""
    both = (rest + other).var()
    return max(0.0, 1.0 - rest.var() / both) if both > 0.0 else 0.0


@kernel
def shapes(values, starts, stops, rows, season, out):
    """Strength of season and trend, and variation of each series.

    See `series.features.shape_features`; rows with less than two seasons stay as they are.
    """
    pattern = np.empty(season)
    span = max(season, 3)
    for i in rows:
        series = values[i, starts[i] : stops[i]]
        n = len(series)
        if n < 2 * span:
            continue
        average = np.empty(n)
        _moving_average(series, span, average)
        half = span // 2
        trend = average[half : n - half]
        pattern[:] = 0.0
        if season > 1:
            _pattern(series, average, season, False, pattern)
        seasonal = np.empty(len(trend))
        for t in range(len(trend)):
            seasonal[t] = pattern[(t + half) % season]
        rest = series[half : n - half] - trend - seasonal
        out[i, 0] = _variance_left(rest, seasonal)
        out[i, 1] = _variance_left(rest, trend)
        out[i, 2] = np.log1p(series.std() / (abs(series.mean()) + _TINY))
