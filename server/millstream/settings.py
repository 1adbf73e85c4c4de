"""Every option of the server, once: name, type, default, help text, bounds.

Each field is a command-line flag (hyphens or underscores), an environment variable
(`MILLSTREAM_` and the name in capitals) and an attribute; the command line wins. A field that is
excluded is a secret: it is never shown, logged or handed to another process.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ByteSize, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from millstream.setting_types import ApiKeys, Count, Hosts, Origins, Seconds

DEMO_MODEL = "demo"
MAX_HTTP_WORKERS = 64


class Settings(BaseSettings):
    """Immutable options of one server. Raises pydantic.ValidationError for values out of bounds."""

    model_config = SettingsConfigDict(
        env_prefix="MILLSTREAM_", frozen=True, extra="forbid", protected_namespaces=()
    )

    model_id: str = Field(
        DEMO_MODEL, description="local folder or Hugging Face Hub id; 'demo' is the embedded model"
    )
    revision: str | None = Field(None, description="branch, tag or commit of a Hub model")
    gguf_file: str | None = Field(
        None, description="name of the GGUF file with the model, in the folder or on the Hub"
    )
    trust_remote_code: bool = Field(
        default=False, description="run Python code that the model's repository brings"
    )
    served_model_name: str | None = Field(
        None,
        description="model name in answers and /v1/models (default: the model id, or the last "
        "part of a folder's path)",
    )
    chat_template: str | None = Field(
        None, description="file with a chat template, for a model without or instead of its own"
    )
    literal_user_text: bool = Field(
        default=False,
        description="special tokens in what clients send are text: only the chat template writes "
        "real ones",
    )
    tool_call_parser: str = Field(
        "auto",
        description="how the model writes tool calls: auto, none, hermes, qwen3-coder, glm, "
        "minimax, llama3, mistral, deepseek, harmony",
    )
    reasoning_parser: str = Field(
        "auto",
        description="how the model marks its reasoning: auto, none, think, magistral, seed, "
        "harmony",
    )
    host: str = Field(
        "127.0.0.1", description="address or name to listen on; `::` is every interface"
    )
    port: int = Field(8080, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    api_key: ApiKeys = Field(
        None,
        exclude=True,
        description="keys, of which a client must send one; separated by commas, or given again "
        "(default: anyone may use the server)",
    )
    api_keys_file: Path | None = Field(
        None,
        description="TOML file with more keys, each with a label and limits (docs/operations.md); "
        "read again when it changes",
    )
    open_metrics: bool = Field(
        default=False, description="let anyone read /metrics on a server that has keys"
    )
    allowed_hosts: Hosts = Field(
        None,
        description="names by which the server may be called, like llm.example or *.example; "
        "separated by commas, or given again; addresses and localhost always may (default: any)",
    )
    allowed_origins: Origins = Field(
        None,
        description="origins whose web pages may use the server, like https://chat.example; "
        "separated by commas, or given again; * for all (default: none)",
    )
    allow_credentials: bool = Field(
        default=False, description="let those pages send the browser's cookies and passwords along"
    )
    root_path: str | None = Field(
        None,
        pattern=r"^(/[A-Za-z0-9._~-]+)+$",
        description="where a proxy in front shows the server, like /llm",
    )
    page: Literal["on", "off"] = Field(
        "on", description="whether browsers get a page to chat with the model at /"
    )
    ssl_certfile: str | None = Field(
        None, description="certificate chain (PEM); the server then speaks HTTPS only"
    )
    ssl_keyfile: str | None = Field(
        None, description="private key (PEM), if it is not in the file of the certificate"
    )
    ssl_keyfile_password: SecretStr | None = Field(
        None, exclude=True, description="password of the private key"
    )
    ping_seconds: Seconds = Field(
        15.0, description="seconds between the comments that keep a silent stream open"
    )
    send_timeout: Seconds = Field(
        60.0, description="seconds a client may stop reading its answer before it is closed"
    )
    socket_idle_seconds: Seconds = Field(
        3600.0, description="seconds after which a WebSocket that asks for nothing is closed"
    )
    time_between_chunks: float = Field(
        0.0,
        ge=0,
        le=60,
        description="seconds between the pieces of an answer over /ws; what is made meanwhile is "
        "one piece",
    )
    tgi_error_events: bool = Field(
        default=False,
        description="answer a refused stream of /v1 with 200 and an event that has the error, as "
        "TGI does: huggingface_hub raises OverloadedError for no other",
    )
    http_workers: Count = Field(
        1,
        le=MAX_HTTP_WORKERS,
        description="processes that serve HTTP in front of the one engine, for more requests per "
        "second than one core can take",
    )
    max_concurrent_requests: Count = Field(
        32, le=1024, description="requests that generate at the same time"
    )
    max_queue_size: int = Field(
        128, ge=0, description="requests that may wait beyond those; more are refused with 429"
    )
    max_queue_tokens: Count = Field(
        500_000, description="prompt tokens that may wait for their first answer token; 429 beyond"
    )
    max_queue_seconds: Seconds | None = Field(
        None, description="seconds a request may wait for its turn; then it fails as overloaded"
    )
    request_timeout: Seconds | None = Field(
        None,
        description="seconds a request may take in all, waiting included; then it fails (default: "
        "none, since it depends on the model and the machine how long an answer may take)",
    )
    max_input_tokens: Count | None = Field(
        None, description="longest prompt of a request (default: what the context holds)"
    )
    max_total_tokens: Count | None = Field(
        None, description="longest prompt plus answer of a request (default: the model's context)"
    )
    max_output_tokens: Count | None = Field(
        None,
        description="longest answer, whatever a request asks for; it then ends with finish_reason "
        "length (default: what the context leaves)",
    )
    payload_limit: Count = Field(2_000_000, description="largest request body in bytes; 413 above")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="precision of weights and cache; auto takes what suits the hardware"
    )
    quantize: Literal["none", "int8", "int4"] = Field(
        "none", description="fewer bits for the weights of linear layers (CPU)"
    )
    batch_invariant: bool = Field(
        default=False,
        description="the same tokens to the bit whatever else is running (CPU); costs some speed",
    )
    max_batch_prefill_tokens: Count | None = Field(
        None,
        description="most tokens per step, decode included (default: 256 to 1024 on CPU, by the "
        "model's size, 4096 on GPU); at least 5 for each 4 places",
    )
    target_itl_ms: float = Field(
        100.0,
        ge=0,
        description="milliseconds between two tokens of an answer that prompts of others may "
        "cause; three times a decode step's own time where that is longer",
    )
    speculate: int | None = Field(
        None,
        ge=0,
        le=32,
        description="tokens to guess ahead in a step of each answer, from what it quotes; 0: none "
        "(default: 8 on CPU, for models without states; as many of them as pay)",
    )
    native_kernels: Literal["auto", "on", "off"] = Field(
        "auto",
        description="kernels compiled for this CPU at the first start; auto: not for small models",
    )
    kv_cache_memory: ByteSize | None = Field(
        None, description="memory for the KV cache, like 2GiB (default: from free memory)"
    )
    cache_folder: Path | None = Field(
        None,
        description="folder in which the prefix cache outlives restarts; not for models with "
        "states (default: memory only)",
    )
    cache_folder_bytes: ByteSize = Field(
        ByteSize(4 * 2**30), gt=0, description="what the files there may take, like 4GiB"
    )
    block_size: int = Field(
        16, ge=8, le=256, multiple_of=8, description="tokens per block of the KV cache"
    )
    threads: Count | None = Field(
        None,
        description="CPU threads of the model (default: all cores, or what the container's CPU "
        "limit comes to; one for a small model)",
    )
    store: str = Field(
        "auto",
        exclude=True,
        repr=False,
        description="where conversations and responses are kept: auto (a file of the user's), "
        "memory, off, a path, or postgresql://...",
    )
    store_days: Annotated[float, Field(gt=0, le=36_500)] = Field(
        30.0, description="days that what is stored is kept after its last use"
    )
    store_bytes: Annotated[ByteSize, Field(gt=0)] = Field(
        ByteSize(2**30), description="room for what is stored, like 1GiB; the oldest goes first"
    )
    session_days: Annotated[float, Field(gt=0, le=36_500)] = Field(
        365.0, description="days that a browser's session holds after its last use"
    )
    engine_timeout: Seconds = Field(
        300.0, description="seconds one step may take before the engine is restarted"
    )
    max_engine_restarts: int = Field(
        8,
        ge=0,
        description="restarts of an engine that ends within ten minutes each time; then the server "
        "ends with status 3",
    )
    graceful_termination_timeout: Annotated[float, Field(ge=0)] = Field(
        90.0, description="seconds that running requests get to finish after SIGTERM"
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="how it logs; json is an object for each line"
    )
    log_prompts: bool = Field(
        default=False,
        description="log what clients send to be answered, word for word; nothing of it otherwise",
    )
    otlp_traces_endpoint: str | None = Field(
        None,
        pattern=r"^https?://",
        description="collector of OpenTelemetry that gets traces (OTLP over HTTP), like "
        "http://localhost:4318; needs millstream[otel]",
    )
    otlp_service_name: str = Field("millstream", description="what traces call this server")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="how much the server logs"
    )

    @property
    def needs_key(self) -> bool:
        """Whether a client must send a key."""
        return self.api_key is not None or self.api_keys_file is not None

    @cached_property
    def model_name(self) -> str:
        """The name that clients see. Where a folder lies is the operator's business."""
        if self.served_model_name:
            return self.served_model_name
        if self.model_id == DEMO_MODEL:
            return "millstream-demo"
        folder = Path(self.model_id).expanduser()
        if not folder.is_dir():
            return self.model_id
        name = folder.name if folder.name not in ("", "..") else folder.resolve().name
        return name or self.model_id
