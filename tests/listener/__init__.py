"""Tests of the listener, one module for each of its modules."""
