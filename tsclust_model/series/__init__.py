"""The kind of model whose table has a series per case."""
