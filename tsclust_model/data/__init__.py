"""Data comes in: tables, columns, roles, quality, history, synthetic examples."""
