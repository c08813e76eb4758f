"""
Measurements of tunnels side by side, on one machine in one run: ``python -m benchmarks --help``.

``networks`` are what lies between the two ends, ``tunnels`` and ``others`` the table of what is measured, ``target`` and
``loads`` make the traffic, ``measure`` says which figures there are, ``report`` makes a table and a picture of them. Of
socketwarp only the programs are used; nothing here imports it.
"""
