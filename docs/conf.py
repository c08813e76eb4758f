"""Sphinx's settings; ``make docs`` builds with warnings as errors."""

from importlib import metadata

project = "socketwarp"
author = "the socketwarp maintainers"
project_copyright = author
version = release = metadata.version("socketwarp")
exclude_patterns = ["_build", "news"]
html_theme = "alabaster"
html_theme_options = {"description": "TCP connections, carried backwards"}
