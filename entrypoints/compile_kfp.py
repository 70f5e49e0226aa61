"""``tsclust compile-kfp``, for ``mlflow run``."""

from tsclust_model.commands.main import compile_kfp

if __name__ == "__main__":
    compile_kfp()
