"""The only door to LightGBM: its C interface through ctypes, without importing the Python package.

Importing lightgbm brings numpy and scipy: 120 MiB and a second in every worker. The shared library inside the
same wheel needs 3 ms and 10 MiB, and has what the package lacks: a fast path for one row that is bit-equal to
`Booster.predict` (lightgbm-org/LightGBM#6913).

Rules that the library does not enforce, kept here:

- Text reaches it only after `model_text.check_model_text`; its parser trusts every index in the file.
- It reads `n_features` doubles from whatever pointer it gets, so lengths are checked on this side.
- A fast configuration belongs to one thread (lightgbm-org/LightGBM#6021), and the number of threads is a process-wide
  global that sizes buffers: it is 1 here, always. A batch is split by the caller over a pool instead.
- Never load or score in a process that forks afterwards: libgomp hangs in the child.
"""

import ctypes
import importlib.util
import os
import struct
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

_FLOAT64, _ROW_MAJOR, _NORMAL, _CONTRIB = 1, 1, 0, 3
_FROM_FIRST, _ALL_TREES = 0, -1
_PARAMETERS = b"num_threads=1"


class EngineError(RuntimeError):
    """The library refused or is not there. The message is for the log: it may quote the model."""


@cache
def library() -> "_Library":
    """Load the shared library once per process; `EngineError` if it or the OpenMP runtime is not installed."""
    return _Library(_library_path())


def _library_path() -> Path:
    spec = importlib.util.find_spec("lightgbm")  # finds the package's folder without running its code
    folders = (spec.submodule_search_locations or []) if spec else []
    name = {"darwin": "lib_lightgbm.dylib", "win32": "lib_lightgbm.dll"}.get(sys.platform, "lib_lightgbm.so")
    for folder in folders:
        for path in (Path(folder, "lib", name), Path(folder, "bin", name), Path(folder, name)):
            if path.is_file():
                return path
    raise EngineError("the lightgbm package is not installed")


#: The library's own log lines may quote memory that is not the model's: none is passed on.
_drop_line = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(lambda _line: None)


class _Library:
    """The loaded library, twice: `free` releases the GIL during a call, `held` does not.

    One row takes 5 to 20 us, less than handing the GIL over and getting it back costs while another thread
    computes. Measured with 500 trees: alone both ways take the same time; beside one busy Python thread a call
    took 0.05 ms with `held` and 5.2 ms with `free`, which waits for the interpreter's switch interval every time.
    """

    def __init__(self, path: Path) -> None:
        # libgomp reads it once, when it is loaded; the library's model parser is parallel.
        os.environ["OMP_NUM_THREADS"] = "1"
        try:
            self.free = ctypes.CDLL(str(path))
            self.held = ctypes.PyDLL(str(path))
        except OSError as error:
            raise EngineError(f"LightGBM's library can't be loaded (is libgomp1 installed?): {error}") from None
        self.free.LGBM_GetLastError.restype = ctypes.c_char_p
        self.check(self.free.LGBM_SetMaxThreads(1))

    def check(self, status: int) -> None:
        """Raise `EngineError` with the library's own words where a call did not return 0."""
        if status != 0:
            raise EngineError((self.free.LGBM_GetLastError() or b"unknown").decode("utf-8", "replace")[:300])

    def silence_this_thread(self) -> None:
        """Drop log lines; the library keeps its callback per thread."""
        self.check(self.free.LGBM_RegisterLogCallback(_drop_line))


class _Handle:
    """One booster, freed when the last lane and model that use it are gone."""

    def __init__(self, lib: _Library, text: bytes) -> None:
        self.pointer = ctypes.c_void_p()
        n_iterations = ctypes.c_int()
        lib.silence_this_thread()
        lib.check(
            lib.free.LGBM_BoosterLoadModelFromString(text, ctypes.byref(n_iterations), ctypes.byref(self.pointer))
        )
        weakref.finalize(self, lib.free.LGBM_BoosterFree, self.pointer)


class _Lanes(threading.local):
    """What one thread needs to score one row: made at a thread's first use, freed with the thread.

    `predict` and `contributions` are closures over buffers that belong to this thread alone, so two threads
    can never write into one row.
    """

    def __init__(self, handle: _Handle, n_features: int) -> None:
        lib = library()
        lib.silence_this_thread()
        self.predict = _predictor(lib, handle, n_features)
        self.contributions = _explainer(lib, handle, n_features)


def _fast_config(lib: _Library, handle: _Handle, kind: int, n_features: int) -> ctypes.c_void_p:
    config = ctypes.c_void_p()
    lib.check(
        lib.free.LGBM_BoosterPredictForMatSingleRowFastInit(
            handle.pointer, kind, _FROM_FIRST, _ALL_TREES, _FLOAT64, n_features, _PARAMETERS, ctypes.byref(config)
        )
    )
    return config


def _owned(function: Callable[..., Any], lib: _Library, config: ctypes.c_void_p, handle: _Handle) -> None:
    """Free `config` when `function` goes, and keep the booster alive until then."""

    def free(_keep: _Handle = handle) -> None:
        lib.free.LGBM_FastConfigFree(config)

    weakref.finalize(function, free)


def _predictor(lib: _Library, handle: _Handle, n_features: int) -> Callable[[Sequence[float]], float]:
    config = _fast_config(lib, handle, _NORMAL, n_features)
    row, result, length = (ctypes.c_double * n_features)(), ctypes.c_double(), ctypes.c_int64()
    call: Callable[..., int] = lib.held["LGBM_BoosterPredictForMatSingleRowFast"]
    row_at, length_at, result_at = ctypes.byref(row), ctypes.byref(length), ctypes.byref(result)
    fill = struct.Struct(f"{n_features}d").pack_into  # raises where there are not exactly n_features numbers

    def predict(values: Sequence[float]) -> float:
        fill(row, 0, *values)
        if call(config, row_at, length_at, result_at):
            raise EngineError("the library could not score a row")
        return result.value

    _owned(predict, lib, config, handle)
    return predict


def _explainer(lib: _Library, handle: _Handle, n_features: int) -> Callable[[Sequence[float]], tuple[float, ...]]:
    config = _fast_config(lib, handle, _CONTRIB, n_features)
    row, results, length = (ctypes.c_double * n_features)(), (ctypes.c_double * (n_features + 1))(), ctypes.c_int64()
    # TreeSHAP takes 100 us and more: here letting other threads run is worth it.
    call: Callable[..., int] = lib.free["LGBM_BoosterPredictForMatSingleRowFast"]
    row_at, length_at, results_at = ctypes.byref(row), ctypes.byref(length), ctypes.byref(results)
    fill = struct.Struct(f"{n_features}d").pack_into

    def contributions(values: Sequence[float]) -> tuple[float, ...]:
        fill(row, 0, *values)
        if call(config, row_at, length_at, results_at):
            raise EngineError("the library could not explain a row")
        return tuple(results)

    _owned(contributions, lib, config, handle)
    return contributions


class Model:
    """One loaded model; rows are sequences of `n_features` floats in column order, NaN where a value is missing.

    The thread that makes it is ready for single rows at once. Any other thread gets its own buffers at its first
    call, or before traffic by `ready_thread`. Every answer is float64 and bit-equal to the Python package's.
    """

    __slots__ = ("_handle", "_lanes", "_pack", "n_features", "raw_bounds")

    def __init__(self, text: bytes, n_features: int) -> None:
        """`text` must have passed `model_text.check_model_text`; `EngineError` if the library refuses it."""
        lib = library()
        self.n_features = n_features
        self._handle = _Handle(lib, text)
        self._lanes = _Lanes(self._handle, n_features)
        self._pack = struct.Struct(f"{n_features}d").pack
        #: lowest and highest sum of leaves the trees can give (before the link, where there is one)
        self.raw_bounds = self._bound("Lower"), self._bound("Upper")

    def ready_thread(self) -> None:
        """Make the calling thread's buffers now; meant as part of a pool's initializer."""
        _ = self._lanes.predict

    def predict_one(self, values: Sequence[float]) -> float:
        """Score one row in the calling thread; `struct.error` where it does not hold exactly n_features floats."""
        return self._lanes.predict(values)

    def contributions(self, values: Sequence[float]) -> tuple[float, ...]:
        """Return one SHAP value per feature and the base value last; they add up to the sum of leaves."""
        return self._lanes.contributions(values)

    def predict_many(self, rows: Sequence[Sequence[float]]) -> list[float]:
        """Score all rows in one call that releases the GIL; same order, same bits as `predict_one`."""
        if not rows:
            return []
        pack = self._pack
        buffer = b"".join([pack(*row) for row in rows])
        lib, length, results = library(), ctypes.c_int64(), (ctypes.c_double * len(rows))()
        lib.check(
            lib.free.LGBM_BoosterPredictForMat(
                self._handle.pointer, buffer, _FLOAT64, len(rows), self.n_features, _ROW_MAJOR,
                _NORMAL, _FROM_FIRST, _ALL_TREES, _PARAMETERS, ctypes.byref(length), results,
            )
        )  # fmt: skip
        if length.value != len(rows):
            raise EngineError("the library answered another number of rows")
        return results[:]

    def _bound(self, side: str) -> float:
        value = ctypes.c_double()
        lib = library()
        lib.check(lib.free[f"LGBM_BoosterGet{side}BoundValue"](self._handle.pointer, ctypes.byref(value)))
        return value.value
