"""``tsclust evaluate``, for ``mlflow run``."""

from tsclust_model.commands.main import evaluate

if __name__ == "__main__":
    evaluate()
