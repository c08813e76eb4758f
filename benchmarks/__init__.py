"""
Measurements of tunnels side by side, on one machine in one run: ``python -m benchmarks --help``.

``networks`` are what lies between the two ends; ``table`` lists the tunnels, which ``tunnels`` and ``others`` start on
a ``stage``. ``target`` and ``loads`` make the traffic, ``measure`` takes figures, ``rounds`` alternates, ``report`` and
``picture`` show. Of socketwarp only the programs are used: nothing here imports it.
"""
