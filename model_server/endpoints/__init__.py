"""What the model server answers, a module a noun: each receives the attributes, the bearer check and the pool by name.

Every endpoint is a plain ASGI function; the shared checks (who is it, may they, is the body acceptable) come first and
always in that order.
"""
