"""``tsclust demo``, for ``mlflow run``."""

from tsclust_model.commands.main import demo

if __name__ == "__main__":
    demo()
