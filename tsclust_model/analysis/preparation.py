"""From a request to the matrix that is clustered: which columns, which rows, scaled, reduced."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.decomposition import PCA
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

from tsclust_model.analysis.schema import ClusteringData, PreprocessingConfiguration
from tsclust_model.clustering.profiles import OUTLIER_SCORE, Prepared, isolation_scores
from tsclust_model.data.columns import as_numbers
from tsclust_model.data.tables import read_table
from tsclust_model.errors import (
    DataLoadError,
    DataValidationError,
    PreprocessingError,
    counted,
    listed,
    suggestion,
)

FEWEST_ROWS = 10

COUNTS_ROWS = "numbers the rows, as an identifier does"

_SCALERS: dict[str, type] = {
    "standard": StandardScaler,
    "minmax": MinMaxScaler,
    "robust": RobustScaler,
}

_VARIANCE_KEPT = 0.9

_UMAP_COMPONENTS = 5

_UMAP_NEIGHBOURS = 15

_REPEATS = 0.95

_CORRELATION_ROWS = 20_000

_NUMBERS_LIMIT = 1e150  # its square is still a number

TSNE_NOTE = (
    "preprocessing_configuration.dimensionality_reduction is 'tsne', which keeps neither "
    "distances nor densities: it draws the scatter plot, and the scaled columns are clustered; "
    "use 'pca' or 'umap' to reduce what is clustered"
)


def load_table(data: ClusteringData) -> pd.DataFrame:
    """The table of a request; URLs are kept in DATA_CACHE_DIR where that is set.

    Raises
    ------
    DataLoadError
        It cannot be read; the message names ``data_source``.
    """
    try:
        return read_table(
            data.data_source,
            file_format=data.data_format,
            cache_dir=os.environ.get("DATA_CACHE_DIR"),
        )
    except DataValidationError as error:
        raise DataLoadError(f"clustering_data.data_source: {error}") from error


def prepare(
    frame: pd.DataFrame,
    data: ClusteringData,
    settings: PreprocessingConfiguration,
    random_state: int,
) -> Prepared:
    """Choose columns, drop rows with gaps, scale and reduce.

    Raises
    ------
    DataLoadError
        It is no table of rows, or a named column is not in it.
    PreprocessingError
        Columns that are not numbers, too few rows, or a reduction that is not possible.
    """
    _require_table(frame)
    frame, ids = _with_ids(frame.rename(columns=str), data)
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()].unique()
        raise DataLoadError(f"the table has several columns named {listed(twice)}; rename them")
    features, left_out = _columns(frame, data)
    values = np.array([as_numbers(frame[name], ()) for name in features]).T
    usable = np.isfinite(values) & (np.abs(values) < _NUMBERS_LIMIT)
    missing = {name: int(n) for name, n in zip(features, (~usable).sum(axis=0), strict=True) if n}
    whole = usable.all(axis=1)
    _require_rows(int(whole.sum()), len(frame), missing)
    original = values[whole]
    varied = _varied(original, features, left_out)
    if settings.feature_selection:
        varied &= _not_repeated(original, varied, features, left_out, random_state)
    original = original[:, varied]
    features = [name for name, kept in zip(features, varied, strict=True) if kept]
    scaled = original
    if settings.scaling != "none":
        scaled = _SCALERS[settings.scaling]().fit_transform(original)
    inlier = np.ones(len(scaled), dtype=bool)
    if settings.outlier_detection:
        inlier = isolation_scores(scaled, random_state) <= OUTLIER_SCORE
    _require_rows(int(inlier.sum()), len(frame), missing)
    X, explained = _reduced(scaled, inlier, settings, random_state)
    statistics = {
        "n_rows": len(frame),
        "n_rows_used": int(inlier.sum()),
        "n_rows_dropped": int((~whole).sum()),
        "missing_by_column": missing,
        "n_outliers_removed": int((~inlier).sum()),
        "features": features,
        "columns_left_out": left_out,
        "n_dimensions": X.shape[1],
        "explained_variance": explained,
    }
    return Prepared(
        X=X,
        original=original,
        features=features,
        sample_ids=_sample_ids(ids, whole),
        inlier=inlier,
        target=None if data.target_variable is None else _codes(frame[data.target_variable], whole),
        statistics=statistics,
        notes=_notes(settings),
    )


def _varied(original: np.ndarray, features: list[str], left_out: dict[str, str]) -> np.ndarray:
    """Mask of the columns that vary; the others join those left out."""
    varied = np.ptp(original, axis=0) > 1 / _NUMBERS_LIMIT  # squares of less are 0
    if not varied.any():
        raise PreprocessingError(
            f"clustering_data.features: no column of {listed(features)} varies; name others"
        )
    for name in np.array(features)[~varied]:
        left_out[str(name)] = "does not vary"
    return np.asarray(varied)


def _require_table(frame: pd.DataFrame) -> None:
    if not isinstance(frame, pd.DataFrame):
        raise DataLoadError(f"the table is a {type(frame).__name__}; give a pandas DataFrame")
    if frame.columns.nlevels > 1:
        raise DataLoadError(
            f"the table has column names of {frame.columns.nlevels} levels; "
            "join them into one name each"
        )
    if not frame.shape[1]:
        raise DataLoadError("the table has no columns; give a table with columns")
    if frame.empty:
        raise DataLoadError("the table has no rows; give a table with rows")


def _notes(settings: PreprocessingConfiguration) -> tuple[str, ...]:
    if settings.dimensionality_reduction != "tsne":
        return ()
    warnings.warn(TSNE_NOTE, stacklevel=4)
    return (TSNE_NOTE,)


def _columns(frame: pd.DataFrame, data: ClusteringData) -> tuple[list[str], dict[str, str]]:
    """The columns to cluster, and why the others are not."""
    if data.target_variable is not None:
        _require_column(frame, data.target_variable, "target_variable")
    named = data.features is not None
    candidates = _named_columns(frame, data) if named else list(frame.columns)
    left_out = {}
    for name in candidates:
        reason = _no_values(frame[name]) if named else _unfit(frame[name], data)
        if reason is not None:
            left_out[name] = reason
    features = [name for name in candidates if name not in left_out]
    if not features:
        raise PreprocessingError(
            f"{data.data_source} has no column to cluster "
            f"({listed(f'{name}: {reason}' for name, reason in left_out.items())}); "
            "only numbers are clustered"
        )
    return features, left_out


def _unfit(column: pd.Series, data: ClusteringData) -> str | None:
    """Why a column that was not named is not clustered."""
    if column.name in (data.target_variable, data.id_column):
        return "target_variable" if column.name == data.target_variable else "id_column"
    if _no_values(column) is not None:
        return _no_values(column)
    if not _is_number(column):
        return f"not a number ({column.dtype})"
    if _counts_rows(column):
        return COUNTS_ROWS
    return None


def _no_values(column: pd.Series) -> str | None:
    return "has no values" if column.isna().all() else None


def _counts_rows(column: pd.Series) -> bool:
    """Whole numbers that go up by one from row to row."""
    values = as_numbers(column, ())
    return len(values) > 1 and bool((np.diff(values) == 1).all()) and float(values[0]).is_integer()


def _with_ids(
    frame: pd.DataFrame, data: ClusteringData
) -> tuple[pd.DataFrame, pd.Index | pd.Series]:
    """The table with its rows numbered, and what names its rows."""
    plain = frame.reset_index(drop=True)
    if data.id_column is None:
        return plain, plain.index
    if frame.index.name == data.id_column:
        return plain, frame.index
    _require_column(frame, data.id_column, "id_column")
    return plain, plain[data.id_column]


def _named_columns(frame: pd.DataFrame, data: ClusteringData) -> list[str]:
    names = list(data.features or [])
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise PreprocessingError(
            f"clustering_data.features names {listed(twice)} twice; once will do"
        )
    for name in names:
        _require_column(frame, name, "features")
        if name == data.target_variable:
            raise PreprocessingError(
                f"clustering_data.features names '{name}', which is the target_variable; "
                "the target is never clustered"
            )
        if not _is_number(frame[name]) and _no_values(frame[name]) is None:
            raise PreprocessingError(
                f"clustering_data.features names '{name}', which is {frame[name].dtype}; "
                "only numbers are clustered: encode it as numbers, or leave it out"
            )
    return names


def _require_column(frame: pd.DataFrame, name: str, field: str) -> None:
    if name not in frame.columns:
        raise DataLoadError(
            f"clustering_data.{field} names '{name}', which the table does not have"
            f"{suggestion(name, map(str, frame.columns))}; it has {listed(frame.columns)}"
        )


def _is_number(column: pd.Series) -> bool:
    kind = column.dtype
    return (
        pd.api.types.is_numeric_dtype(kind)
        and not pd.api.types.is_bool_dtype(kind)
        and not pd.api.types.is_complex_dtype(kind)
    )


def _require_rows(n_rows: int, n_all: int, missing: dict[str, int]) -> None:
    if n_rows >= FEWEST_ROWS:
        return
    worst = sorted(missing, key=lambda name: -missing[name])
    raise PreprocessingError(
        f"{n_rows} of {counted(n_all, 'row')} can be clustered, fewer than {FEWEST_ROWS}; "
        + (
            f"missing or infinite values are in {listed(worst)}: leave such columns out of "
            "clustering_data.features"
            if worst
            else "give more rows"
        )
    )


def _not_repeated(
    X: np.ndarray,
    varied: np.ndarray,
    features: list[str],
    left_out: dict[str, str],
    random_state: int,
) -> np.ndarray:
    """Columns that do not repeat an earlier one: |Spearman's rho| of 0.95 at most."""
    if len(X) > _CORRELATION_ROWS:
        X = X[np.random.default_rng(random_state).choice(len(X), _CORRELATION_ROWS, replace=False)]
    kept: list[int] = []
    for column in np.flatnonzero(varied):
        for earlier in kept:
            rho = _rank_correlation(X[:, earlier], X[:, column])
            if abs(rho) > _REPEATS:
                left_out[features[column]] = f"repeats {features[earlier]} (rank correlation)"
                break
        else:
            kept.append(int(column))
    return np.isin(np.arange(X.shape[1]), kept)


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    if np.ptp(a) == 0 or np.ptp(b) == 0:  # constant in the sampled rows
        return 0.0
    return float(spearmanr(a, b).statistic)


def _reduced(
    X: np.ndarray, inlier: np.ndarray, settings: PreprocessingConfiguration, random_state: int
) -> tuple[np.ndarray, float | None]:
    """The clustering space, and the share of the variance that PCA keeps."""
    kind, asked = settings.dimensionality_reduction, settings.n_components
    if kind in ("none", "tsne"):
        return X, None
    most = min(X.shape[1], int(inlier.sum()))
    if asked is not None and asked > most:
        raise PreprocessingError(
            f"preprocessing_configuration.n_components is {asked}, but there are {most} "
            f"dimensions; ask for {most} at most"
        )
    if kind == "pca":
        pca = PCA(_VARIANCE_KEPT if asked is None else asked, random_state=random_state)
        pca.fit(X[inlier])
        explained = min(1.0, float(pca.explained_variance_ratio_.sum()))
        return pca.transform(X), explained
    return _umap(X, min(_UMAP_COMPONENTS, most) if asked is None else asked, random_state), None


def _umap(X: np.ndarray, n_components: int, random_state: int) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            # umap's parametric variant, not used here, asks for tensorflow.
            warnings.filterwarnings("ignore", message="Tensorflow not installed")
            from umap import UMAP
    except ImportError as error:
        raise PreprocessingError(
            "preprocessing_configuration.dimensionality_reduction is 'umap', which needs one more "
            "package: pip install 'tsclust-model[analysis]'"
        ) from error
    neighbours = min(_UMAP_NEIGHBOURS, len(X) - 1)
    start = "spectral" if n_components < len(X) - 1 else "random"
    with warnings.catch_warnings():
        # umap tells that a seed switches its threads off, which is what is wanted here.
        warnings.filterwarnings("ignore", message="n_jobs value")
        warnings.filterwarnings("ignore", message="Spectral initialisation failed")
        mapper = UMAP(
            n_components=n_components,
            n_neighbors=neighbours,
            min_dist=0.0,
            init=start,
            random_state=random_state,
            n_jobs=1,
        )
        return np.asarray(mapper.fit_transform(X), dtype=np.float64)


def _codes(column: pd.Series, whole: np.ndarray) -> np.ndarray:
    return np.asarray(pd.factorize(column[whole])[0])


def _sample_ids(ids: pd.Index | pd.Series, whole: np.ndarray) -> list[Any]:
    """Whole numbers and strings as they are, any other value as a string."""
    kept = ids[whole].tolist()
    return [item if type(item) in (int, str) else str(item) for item in kept]
