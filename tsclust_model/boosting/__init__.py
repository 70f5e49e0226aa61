"""LightGBM: fits a cluster and globally, their blend, packed trees, folds and intervals."""
