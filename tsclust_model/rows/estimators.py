"""scikit-learn's estimators as bytes: skops runs no code when it reads them.

It refuses types such as the arrays of a forest's trees unless they are named.
"""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator

from tsclust_model.errors import MLflowIntegrationError, listed

# Types of scikit-learn's own estimators, and LightGBM's, that skops asks about. No whole numpy or
# scipy: some of their functions run what they are given.
_TRUSTED = ("sklearn.", "lightgbm.", "scipy.sparse._", "scipy.interpolate._")

_TRUSTED_TYPES = (
    *("numpy.dtype", "numpy.mean", "collections.OrderedDict"),
    "scipy._lib.array_api_compat.numpy._aliases.asarray",
)


def estimator_bytes(estimator: BaseEstimator) -> bytes:
    """An estimator as skops writes it.

    What skops cannot keep, or a type that is not scikit-learn's, LightGBM's, scipy's or numpy's, is
    named in an MLflowIntegrationError.
    """
    name = f"a {type(estimator).__name__}"
    try:
        content = _skops().dumps(estimator)
    except _skops().exceptions.UnsupportedTypeException as error:
        raise MLflowIntegrationError(
            f"{name} cannot be kept: skops takes no {type(estimator).__name__} or a part of it "
            f"({error}); take another estimator"
        ) from error
    trusted_types(content, name)
    return content


def estimator_of_bytes(content: bytes) -> Any:
    """The estimator of `estimator_bytes`; a type that is not trusted is refused."""
    return _skops().loads(content, trusted=trusted_types(content, "the stored estimator"))


def trusted_types(content: bytes, name: str) -> list[str]:
    """Types that skops asks about, if all of them are trusted; `name` is said if not."""
    asked = _skops().get_untrusted_types(data=content)
    foreign = [t for t in asked if not t.startswith(_TRUSTED) and t not in _TRUSTED_TYPES]
    if foreign:
        raise MLflowIntegrationError(
            f"{name} holds {listed(foreign)}, which could run code when it is read; make it of "
            "scikit-learn's own classes and numpy's functions"
        )
    return list(asked)


def _skops() -> Any:
    """``skops.io``, whose import goes through all of scikit-learn and scipy for nearly a second."""
    import skops.io
    import skops.io.exceptions

    return skops.io
