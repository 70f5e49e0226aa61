"""The components of the Kubeflow pipeline: each runs alone, from the text of its function.

What a component needs is imported inside it, and nothing else of this file is there when it runs.
(Nor `from __future__ import annotations`: kfp reads the types of the parameters.)
"""


def ingest(config: str) -> list:
    """Read the data and keep it; the versions that are not processed yet, oldest first."""
    import pathlib
    import tempfile

    from tsclust_model.operations import steps as loop

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "pipeline.yaml")
        path.write_text(config)
        ingested = loop.ingest(str(path))
        if loop.processed(str(path), ingested["data_version"]):
            return list(ingested["pending"][:-1])
        return list(ingested["pending"])


def advance(steps: list, config: str, data_version: str, outcome: str) -> str:
    """Take steps of the loop on a version; JSON of what was found by them and those before them.

    (A text, because a value of kfp's own kind has neither null nor whole numbers.)
    """
    import json
    import pathlib
    import tempfile

    from tsclust_model.operations import steps as loop

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "pipeline.yaml")
        path.write_text(config)
        for step in steps:
            outcomes: dict = {**loop.advance(step, str(path), data_version, json.loads(outcome))}
            outcome = json.dumps(outcomes)
            result = outcomes.get(step, {"message": "not due"})
            print(f"{step}: {result.get('message', 'done')}")
    return outcome
