"""Places that count for the key of whoever asks, if there is one."""

from __future__ import annotations

from collections.abc import Collection

from millstream.errors import MillstreamError
from millstream.quotas.quota import Quota
from millstream.runtime.client import EngineClient
from millstream.runtime.stream import TokenStream


def open_metered(
    engine: EngineClient, count: int, quota: Quota | None, *, param: str, names: Collection[str]
) -> list[TokenStream]:
    """`count` places. quota: None for those that cost nobody anything. param: the field to change
    for fewer. names: what they can be cancelled by.

    Raises as `Quota.admit()` and `EngineClient.open_many()` do; the latter costs nothing.
    """
    if quota is None:
        return engine.open_many(count, names=names)
    meters = quota.admit(count, param=param)
    try:
        streams = engine.open_many(count, names=names)
    except MillstreamError:
        quota.take_back(meters)
        raise
    for stream, meter in zip(streams, meters, strict=True):
        stream.meter = meter
    return streams
