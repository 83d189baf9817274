"""The page of a run."""

from collections import Counter

from bench.floods.runner import Floods
from bench.soak.results import About, Check, Results, Soak, by_disturbance, checks, reach_figures

_INTRO = """# Soak: the installation under faults

Written by `make soak`; do not edit. Two hosts of model servers and an auth server, two workers each, and a store: every
host reaches the store, and the model hosts the issuer, through proxies that fail as networks do. While good callers
call at a fixed rate, keys rotate, tokens are revoked in every way there is, and one thing after another breaks.
What each figure means, and what the run does not show, stands at the end.
"""

_MEANING = """## What the figures mean

- A **good call** is a prediction with a token that `flex_client` keeps fresh. It must be answered 200. After an
  emergency rotation a 401 and one retry with a new token are what a client does; such calls are counted on their own,
  and only within 10 s of an emergency. Nothing else is retried.
- **Reach** is the time from the acknowledgement of a revocation (200 of the endpoint; end of the `flex keys` command)
  to the sending of the last call that a worker still served, tried back to back at every worker. 0 means that no call
  sent after the acknowledgement was served.
- The **bound** is 1 s while the host reaches the store. In an outage it is 1 s after the end of the outage; beyond the
  host's staleness limit it serves nothing at all.
- **Latency** is that of a machine which also runs the harness and its trials, up to thousands of calls a second: it
  shows that nothing stalls, not how fast the servers are (`make bench` does).
- **Dead tokens** are shown to random workers again until the end of the run.
- A ring publishes at most 16 keys and keeps a retired one for as long as its tokens live, here 15 minutes, as the run
  keeps some of each key. So that many rotations fit into minutes, it drops each retired key with `flex keys revoke`
  63 s after it retired, when no good caller can hold a 60 s token of it.

It does not show: more than one machine; a partition in which even the connect fails (the proxies accept, then are
silent); a store that fails over to a replica that lost writes (the property tests of the feed do).
"""


def page(results: Results, *, picture: bool) -> str:
    """Spell the page in Markdown."""
    found = checks(results)
    held = all(check.held for check in found)
    parts = [
        _INTRO,
        _about(results.about),
        f"**{'Everything held.' if held else 'Not everything held.'}**\n",
        _table(found),
    ]
    if picture and results.soak is not None:
        parts.append("![Latency, staleness and reach over time, with every event](soak.png)\n")
    if results.soak is not None:
        parts += [_reach(results.soak), _calls(results.soak), _faults(results.soak), _problems(results.soak)]
    if results.floods is not None:
        parts.append(_floods(results.floods))
    return "\n".join([part for part in parts if part] + [_MEANING])


def _about(about: About) -> str:
    clocks = ", ".join(f"host {host} {by:+d} s" for host, by in about.clocks.items())
    wrong = f"clocks wrong by {clocks}" if any(about.clocks.values()) else "clocks right (libfaketime is not installed)"
    return (
        f"{about.date}, {about.machine}. {about.seconds:.0f} s, {about.rate:g} calls/s to each host by {about.clients} "
        f"clients, {wrong}, seed {about.seed}{', short form' if about.quick else ''}.\n"
    )


def _table(found: list[Check]) -> str:
    rows = [f"| {check.promise} | {'yes' if check.held else '**no**'} | {check.found} |" for check in found]
    return "\n".join(["| promise | held | found |", "|---|---|---|", *rows, ""])


def _reach(soak: Soak) -> str:
    rows = [
        "## Reach of revocations",
        "",
        "| kind | while | workers asked | p50 ms | p99 ms | longest ms |",
        "|---|---|---|---|---|---|",
    ]
    for disturbance, of_class in by_disturbance(soak).items():
        for kind in sorted({one.kind for one in of_class}):
            found = [one for one in of_class if one.kind == kind]
            if figures := reach_figures(found):
                p50, p99, longest = figures
                rows.append(f"| {kind} | {disturbance} | {len(found):,} | {p50:.1f} | {p99:.1f} | {longest:,.1f} |")
    return "\n".join([*rows, ""])


def _calls(soak: Soak) -> str:
    figures = ", ".join(f"{name} {value:g} ms" for name, value in soak.latency_ms.items())
    told = Counter(f"{one.host}: {one.reason}" for one in soak.failures)
    lines = ["## Good calls", "", f"Latency from when a call was due: {figures}.", ""]
    lines += [f"- {count} × {reason}" for reason, count in told.most_common(20)]
    return "\n".join([*lines, ""])


def _faults(soak: Soak) -> str:
    rows = ["## What was done", "", "| event | times |", "|---|---|"]
    rows += [f"| planned rotation | {soak.planned} |", f"| emergency rotation | {soak.emergencies} |"]
    rows += [f"| retired key dropped by `flex keys revoke` | {soak.dropped} |"]
    rows += [f"| {kind} | {count} |" for kind, count in sorted(soak.faults.items())]
    rows += ["", _rotation_times(soak)]
    told = Counter(mark.what[:160] for mark in soak.marks if mark.kind == "refused")
    rows += ["", "Refused meanwhile, and tried again:", ""] if told else []
    rows += [f"- {count} × {refusal}" for refusal, count in told.most_common(10)]
    return "\n".join([*rows, ""])


def _rotation_times(soak: Soak) -> str:
    found = sorted(((mark.until or mark.at) - mark.at, mark.what) for mark in soak.marks if mark.kind == "rotation")
    if not found:
        return ""
    middle, (longest, told) = found[len(found) // 2][0], found[-1]
    return (
        f"A planned rotation took {middle:.1f} s (median); the longest took {longest:.1f} s and last said:\n\n> {told}"
    )


def _floods(floods: Floods) -> str:
    rows = [
        "## Floods",
        "",
        "One model server, one worker, good calls at 100/s beside each flood; at best twice the idle p99.",
        "",
        "| flood | bad tokens | a second | answers | good p50 ms | good p99 ms | of idle p99 | fetches of keys | MiB |",
        "|---|---|---|---|---|---|---|---|---|",
        f"| none | | | | {floods.idle_p50_ms:.2f} | {floods.idle_p99_ms:.2f} | 1 | | {floods.rss_mib:.1f} |",
    ]
    for flood in floods.floods:
        answers = ", ".join(f"{count:,} × {status}" for status, count in sorted(flood.statuses.items()))
        rows.append(
            f"| {flood.kind} | {flood.n:,} | {flood.n / flood.seconds:,.0f} | {answers} | {flood.good_p50_ms:.2f} | "
            f"{flood.good_p99_ms:.2f} | {flood.good_p99_ms / floods.idle_p99_ms:.1f} | {flood.fetches} | "
            f"{flood.rss_mib:.1f} |"
        )
    return "\n".join([*rows, ""])


def _problems(soak: Soak) -> str:
    late = [one for one in soak.reaches if one.late]
    lines = [
        f"- {one.kind} at {one.host}/{one.worker}: acknowledged at {one.acked_at:.2f} s, served at "
        f"{one.last_served_at}, due {one.due:.2f} s, refused in the end: {one.refused}"
        for one in late[:20]
    ]
    lines += [f"- {line[:300]}" for line in soak.server_faults[:20]]
    return "\n".join(["## What did not hold", "", *lines, ""]) if lines else ""
