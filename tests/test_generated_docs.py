"""Pages that come from code are the code's, word for word."""

import pytest

from cli import generate_docs
from shared.event_catalogue import CATALOGUE
from shared.events import Event


@pytest.mark.parametrize("name", list(generate_docs.PAGES))
def test_a_generated_page_is_up_to_date(name):
    """`make docs` writes it; this fails when somebody forgot."""
    assert (generate_docs.DOCS / name).read_text(encoding="utf-8") == generate_docs.PAGES[name]()


def test_every_event_is_explained():
    """A new event says what it means; no meaning is left of one that is gone."""
    assert set(CATALOGUE) == set(Event)
    assert all(kind.meaning.endswith((".", "…")) for kind in CATALOGUE.values())
