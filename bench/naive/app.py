# mypy: ignore-errors
# Why: its libraries live in an environment of their own, which the type checker does not see.
"""The naive stack that most teams write first: FastAPI, PyJWT's key client, ``Booster.predict``.

Nothing here is slow on purpose: one process, uvloop and httptools, keys and model loaded once, ``async def`` (faster
than the thread pool), no access log. It checks signature, issuer, audience, expiry and scope, as tutorials do.
"""

import json
import os
from pathlib import Path
from typing import Annotated

import jwt
import lightgbm
import numpy as np
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

ISSUER = os.environ["NAIVE_ISSUER"]
AUDIENCE = os.environ["NAIVE_AUDIENCE"]
ATTRIBUTE = os.environ["NAIVE_ATTRIBUTE"]
FEATURES = json.loads(os.environ["NAIVE_FEATURES"])

keys = jwt.PyJWKClient(os.environ["NAIVE_JWKS_URL"])
booster = lightgbm.Booster(model_file=Path(os.environ["NAIVE_MODEL"]), params={"num_threads": 1})
bearer = HTTPBearer()
app = FastAPI()


class Record(BaseModel):
    """One record, as the contract has it."""

    id: str | None = None
    features: dict[str, float | None]


class Score(BaseModel):
    """One answer, much smaller than ours."""

    id: str | None
    attribute: str
    score: float
    raw: float


def claims(credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]) -> dict:
    """Claims of a good token; 401 otherwise."""
    try:
        key = keys.get_signing_key_from_jwt(credentials.credentials)
        return jwt.decode(credentials.credentials, key, algorithms=["RS256"], audience=AUDIENCE, issuer=ISSUER)
    except jwt.PyJWTError as error:
        raise HTTPException(401, "invalid token") from error


async def current_claims(credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]) -> dict:
    """As above on the event loop: a thread hop for each request would cost more."""
    return claims(credentials)


@app.get("/health/ready")
async def ready() -> dict:
    """Say that the server is up."""
    return {"status": "ready"}


@app.post("/v1/attributes/{attribute}/predict")
async def predict(attribute: str, record: Record, token: Annotated[dict, Depends(current_claims)]) -> Score:
    """Score one record."""
    if attribute != ATTRIBUTE:
        raise HTTPException(404, "no such attribute")
    if not {f"predict:{attribute}", "predict:*"} & set(token["scope"].split()):
        raise HTTPException(403, "scope missing")
    row = np.array([[record.features.get(name) for name in FEATURES]], dtype=np.float64)
    raw = float(booster.predict(row)[0])
    return Score(id=record.id, attribute=attribute, score=round(min(max(raw, 0.0), 100.0), 4), raw=raw)
