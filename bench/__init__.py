"""The benchmark room: our servers beside the floor of this machine, as ratios of one run (``python -m bench``).

It starts a throw-away instance with free ports, loads it over the loopback only, and takes everything away again.
"""
