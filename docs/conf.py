"""Sphinx's settings; ``make docs`` builds with warnings as errors."""

from importlib.metadata import version as installedVersion

project = "socketwarp"
author = "the socketwarp maintainers"
project_copyright = author
version = release = installedVersion("socketwarp")
exclude_patterns = ["_build", "news"]
html_theme = "alabaster"
html_theme_options = {"description": "TCP connections, carried backwards"}
