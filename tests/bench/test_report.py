"""The written page: nothing that was missed may be hidden."""

from bench.plan import Results, Sample
from bench.report import Circumstances, missed_words, number, page, rates_table, table, targets_table, with_spread
from bench.spread import spread
from bench.targets import TARGETS

ABOUT = Circumstances(
    date="2030-01-01", machine="2 cores of a processor", generator="wrk 4.1.0", versions={"uvicorn": "1"}, rounds=2,
    seconds=1, attribute="grit", shape="500 trees", n_rows=10, n_tokens=3, n_same=5, busy=0.1,
)  # fmt: skip


def measured(predict: float = 9_000.0) -> Results:
    """Two rounds of the main cases."""
    results = Results()
    rates = {"sign": 2_000.0, "token-32": 1_500.0, "floor-32": 10_000.0, "predict-32": predict, "naive-32": 1_000.0}
    for case, rate in rates.items():
        for factor in (1.0, 1.1):
            results.add(case, Sample(rate * factor, 100, p50_us=100.0, p99_us=900.0, cpu_us=70.0))
    return results


def test_reached_target_is_said_so():
    """Ratio, bound and verdict stand in one line."""
    line = next(line for line in targets_table(measured()).splitlines() if "bare-ASGI floor" in line)
    assert "≥ 0.75" in line
    assert "0.90" in line
    assert "| reached |" in line


def test_missed_target_is_never_hidden():
    """It stands in the table and in the first paragraph."""
    results = measured(predict=5_000.0)
    assert "**missed** by 33%" in targets_table(results)
    assert "Missed: predict, warm tokens ÷ bare-ASGI floor" in missed_words(results)


def test_target_that_was_not_measured_is_named():
    """A run of some groups only does not look like a good one."""
    assert targets_table(Results()).count("not measured") == len(TARGETS)
    assert missed_words(Results()).startswith(f"0 of {len(TARGETS)} targets reached. Not measured:")


def test_batch_line_says_records_a_second():
    """A rate of calls alone would flatter single rows."""
    results = Results()
    results.add("batch-1", Sample(50.0, 100, p50_us=20_000.0, p99_us=30_000.0))
    assert "50,000 records/s" in rates_table(results)


def test_page_has_targets_method_and_notes():
    """One page tells the whole run."""
    results = measured()
    results.notes.append("wrk is missing")
    text = page(results, ABOUT, picture=True)
    for words in ("## Targets", "## Method", "- wrk is missing", "benchmarks.png", "2030-01-01", "500 trees"):
        assert words in text
    assert "benchmarks.png" not in page(results, ABOUT, picture=False)


def test_table_is_markdown():
    """Columns but the first are aligned to the right."""
    assert table(("a", "b"), [("1", "2")]).splitlines() == ["| a | b |", "| --- | ---: |", "| 1 | 2 |"]


def test_figures_keep_three_digits():
    """More digits would claim a precision that is not there."""
    assert [number(value) for value in (12_345.6, 123.4, 12.34, 0.756)] == ["12,346", "123", "12.3", "0.76"]
    assert with_spread(spread([1.0, 2.0, 4.0])) == "2.00 [1.00–4.00]"
    assert with_spread(spread([2.0])) == "2.00"
    assert with_spread(None) == "–"
