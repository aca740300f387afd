pytest_plugins = ["equivcheck.pytest_plugin"]
