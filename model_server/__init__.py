"""The resource server: scores records against LightGBM attribute models behind verified access tokens.

This room holds the whole way from an untrusted model folder to an answer: bundles are checked before a byte
reaches the native library, the record schema is derived from the model itself, and one record is decoded,
scored and encoded without a thread hop, a disk read or a network call.
"""
