"""What the operator reads on standard output once the server is ready."""

from __future__ import annotations

import logging
import socket
from dataclasses import asdict

from millstream.core.status import EngineInfo
from millstream.settings import DEMO_MODEL, Settings
from millstream.version import __version__

log = logging.getLogger(__name__)

_EVERYWHERE = ("0.0.0.0", "::")


def announce(info: EngineInfo, settings: Settings, listener: socket.socket, *, store: str) -> None:
    """Prints it, and says in the log if that fails; where the log is JSON, it is a line of that.

    store: where conversations are kept.
    """
    host, port = listener.getsockname()[:2]
    if settings.log_format == "json":
        _log(info, settings, host=host, port=port, store=store)
        return
    try:
        print(describe(info, settings, host=host, port=port, store=store), flush=True)
    except (OSError, ValueError) as error:
        log.warning("ready, but standard output cannot be written: %s", error)


def describe(info: EngineInfo, settings: Settings, *, host: str, port: int, store: str) -> str:
    """What the operator wants to know once the server is ready."""
    base = _address(settings, host=host, port=port)
    key = " -H 'Authorization: Bearer KEY'" if settings.needs_key else ""
    tokens = info.num_blocks * info.block_size
    note = ""
    if settings.model_id == DEMO_MODEL:
        note = "\n  This is the embedded demo model, a toy. Name a real one with --model-id.\n"
    millions = f"{info.num_parameters / 1e6:,.1f} M"
    cache = f"{info.num_blocks:,} blocks, {info.kv_cache_bytes / 2**20:,.0f} MiB"
    if info.num_states:
        cache += f"\n  states     {info.num_states:,} of {info.state_bytes / 2**20:,.1f} MiB each"
    if settings.cache_folder is not None:
        limit = settings.cache_folder_bytes.human_readable()
        cache += f"\n  on disk    {limit} at most in {settings.cache_folder.expanduser()}"
    weights = f", {info.quantization} weights" if info.quantization else ""
    attention = info.attention_backend + (", batch-invariant" if settings.batch_invariant else "")
    at_once = settings.max_concurrent_requests
    if info.num_states:  # each that runs needs some of its own
        at_once = min(at_once, info.num_states // info.own_states)
    limits = f"{at_once} requests at once"
    longest = f"{info.max_context:,} tokens each"
    if settings.max_output_tokens is not None:
        longest += f", answers of at most {settings.max_output_tokens:,}"
    return f"""
Millstream {__version__} is ready on {base}
{_pages(base, host, settings)}
  model      {settings.model_name} ({info.architecture}, {millions} parameters)
  device     {info.device}, {info.dtype}{weights}, attention {attention}
  KV cache   {tokens:,} tokens in {cache}
  limits     {limits}, {settings.max_queue_size} waiting, {longest}
  store      {store}
{note}
Try it:
  curl -N {base}/v1/chat/completions -H 'Content-Type: application/json'{key} \\
    -d '{{"messages": [{{"role": "user", "content": "Count to 10"}}], "stream": true}}'
"""


def _pages(base: str, host: str, settings: Settings) -> str:
    """What there is to be opened in a browser."""
    if host in _EVERYWHERE:  # no address that browsers know
        shown = f"[{host}]" if ":" in host else host
        base = base.replace(shown, "localhost")
    base += settings.root_path or ""
    chat = f"  chat       {base}/ in a browser\n" if settings.page == "on" else ""
    return f"{chat}  routes     {base}/docs shows each, and lets you try it"


def _log(info: EngineInfo, settings: Settings, *, host: str, port: int, store: str) -> None:
    facts = asdict(info)
    kept = ("architecture", "device", "dtype", "num_blocks", "block_size", "max_context")
    fields = {"url": _address(settings, host=host, port=port), "version": __version__}
    fields |= {"model": settings.model_name, "store": store}
    log.info("ready", extra={"fields": fields | {name: facts[name] for name in kept}})


def _address(settings: Settings, *, host: str, port: int) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"{'http' if settings.ssl_certfile is None else 'https'}://{shown}:{port}"
