"""Limits without a trip: how many calls and rows a caller may have, decided in memory from units leased ahead.

``gcra`` is the pure rule; ``limits`` names what is limited and what a call costs; ``budgets`` merges settings and what
a token carries; ``leases`` decides for one worker process, with ``lease`` (its state), ``lease_script`` and
``lease_store`` (the store's side), ``recalls`` (units wanted back) and ``store_loss`` (what holds without a store);
``networks`` limits addresses before anyone is authenticated; ``headers`` tells the caller.
"""
