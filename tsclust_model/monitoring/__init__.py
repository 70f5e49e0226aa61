"""Drift, metrics over time, and the monitor of a served model."""
