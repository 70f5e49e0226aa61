"""The kind of model whose table has one row per case."""
