"""`pytest --gpu`: tests marked `gpu` run with it, are deselected without it, and fail to start where there is no GPU.

Enable it with `pytest_plugins = ["equivcheck.pytest_plugin"]` in the conftest.py beside pyproject.toml.
"""

from importlib.metadata import version

import pytest

from equivcheck.runtime.device import DEVICE_TYPES, GPU

__all__ = ["device"]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("equivcheck")
    group.addoption("--gpu", action="store_true", help="run the tests marked gpu as well; needs a CUDA device")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "gpu: needs a CUDA device; runs with --gpu only")
    if config.getoption("--gpu"):
        import torch

        if not DEVICE_TYPES[GPU].module.is_available():
            raise pytest.UsageError(
                f"--gpu was given, and torch {torch.__version__} sees no CUDA device: "
                "run it where there is one, or leave --gpu out"
            )


def pytest_report_header(config: pytest.Config) -> str:
    if not config.getoption("--gpu"):
        # asking torch would cost its import, in a run that may not need it
        return f"equivcheck: cpu, torch {version('torch')}; tests marked gpu are deselected, run them with --gpu"
    import torch

    return f"equivcheck: {GPU}, {DEVICE_TYPES[GPU].module.get_device_name()}, torch {torch.__version__}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--gpu"):
        deselected = [item for item in items if item.get_closest_marker("gpu") is not None]
        if deselected:
            config.hook.pytest_deselected(items=deselected)
            items[:] = [item for item in items if item.get_closest_marker("gpu") is None]


@pytest.fixture(scope="session")  # Hypothesis refuses fixtures that live for one function only
def device(request: pytest.FixtureRequest) -> str:
    """The device to test on: cpu, and cuda with --gpu; only cuda in a test that is marked gpu."""
    return str(request.param)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "device" in metafunc.fixturenames and _is_ours(metafunc):
        gpu = pytest.param(GPU, marks=pytest.mark.gpu)
        marked = metafunc.definition.get_closest_marker("gpu") is not None
        metafunc.parametrize("device", [gpu] if marked else ["cpu", gpu], indirect=True, scope="session")


def _is_ours(metafunc: pytest.Metafunc) -> bool:
    """Whether `device` is the fixture above: a project may have one of its own, or parametrise it by hand."""
    for mark in metafunc.definition.iter_markers("parametrize"):
        names = mark.args[0] if mark.args else mark.kwargs["argnames"]
        if "device" in (names.replace(",", " ").split() if isinstance(names, str) else names):
            return False
    fixtures = getattr(metafunc, "_arg2fixturedefs", {}).get("device", ())
    return all(fixture.func.__module__ == __name__ for fixture in fixtures)
