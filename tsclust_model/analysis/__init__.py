"""Which clustering suits a table: algorithms, parameters, evaluation and advice."""
