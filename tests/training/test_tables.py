"""The kept data loads with the row counts that the documents promise."""

import numpy as np
import pytest

from training.play import other_game, persistence_problem, teamwork_problem
from training.survey import grit_table, spi_table
from training.tables import FOLDER, read


@pytest.mark.parametrize(
    ("file_name", "n_rows"),
    [
        ("grit_bigfive.csv.gz", 4270),
        ("spi_items.csv.gz", 4000),
        ("spi_key.csv", 125),
        ("outriders_players.csv.gz", 2007),
        ("gran_turismo_players.csv.gz", 17924),
    ],
)
def test_every_kept_file_has_its_documented_number_of_rows(file_name: str, n_rows: int) -> None:
    """A truncated or re-exported file would train a different model in silence."""
    assert read(file_name).n_rows == n_rows


def test_the_four_samples_have_their_documented_sizes() -> None:
    """3,885 for grit, 3,991 for SPI, 2,007 and 857 for play: the filters are the documented ones."""
    assert grit_table().n_rows == 3885
    assert spi_table().n_rows == 3991
    assert persistence_problem().X.shape == (2007, 19)
    assert teamwork_problem().X.shape == (857, 19)


def test_an_empty_cell_is_missing_and_not_zero() -> None:
    """A player with one session has no gap between sessions; 0 days would be a false statement."""
    gaps = read("outriders_players.csv.gz").numbers("mean_gap_days")
    assert int(np.isnan(gaps).sum()) == 95


def test_the_other_game_has_only_figures_that_need_session_times() -> None:
    """Gran Turismo knows no squads or quests: those columns are missing, not zero."""
    inputs, y = other_game()
    assert inputs.shape == (17924, 19)
    assert np.isnan(inputs[:, 11:]).all()
    assert not np.isnan(y).any()


def test_an_unknown_column_is_refused() -> None:
    """A misspelt column must not become an empty feature."""
    with pytest.raises(KeyError):
        read("spi_key.csv").words("no_such_column")


def test_every_data_file_has_a_source_line() -> None:
    """Data keep their own notices: a file without a source must not be here."""
    listed = {str(name) for name in read("SOURCES.csv").words("file")}
    kept = {path.name for path in FOLDER.glob("*.csv.gz")} | {"spi_key.csv"}
    assert kept == listed
    notice = (FOLDER / "NOTICE.md").read_text("utf-8")
    assert all(name in notice for name in kept)
