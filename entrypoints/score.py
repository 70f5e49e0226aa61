"""``tsclust score``, for ``mlflow run``."""

from tsclust_model.commands.main import score

if __name__ == "__main__":
    score()
