"""The kinds of models, and which of them a state is."""

from __future__ import annotations

from collections.abc import Mapping

from tsclust_model.models.base import FittedModel
from tsclust_model.models.state import unpack_json
from tsclust_model.rows.baseline import Baseline
from tsclust_model.rows.model import Generation
from tsclust_model.series.model import SeriesGeneration

KINDS: dict[str, type[FittedModel]] = {
    kind.kind: kind for kind in (Generation, SeriesGeneration, Baseline)
}


def generation_of_parts(parts: Mapping[str, bytes]) -> FittedModel:
    """The model of checked parts, of whichever kind its info says; rows do not say it."""
    info = unpack_json(parts["info.json"]) if "info.json" in parts else {}
    return KINDS[info.get("kind", Generation.kind)].from_parts(parts)
