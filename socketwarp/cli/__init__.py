"""
The `socketwarp` command: one module for each command, and `main`, which lists them.

A command parses its options, calls a room below and prints; it decides nothing itself. Imports any room below it.
"""
