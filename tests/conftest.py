"""The Hypothesis profile of this project's own tests: no deadlines, and few examples, each a whole attention."""

from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch
from hypothesis import HealthCheck, settings
from perturbed_rounding import PerturbedRounding

from equivcheck.runtime.global_state import preserved

settings.register_profile(
    "equivcheck", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("equivcheck")

torch.set_num_threads(1)  # the tensors are small: more threads only wait for each other


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--perturb-rounding", type=int, metavar="SEED", help="round as on another host (tests/perturbed_rounding.py)"
    )
    parser.addoption("--ray", action="store_true", help="run the tests marked ray as well, which start clusters of Ray")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "ray: starts a cluster of Ray, for a minute or more; runs with --ray only")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--ray") and (left_out := [item for item in items if item.get_closest_marker("ray")]):
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("ray")]


@pytest.fixture(autouse=True)
def _rounding_of_another_host(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that asks for a fault to be seen must not live on the rounding of this host."""
    seed = request.config.getoption("--perturb-rounding")
    with nullcontext() if seed is None else PerturbedRounding(seed):
        yield


@pytest.fixture(autouse=True)
def _settings_of_torch_are_put_back() -> Iterator[None]:
    """Some faults switch a setting of the process: the next test, whichever that is, must find it as it was."""
    with preserved():
        yield
