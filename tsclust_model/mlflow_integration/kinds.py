"""The kinds of generations, and which of them a state is."""

from __future__ import annotations

from collections.abc import Mapping

from tsclust_model.models.state import unpack_json
from tsclust_model.rows.model import Generation
from tsclust_model.series.model import KIND, SeriesGeneration

AnyGeneration = Generation | SeriesGeneration


def generation_of_parts(parts: Mapping[str, bytes]) -> AnyGeneration:
    """The generation of checked parts, of whichever kind its info says."""
    if "info.json" in parts and unpack_json(parts["info.json"]).get("kind") == KIND:
        return SeriesGeneration.from_parts(parts)
    return Generation.from_parts(parts)
