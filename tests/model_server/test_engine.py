"""The engine gives the Python package's own bits, from any thread, and gives its memory back."""

import gc
import math
import struct
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lightgbm
import numpy as np
import pytest

from model_server.engine import EngineError, Model, library
from model_server.model_text import check_model_text
from tests.model_server.bundle_files import SHIPPED, Trained, train

ROOT = Path(__file__).parents[2]


def random_rows(text: bytes, n_rows: int, *, missing: float = 0.3, seed: int = 1) -> np.ndarray:
    """Rows around the training ranges, some values far outside, some missing."""
    rng = np.random.default_rng(seed)
    seen = [seen or (0.0, 1.0) for seen in check_model_text(text).seen_ranges]
    low, high = np.array(seen).T
    rows = rng.uniform(low - 0.1 * (high - low), high + 0.1 * (high - low), size=(n_rows, len(seen)))
    rows[rng.random(rows.shape) < 0.02] *= -1e9
    rows[rng.random(rows.shape) < missing] = np.nan
    return rows


def opened(model: Trained) -> Model:
    return Model(model.text, len(model.names))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parts[-3])
def test_scores_and_contributions_are_bit_equal_to_the_package(path):
    """Every shipped model, rows with missing and extreme values: no bit differs, in any of the three ways."""
    text = path.read_bytes()
    rows = random_rows(text, 200)
    package = lightgbm.Booster(model_str=text.decode())
    model = Model(text, rows.shape[1])
    expected = package.predict(rows, num_threads=1)
    tuples = [tuple(row) for row in rows.tolist()]
    assert [model.predict_one(row) for row in tuples] == expected.tolist()
    assert model.predict_many(tuples) == expected.tolist()
    contributions = package.predict(rows[:25], pred_contrib=True, num_threads=1)
    assert [model.contributions(row) for row in tuples[:25]] == [tuple(row) for row in contributions.tolist()]


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("objective", ["regression", "binary", "regression_l1"])
def test_trained_models_are_bit_equal_too(objective, missing):
    """Also models that never saw a missing value, and one with a link."""
    trained = train(objective=objective, missing=missing)
    model, rows = opened(trained), random_rows(trained.text, 100)
    tuples = [tuple(row) for row in rows.tolist()]
    expected = trained.booster.predict(rows).tolist()
    assert [model.predict_one(row) for row in tuples] == model.predict_many(tuples) == expected


def test_scores_lie_within_the_raw_bounds():
    """What the library states as bounds holds for values far outside the training range."""
    trained = train()
    model = opened(trained)
    low, high = model.raw_bounds
    extremes = [(value,) * 4 for value in (-1e300, 0.0, 1e300, math.nan)]
    assert all(low <= raw <= high for raw in model.predict_many(extremes))


def test_wrong_number_of_values_is_refused_before_the_library():
    """The library would read past the end of a short row."""
    model = opened(train())
    for wrong in [(), (1.0,) * 3, (1.0,) * 5]:
        with pytest.raises(struct.error):
            model.predict_one(wrong)
        with pytest.raises(struct.error):
            model.predict_many([(1.0,) * 4, wrong])
        with pytest.raises(struct.error):
            model.contributions(wrong)
    with pytest.raises(EngineError):
        Model(train().text, 3)
    assert model.predict_many([]) == []


def test_threads_do_not_disturb_each_other():
    """Four threads score different rows of one model at once; each gets its own answers."""
    trained = train(n_trees=40)
    model, rows = opened(trained), random_rows(trained.text, 400)
    expected = trained.booster.predict(rows).tolist()
    tuples = [tuple(row) for row in rows.tolist()]
    start = threading.Barrier(4)

    def work(offset: int) -> bool:
        start.wait()
        mine = range(offset, 400, 4)
        return all(model.predict_one(tuples[i]) == expected[i] for _ in range(5) for i in mine)

    with ThreadPoolExecutor(4, initializer=model.ready_thread) as pool:
        assert all(pool.map(work, range(4)))


def test_handles_are_freed_with_the_model_and_with_the_thread(monkeypatch):
    """Nothing of a replaced model stays behind: booster and configurations go, each exactly once."""
    freed: list[str] = []
    lib = library()
    booster, config = lib.free.LGBM_BoosterFree, lib.free.LGBM_FastConfigFree
    monkeypatch.setattr(lib.free, "LGBM_BoosterFree", lambda p: (freed.append("booster"), booster(p)))
    monkeypatch.setattr(lib.free, "LGBM_FastConfigFree", lambda p: (freed.append("config"), config(p)))
    model = opened(train())
    thread = threading.Thread(target=model.ready_thread)
    thread.start()
    thread.join()
    gc.collect()
    assert freed == ["config", "config"]
    del model
    gc.collect()
    assert sorted(freed) == ["booster", "config", "config", "config", "config"]


def test_text_that_the_library_refuses_is_an_engine_error():
    """Should the check ever pass too much, what the library says becomes our error."""
    with pytest.raises(EngineError):
        Model(b"tree\nversion=v4\n\n", 1)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_serving_process_stays_small():
    """Scoring with every shipped model imports neither lightgbm nor numpy and stays far below 70 MiB."""
    code = """
import sys
from pathlib import Path
from model_server.attribute import open_all
from model_server import explanations, scoring
opened = open_all(Path("models")).opened
for attribute in opened.values():
    record = attribute.decoder.check(attribute.example())
    scoring.score(attribute, record), explanations.explain(attribute, record)
banned = {"numpy", "scipy", "lightgbm", "pandas", "sklearn", "pydantic", "typer", "redis", "rich", "starlette"}
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(sorted(banned & set(sys.modules)), int(peak.split()[1]) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    imported, _, mebibytes = done.stdout.strip().rpartition(" ")
    assert imported == "[]"
    assert int(mebibytes) < 55
