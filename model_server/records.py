"""From untrusted bytes to a record: the numbers of one row in the model's column order.

Two ways lead there and give the same record. The strict way decodes a complete, clean, in-range body inside
msgspec's C code, into types made from the features. Whatever it refuses goes the lenient way, which decodes
anything that is JSON and finds every fault and every oddity in it, so that nobody has to send twice to learn both.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any

import msgspec

from model_server.fields import Feature, advice, features_type, read_number
from model_server.json_body import cut_name, parse_json
from shared.errors import AppError, FieldError

MAX_ID_LENGTH = 128
MAX_FEATURES = 256
MAX_BATCH = 1_000
_MAX_LISTED = 20

_NAN = math.nan
_astuple = msgspec.structs.astuple
_Id = Annotated[str, msgspec.Meta(max_length=MAX_ID_LENGTH)] | None
_NOT_THE_STRICT_WAY = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Record(msgspec.Struct, frozen=True, gc=False):
    """One accepted record: values in column order, NaN where missing, with the caller's `id` untouched.

    `warnings` are words like `out_of_training_range:hours_28d`; `missing` names features in column order.
    """

    id: str | None
    values: tuple[float, ...]
    missing: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Profile(msgspec.Struct, frozen=True):
    """One body for many attributes: features are not yet verified, each attribute takes those it knows."""

    features: Mapping[str, object]
    id: str | None


class _Numbers(msgspec.Struct, forbid_unknown_fields=True):
    features: dict[str, float | None]
    id: _Id = None


class _RawBatch(msgspec.Struct, forbid_unknown_fields=True):
    records: list[msgspec.Raw]


_decode_numbers = msgspec.json.Decoder(_Numbers).decode
_decode_raw_batch = msgspec.json.Decoder(_RawBatch).decode


class RecordDecoder:
    """Decodes the bodies of one attribute. Immutable and safe to share between threads."""

    __slots__ = ("_names", "_open", "_strict", "_strict_batch", "features", "known")

    def __init__(self, features: tuple[Feature, ...]) -> None:
        self.features = features
        self._names = tuple(feature.name for feature in features)
        self.known = frozenset(self._names)
        self._open = features_type(features, closed=False)
        closed = features_type(features, closed=True)
        record = msgspec.defstruct(
            "StrictRecord", [("features", closed), ("id", _Id, None)], forbid_unknown_fields=True, gc=False
        )
        records: Any = Annotated[list[record], msgspec.Meta(min_length=1, max_length=MAX_BATCH)]  # type: ignore[valid-type]
        batch = msgspec.defstruct("StrictBatch", [("records", records)], forbid_unknown_fields=True)
        self._strict = msgspec.json.Decoder(record).decode
        self._strict_batch = msgspec.json.Decoder(batch).decode

    def decode(self, raw_body: bytes | msgspec.Raw, prefix: str = "") -> Record:
        """Return the record of one body.

        AppError `malformed_json` where it is not JSON this server reads, `invalid_record` with one entry per
        wrong field otherwise; pointers start with `prefix`.
        """
        try:
            body: Any = self._strict(raw_body)
        except _NOT_THE_STRICT_WAY:
            return self.check(parse_json(raw_body, prefix), prefix)
        return self._finish(body.id, _astuple(body.features))

    def decode_batch(self, raw_body: bytes) -> list[Record | AppError]:
        """Return the records of `{"records": […]}` in order, an error in place of each bad one.

        Raises AppError only where the whole is wrong: not JSON, not 1 to 1,000 records, members it does not know.
        """
        try:
            body: Any = self._strict_batch(raw_body)
        except _NOT_THE_STRICT_WAY:
            return [self._attempt(raw, f"/records/{index}") for index, raw in enumerate(_raw_records(raw_body))]
        return [self._finish(record.id, _astuple(record.features)) for record in body.records]

    def check(self, parsed: object, prefix: str = "") -> Record:
        """Return the record of one parsed body, or raise AppError `invalid_record` naming every wrong field."""
        errors: list[FieldError] = []
        record_id, features = _read_envelope(parsed, prefix, errors)
        if features is None:
            raise AppError("invalid_record", errors=errors)
        values, warnings = self._read_values(features, f"{prefix}/features", errors)
        if errors:
            raise AppError("invalid_record", errors=errors)
        warnings += unknown_warnings(features, self.known)
        return Record(record_id, values, self._missing(values), tuple(warnings))

    def take(self, profile: Profile) -> Record | AppError:
        """Return what this attribute needs of a profile, or the error it would give alone.

        Features it does not know are passed over without a warning: they may be another attribute's.
        """
        try:
            known = msgspec.convert(profile.features, self._open)
        except msgspec.ValidationError:
            errors: list[FieldError] = []
            values, warnings = self._read_values(profile.features, "/features", errors)
            if errors:
                return AppError("invalid_record", errors=errors)
            return Record(profile.id, values, self._missing(values), tuple(warnings))
        return self._finish(profile.id, _astuple(known))

    def _attempt(self, raw_record: msgspec.Raw, prefix: str) -> Record | AppError:
        try:
            return self.decode(raw_record, prefix)
        except AppError as error:
            return error

    def _finish(self, record_id: str | None, values: tuple[Any, ...]) -> Record:
        """Make a record of strictly decoded values, which are NaN where absent and None where null."""
        try:
            total: float = sum(values)  # the cheapest way to see whether any is NaN or None
        except TypeError:
            values = tuple([_NAN if value is None else value for value in values])
            total = _NAN
        if total == total:  # noqa: PLR0124 - false for NaN only
            return Record(record_id, values)
        return Record(record_id, values, self._missing(values))

    def _missing(self, values: tuple[float, ...]) -> tuple[str, ...]:
        return tuple([name for name, value in zip(self._names, values, strict=True) if value != value])  # noqa: PLR0124

    def _read_values(
        self, features: Mapping[str, object], pointer: str, errors: list[FieldError]
    ) -> tuple[tuple[float, ...], list[str]]:
        values: list[float] = []
        warnings: list[str] = []
        for feature in self.features:
            value = features.get(feature.name)
            if value is None and not feature.required:
                values.append(_NAN)
                continue
            code, number = read_number(feature, value)
            values.append(number)
            if code:
                errors.append(FieldError(f"{pointer}/{feature.name}", code, advice(feature, code), feature.name))
            elif feature.seen and not feature.seen[0] <= number <= feature.seen[1]:
                warnings.append(f"out_of_training_range:{feature.name}")
        return tuple(values), warnings


def decode_profile(raw_body: bytes) -> Profile:
    """Return the one record of a profile call; AppError as from `RecordDecoder.decode`, for the envelope only.

    A feature of the wrong type is the business of the attributes that use it: `RecordDecoder.take` refuses it.
    """
    try:
        numbers = _decode_numbers(raw_body)
        if len(numbers.features) <= MAX_FEATURES:
            return Profile(numbers.features, numbers.id)
    except _NOT_THE_STRICT_WAY:
        pass
    errors: list[FieldError] = []
    record_id, features = _read_envelope(parse_json(raw_body), "", errors)
    if errors or features is None:
        raise AppError("invalid_record", errors=errors)
    return Profile(features, record_id)


def unknown_warnings(features: Iterable[str], known: Collection[str]) -> list[str]:
    """Return `unknown_feature:NAME` for each name nobody uses: at most 20, then how many more there are."""
    unknown = [name for name in features if name not in known]
    listed = [f"unknown_feature:{cut_name(name)}" for name in unknown[:_MAX_LISTED]]
    if len(unknown) > _MAX_LISTED:
        listed.append(f"more_unknown_features:{len(unknown) - _MAX_LISTED}")
    return listed


def _raw_records(raw_body: bytes) -> list[msgspec.Raw]:
    """Split a batch into its records without reading them; AppError where there is no batch to split."""
    try:
        records = _decode_raw_batch(raw_body).records
    except msgspec.ValidationError:
        parse_json(raw_body)
        message = 'Send {"records": [ … ]} with 1 to 1,000 records and nothing else.'
        raise AppError("invalid_record", errors=[FieldError("/records", "not_an_array", message)]) from None
    except _NOT_THE_STRICT_WAY:
        parse_json(raw_body)
        raise AppError("malformed_json") from None
    if not 1 <= len(records) <= MAX_BATCH:
        message = f"Send 1 to {MAX_BATCH:,} records a call, or stream any number of them as NDJSON."
        code = "too_many_records" if records else "too_few_records"
        raise AppError("invalid_record", errors=[FieldError("/records", code, message)])
    return records


def _read_envelope(
    parsed: object, prefix: str, errors: list[FieldError]
) -> tuple[str | None, Mapping[str, object] | None]:
    """Return (id, features) of a parsed body; features None and errors extended where there are none to read."""
    if not isinstance(parsed, dict):
        errors.append(FieldError(prefix, "not_an_object", 'Send an object: {"features": { … }}.'))
        return None, None
    for name in [name for name in parsed if name not in {"id", "features"}][:_MAX_LISTED]:
        message = 'Not part of a record: send "id" and "features" only.'
        errors.append(FieldError(f"{prefix}/{cut_name(name)}", "unknown_member", message))
    record_id = _read_id(parsed.get("id"), prefix, errors)
    features = parsed.get("features")
    if not isinstance(features, dict):
        code = "required" if features is None else "not_an_object"
        message = "Send an object of feature names and numbers."
        errors.append(FieldError(f"{prefix}/features", code, message))
        return record_id, None
    if len(features) > MAX_FEATURES:
        message = f"Send at most {MAX_FEATURES} features."
        errors.append(FieldError(f"{prefix}/features", "too_many_features", message))
        return record_id, None
    return record_id, features


def _read_id(value: object, prefix: str, errors: list[FieldError]) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        errors.append(FieldError(f"{prefix}/id", "not_a_string", f"Send up to {MAX_ID_LENGTH} characters, or null."))
        return None
    if len(value) > MAX_ID_LENGTH:
        errors.append(FieldError(f"{prefix}/id", "too_long", f"Send up to {MAX_ID_LENGTH} characters, or null."))
        return None
    return value
