"""Lists of items, a page at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from starlette.requests import Request as HttpRequest

from millstream.errors import InvalidRequest
from millstream.store.records import Page

_MOST = 100


class PageQuery(NamedTuple):
    """after: the item that the page follows. limit: items on it."""

    after: str | None
    limit: int
    is_descending: bool


def read_page_query(http: HttpRequest) -> PageQuery:
    """The query of a list; the newest first unless it says otherwise, as in OpenAI's API.

    Raises InvalidRequest that names the parameter.
    """
    query = http.query_params
    order, limit = query.get("order", "desc"), query.get("limit", "20")
    if order not in ("asc", "desc"):
        raise InvalidRequest("order: asc or desc", param="order")
    if not limit.isdigit() or not 1 <= int(limit[:9]) <= _MOST:
        raise InvalidRequest(f"limit: a number from 1 to {_MOST}", param="limit")
    return PageQuery(query.get("after"), int(limit), order == "desc")


def item_list(page: Page) -> dict[str, Any]:
    """A page as the API shows it."""
    return listed([item.data for item in page.items], has_more=page.has_more)


def listed(shown: Sequence[Mapping[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """What has ids, as a list. An empty one has no first and last."""
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": has_more,
    }
