"""docs/models.md says of every model type what happens when it is run."""

from __future__ import annotations

from pathlib import Path

import pytest
import transformers

from tests.model.architectures import ARCHITECTURES, STATEFUL
from tests.model.model_types import REFUSED, SERVED, UNTRIED, judge, model_types, read_table

# The tests of these are longer.
_SERVED = {*ARCHITECTURES, *STATEFUL}


@pytest.mark.parametrize("model_type", [each for each in model_types() if each not in _SERVED])
def test_the_table_tells_the_truth(model_type: str, tmp_path: Path) -> None:
    _, rows = read_table()
    if model_type not in rows:
        pytest.skip("new in this version of transformers")
    verdict = judge(model_type, tmp_path)
    if UNTRIED not in (verdict.status, rows[model_type].status):
        assert verdict.status == rows[model_type].status, verdict.reason


def test_the_table_is_complete() -> None:
    version, rows = read_table()
    assert list(rows) == sorted(rows)
    assert {row.status for row in rows.values()} <= {SERVED, REFUSED, UNTRIED}
    assert all(bool(row.reason) != (row.status == SERVED) for row in rows.values())
    assert all(rows[each].status == SERVED for each in _SERVED)
    if version != transformers.__version__:
        pytest.skip(f"made with transformers {version}; `make models-table` makes it anew")
    assert list(rows) == model_types()
