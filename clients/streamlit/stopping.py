"""A run of several requests that a button can stop. Needs nothing but the standard library."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
import uuid


class Stopped(Exception):
    """Somebody pressed the button."""


class Run:
    """One run of an agent; `with Run(url) as run:`, from any thread.

    headers: to be sent with each of its requests, so that the server knows whose they are.
    """

    def __init__(self, base_url: str, api_key: str = "any") -> None:
        self._request_id = uuid.uuid4().hex
        self._url = f"{base_url}/v1/chat/completions/{self._request_id}/cancel"
        self._is_stopped = threading.Event()
        self._has_ended = threading.Event()
        self.headers = {"x-request-id": self._request_id}
        self._key = {"authorization": f"Bearer {api_key}"}

    @property
    def is_stopped(self) -> bool:
        return self._is_stopped.is_set()

    def check(self) -> None:
        """To be called before each request: between two there is nothing to cancel."""
        if self.is_stopped:
            raise Stopped

    def stop(self) -> None:
        """Ends the request that is running, and lets none begin. Returns when that is sure."""
        self._is_stopped.set()
        # One that passed check() a moment ago may not have arrived yet.
        while not self._has_ended.is_set() and not self._cancel():
            self._has_ended.wait(0.1)

    def _cancel(self) -> bool:
        try:
            request = urllib.request.Request(self._url, method="POST", headers=self._key)
            with urllib.request.urlopen(request):
                return True
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return False

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self._has_ended.set()
