"""The logged model as code: what mlflow runs where pickle is switched off."""

import mlflow

from tsclust_model.pyfunc import SegmentForecaster

mlflow.models.set_model(SegmentForecaster())
