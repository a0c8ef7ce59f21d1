"""A random permutation that is computed one place at a time, for orders that are too long to be shuffled.

A Feistel network permutes the numbers of an even number of bits, whatever its round function is. A result that is not
below the count is permuted again until it is, which makes a permutation of the numbers below the count ("cycle
walking": Black and Rogaway, Ciphers with Arbitrary Finite Domains, 2002).
"""

from __future__ import annotations

import numpy as np

ROUNDS = 6


def keys_from(rng: np.random.Generator) -> np.ndarray:
    """The keys of the rounds, uint64."""
    return rng.integers(2**64, size=ROUNDS, dtype=np.uint64)


def scattered(places: np.ndarray, *, count: int, keys: np.ndarray) -> np.ndarray:
    """The numbers at some places of the permutation of 0 ... count - 1 that the keys select, int64."""
    bits = max((count - 1).bit_length() + 1, 2) // 2        # of each half, so the network permutes at most 4 x count
    numbers = _permuted(places.astype(np.uint64), bits, keys)
    while (outside := numbers >= count).any():
        numbers[outside] = _permuted(numbers[outside], bits, keys)
    return numbers.astype(np.int64)


def _permuted(numbers: np.ndarray, bits: int, keys: np.ndarray) -> np.ndarray:
    mask = np.uint64(2**bits - 1)
    shift = np.uint64(bits)
    left, right = numbers >> shift, numbers & mask
    for key in keys:
        left, right = right, left ^ (_mixed(right + key) & mask)
    return left << shift | right


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """Numbers in which every bit depends on all bits of the given ones: the end of SplitMix64."""
    numbers = (numbers ^ numbers >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ numbers >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return numbers ^ numbers >> np.uint64(31)
