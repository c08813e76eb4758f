"""Tests of the rules, one module for each of its modules."""
