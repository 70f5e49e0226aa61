"""``tsclust pipeline``, for ``mlflow run``."""

from tsclust_model.commands.main import pipeline

if __name__ == "__main__":
    pipeline()
