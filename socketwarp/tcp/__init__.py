"""
TCP sockets on a reactor, with just what bridges need: a transport that sends and receives large pieces without copying
them, ports that accept, and dialling. Imports `interfaces` only.
"""
