"""How many attempts each endpoint may begin, so that none takes the room that another one needs. Pure."""

from __future__ import annotations

from collections.abc import Mapping


def share(slots: int, held: Mapping[str, int], wanted: Mapping[str, int]) -> dict[str, int]:
    """How many more attempts each endpoint of `wanted` may begin; `held` says how many each has under way.

    Nobody holds more than what is free: n endpoints that never let go hold 1/(n+1) of the slots each and leave as much
    for others, and one alone gets half of all. (The dynamic threshold of Choudhury and Hahne, "Dynamic queue length
    thresholds for shared-memory packet switches", 1998, with a factor of 1.)
    """
    free = slots - sum(held.values())
    given: dict[str, int] = dict.fromkeys(wanted, 0)
    # Whoever has least under way is served first, one by one in turn.
    turn = sorted((endpoint for endpoint in wanted if wanted[endpoint] > 0), key=lambda one: held.get(one, 0))
    while turn and free > 0:
        still = []
        for endpoint in turn:
            if held.get(endpoint, 0) + given[endpoint] >= free:
                continue
            given[endpoint] += 1
            free -= 1
            if given[endpoint] < wanted[endpoint]:
                still.append(endpoint)
        turn = still
    return {endpoint: count for endpoint, count in given.items() if count}
