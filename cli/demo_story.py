"""The story that ``flex demo`` tells: each step does something, checks that it held, and says what was seen."""

from cli import demo_endings, demo_keys, demo_limits, demo_scoring
from cli.demo_stage import Step

# In order; later ones need what earlier ones made.
STEPS = (
    Step("Start a store, an auth server and two model servers", demo_scoring.start),
    Step("Create a client that may use one attribute", demo_scoring.create_client),
    Step("Get an access token", demo_scoring.get_token),
    Step("Score one record", demo_scoring.predict),
    Step("Score a batch", demo_scoring.batch),
    Step("Ask why", demo_scoring.explain),
    Step("Ask for a whole profile", demo_scoring.profile),
    Step("Refuse what must be refused", demo_scoring.refuse),
    Step("Spend a budget that travels in the token", demo_limits.budget),
    Step("See that every verifier has proved the next key", demo_keys.verifiers),
    Step("Rotate the signing key while calls run", demo_keys.rotate),
    Step("A verifier that lags holds the next rotation up", demo_keys.laggard),
    Step("Emergency: drop the signing key at once", demo_keys.emergency),
    Step("Revoke one token", demo_endings.revoke),
    Step("Disable a client", demo_endings.disable),
    Step("See who used what", demo_limits.usage),
    Step("Stop the auth server, freeze the store", demo_endings.outage),
    Step("Stop cleanly", demo_scoring.stop),
)
