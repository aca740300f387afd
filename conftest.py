from typing import Any

import pytest

pytest_plugins = ["equivcheck.pytest_plugin"]


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """The whole suite is run by two processes, where pytest-xdist is there to start them and nothing else was asked for.

    Most tests keep one core busy. pytest-benchmark measures nothing among several processes, so none where it writes a record.
    """
    option: Any = config.option
    whole = config.args_source is not pytest.Config.ArgsSource.ARGS and not hasattr(config, "workerinput")
    alone = getattr(option, "usepdb", False) or getattr(option, "benchmark_json", None) or option.collectonly
    if whole and not alone and config.pluginmanager.hasplugin("xdist") and option.numprocesses is None:
        option.numprocesses, option.dist = 2, "worksteal"
