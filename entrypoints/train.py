"""``tsclust train``, for ``mlflow run``."""

from tsclust_model.commands.main import train

if __name__ == "__main__":
    train()
