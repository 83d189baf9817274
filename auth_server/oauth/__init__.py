"""The OAuth 2.0 rules, and the only door to Authlib.

Nothing here does I/O: an endpoint loads what the request needs, this room decides, the endpoint signs and answers.
"""
