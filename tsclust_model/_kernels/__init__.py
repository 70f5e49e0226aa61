"""The compiled hot path: rows, series, the search tree, and the cache of compiled code."""
