"""The model that is served, as Anthropic's SDKs list it."""

from __future__ import annotations

from datetime import UTC, datetime

from millstream.api.anthropic.shapes import ListedModel, ModelPage


def listed_model(
    name: str, *, created: int, max_context: int | None, max_output: int | None
) -> ListedModel:
    """created: seconds since the epoch. max_context, max_output: tokens."""
    return {
        "id": name,
        "type": "model",
        "display_name": name,
        "created_at": datetime.fromtimestamp(created, UTC).isoformat().replace("+00:00", "Z"),
        "lifecycle": "active",
        "max_input_tokens": max_context,
        "max_tokens": max_output,
    }


def model_page(model: ListedModel) -> ModelPage:
    return {"data": [model], "has_more": False, "first_id": model["id"], "last_id": model["id"]}
