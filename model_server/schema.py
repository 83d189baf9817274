"""The record schema of an attribute: derived from the model text, explained by the metadata.

What the model can't do without is read from its splits, never declared: a split that did not learn missing
values would read one as 0 and answer with confidence. Metadata may demand more, never less.
"""

from collections.abc import Iterable
from typing import Any

from model_server.fields import Feature
from model_server.metadata import FeatureNote, Metadata
from model_server.model_text import ModelFacts
from model_server.records import MAX_FEATURES, MAX_ID_LENGTH

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def record_features(metadata: Metadata, facts: ModelFacts) -> tuple[Feature, ...]:
    """Return what each column accepts, in the model's column order."""
    columns = zip(facts.feature_names, facts.seen_ranges, facts.learned_missing, strict=True)
    return tuple(
        _feature(name, metadata.features[name], seen, learned_missing=learned) for name, seen, learned in columns
    )


def _feature(name: str, note: FeatureNote, seen: tuple[float, float] | None, *, learned_missing: bool) -> Feature:
    limits: dict[str, float] = {}
    if note.min is not None:
        limits["low"] = note.min
    if note.max is not None:
        limits["high"] = note.max
    return Feature(name, **limits, seen=seen, required=note.required or not learned_missing, integer=note.integer)


def json_schema(metadata: Metadata, features: Iterable[Feature]) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a request body.

    Each feature carries its label as title, its unit, hard limits, and as `trainingRange` the values that the model
    has seen. Unknown features are allowed: they are ignored with a warning.
    """
    columns = list(features)
    properties = {feature.name: _property(feature, metadata.features[feature.name]) for feature in columns}
    record: dict[str, Any] = {
        "type": "object",
        "title": "Features",
        "description": "Numbers by name. Null or absent means missing, where null is allowed.",
        "properties": properties,
        "additionalProperties": True,
        "maxProperties": MAX_FEATURES,
    }
    if required := [feature.name for feature in columns if feature.required]:
        record["required"] = required
    return {
        "$schema": _DIALECT,
        "title": f"{metadata.title} record",
        "description": f"One record to estimate: {metadata.target}.",
        "type": "object",
        "properties": {
            "id": {
                "type": ["string", "null"],
                "maxLength": MAX_ID_LENGTH,
                "title": "Your own reference",
                "description": "Returned with the answer and used for nothing else.",
            },
            "features": record,
        },
        "required": ["features"],
        "additionalProperties": False,
    }


def _property(feature: Feature, note: FeatureNote) -> dict[str, Any]:
    kind = "integer" if feature.integer else "number"
    schema: dict[str, Any] = {
        "title": note.label or feature.name,
        "description": _description(feature, note),
        "type": kind if feature.required else [kind, "null"],
    }
    if note.min is not None:
        schema["minimum"] = note.min
    if note.max is not None:
        schema["maximum"] = note.max
    if note.unit:
        schema["unit"] = note.unit
    if feature.seen is not None:
        schema["trainingRange"] = list(feature.seen)
    return schema


def _description(feature: Feature, note: FeatureNote) -> str:
    unit = f" ({note.unit})" if note.unit else ""
    wanted = feature.wanted[0].upper() + feature.wanted[1:]
    return f"{wanted}{unit}. " + ("Required." if feature.required else "Null or absent means missing.")


def example(metadata: Metadata, features: Iterable[Feature]) -> dict[str, Any]:
    """Return a request body that is ready to send: complete, in range, accepted without a warning."""
    return {
        "id": "example-1",
        "features": {feature.name: _example(feature, metadata.features[feature.name]) for feature in features},
    }


def _example(feature: Feature, note: FeatureNote) -> float | int:
    value = next((number for number in (note.example, note.median) if number is not None), None)
    if value is None:
        low, high = feature.seen or (max(feature.low, 0.0), 0.0)
        value = min(max((low + high) / 2, feature.low), feature.high)
    if feature.integer:
        value = float(round(value))
    return int(value) if value.is_integer() else value
