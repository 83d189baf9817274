"""What answers at each address: plain ASGI callables that own the checks every grant shares."""
