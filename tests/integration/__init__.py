"""Tests of whole processes over loopback, started as an operator starts them."""
