"""``tsclust analyze``, for ``mlflow run``."""

from tsclust_model.commands.main import analyze

if __name__ == "__main__":
    analyze()
