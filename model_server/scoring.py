"""From a record to an answer. Coverage comes first: a record that says too little gets no number at all."""

from collections.abc import Iterable, Sequence

from model_server.answers import MIN_COVERAGE, Answer, Insufficient
from model_server.attribute import Attribute
from model_server.records import Profile, Record
from shared.errors import AppError

#: what one place of a batch or profile may hold
Result = Answer | Insufficient | AppError


def score(attribute: Attribute, record: Record) -> Answer | Insufficient:
    """Score one record in the calling thread; microseconds, so it may stay on the event loop."""
    covered = attribute.coverage(record.missing) if record.missing else 1.0
    if covered < MIN_COVERAGE:
        return insufficient(attribute, record, covered)
    return attribute.answer(record, covered, attribute.model.predict_one(record.values))


def score_batch(attribute: Attribute, records: Sequence[Record | AppError]) -> list[Result]:
    """Score all records in one call of the engine; order kept, errors passed through in their places.

    The engine takes about 18 us a row and lets other threads run meanwhile: meant for a pool.
    """
    results: list[Result] = []
    scored: list[tuple[int, Record, float]] = []
    for index, record in enumerate(records):
        if isinstance(record, AppError):
            results.append(record)
            continue
        covered = attribute.coverage(record.missing) if record.missing else 1.0
        results.append(insufficient(attribute, record, covered))
        if covered >= MIN_COVERAGE:
            scored.append((index, record, covered))
    raws = attribute.model.predict_many([record.values for _, record, _ in scored])
    for (index, record, covered), raw in zip(scored, raws, strict=True):
        results[index] = attribute.answer(record, covered, raw)
    return results


def score_profile(attributes: Iterable[Attribute], profile: Profile) -> list[Result]:
    """Score one record by many attributes, in their order; an attribute that can't read it gives its error."""
    taken = [(attribute, attribute.decoder.take(profile)) for attribute in attributes]
    return [found if isinstance(found, AppError) else score(attribute, found) for attribute, found in taken]


def insufficient(attribute: Attribute, record: Record, covered: float) -> Insufficient:
    """Return the answer for a record whose coverage is below 0.5."""
    return Insufficient(
        record.id,
        attribute.id,
        "insufficient_data",
        covered,
        record.missing,
        record.warnings,
        attribute.model_ref,
        attribute.metadata.not_for,
    )
