"""Scoring and training on Spark; the only folder that imports pyspark."""
