"""The hot path, compiled: nearest neighbours, HDBSCAN's rule and LightGBM's trees.

All arithmetic is float64 in the order of the libraries it stands in for, without fast-math, so
that results are theirs to the last bit. This file holds every kernel of rows (those of series are
in `tsclust_model._kernels.series`): its text names the cache (see `tsclust_model._kernels.cache`).
Callers pass finite, C-ordered, writable arrays.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tsclust_model._kernels.cache import inlined, inlined_bound, kernel

NOISE = -1

UNDECIDED_SEGMENT, UNDECIDED_VOTE = 1, 2

LEAF = 32  # slots of a leaf of a search tree: as many as vector code takes at once

# A bound is rounded in another order than a distance, so it only counts with a margin.
_MARGIN = 1.0 - 1e-12

# Of squared distances closer than this scikit-learn's trees may miss the nearer one.
_CLOSE = 1e-13

_LARGEST = np.finfo(np.float64).max

_DEPTH = 64  # of a search tree: it is balanced, so this is plenty

_BLOCK = 64  # rows that go through a LightGBM tree together

_ZERO = float(np.float32(1e-35))  # LightGBM takes anything smaller for zero

_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


@inlined_bound
def _box_distance(low, high, node, row):
    """Squared distance from a row to the box of a node, summed in any order."""
    total = 0.0
    for j in range(len(row)):
        outside = max(low[node, j] - row[j], row[j] - high[node, j], 0.0)
        total += outside * outside
    return total


@inlined
def _replace_largest(near, who, k, distance, position):
    """Put a point into a heap of the `k` nearest, whose first entry is the furthest."""
    hole = 0
    while True:
        child = 2 * hole + 1
        if child >= k:
            break
        if child + 1 < k and near[child + 1] > near[child]:
            child += 1
        if near[child] <= distance:
            break
        near[hole], who[hole] = near[child], who[child]
        hole = child
    near[hole], who[hole] = distance, position


@inlined
def _sort(near, who, k):
    """Nearest first."""
    for i in range(1, k):
        distance, position = near[i], who[i]
        j = i
        while j > 0 and near[j - 1] > distance:
            near[j], who[j] = near[j - 1], who[j - 1]
            j -= 1
        near[j], who[j] = distance, position


@inlined
def _leaf_distances(tree, node, row, squares):
    """Squared distances from a row to the points of a leaf; returns where it starts.

    Each sum runs over the features in their order.
    """
    values, start, _, _, _, slots, n_features = tree
    first = start[node]
    # Unsigned, so that an index is never taken from the end: the loops become vector code.
    size, at = np.uint64(slots), np.uint64(first * n_features)
    for i in range(size):
        squares[i] = 0.0
    for j in range(n_features):
        x = row[j]
        for i in range(size):
            difference = values[at + i] - x
            squares[i] += difference * difference
        at += size
    return first


@inlined
def _nearest(tree, row, k, near, who, n_votes, vote_near, vote_who, voter, scratch):
    """The `k` nearest points of a row, and in the same descent the nearest `n_votes` voters.

    Squared distances and positions, nearest first; what is not found is infinitely far.
    """
    _, _, is_leaf, low, high, slots, _ = tree
    stack, bounds, squares = scratch
    for i in range(k):
        near[i], who[i] = np.inf, -1
    for i in range(n_votes):
        vote_near[i], vote_who[i] = np.inf, -1
    stack[0], bounds[0] = 0, 0.0
    top = 1
    furthest = np.inf
    while top > 0:
        top -= 1
        node, bound = stack[top], bounds[top]
        while bound * _MARGIN < furthest:
            if not is_leaf[node]:
                node = 2 * node + 1
                bound = _box_distance(low, high, node, row)
                other = _box_distance(low, high, node + 1, row)
                if bound <= other:
                    stack[top], bounds[top] = node + 1, other
                else:
                    stack[top], bounds[top] = node, bound
                    node, bound = node + 1, other
                if bounds[top] * _MARGIN < furthest:
                    top += 1
                continue
            first = _leaf_distances(tree, node, row, squares)
            for i in range(slots):
                square = squares[i]
                if square < furthest:
                    position = first + i
                    if square < near[0]:
                        _replace_largest(near, who, k, square, position)
                        furthest = near[0]
                    if n_votes > 0:
                        if square < vote_near[0] and voter[position] != NOISE:
                            _replace_largest(vote_near, vote_who, n_votes, square, position)
                        furthest = max(near[0], vote_near[0])
            break
    _sort(near, who, k)
    _sort(vote_near, vote_who, n_votes)


@inlined
def _leave_the_end_open(near, k):
    """Whether rounding may decide which points come before the last of `k` and its equals.

    Distances are scikit-learn's to the last bit, and so is their order. Only the bounds of its
    tree are rounded otherwise: they may cost it a point that is hardly nearer than the last one.
    """
    last = near[k - 1]
    i = k - 2
    while i >= 0 and near[i] == last:
        i -= 1
    return i >= 0 and last < np.inf and last - near[i] <= last * _CLOSE


@inlined
def _outcome(points, clusters, point, density):
    """Label and strength of a row of `density` whose neighbour is `point`."""
    _, cluster, leaves = points
    parent, birth, label, peak = clusters
    node = cluster[point]
    if leaves[point] > density:
        while birth[node] >= density:
            node = parent[node]
    if label[node] == NOISE:
        return NOISE, 0.0
    if peak[node] > 0:
        return label[node], min(peak[node], density) / peak[node]
    return label[node], 1.0


@inlined
def _ties_agree(tree, row, square, points, clusters, reach, density, outcome, scratch):
    """Whether every point at a squared distance counts, and leads to the same outcome."""
    _, _, is_leaf, low, high, slots, _ = tree
    stack, _, squares = scratch
    stack[0] = 0
    top = 1
    while top > 0:
        top -= 1
        node = stack[top]
        if _box_distance(low, high, node, row) * _MARGIN > square:
            continue
        if not is_leaf[node]:
            stack[top], stack[top + 1] = 2 * node + 1, 2 * node + 2
            top += 2
            continue
        first = _leaf_distances(tree, node, row, squares)
        for i in range(slots):
            if squares[i] == square:
                point = first + i
                if points[0][point] > reach:
                    return False
                if _outcome(points, clusters, point, density) != outcome:
                    return False
            elif abs(squares[i] - square) <= square * _CLOSE:
                return False
    return True


@inlined
def _votes_agree(tree, row, square, voter, vote, scratch):
    """Whether every voter at a squared distance votes alike."""
    _, _, is_leaf, low, high, slots, _ = tree
    stack, _, squares = scratch
    stack[0] = 0
    top = 1
    while top > 0:
        top -= 1
        node = stack[top]
        if _box_distance(low, high, node, row) * _MARGIN > square:
            continue
        if not is_leaf[node]:
            stack[top], stack[top + 1] = 2 * node + 1, 2 * node + 2
            top += 2
            continue
        first = _leaf_distances(tree, node, row, squares)
        for i in range(slots):
            if voter[first + i] == NOISE:
                continue
            if squares[i] == square:
                if voter[first + i] != vote:
                    return False
            elif abs(squares[i] - square) <= square * _CLOSE:
                return False
    return True


@inlined
def _density(distance):
    return 1.0 / distance if distance > 0 else _LARGEST


@inlined
def _from_the_nearest(tree, row, min_samples, near, who, points, clusters, scratch):
    """The usual case: one of the `min_samples` + 1 nearest is denser than the row.

    Its mutual reachability is then the row's own core distance, below which there is nothing.
    Returns (decided, applies, label, strength).
    """
    core = points[0]
    k = min_samples + 2
    if near[k - 1] == np.inf or _leave_the_end_open(near, k):
        return False, True, NOISE, 0.0
    reach = np.sqrt(near[min_samples])
    chosen = 0
    while chosen <= min_samples and core[who[chosen]] > reach:
        chosen += 1
    if chosen > min_samples:
        return False, False, NOISE, 0.0
    density = _density(reach)
    outcome = _outcome(points, clusters, who[chosen], density)
    if near[k - 1] == near[chosen]:
        same = _ties_agree(
            tree, row, near[chosen], points, clusters, reach, density, outcome, scratch
        )
        return same, True, outcome[0], outcome[1]
    for i in range(chosen + 1, k):
        if near[i] != near[chosen]:
            break
        if core[who[i]] <= reach and _outcome(points, clusters, who[i], density) != outcome:
            return False, True, NOISE, 0.0
    return True, True, outcome[0], outcome[1]


@inlined
def _from_all(min_samples, near, who, points, clusters):
    """The rule itself, on 2 * `min_samples` neighbours and one more, which shows ties at the end.

    Returns (decided, label, strength).
    """
    core = points[0]
    k = 2 * min_samples
    if near[k - 1] == np.inf or _leave_the_end_open(near, k + 1):
        return False, NOISE, 0.0
    reach = np.sqrt(near[min_samples])
    chosen, least = 0, np.inf
    for i in range(k):
        mutual = max(core[who[i]], reach, np.sqrt(near[i]))
        if mutual < least:
            chosen, least = i, mutual
    if near[k - 1] == near[k] and least >= np.sqrt(near[k]):
        return False, NOISE, 0.0
    density = _density(least)
    outcome = _outcome(points, clusters, who[chosen], density)
    for i in range(chosen + 1, k):
        if near[i] != near[chosen]:
            break
        mutual = max(core[who[i]], reach, np.sqrt(near[i]))
        if mutual == least and _outcome(points, clusters, who[i], density) != outcome:
            return False, NOISE, 0.0
    return True, outcome[0], outcome[1]


@inlined
def _sum_as_numpy(values, k):
    """The sum of up to 128 numbers in the order of `numpy.sum`."""
    if k < 8:
        total = 0.0
        for i in range(k):
            total += values[i]
        return total
    whole = k - k % 8
    for i in range(8, whole):
        values[i % 8] += values[i]
    total = ((values[0] + values[1]) + (values[2] + values[3])) + (
        (values[4] + values[5]) + (values[6] + values[7])
    )
    for i in range(whole, k):
        total += values[i]
    return total


@inlined
def _vote(tree, row, k, by_distance, near, who, voter, weights, part, scratch):
    """The voters' choice: (decided, label). Nearest first; a tie goes to the lower label."""
    if near[k - 1] == np.inf or _leave_the_end_open(near, len(near)):
        return False, NOISE
    for i in range(len(near) - 1):
        if near[i] == near[i + 1] and voter[who[i]] != voter[who[i + 1]]:
            return False, NOISE
    if (
        len(near) > k
        and near[k - 1] == near[k]
        and not _votes_agree(tree, row, near[k], voter, voter[who[k]], scratch)
    ):
        return False, NOISE
    for i in range(k):
        distance = min(np.sqrt(near[i]), _LARGEST / 2)
        if not by_distance:
            weights[i] = 1.0
        elif near[0] == 0.0:
            weights[i] = 1.0 if distance == 0.0 else 0.0
        else:
            weights[i] = 1.0 / distance
    winner, most = NOISE, 0.0
    for i in range(k):
        label = voter[who[i]]
        for j in range(k):
            part[j] = weights[j] if voter[who[j]] == label else 0.0
        votes = _sum_as_numpy(part, k)
        if votes > most or (votes == most and label < winner):
            winner, most = label, votes
    return True, winner


@inlined
def _take_voters(near, who, k, voter, n_voters, vote_near, vote_who):
    """Copy the voters among the `k` nearest points; whether there are enough of them."""
    taken = 0
    for i in range(k):
        if taken < n_voters and who[i] >= 0 and voter[who[i]] != NOISE:
            vote_near[taken], vote_who[taken] = near[i], who[i]
            taken += 1
    return taken == n_voters


@kernel
def core_distances(X, rows, tree, k, out):
    """The distance of some rows of X to the `k`-th of the tree's points."""
    near, who = np.empty(k), np.empty(k, np.int64)
    nothing, nobody = np.empty(0), np.empty(0, np.int64)
    scratch = (np.empty(2 * _DEPTH, np.int64), np.empty(2 * _DEPTH), np.empty(tree[5]))
    for i in rows:
        _nearest(tree, X[i], k, near, who, 0, nothing, nobody, nobody, scratch)
        out[i] = np.sqrt(near[k - 1])


@kernel
def first_leaves(X, tree):
    """The leaf whose box is nearest to each row by greedy descent, shape (n,).

    Rows of one leaf have their neighbours in the same memory.
    """
    _, _, is_leaf, low, high, _, _ = tree
    leaves = np.empty(len(X), np.int64)
    for i in range(len(X)):
        node = 0
        while not is_leaf[node]:
            node = 2 * node + 1
            if _box_distance(low, high, node, X[i]) > _box_distance(low, high, node + 1, X[i]):
                node += 1
        leaves[i] = node
    return leaves


@kernel
def assign(X, rows, tree, points, clusters, min_samples, voting, out):
    """Segment some rows of X as `hdbscan.approximate_predict` does, and let voters place noise.

    Parameters
    ----------
    X : float64 (n, n_features)
    rows : int64 (m,)
        Positions in X to work on, in this order.
    tree : tuple
        Arrays of `tsclust_model._kernels.search_tree.SearchTree`.
    points : tuple
        Core distance, cluster and lambda of each point, in the tree's order.
    clusters : tuple
        Parent, birth, label and peak of each node of the condensed tree.
    min_samples : int
    voting : tuple
        voter, int64 (n_points,): the label each point votes for, -1 does not vote; the number of
        neighbours that vote, at most 128, 0 without a fallback; how many to look for, one more
        where there is one; whether votes count 1 / distance; whether so many points vote that
        those nearest to a row will be among its nearest points.
    out : tuple
        label and strength by HDBSCAN, label after the vote and undecided, shape (n,) each. Where
        the answer hangs on how a library orders equal distances, it is undecided.
    """
    label, strength, voted, undecided = out
    voter, n_votes, n_voters, by_distance, nearly_all = voting
    first = max(min_samples + 2, n_voters if nearly_all else 0)
    size = max(first, 2 * min_samples + 1)
    near, who = np.empty(size), np.empty(size, np.int64)
    vote_near, vote_who = np.empty(n_voters), np.empty(n_voters, np.int64)
    weights, part = np.empty(n_votes), np.empty(n_votes)
    scratch = (np.empty(2 * _DEPTH, np.int64), np.empty(2 * _DEPTH), np.empty(tree[5]))
    for i in rows:
        row = X[i]
        k, n_asked = first, 0 if nearly_all else n_voters
        _nearest(tree, row, k, near, who, n_asked, vote_near, vote_who, voter, scratch)
        decided, applies, label[i], strength[i] = _from_the_nearest(
            tree, row, min_samples, near, who, points, clusters, scratch
        )
        if not applies:
            k = 2 * min_samples + 1
            _nearest(tree, row, k, near, who, 0, vote_near, vote_who, voter, scratch)
            decided, label[i], strength[i] = _from_all(min_samples, near, who, points, clusters)
        voted[i] = label[i]
        undecided[i] = 0 if decided else UNDECIDED_SEGMENT
        if decided and label[i] == NOISE and n_votes > 0:
            if nearly_all and not _take_voters(near, who, k, voter, n_voters, vote_near, vote_who):
                _nearest(tree, row, 1, near, who, n_voters, vote_near, vote_who, voter, scratch)
            decided, voted[i] = _vote(
                tree, row, n_votes, by_distance, vote_near, vote_who, voter, weights, part, scratch
            )
            undecided[i] = 0 if decided else UNDECIDED_VOTE


@intrinsic
def _trailing_zeros(typing_context, value):
    def build(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), build


@kernel
def pack_trees(left, right, n_leaves, starts):
    """Which leaves stay possible behind each test of many LightGBM trees.

    Leaves are numbered from left to right. A test that fails (the row goes right) rules out the
    leaves on its left: those from `low` up to `middle`.

    Parameters
    ----------
    left, right : int64 (n_nodes,)
        Children, tree after tree; leaves are ~leaf.
    n_leaves : int64 (n_trees,)
    starts : int64 (n_trees,)
        First node of each tree.

    Returns
    -------
    low, middle : int64 (n_nodes,)
    rank : int64 (n_leaves in all,)
        Position of each leaf from left to right, tree after tree.
    """
    low, middle = np.empty(len(left), np.int64), np.empty(len(left), np.int64)
    rank = np.empty(n_leaves.sum(), np.int64)
    stack = np.empty(2 * n_leaves.max() + 2, np.int64)
    base = 0
    for tree in range(len(n_leaves)):
        seen, top = 0, 1
        stack[0] = 0 if n_leaves[tree] > 1 else ~0
        while top > 0:
            top -= 1
            entry = stack[top]
            if entry < 0:
                rank[base + ~entry] = seen
                seen += 1
                continue
            if entry >= n_leaves[tree]:  # the left side is done
                middle[starts[tree] + entry - n_leaves[tree]] = seen
                continue
            node = starts[tree] + entry
            low[node] = seen
            stack[top] = right[node]
            stack[top + 1] = entry + n_leaves[tree]
            stack[top + 2] = left[node]
            top += 3
        base += n_leaves[tree]
    return low, middle, rank


# Where a test sends what is missing: NaN, or also zero; or the test is of a category.
RIGHT, LEFT, ZERO_RIGHT, ZERO_LEFT, CATEGORY = 0, 1, 2, 3, 4


@inlined
def _rule_out_by_category(block, j, bits, limit, others, left, w, lanes):
    """The categories that go left are bits behind `limit`, where the number of their words is."""
    first = np.int64(limit)
    for i in range(lanes):
        x = block[j, i]
        code = np.int64(x) if -1.0 < x < 32.0 * bits[first] else np.int64(-1)
        if code < 0 or (bits[first + 1 + (code >> 5)] >> np.uint32(code & 31)) & np.uint32(1) == 0:
            left[w, i] &= others


@kernel
def forecast(X, rows, groups, models, forest, out):
    """Sum LightGBM's trees for rows that come in groups, bit for bit as `Booster.predict`.

    A tree starts with every leaf possible; each test that fails rules out the leaves on its left,
    for a block of rows at a time, and the leftmost one that is left is the answer (QuickScorer:
    Lucchese et al., SIGIR 2015).

    Parameters
    ----------
    X : float64 (n, n_features)
        NaN is missing.
    rows : int64 (m,)
        Positions in X, group after group.
    groups : int64 (n_groups + 1,)
        Where each group starts in `rows`, and where the last one ends.
    models : int64 (n_groups, n_outputs)
        The model of each output for the rows of a group; -1 leaves `out` as it is.
    forest : tuple
        Arrays of `tsclust_model.boosting.packed_trees.Forest`.
    out : float64 (n_outputs, n)
    """
    tests, trees, tree_start = forest
    feature, kind, threshold, word, mask, bits = tests
    test_start, leaf_start, value, n_words = trees
    n_features = X.shape[1]
    block = np.zeros((n_features, _BLOCK))
    left = np.empty((n_words.max(), _BLOCK), np.uint64)
    total = np.empty(_BLOCK)
    for group in range(len(groups) - 1):
        for begin in range(groups[group], groups[group + 1], _BLOCK):
            n = min(_BLOCK, groups[group + 1] - begin)
            lanes = n if n < 4 else (n + 7) // 8 * 8
            for i in range(n):
                for j in range(n_features):
                    x = X[rows[begin + i], j]
                    block[j, i] = 0.0 if abs(x) <= _ZERO else x
            for output in range(models.shape[1]):
                model = models[group, output]
                if model < 0:
                    continue
                for i in range(lanes):
                    total[i] = 0.0
                for tree in range(tree_start[model], tree_start[model + 1]):
                    for w in range(n_words[tree]):
                        for i in range(lanes):
                            left[w, i] = _ALL
                    for test in range(test_start[tree], test_start[tree + 1]):
                        # Unsigned, so that an index is never taken from the end of an array.
                        j, w = np.uint32(feature[test]), np.uint32(word[test])
                        limit, others = threshold[test], mask[test]
                        # Without a branch inside, each of these loops becomes vector code.
                        if kind[test] == RIGHT:
                            for i in range(lanes):
                                left[w, i] &= _ALL if block[j, i] <= limit else others
                        elif kind[test] == LEFT:
                            for i in range(lanes):
                                left[w, i] &= others if block[j, i] > limit else _ALL
                        elif kind[test] == ZERO_RIGHT:
                            for i in range(lanes):
                                x = block[j, i]
                                left[w, i] &= _ALL if x <= limit and x != 0.0 else others
                        elif kind[test] == ZERO_LEFT:
                            for i in range(lanes):
                                x = block[j, i]
                                left[w, i] &= others if x > limit and x != 0.0 else _ALL
                        else:
                            _rule_out_by_category(block, j, bits, limit, others, left, w, lanes)
                    first = leaf_start[tree]
                    if n_words[tree] == 1:
                        for i in range(lanes):
                            total[i] += value[first + np.int64(_trailing_zeros(left[0, i]))]
                    else:
                        for i in range(lanes):
                            w = 0
                            while left[w, i] == 0:
                                w += 1
                            total[i] += value[
                                first + 64 * w + np.int64(_trailing_zeros(left[w, i]))
                            ]
                for i in range(n):
                    out[output, rows[begin + i]] = total[i]
