"""Rows from the models' own ranges, and requests as bytes."""

import base64
import json
from pathlib import Path

from bench import traffic

MODELS = Path(__file__).parents[2] / "models"


def test_rows_stay_in_their_ranges_and_differ():
    """A repeated row would flatter the trees."""
    columns = (traffic.Column("a", 1, 5, whole=True), traffic.Column("b", 0.0, 2.5, whole=False))
    rows = traffic.rows(columns, 200, seed=1)
    assert all(row["a"] in {1, 2, 3, 4, 5} and 0 <= row["b"] <= 2.5 for row in rows)
    assert len({tuple(row.values()) for row in rows}) > 190
    assert rows == traffic.rows(columns, 200, seed=1)


def test_every_shipped_model_can_be_asked():
    """Columns come from the newest version of each bundle."""
    models = traffic.attributes(MODELS)
    assert len({model.id for model in models}) == len(models) >= 1
    assert all(column.low < column.high for column in traffic.all_columns(models))


def test_requests_are_whole_and_well_formed():
    """The content length is that of the body."""
    [request] = traffic.predict_requests("grit", ["t-1"], [{"a": 1}], 1)
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/attributes/grit/predict HTTP/1.1\r\n")
    assert b"authorization: Bearer t-1" in head
    assert f"content-length: {len(body)}".encode() in head
    assert json.loads(body) == {"id": "p-0", "features": {"a": 1}}


def test_tokens_and_rows_rotate():
    """Neighbouring requests share neither."""
    requests = traffic.predict_requests("grit", ["t-1", "t-2"], [{"a": 1}, {"a": 2}, {"a": 3}], 6)
    assert len(set(requests)) == 6


def test_token_request_uses_one_method_only():
    """RFC 6749 section 2.3: never two ways at once."""
    basic = traffic.token_request("me", "s3", "predict:grit", "http://127.0.0.1:1")
    assert base64.b64encode(b"me:s3") in basic
    assert b"client_secret" not in basic
    post = traffic.token_request("me", "s3", "predict:grit", "http://127.0.0.1:1", basic=False)
    assert b"authorization" not in post
    assert b"client_id=me&client_secret=s3" in post
