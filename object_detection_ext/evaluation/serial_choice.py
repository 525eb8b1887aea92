# SPDX-License-Identifier: Apache-2.0
"""One after another, each takes what it likes best of what is left: many such rows at once."""

import numpy as np


def choose_in_turn(claimant: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lets claimants, by ascending number, take the first of their targets that is left.

    The result of that loop is the one matching in which no claimant likes a target better that an
    earlier claimant does not have. So all may ask at once: a target keeps the earliest claimant
    who asks, the others ask for their next target, until nobody is turned down (Gale and Shapley
    1962).

    Args:
        claimant: int [P], ascending; who would take a target.
        target: int [P], what; each claimant's in the order of its liking.

    Returns:
        (claimants, their targets), of those that get one, by ascending number.
    """
    if not len(claimant):
        return claimant, target
    who, first = np.unique(claimant, return_index=True)
    stop = np.append(first[1:], len(claimant))
    what, target = np.unique(target, return_inverse=True)
    holder = np.full(len(what), len(who))  # the earliest claimant who asked for a target so far
    place, asking = first.copy(), np.arange(len(who))
    while len(asking):
        asked = target[place[asking]]
        earlier = holder.copy()
        np.minimum.at(holder, asked, asking)
        bumped = earlier[(holder < earlier) & (earlier < len(who))]
        asking = np.concatenate([asking[holder[asked] != asking], bumped])
        place[asking] += 1
        asking = asking[place[asking] < stop[asking]]
    taken = np.flatnonzero(holder < len(who))
    order = np.argsort(holder[taken])
    return who[holder[taken][order]], what[taken[order]]
