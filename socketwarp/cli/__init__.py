"""
The `socketwarp` command: one module for each command, and `main`, which lists them.

A command parses its options, calls a room below or a listener's API, and prints; it decides nothing itself. What
commands share is private: `_options`, the API's calls (`_http`) and answers (`_models`), output (`_show`). Those who
only call the API use no reactor. Imports any room below it.
"""
