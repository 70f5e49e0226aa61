"""``tsclust retrain``, for ``mlflow run``."""

from tsclust_model.commands.main import retrain

if __name__ == "__main__":
    retrain()
