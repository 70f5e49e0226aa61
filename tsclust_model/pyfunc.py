"""Where saved models look for their class; it lives in `mlflow_integration.pyfunc`."""

from tsclust_model.mlflow_integration.pyfunc import SegmentForecaster

__all__ = ["SegmentForecaster"]
