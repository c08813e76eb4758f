"""
The tests, one module for each module of the package, under the same path.

Beside them `fakes`, `pump` and `certs`: what several of them need. Nothing here opens a socket or waits for a real
clock, except in `integration`, where real processes run.
"""
