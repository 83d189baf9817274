"""An attribute that is ready to serve: everything one bundle needs to answer, made once and never changed."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_server import schema
from model_server.answers import AnswerMaker, ModelRef, answer_maker, to_4_decimals
from model_server.bundles import Bundle, BundleError, Loaded, load_all
from model_server.engine import EngineError, Model
from model_server.fields import Feature
from model_server.metadata import Metadata
from model_server.records import RecordDecoder

_GOLDEN_TOLERANCE = 1e-9  # other processors may add leaves in another order; on one machine it is 0


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute: what it is, how its records are read, and the loaded model.

    `gain_shares` tells by feature name how much of the model rests on it; the shares sum to 1.
    """

    id: str
    title: str
    version: str
    metadata: Metadata
    features: tuple[Feature, ...]
    decoder: RecordDecoder
    model: Model
    model_ref: ModelRef
    answer: AnswerMaker
    gain_shares: dict[str, float]
    is_probability: bool
    card: str
    path: Path

    def coverage(self, missing: Iterable[str]) -> float:
        """Return how much of the model's total gain rests on the features present, 0 to 1, to 4 decimals."""
        shares = self.gain_shares
        return to_4_decimals(max(0.0, 1.0 - sum([shares[name] for name in missing])))

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of a request body."""
        return schema.json_schema(self.metadata, self.features)

    def example(self) -> dict[str, Any]:
        """Return a ready-to-send request body."""
        return schema.example(self.metadata, self.features)


def open_attribute(bundle: Bundle) -> Attribute:
    """Load a checked bundle into the engine, score its golden rows, and return it ready to serve.

    `BundleError` where the engine refuses the model or gives other scores than the trainer got. The calling
    thread is then ready for single rows; others call `attribute.model.ready_thread()` before traffic.
    """
    metadata, facts = bundle.metadata, bundle.facts
    features = schema.record_features(metadata, facts)
    try:
        model = Model(bundle.model_text, len(features))
        _check_golden(bundle, model)
    except EngineError as error:
        raise BundleError(f"model.txt: LightGBM refuses it: {error}") from None
    model_ref = ModelRef(metadata.version, metadata.model.sha256)
    return Attribute(
        id=metadata.id,
        title=metadata.title,
        version=metadata.version,
        metadata=metadata,
        features=features,
        decoder=RecordDecoder(features),
        model=model,
        model_ref=model_ref,
        answer=answer_maker(metadata, model_ref),
        gain_shares=dict(zip(facts.feature_names, bundle.gain_shares, strict=True)),
        is_probability=facts.is_probability,
        card=bundle.card,
        path=bundle.path,
    )


def open_all(models_dir: Path) -> Loaded[Attribute]:
    """Open the newest version of every attribute that passes every check; the others are listed as refused."""
    return load_all(models_dir, open_attribute)


def _check_golden(bundle: Bundle, model: Model) -> None:
    rows = []
    for golden in bundle.golden:
        values = (golden.features.get(name) for name in bundle.facts.feature_names)
        rows.append([float("nan") if value is None else value for value in values])
    for index, (golden, raw) in enumerate(zip(bundle.golden, model.predict_many(rows), strict=True), start=1):
        if not abs(raw - golden.raw) <= _GOLDEN_TOLERANCE:
            raise BundleError(f"golden.jsonl: row {index} scores otherwise than it did for the trainer")
