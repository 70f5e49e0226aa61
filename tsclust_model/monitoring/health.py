"""Whether a pipeline is well: what is wrong with each of its parts, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Health:
    """What is wrong with each part, in words; an empty string is nothing."""

    model: str = ""
    registry: str = ""
    tracking: str = ""
    drift: str = ""
    alerts: str = ""
    errors: str = ""

    @property
    def components(self) -> dict[str, str]:
        """``ok``, or what is wrong, of each part."""
        return {item.name: getattr(self, item.name) or "ok" for item in fields(self)}

    @property
    def status(self) -> str:
        """``not_fitted``, ``drifting``, ``degraded`` (anything else is wrong) or ``healthy``."""
        if self.model:
            return "not_fitted"
        if self.drift:
            return "drifting"
        return "healthy" if set(self.components.values()) == {"ok"} else "degraded"

    @property
    def advice(self) -> list[str]:
        """A sentence on each part that is not well; drift has recommendations of its own."""
        return [
            f"Look at {name}: {state}."
            for name, state in self.components.items()
            if state != "ok" and name != "drift"
        ]
