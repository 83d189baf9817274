"""The schemas of what the model server answers, as the OpenAPI document names them."""

from typing import Any

Json = dict[str, Any]
STRING: Json = {"type": "string"}
NUMBER: Json = {"type": "number"}
STRINGS: Json = {"type": "array", "items": STRING}
_COMMON: Json = {
    "id": {"type": ["string", "null"]},
    "attribute": STRING,
    "coverage": {"type": "number", "minimum": 0, "maximum": 1},
    "missing": STRINGS,
    "warnings": STRINGS,
    "model": {"type": "object", "properties": {"version": STRING, "sha256": STRING}},
    "not_for": STRINGS,
}
_SCORE: Json = {"score": NUMBER, "raw": NUMBER, "unit": STRING}
SCHEMAS: Json = {
    "Answer": {
        "type": "object",
        "properties": {
            **_COMMON,
            **_SCORE,
            "interval80": {"type": "array", "items": NUMBER, "minItems": 2, "maxItems": 2},
            "percentile": {"type": "integer", "minimum": 1, "maximum": 99},
            "band": {"enum": ["low", "typical", "high"]},
        },
        "required": [*_COMMON, *_SCORE, "interval80", "percentile", "band"],
    },
    "Insufficient": {
        "type": "object",
        "description": "Less than half of what the model rests on is known: no score.",
        "properties": {**_COMMON, "status": {"const": "insufficient_data"}},
        "required": [*_COMMON, "status"],
    },
    "Explanation": {
        "type": "object",
        "properties": {
            **_COMMON,
            **_SCORE,
            "points_of": {"enum": ["raw", "log_odds"]},
            "base_value": NUMBER,
            "contributions": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "feature": STRING,
                        "label": STRING,
                        "value": {"type": ["number", "null"]},
                        "points": NUMBER,
                    },
                },
            },
            "reasons": STRINGS,
            "would_narrow_most": {"type": ["object", "null"]},
        },
    },
    "Unexplained": {
        "type": "object",
        "description": "Less than half of what the model rests on is known: no score to explain.",
        "properties": {**_COMMON, "status": {"const": "insufficient_data"}, "would_narrow_most": {"type": "object"}},
        "required": [*_COMMON, "status", "would_narrow_most"],
    },
    "Attribute": {
        "type": "object",
        "properties": {
            **dict.fromkeys(("id", "title", "version"), STRING),
            "card": {"type": "string", "contentMediaType": "text/markdown"},
            "schema": {"type": "object", "description": "JSON Schema (draft 2020-12) of a record."},
            "example": {"type": "object", "description": "A ready-to-send body."},
        },
        "required": ["id", "title", "version", "card", "schema", "example"],
    },
    "Problem": {
        "type": "object",
        "description": "RFC 9457 members and the inference protocol's `error`; `instance` is the request id.",
        "properties": {
            **dict.fromkeys(("error", "type", "title", "detail", "instance"), STRING),
            "status": {"type": "integer"},
            "errors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": dict.fromkeys(("pointer", "code", "message", "feature"), STRING),
                    "required": ["pointer", "code", "message"],
                },
            },
            "violated-policies": STRINGS | {"description": "Only in 429 and 503: which limits were hit."},
        },
        "required": ["error", "type", "title", "status", "detail", "instance"],
    },
}
