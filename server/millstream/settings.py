"""Every option of the server, once: name, type, default, help text, bounds.

Each field is a command-line flag (hyphens or underscores), an environment variable
(`MILLSTREAM_` and the name in capitals) and an attribute; the command line wins.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ByteSize, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

DEMO_MODEL = "demo"

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]


class Settings(BaseSettings):
    """Immutable options of one server. Raises pydantic.ValidationError for values out of bounds."""

    model_config = SettingsConfigDict(
        env_prefix="MILLSTREAM_", frozen=True, extra="forbid", protected_namespaces=()
    )

    model_id: str = Field(
        DEMO_MODEL, description="local folder or Hugging Face Hub id; 'demo' is the embedded model"
    )
    revision: str | None = Field(None, description="branch, tag or commit of a Hub model")
    trust_remote_code: bool = Field(
        default=False, description="run Python code that the model's repository brings"
    )
    served_model_name: str | None = Field(
        None, description="model name in answers and /v1/models (default: the model id)"
    )
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
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8080, ge=0, le=65535, description="port to listen on; 0 takes a free one")
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
        None, description="seconds a request may take in all, waiting included; then it fails"
    )
    max_total_tokens: Count | None = Field(
        None, description="longest prompt plus answer of a request (default: the model's context)"
    )
    max_batch_prefill_tokens: Count | None = Field(
        None, description="tokens per step, decode included (default: 512 on CPU, 4096 on GPU)"
    )
    native_kernels: Literal["auto", "on", "off"] = Field(
        "auto",
        description="kernels compiled for this CPU at the first start; auto: not for small models",
    )
    kv_cache_memory: ByteSize | None = Field(
        None, description="memory for the KV cache, like 2GiB (default: from free memory)"
    )
    block_size: int = Field(
        16, ge=8, le=256, multiple_of=8, description="tokens per block of the KV cache"
    )
    threads: Count | None = Field(
        None, description="CPU threads of the model (default: all cores; one for a small model)"
    )
    payload_limit: Count = Field(2_000_000, description="largest request body in bytes; 413 above")
    ping_seconds: Seconds = Field(
        15.0, description="seconds between the comments that keep a silent stream open"
    )
    send_timeout: Seconds = Field(
        60.0, description="seconds a client may stop reading its stream before it is closed"
    )
    engine_timeout: Seconds = Field(
        300.0, description="seconds one step may take before the engine is restarted"
    )
    graceful_termination_timeout: Annotated[float, Field(ge=0)] = Field(
        90.0, description="seconds that running requests get to finish after SIGTERM"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="how much the server logs"
    )

    @property
    def model_name(self) -> str:
        """The name that clients see."""
        if self.served_model_name:
            return self.served_model_name
        return "millstream-demo" if self.model_id == DEMO_MODEL else self.model_id
