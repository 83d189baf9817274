"""The key ring: the one place of the project that touches private signing keys.

``ring`` holds the states, ``confirmation`` and ``transitions`` the pure decisions, ``material`` and ``pkcs8`` the keys
themselves, ``files`` and ``folder`` how they rest on disk, ``changes`` the decisions applied under the folder's lock,
``status`` the operator's view, ``signer`` and ``signing_queue`` what a running server signs with, ``published`` and
``canaries`` what verifiers get to see.
"""
