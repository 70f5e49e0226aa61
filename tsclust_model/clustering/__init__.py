"""Segments by density: scaler, HDBSCAN, nearest-neighbour fallback, profiles, lineage."""
