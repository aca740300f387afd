"""A compiler that is put back as it was."""

from typing import Any

import pytest
import torch


@pytest.fixture
def compiled() -> Any:
    torch.compiler.reset()
    yield lambda module: torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.compiler.reset()
