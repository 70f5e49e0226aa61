"""Tables and columns of other libraries (polars, Arrow ...) as pandas, which the rest works on."""

from __future__ import annotations

from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd

from tsclust_model.errors import DataValidationError


def as_pandas(table: Any) -> Any:
    """A table or column of polars, Arrow or another library that narwhals knows, as pandas.

    Numbers without nulls are not copied where the other library keeps a column in one piece: pandas
    then holds them read-only. Anything else (pandas, arrays, mappings, lists) comes back as it is.

    Parameters
    ----------
    table : object

    Returns
    -------
    DataFrame, Series or object

    Raises
    ------
    DataValidationError
        A table that is not computed yet (a LazyFrame, a Spark DataFrame).

    Examples
    --------
    >>> import pyarrow
    >>> as_pandas(pyarrow.table({"age": [31.0, 64.0]}))
        age
    0  31.0
    1  64.0
    """
    if isinstance(table, (pd.DataFrame, pd.Series, np.ndarray)):
        return table
    known = nw.from_native(table, pass_through=True, allow_series=True)
    if isinstance(known, nw.LazyFrame):
        raise DataValidationError(
            f"the table is a {type(table).__name__}, which is not computed yet; "
            "collect it first (collect() of polars, toPandas() of Spark)"
        )
    if isinstance(known, nw.Series):
        return known.to_pandas()
    if not isinstance(known, nw.DataFrame):
        return table
    return known.to_arrow().to_pandas(split_blocks=True)
