"""What a stored checkpoint takes while it loads: little more than its files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.model.stored.checkpoints import awq_config, make_stored, packed
from tests.model.stored.gguf_files import make_gguf

LAYER = 1024 * 2816  # numbers of the largest linear layer
SIZES: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "head_dim": 64,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "num_hidden_layers": 3,
    "vocab_size": 64,
}

# Anonymous memory: what is mapped from files, the system takes back when it wants.
PROGRAM = """
import json, sys, threading, time
from pathlib import Path
from millstream.model.loading.model import load_model
from millstream.settings import Settings

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

folder, options = Path(sys.argv[1]), json.loads(sys.argv[2])
load_model(Path(sys.argv[3]), Settings(model_id=sys.argv[3], threads=1, **options))  # imports
peak, start, is_over = 0, anonymous(), threading.Event()

def watch():
    global peak
    while not is_over.wait(0.001):
        peak = max(peak, anonymous())

watcher = threading.Thread(target=watch)
watcher.start()
load_model(folder, Settings(model_id=str(folder), threads=1, dtype="bfloat16", **options))
is_over.set()
watcher.join()
print(peak - start)
"""


def awq_of_one_number(weight: Any) -> Any:
    """A layer of AWQ's layout that is made quickly."""
    outputs, inputs = weight.shape
    ones = weight.new_ones
    parts = {
        "qweight": packed(ones(8, 1), 4).expand(inputs, outputs // 8),
        "qzeros": packed(ones(8, 1), 4).expand(inputs // 128, outputs // 8),
        "scales": ones(inputs // 128, outputs).half(),
    }
    return parts, weight


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("layout", ["gguf", "awq"])
def test_loading_takes_less_than_the_files_and_a_layer(layout: str, tmp_path: Path) -> None:
    large, small = tmp_path / "large", tmp_path / "small"
    options: dict[str, str] = {}
    for folder, sizes in ((large, SIZES), (small, SIZES | {"num_hidden_layers": 1})):
        folder.mkdir()
        if layout == "gguf":
            make_gguf(folder / "m.gguf", {"": "Q4_0"}, **sizes)
            options = {"gguf_file": "m.gguf"}
        else:
            make_stored(folder, awq_of_one_number, awq_config(group_size=128), **sizes)
    files = sum(file.stat().st_size for file in large.iterdir())
    command = [sys.executable, "-c", PROGRAM, str(large), json.dumps(options), str(small)]
    taken = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert 0 < taken < files + 6 * LAYER  # bytes: its numbers, and while they are packed
