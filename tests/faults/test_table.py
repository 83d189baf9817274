"""The fault table of docs/operations.md, cell by cell: every state is brought about for real, and everything is asked."""

import pytest

from cli.fault_table import ALL, DEAD, SERVED, TABLE
from shared.revocations.head import HEAD_KEY
from tests.faults import at_auth, at_model

ROWS = [pytest.param(state, variant, id=f"{state.name}-{variant}") for state in TABLE for variant in state.variants]
WITH_AUTH = [
    row
    for row in ROWS
    if (state := row.values[0]).auth is not DEAD
    and (row.values[1] == state.variants[0] or getattr(at_auth, state.name) is not at_auth.all_well)
]


@pytest.mark.parametrize(("state", "variant"), ROWS)
async def test_model_server_cells(state, variant, model_world):
    """What a model server answers in each state."""
    await model_world.start()
    await getattr(at_model, state.name)(model_world, variant)
    assert await model_world.observe() == state.model


async def test_what_the_store_lost_a_model_server_finds_on_its_disk(model_world):
    """Emptied, and then restarted: the revoked token is refused, the good one is not."""
    await model_world.start()
    await at_model.store_emptied(model_world, "emptied")
    await model_world.stop()
    await model_world.serve()
    assert await model_world.observe() == SERVED


async def test_a_running_model_server_needs_the_feed_key_no_more(model_world):
    """It is read once."""
    await model_world.start()
    model_world.settings.feed_key_file.unlink()
    await model_world.pass_time(60)
    assert await model_world.observe() == SERVED


async def test_a_restart_on_a_full_disk_starts_from_the_older_files(model_world):
    """Store and auth server gone, too."""
    await model_world.start()
    await at_model.disk_full(model_world, "full")
    await at_model.both_dead_restart(model_world, "")
    assert await model_world.observe() == SERVED


async def test_a_feed_key_that_is_lost_for_good_costs_one_key_of_the_store(auth_world, event_log):
    """Without the old head, the next heartbeat opens a new feed under the new key."""
    await auth_world.start()
    try:
        await at_auth.feed_key_at_auth(auth_world, "missing", event_log)
        await auth_world.writer.delete(HEAD_KEY)
        await at_auth.all_well(auth_world)
        assert await auth_world.observe() == ALL
    finally:
        await auth_world.end()


@pytest.mark.parametrize(("state", "variant"), WITH_AUTH)
async def test_auth_server_cells(state, variant, auth_world, event_log):
    """What an auth server answers in each state in which it runs."""
    await auth_world.start()
    try:
        await getattr(at_auth, state.name)(auth_world, variant, event_log)
        assert await auth_world.observe() == state.auth
    finally:
        await auth_world.end()
