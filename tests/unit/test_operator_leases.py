"""Leases: no address is with two pools, who has one keeps it until nothing waits for it, and the oldest comes first."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from postrail_operator.leases import Claim, Lease, State, first_come, leases, pool_users
from tests.support.kubernetes_objects import ip_pool, read, sender_pool

A, B = "192.0.2.1", "192.0.2.2"


def found(*bodies: Any, drained: frozenset[str] = frozenset()) -> dict[tuple[str, str], Lease]:
    objects = read(*bodies)
    return {(lease.ip_pool, lease.address.address): lease for lease in leases(objects, pool_users(objects), drained)}


def held(address: str, leased_to: str, state: str = "Active") -> dict[str, Any]:
    return {"addresses": [{"address": address, "ehlo": "out.example.com", "state": state, "leasedTo": leased_to}]}


def test_oldest_gets_an_address_that_two_pools_name() -> None:
    got = found(ip_pool("new", A, age=1), ip_pool("old", A, B, age=2), sender_pool("p", "s", "old"))
    assert got["old", A].state is State.ACTIVE
    assert got["new", A].state is State.TAKEN
    assert got["new", A].owner == "old"
    assert not got["new", A].sends


def test_who_has_an_address_keeps_it_from_an_older_pool_that_names_it_later() -> None:
    got = found(
        ip_pool("old", A, age=2),
        ip_pool("new", A, age=1, status=held(A, "p")),
        sender_pool("p", "s", "new"),
    )
    assert got["new", A].state is State.ACTIVE
    assert got["old", A].owner == "new"


def test_address_taken_out_of_the_spec_drains_and_nobody_else_gets_it() -> None:
    bodies = (ip_pool("one", B, status=held(A, "p")), ip_pool("two", A), sender_pool("p", "s", "one"))
    got = found(*bodies)
    assert got["one", A].state is State.DRAINING
    assert got["one", A].leased_to == "p"
    assert got["two", A].state is State.TAKEN
    assert found(*bodies, drained=frozenset({"p"}))["one", A].state is State.DRAINING, (
        "new mail may have come a moment ago"
    )
    told = (ip_pool("one", B, status=held(A, "p", "Draining")), *bodies[1:])
    assert found(*told)["one", A].state is State.DRAINING
    after = found(*told, drained=frozenset({"p"}))
    assert ("one", A) not in after
    assert after["two", A].owner == "two"


def test_annotation_releases_an_address_that_nobody_can_see_drain() -> None:
    status = held(A, "p")
    bodies = (ip_pool("one", B, status=status, annotations={"postrail.io/release": A}), sender_pool("p", "s", "one"))
    assert ("one", A) not in found(*bodies)


def test_pool_that_changes_its_addresses_keeps_the_old_ones_until_they_are_drained() -> None:
    rest = (ip_pool("two", B), sender_pool("p", "s", "two"), sender_pool("q", "t", "one"))
    got = found(ip_pool("one", A, status={**held(A, "p"), "usedBy": "p"}), *rest)
    assert (got["one", A].state, got["one", A].leased_to) == (State.DRAINING, "p")
    assert (got["two", B].state, got["two", B].leased_to) == (State.ACTIVE, "p")
    told = ip_pool("one", A, status={**held(A, "p", "Draining"), "usedBy": "q"})
    after = found(told, *rest, drained=frozenset({"p"}))
    assert (after["one", A].state, after["one", A].leased_to) == (State.ACTIVE, "q")


def test_lease_to_a_pool_that_is_gone_is_free() -> None:
    got = found(ip_pool("one", B, status=held(A, "gone")), ip_pool("two", A), sender_pool("p", "s", "two"))
    assert got["two", A].state is State.ACTIVE


def test_quarantined_address_is_still_leased() -> None:
    pool = ip_pool("one", A, B, annotations={"postrail.io/quarantine": f" {B} , 192.0.2.9"})
    got = found(pool, sender_pool("p", "s", "one"))
    assert got["one", A].state is State.ACTIVE
    assert got["one", B].state is State.QUARANTINED
    assert got["one", B].sends


def test_pool_without_senders_is_idle() -> None:
    assert found(ip_pool("one", A))["one", A].state is State.IDLE


def test_second_sender_pool_of_an_ip_pool_gets_nothing() -> None:
    objects = read(ip_pool("one", A), sender_pool("b", "s", "one", age=1), sender_pool("a", "t", "one", age=0))
    assert pool_users(objects) == {"one": "b"}


claims = st.builds(
    Claim,
    thing=st.sampled_from("xyz"),
    claimant=st.sampled_from(["a", "b", "c"]),
    age=st.tuples(st.sampled_from(["1", "2"]), st.sampled_from("abc")),
    holds=st.booleans(),
)


@given(st.lists(claims))
def test_everything_that_is_asked_for_has_one_owner_who_asked(asked: list[Claim]) -> None:
    owners = first_come(asked)
    assert owners.keys() == {claim.thing for claim in asked}
    assert all((thing, who) in {(claim.thing, claim.claimant) for claim in asked} for thing, who in owners.items())
    assert first_come(reversed(asked)).keys() == owners.keys()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sets(st.sampled_from([A, B, "192.0.2.3"]), min_size=1), min_size=1, max_size=4),
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from([A, B, "192.0.2.3"]), st.sampled_from(["p0", "p1"])), max_size=4
    ),
    st.lists(st.integers(0, 3), min_size=2, max_size=2),
    st.sets(st.sampled_from(["p0", "p1"])),
)
def test_no_address_can_send_for_two(
    wanted: list[set[str]], before: list[tuple[int, str, str]], refs: list[int], drained: set[str]
) -> None:
    status: dict[int, dict[str, Any]] = {}
    free = {A, B, "192.0.2.3"}
    for pool, address, leased_to in before:
        if address in free:  # what the status says was true: one lease for an address
            free.discard(address)
            status.setdefault(pool, {"addresses": []})["addresses"] += held(address, leased_to)["addresses"]
    pools = [
        ip_pool(f"i{n}", *sorted(addresses), age=n, status=status.get(n, {})) for n, addresses in enumerate(wanted)
    ]
    senders = [sender_pool(f"p{n}", f"s{n}", f"i{ref}") for n, ref in enumerate(refs)]
    objects = read(*pools, *senders)
    got = leases(objects, pool_users(objects), frozenset(drained))
    sending = [lease.address.address for lease in got if lease.sends]
    assert len(sending) == len(set(sending))
    named = [(lease.ip_pool, lease.address.address) for lease in got]
    assert len(named) == len(set(named))
    for n, entry in status.items():
        for one in entry["addresses"]:
            if one["leasedTo"] not in drained and n < len(wanted):
                assert [x.leased_to for x in got if x.sends and x.address.address == one["address"]] == [
                    one["leasedTo"]
                ]
