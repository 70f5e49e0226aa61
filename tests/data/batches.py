"""Tables: one with every kind of column, and batches whose cells say where they belong."""

from __future__ import annotations

import numpy as np
import pandas as pd

TABLE = pd.DataFrame(
    {
        "name": ["a", "Größe, \"x\"\n'y'", "c"],
        "count": [1, -2, 3],
        "ratio": [0.1, 1e-300, np.nan],
        "flag": [True, False, True],
    }
)


def batch(number: int, n_rows: int = 3) -> pd.DataFrame:
    """A batch whose every value tells which batch and row it is."""
    rows = np.arange(n_rows)
    return pd.DataFrame(
        {
            "patient_id": [f"P{number:03d}-{row}" for row in rows],
            "age": number + rows / 8,
            "visits": rows,
            "y": number * 100.0 + rows,
        }
    )
