"""The oracle's verdict in sentences, for the end of a run and for `playbook sim report`."""

from __future__ import annotations

from counterplay_sim.oracle import EventsVerdict, Verdict
from counterplay_sim.oracle_chains import ChainState


def lines(verdict: Verdict) -> list[str]:
    """What came of it: only about what was tried, what is right first and what is not by name."""
    found = []
    if verdict.events.arrived or verdict.requests.get("activity blob"):
        found.append(_events(verdict.events))
    if verdict.alerts_arrived:
        found.append(
            f"{verdict.alerts_arrived:,} of {verdict.alerts_offered:,} alerts arrived"
            + (f", {len(verdict.alerts_duplicated):,} more than once." if verdict.alerts_duplicated else ".")
        )
    if verdict.effects:
        found += _containment(verdict)
    return found


def _events(events: EventsVerdict) -> str:
    if events.ok:
        return (
            f"The simulated tenant confirms: {events.exact:,} of {events.offered:,} audit events arrived"
            " exactly once and byte-equal."
        )
    if not (events.missing or events.altered):
        return (
            f"The simulated tenant confirms: all {events.offered:,} audit events arrived, byte-equal;"
            f" {len(events.duplicated):,} of them more than once, as a delivery that was cut off may."
        )
    wrong = [
        f"{len(keys):,} {what} (such as {keys[0]})"
        for keys, what in (
            (events.missing, "are missing"),
            (events.duplicated, "arrived more than once"),
            (events.altered, "arrived altered"),
        )
        if keys
    ]
    return (
        f"The simulated tenant disagrees: {events.exact:,} of {events.offered:,} audit events arrived exactly"
        f" once and byte-equal; {', '.join(wrong)}."
    )


def _containment(verdict: Verdict) -> list[str]:
    victim = verdict.victim
    blocked = sorted(upn for upn, effects in verdict.effects.items() if effects.blocked)
    good = [f"Blocked: {', '.join(blocked) if blocked else 'nobody'}"]
    bad = []
    if not victim.blocked:
        bad.append(f"{victim.upn} was attacked and can still sign in")
    if victim.sessions:
        bad.append(f"{victim.upn} has {victim.sessions} live sessions")
    else:
        good.append(f"{victim.upn} has no live session")
    if victim.malicious_rules_on:
        bad.append(f"the malicious inbox rule {victim.malicious_rules_on[0]!r} of {victim.upn} is still on")
    else:
        good.append("the malicious inbox rule is off")
    bad += [f"the harmless inbox rule {rule!r} of {upn} is off" for upn, rule in verdict.harmless_rules_off]
    others = [upn for upn in verdict.touched if upn != victim.upn]
    if others:
        bad.append(f"changed as well: {', '.join(others)}")
    else:
        good.append("nobody else was changed")
    return ["; ".join(good) + "."] + ([f"Not as it should be: {'; '.join(bad)}."] if bad else [])


def _losses(events: EventsVerdict) -> list[str]:
    said = []
    if events.delay_p50 is not None:
        said.append(
            f"  from listable to arrival: p50 {events.delay_p50:,.1f} s, p95 {events.delay_p95:,.1f} s,"
            f" longest {events.delay_max:,.1f} s"
        )
    if events.lost_to_faults:
        kinds = ", ".join(sorted(set(events.lost_to_faults.values())))
        said.append(
            f"  of the missing, {len(events.lost_to_faults):,} were kept back by faults on purpose ({kinds}),"
            f" {len(events.unexplained):,} were not"
        )
    if events.withheld:
        said.append(f"  {len(events.withheld):,} more could never be listed: nothing was subscribed then")
    return said


def _chain(chain: ChainState) -> str:
    left = {
        "sessions": chain.sessions,
        "rules": chain.rules,
        "consents": chain.grants,
        "permissions": chain.app_roles,
        "applications": chain.service_principals,
        "sign-in methods": chain.authentication_methods,
        "devices": chain.devices,
        "machines": chain.machines,
    }
    counted = [f"{len(keys)} {what}" for what, keys in left.items() if keys]
    held = ", ".join((["the password"] if chain.password else []) + counted) or "nothing"
    said = [
        "blocked" if chain.blocked else "not blocked",
        f"the attacker still has {held}",
    ]
    if chain.forwarding:
        said.append(f"the mailbox forwards to {chain.forwarding}, which Graph cannot end")
    if chain.evidence_lost:
        said.append(f"evidence is gone: {', '.join(chain.evidence_lost)}")
    return f"Attack {chain.scenario} on {chain.victim}: {'; '.join(said)}"


def full(verdict: Verdict) -> list[str]:
    """Everything, for `playbook sim report`."""
    events = verdict.events
    said = [
        f"Tenant {verdict.tenant}{' (finished)' if verdict.finished else ''}",
        f"Audit events: {events.offered:,} offered ({events.listed_twice:,} of them listed more than once),"
        f" {events.arrived:,} arrived, {events.exact:,} exactly once and byte-equal",
        *_losses(events),
        f"  missing {len(events.missing):,}, more than once {len(events.duplicated):,},"
        f" altered {len(events.altered):,}",
        f"Alerts: {verdict.alerts_offered:,} offered, {verdict.alerts_arrived:,} arrived;"
        f" outcome records: {verdict.outcomes:,}; other: {verdict.others:,}",
    ]
    said.append("Changes:" if verdict.effects else "Changes: none")
    for upn, effects in sorted(verdict.effects.items()):
        said += [f"  {upn}: {action} {target} {after}" for action, target, after in effects.changes]
    victim = verdict.victim
    if victim.upn:
        rules = ", ".join(map(repr, victim.malicious_rules_on)) or "none"
        said.append(
            f"Attacked: {victim.upn}: {'blocked' if victim.blocked else 'can sign in'},"
            f" {victim.sessions} live sessions, malicious rules on: {rules}"
        )
    said += [_chain(chain) for chain in verdict.chains]
    said += [f"Changed without being part of an attack: {one}" for one in verdict.collateral]
    for recovery in verdict.recoveries:
        after = f", after at most {recovery.longest:,.1f} s" if recovery.longest is not None else ""
        said.append(f"Fault {recovery.fault}: met {recovery.met:,}, over {recovery.recovered:,}{after}")
    said.append("Requests:" if verdict.requests else "Requests: none")
    said += [f"  {operation}: {count:,}" for operation, count in verdict.requests.items()]
    said += [f"  most within a minute, {name}: {count:,}" for name, count in verdict.most_in_a_minute.items()]
    return said
