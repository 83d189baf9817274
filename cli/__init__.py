"""The ``flex`` command: everything an operator or a caller does in a terminal, one file a noun.

Imports both servers; nothing imports it. ``main`` holds the list of nouns, ``output`` how all of them answer:
results on standard output, one clear line on standard error and exit code 1 for a refusal, 2 for wrong usage.
"""
