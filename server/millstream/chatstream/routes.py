"""The routes that `append_apis()` adds, under ChatStream's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.routing import Route

METHODS = {
    "chat_stream": "POST",
    "clear_context": "POST",
    "get_prompt": "GET",
    "set_generation_params": "POST",
    "get_generation_params": "GET",
    "set_feedback": "POST",
    "get_load": "GET",
    "get_resource_usage": "GET",
}
_PAGES = {"webui_index", "webui_js"}
_CHOICES = ("include", "exclude", "all")


def chosen_names(opts: Mapping[str, Any]) -> list[str]:
    """Which routes are wanted; all of them if nothing is said. Raises ValueError."""
    given = [name for name in _CHOICES if name in opts]
    if len(given) > 1:
        raise ValueError(f"give one of {', '.join(_CHOICES)}, not {' and '.join(given)}")
    for name in opts:
        if name == "web_ui_params" or name in _PAGES:
            raise ValueError(f"{name}: ChatStream's page is not part of this package")
        if name not in _CHOICES:
            raise ValueError(f"{name} is not known")
    for name in (*opts.get("include", ()), *opts.get("exclude", ())):
        if name in _PAGES and name in opts.get("exclude", ()):
            continue
        if name not in METHODS:
            raise ValueError(f"there is no API {name}; there are: {', '.join(METHODS)}")
    if "include" in opts:
        return list(opts["include"])
    return [name for name in METHODS if name not in opts.get("exclude", ())]


def append_routes(chat_stream: Any, app: Any, opts: Mapping[str, Any]) -> None:
    """Adds them to an application of FastAPI or Starlette."""
    for name in chosen_names(opts):
        handler = getattr(chat_stream, f"handle_{name}_request")
        app.router.routes.append(Route(f"/{name}", handler, methods=[METHODS[name]]))
