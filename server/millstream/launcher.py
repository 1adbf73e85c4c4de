"""Flags and environment variables of Text Generation Inference's launcher, put in our words.

Source: TGI 3.3.6, `docs/source/reference/launcher.md`; the variables that its images for SageMaker
and Vertex AI read. Every flag there is also a variable, its name in capitals.

Rules: variables that others have too, like PORT, are read only where one of TGI's own is set, like
MODEL_ID; a flag wins over `MILLSTREAM_...`, which wins over a variable of TGI's. What means nothing
here is accepted and said in one line; what would change answers and is not done is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from millstream.errors import StartupError
from millstream.intake.requests.completion import MAX_PROMPTS
from millstream.intake.sampling_fields import MAX_CHOICES, MAX_STOPS, MAX_TOP_LOGPROBS

PREFIX = "launcher_"
"""What the names of flags that are not ours begin with in parsed options."""

SAME = (
    "model_id",
    "revision",
    "dtype",
    "quantize",
    "speculate",
    "trust_remote_code",
    "max_concurrent_requests",
    "max_input_tokens",
    "max_total_tokens",
    "max_batch_prefill_tokens",
    "payload_limit",
    "port",
    "api_key",
    "graceful_termination_timeout",
    "otlp_service_name",
)
"""Flags of TGI that are flags here."""

RENAMED = {
    "hostname": "host",
    "max_input_length": "max_input_tokens",
    "cors_allow_origin": "allowed_origins",
}
"""Flag of TGI -> the setting that is the same thing."""

HUB_CACHE = ("huggingface_hub_cache", "weights_cache_override")
"""Flags that say where models of the Hub are kept; here a variable of the library says it."""
HUB_CACHE_VARIABLE = "HF_HUB_CACHE"

SWITCHES = frozenset(
    {
        "disable_custom_kernels",
        "disable_grammar_support",
        "enable_prefill_logprobs",
        "env",
        "json_output",
        "ngrok",
    }
)
"""Flags without a value; variables of theirs are true or false."""

IGNORED = {
    "cuda_graphs": "captured by themselves",
    "cuda_memory_fraction": "see `--kv-cache-memory`",
    "disable_grammar_support": "grammars cost nothing where none is asked for",
    "env": "`/info` and the start log say it",
    "master_addr": "one process serves",
    "master_port": "one process serves",
    "master_shard_uds_path": "one process serves",
    "max_batch_size": "see `--max-concurrent-requests`",
    "max_batch_total_tokens": "found from memory; see `--kv-cache-memory`",
    "max_image_fetch_size": "no images are fetched",
    "max_waiting_tokens": "prompts are computed in chunks beside answers; see `--target-itl-ms`",
    "ngrok": "no tunnels",
    "ngrok_authtoken": "no tunnels",
    "ngrok_edge": "no tunnels",
    "otlp_endpoint": "traces go over HTTP; see `--otlp-traces-endpoint`",
    "prometheus_port": "no port of its own",
    "shard_uds_path": "one process serves",
    "usage_stats": "nothing is reported to anybody",
    "validation_workers": "a few threads, see `/info`",
    "waiting_served_ratio": "prompts are computed in chunks beside answers; see `--target-itl-ms`",
    "watermark_delta": "there are no watermarks",
    "watermark_gamma": "there are no watermarks",
}
"""Flags that mean nothing here -> why."""

NEUTRAL: dict[str, tuple[str, ...]] = {
    "kv_cache_dtype": ("auto",),
    "lora_adapters": ("",),
    "num_shard": ("1",),
    "sharded": ("false",),
}
"""Values of other flags that ask for what is done here."""

REFUSED = {
    "kv_cache_dtype": "the cache has the precision of `--dtype`",
    "lora_adapters": "adapters are not served",
    "num_shard": "one device serves a model",
    "rope_factor": "positions are those of the model's own configuration",
    "rope_scaling": "positions are those of the model's own configuration",
    "sharded": "one device serves a model",
    "tokenizer_config_path": "see `--chat-template`",
    "tokenizer_name": "the tokenizer is the model's own",
}
"""Flags that would change answers and are not done here -> why."""

LIMITS = {
    "max_best_of": MAX_CHOICES,
    "max_stop_sequences": MAX_STOPS,
    "max_top_n_tokens": MAX_TOP_LOGPROBS,
    "max_client_batch_size": MAX_PROMPTS,
}
"""Flags for limits that are fixed here -> the limit, beyond which they cannot be raised."""

OTHERS_TOO = frozenset({"env", "hostname", "master_addr", "master_port"})
"""Flags whose variables shells, schedulers and containers set for themselves; not read."""

COMMON = frozenset({"api_key", "dtype", "port", "quantize", "revision"})
"""Flags whose variables other programs have too: read only beside one that is TGI's alone."""

CLOUD_VARIABLES = {
    "HF_MODEL_ID": "model_id",
    "HF_MODEL_REVISION": "revision",
    "HF_MODEL_QUANTIZE": "quantize",
    "HF_MODEL_TRUST_REMOTE_CODE": "trust_remote_code",
    "SM_NUM_GPUS": "num_shard",
    "AIP_HTTP_PORT": "port",
}
"""Variables of SageMaker and Vertex AI -> the flag that TGI's images make of them."""

FOREIGN = (
    *RENAMED,
    *HUB_CACHE,
    *LIMITS,
    *REFUSED,
    *IGNORED,
    "disable_custom_kernels",
    "enable_prefill_logprobs",
    "json_output",
)
"""All flags of TGI that are not flags here."""


@dataclass(slots=True)
class LauncherOptions:
    """What was said in TGI's words. options: of ours. ignored: what means nothing here, as it was
    written. variables: those that were obeyed. hub_cache: the folder of the Hub's models."""

    options: dict[str, Any]
    ignored: list[str] = field(default_factory=list)
    variables: list[str] = field(default_factory=list)
    hub_cache: str | None = None

    @property
    def notes(self) -> list[str]:
        """What the operator is told, a line each."""
        lines = []
        if self.variables:
            lines.append(f"taken from the environment: {', '.join(self.variables)}")
        if self.ignored:
            lines.append(f"means nothing to this server: {', '.join(self.ignored)}")
        return lines


class _Said(NamedTuple):
    """A flag of TGI's with its value. how: as it was written, the flag or the variable."""

    name: str
    value: Any
    how: str


def translate(given: Mapping[str, Any], environment: Mapping[str, str]) -> LauncherOptions:
    """Our options for what was given on the command line, and for TGI's variables.

    Raises StartupError for what would change answers and is not done here, or is said twice.
    """
    found = LauncherOptions({k: v for k, v in given.items() if not k.startswith(PREFIX)})
    for name in FOREIGN:
        if (value := given.get(PREFIX + name)) is not None:
            _apply(_Said(name, value, _flag(name)), found)
    for said in _variables(environment):
        setting = RENAMED.get(said.name, said.name)
        is_ours = f"MILLSTREAM_{setting.upper()}" in environment
        if setting in found.options or is_ours or PREFIX + said.name in given:
            continue
        num_ignored = len(found.ignored)
        _apply(said, found)
        if len(found.ignored) == num_ignored:
            found.variables.append(said.how)
    return found


def _variables(environment: Mapping[str, str]) -> list[_Said]:
    """What the environment says in TGI's words; empty variables say nothing."""
    names = {name.upper(): name for name in (*SAME, *FOREIGN) if name not in OTHERS_TOO}
    names |= CLOUD_VARIABLES
    found = [
        _Said(name, environment[variable], variable)
        for variable, name in names.items()
        if environment.get(variable)
    ]
    is_theirs = any(said.name.upper() != said.how or said.name not in COMMON for said in found)
    return found if is_theirs else []


def _apply(said: _Said, found: LauncherOptions) -> None:
    name, value, how = said
    shown = str(value).lower()
    if name in SAME or name in RENAMED:
        setting = RENAMED.get(name, name)
        if setting in found.options:
            raise StartupError(f"{how}: {_flag(setting)} says it already")
        found.options[setting] = value
    elif name in HUB_CACHE:
        found.hub_cache = str(value)
    elif name in LIMITS:
        _check_limit(said)
    elif name in SWITCHES and shown in ("false", "0"):
        return
    elif name in SWITCHES and shown not in ("true", "1"):
        raise StartupError(f"{how} {value}: true or false")
    elif name == "enable_prefill_logprobs":
        return  # a request asks for them
    elif name == "disable_custom_kernels":
        found.options.setdefault("native_kernels", "off")
    elif name == "json_output":
        found.options.setdefault("log_format", "json")
    elif name in IGNORED:
        found.ignored.append(how)
    elif shown not in NEUTRAL.get(name, ()):
        raise StartupError(f"{how} {value}: this server does not do it; {REFUSED[name]}")


def _check_limit(said: _Said) -> None:
    limit = LIMITS[said.name]
    if not str(said.value).isdecimal() or int(said.value) > limit:
        raise StartupError(f"{said.how} {said.value}: the limit is {limit} here, and fixed")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
