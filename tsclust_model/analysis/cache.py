"""Tendencies, clusterings and sweeps that were computed before, as plain files in a folder.

A file is named by the hash of the rows, of what was asked and of this package's version, so an
old one is never mistaken for another. Arrays and JSON only: nothing is unpickled.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tsclust_model import __version__
from tsclust_model.analysis.algorithms import Clustering
from tsclust_model.analysis.sweep import Advice, Candidate, EvaluatedCandidate
from tsclust_model.analysis.tendency import Tendency
from tsclust_model.files import whole_file


class AnalysisCache:
    """Ask for a result; it is computed the first time.

    Parameters
    ----------
    folder : str or None
        None keeps nothing.
    """

    def __init__(self, folder: str | None) -> None:
        self.folder = None if folder is None else Path(folder)

    def advice(
        self,
        X: np.ndarray,
        random_state: int,
        n_clusters: int | None,
        compute: Callable[[np.ndarray, int, int | None], Advice],
    ) -> Advice:
        """The sweep of these rows; one that the time budget cut short is not kept."""
        path = self._path(X, {"sweep": n_clusters, "random_state": random_state})
        if path is not None and path.exists():
            return _read_advice(path)
        advice = compute(X, random_state, n_clusters)
        if path is not None and advice.complete:
            _write(
                path,
                {},
                {"n_rows": advice.n_rows, "evaluated": [_plain(j) for j in advice.evaluated]},
            )
        return advice

    def tendency(
        self, X: np.ndarray, random_state: int, compute: Callable[[np.ndarray, int], Tendency]
    ) -> Tendency:
        """Whether these rows have groups."""
        path = self._path(X, {"tendency": None, "random_state": random_state})
        if path is not None and path.exists():
            return Tendency(**_read_facts(path))
        tendency = compute(X, random_state)
        if path is not None:
            _write(path, {}, vars(tendency))
        return tendency

    def clustering(
        self,
        X: np.ndarray,
        chosen: Mapping[str, Any],
        random_state: int,
        compute: Callable[[], Clustering],
    ) -> Clustering:
        """The clustering of these rows by an algorithm, parameters and number of clusters."""
        path = self._path(X, {"clustering": dict(chosen), "random_state": random_state})
        if path is not None and path.exists():
            return _read_clustering(path)
        clustering = compute()
        if path is not None:
            facts = {k: v for k, v in vars(clustering).items() if k not in ("labels", "confidence")}
            _write(path, {"labels": clustering.labels, "confidence": clustering.confidence}, facts)
        return clustering

    def _path(self, X: np.ndarray, asked: Mapping[str, Any]) -> Path | None:
        if self.folder is None:
            return None
        text = json.dumps([__version__, X.shape, asked], sort_keys=True)
        digest = hashlib.sha256(text.encode() + np.ascontiguousarray(X).tobytes())
        return self.folder / f"{digest.hexdigest()}.npz"


def _write(path: Path, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
    """All of it or nothing: another process may read the folder."""
    with whole_file(path) as stream:
        np.savez(stream, allow_pickle=False, facts=np.array(json.dumps(facts)), **arrays)


def _read_facts(path: Path) -> dict[str, Any]:
    with np.load(path) as stored:
        facts: dict[str, Any] = json.loads(str(stored["facts"]))
    return facts


def _read_clustering(path: Path) -> Clustering:
    with np.load(path) as stored:
        facts = json.loads(str(stored["facts"]))
        facts["notes"] = tuple(facts["notes"])
        return Clustering(labels=stored["labels"], confidence=stored["confidence"], **facts)


def _read_advice(path: Path) -> Advice:
    facts = _read_facts(path)
    nobody = np.empty(0, dtype=np.int64)
    evaluated = tuple(
        EvaluatedCandidate(
            **(item | {"candidate": Candidate(**item["candidate"]), "labels": nobody})
        )
        for item in facts["evaluated"]
    )
    return Advice(evaluated, facts["n_rows"], len(evaluated))


def _plain(item: EvaluatedCandidate) -> dict[str, Any]:
    """Without the labels, which only the ranking needs."""
    plain = {k: v for k, v in vars(item).items() if k != "labels"}
    return plain | {"candidate": dataclasses.asdict(item.candidate)}
