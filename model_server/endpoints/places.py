"""One place in a list of answers: an answer, or the error that this record alone would have got."""

from typing import Any

import msgspec

from model_server.answers import Insufficient
from model_server.scoring import Result
from shared.errors import AppError
from shared.http import problem_body
from shared.telemetry import RECORDS_REFUSED, SCORES

encode = msgspec.json.Encoder().encode


def place(result: Result, request_id: str) -> bytes:
    """Encode what stands in one place of a batch."""
    return problem_body(result, request_id) if isinstance(result, AppError) else encode(result)


def named_place(attribute_id: str, result: Result, request_id: str) -> Any:
    """Give what stands in one place of a profile: an error says, as an answer does, which attribute it is about."""
    if isinstance(result, AppError):
        return {"attribute": attribute_id, **msgspec.json.decode(problem_body(result, request_id))}
    return result


def count(attribute_id: str, results: list[Result]) -> int:
    """Note in the metrics how many records were scored, too incomplete to be scored, or refused.

    Gives how many were answered: all but the refused.
    """
    n_refused = n_insufficient = 0
    for result in results:
        if isinstance(result, AppError):
            n_refused += 1
        elif isinstance(result, Insufficient):
            n_insufficient += 1
    RECORDS_REFUSED.labels(attribute_id).inc(n_refused)
    SCORES.labels(attribute_id, "insufficient_data").inc(n_insufficient)
    SCORES.labels(attribute_id, "scored").inc(len(results) - n_refused - n_insufficient)
    return len(results) - n_refused
