"""Every failure a client or operator can see, as one tree.

    MillstreamError
    ├── InvalidRequest            400  a field is wrong; `param` names it
    │   ├── ContextTooLong        400  the prompt does not fit the context or the KV cache
    │   ├── Unauthorized          401  no valid API key was sent
    │   ├── HostNotAllowed        403  the server is called by a name that is not one of its own
    │   ├── NotFound              404  no such route, model or stored thing
    │   ├── MethodNotAllowed      405
    │   ├── RequestTimeout        408  the body did not arrive in time
    │   ├── ConversationLocked    409  another response is being made in the conversation
    │   ├── PayloadTooLarge       413
    │   ├── UnsupportedMediaType  415
    │   ├── UpgradeRequired       426  the path is a WebSocket, and was asked over HTTP
    │   └── HeadersTooLarge       431
    ├── RequestCancelled          499  somebody cancelled the request by its id
    ├── Overloaded                429  running and waiting places are all taken
    ├── RateLimited               429  the key has asked for as much as it may, for now
    ├── GenerationFailed          500  this request failed after it was accepted
    │   └── OutOfMemory           503  memory ran out for it; what others asked for is answered
    ├── GenerationTimeout         504  the answer was not complete within the request's time limit
    ├── StoreFailed               503  what is stored cannot be reached: disk full, database gone
    ├── EngineUnavailable         503  the engine is loading or restarting
    ├── WorkerUnavailable         503  the HTTP worker that makes the named answer does not respond
    ├── ShuttingDown              503  the server drains
    └── StartupError              (never on the wire) the server cannot start as configured
        └── EngineLost            (never on the wire) it did, and its engine ended too often

Rules: each class carries the HTTP status, the OpenAI `type`, the machine-readable `code` and the
`error_type` that Text Generation Inference clients switch on. Rendering lives in `api/`.
"""

from __future__ import annotations


class MillstreamError(Exception):
    """Base of everything a client can cause or must be told."""

    status = 500
    type = "server_error"
    code = "internal_error"
    error_type = "generation"
    retry_after: int | None = None
    flag: str | None = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        flag: str | None = None,
    ) -> None:
        """flag: what would have to be set otherwise for it not to come; for the operator."""
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.code
        self.flag = flag or self.flag


class InvalidRequest(MillstreamError):
    status = 400
    type = "invalid_request_error"
    code = "invalid_value"
    error_type = "validation"


class ContextTooLong(InvalidRequest):
    code = "context_length_exceeded"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        num_tokens: int | None = None,
        limit: int | None = None,
    ) -> None:
        """num_tokens, limit: of the prompt, counted or guessed, and of the longest one there may
        be; None if it is not the prompt alone."""
        super().__init__(message, param=param)
        self.num_tokens = num_tokens
        self.limit = limit


class Unauthorized(InvalidRequest):
    status = 401
    code = "invalid_api_key"
    error_type = "authentication"


class HostNotAllowed(InvalidRequest):
    status = 403
    code = "host_not_allowed"
    flag = "--allowed-hosts"


class OriginNotAllowed(InvalidRequest):
    status = 403
    code = "origin_not_allowed"
    flag = "--allowed-origins"


class NotFound(InvalidRequest):
    status = 404
    code = "not_found"


class MethodNotAllowed(InvalidRequest):
    status = 405
    code = "method_not_allowed"


class RequestTimeout(InvalidRequest):
    status = 408
    code = "request_timeout"


class ConversationLocked(InvalidRequest):
    status = 409
    code = "conversation_locked"


class PayloadTooLarge(InvalidRequest):
    status = 413
    code = "payload_too_large"
    flag = "--payload-limit"


class UnsupportedMediaType(InvalidRequest):
    status = 415
    code = "unsupported_media_type"


class UpgradeRequired(InvalidRequest):
    status = 426
    code = "upgrade_required"


class HeadersTooLarge(InvalidRequest):
    status = 431
    code = "headers_too_large"


class RequestCancelled(MillstreamError):
    # Not a standard status: what proxies log for requests that their clients gave up.
    status = 499
    type = "request_cancelled"
    code = "cancelled"
    error_type = "incomplete_generation"


class Overloaded(MillstreamError):
    status = 429
    type = "rate_limit_error"
    code = "overloaded"
    error_type = "overloaded"
    retry_after = 1


class RateLimited(MillstreamError):
    """type: what there was too much of, `requests` or `tokens`, as OpenAI's API says it."""

    status = 429
    code = "rate_limit_exceeded"
    error_type = "overloaded"
    flag = "--api-keys-file"

    def __init__(self, message: str, *, kind: str, retry_after: int) -> None:
        """retry_after: seconds until it may be let in."""
        super().__init__(message)
        self.type = kind
        self.retry_after = retry_after


class GenerationFailed(MillstreamError):
    code = "generation_failed"


class OutOfMemory(GenerationFailed):
    status = 503
    code = "out_of_memory"
    retry_after = 1


class GenerationTimeout(MillstreamError):
    status = 504
    code = "timeout"


class StoreFailed(MillstreamError):
    status = 503
    code = "store_unavailable"
    retry_after = 1
    flag = "--store"


class EngineUnavailable(MillstreamError):
    status = 503
    code = "engine_unavailable"
    retry_after = 1


class WorkerUnavailable(MillstreamError):
    status = 503
    code = "worker_unavailable"
    retry_after = 1


class ShuttingDown(MillstreamError):
    status = 503
    code = "shutting_down"


class StartupError(MillstreamError):
    """exit_status: of the process that it ends."""

    code = "startup_error"
    exit_status = 1


class EngineLost(StartupError):
    exit_status = 3


def is_library_failure(error: BaseException) -> bool:
    """Whether a library has failed: an exception, or a panic of native code, which Python sees as a
    BaseException. False for what is to end the thread or the process."""
    return isinstance(error, Exception) or type(error).__module__ == "pyo3_runtime"
