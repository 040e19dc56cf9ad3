"""PCG64, numpy's default generator of random numbers, in plain Python: the same stream, bit for bit.

A host's network draws some hundred numbers a tick. For these numpy, a fifth of what the daemon would have in
memory, need not be imported. Whoever draws many at once gets them from numpy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MANY = 4096
"""From so many draws at once on, importing numpy pays."""

MASK_32 = (1 << 32) - 1
MASK_53 = (1 << 53) - 1
MASK_64 = (1 << 64) - 1
MASK_128 = (1 << 128) - 1

MULTIPLIER = 0x2360ED051FC65DA44385DF649FCCF645
"""Of the linear congruential step, modulo 2**128."""

TWICE = (1 << 64) + 1
"""Times this, a word of 64 bits stands there twice, and a shift rotates it."""

POOL_WORDS = 4
INIT_A, MULT_A = 0x43B0D7E5, 0x931E8875
INIT_B, MULT_B = 0x8B51F9DD, 0x58F38DED
MIX_LEFT, MIX_RIGHT = 0xCA01F9DD, 0x4973F715


class Pcg64:
    """Uniform random numbers in [0, 1): those of `numpy.random.Generator(numpy.random.PCG64(seed))`. Mutable.

    The permuted congruential generator XSL-RR 128/64 of O'Neill (2014), seeded as numpy's SeedSequence does.

    Args:
        seed: 0 or more.
    """

    def __init__(self, seed: int) -> None:
        words = _seed_words(seed)
        self._inc = (words[2] << 64 | words[3]) << 1 & MASK_128 | 1
        start = self._inc + (words[0] << 64 | words[1])
        self._state = (start * MULTIPLIER + self._inc) & MASK_128
        self._numpy: np.random.Generator | None = None

    @classmethod
    def restored(cls, state: object) -> Pcg64:
        """One that goes on where `state` says.

        Raises:
            ValueError: that is no state of a PCG64.
        """
        if not isinstance(state, Mapping) or state.get("bit_generator") != "PCG64":
            raise ValueError("not a PCG64")
        words = state.get("state")
        if not isinstance(words, Mapping):
            raise ValueError("no state")  # noqa: TRY004 - the caller's one error
        generator = cls(0)
        generator._state, generator._inc = (_word(words, name) for name in ("state", "inc"))
        if not generator._inc & 1:
            raise ValueError("inc is even")
        return generator

    @property
    def state(self) -> dict[str, Any]:
        """Where it stands, as numpy says it: plain JSON values."""
        if self._numpy is not None:
            return dict(self._numpy.bit_generator.state)
        return {
            "bit_generator": "PCG64",
            "state": {"state": self._state, "inc": self._inc},
            # Half a word that numpy keeps for draws of 32 bits, which are not drawn here.
            "has_uint32": 0,
            "uinteger": 0,
        }

    def random(self, count: int) -> list[float]:
        """The next `count` numbers."""
        if self._numpy is not None or count >= MANY:
            drawn: list[float] = self.random_array(count).tolist()
            return drawn
        state, inc, draws = self._state, self._inc, list[float]()
        # Names of its own: this is a third of a tick of the network.
        multiplier, twice, mask_53, mask_64, mask_128 = MULTIPLIER, TWICE, MASK_53, MASK_64, MASK_128
        add = draws.append
        for _ in range(count):
            state = (state * multiplier + inc) & mask_128
            # The halves' exclusive or, rotated by the state's upper six bits; of that the upper 53.
            add((((state >> 64 ^ state) & mask_64) * twice >> (state >> 122) + 11 & mask_53) * 2.0**-53)
        self._state = state
        return draws

    def random_array(self, count: int) -> NDArray[np.float64]:
        """The next `count` numbers out of numpy, which draws all others from then on too."""
        if self._numpy is None:
            import numpy as np  # noqa: PLC0415 - see above

            generator = np.random.PCG64()
            generator.state = self.state  # type: ignore[assignment] # numpy's stubs have a class for it
            self._numpy = np.random.Generator(generator)
        return self._numpy.random(count)


def _word(words: Mapping[str, Any], name: str) -> int:
    word = words.get(name)
    if isinstance(word, bool) or not isinstance(word, int) or not 0 <= word <= MASK_128:
        raise ValueError(f"{name} is no whole number of 128 bits")
    return word


def _seed_words(seed: int) -> list[int]:
    """Four words of 64 bits out of a seed."""
    entropy = [seed >> shift & MASK_32 for shift in range(0, max(seed.bit_length(), 1), 32)]
    mixed = _hashed(_pool(entropy), 2 * POOL_WORDS)
    return [low | high << 32 for low, high in zip(mixed[::2], mixed[1::2], strict=True)]


def _pool(entropy: Sequence[int]) -> list[int]:
    multiplier = INIT_A

    def hashed(word: int) -> int:
        nonlocal multiplier
        word ^= multiplier
        multiplier = multiplier * MULT_A & MASK_32
        word = word * multiplier & MASK_32
        return word ^ word >> 16

    def mixed(left: int, right: int) -> int:
        word = (MIX_LEFT * left - MIX_RIGHT * right) & MASK_32
        return word ^ word >> 16

    pool = [hashed(word) for word in (*entropy[:POOL_WORDS], *(0,) * (POOL_WORDS - len(entropy)))]
    for source in range(POOL_WORDS):
        for target in range(POOL_WORDS):
            if source != target:
                pool[target] = mixed(pool[target], hashed(pool[source]))
    for word in entropy[POOL_WORDS:]:
        for target in range(POOL_WORDS):
            pool[target] = mixed(pool[target], hashed(word))
    return pool


def _hashed(pool: Sequence[int], count: int) -> list[int]:
    words, multiplier = [], INIT_B
    for _, word in zip(range(count), cycle(pool), strict=False):
        word ^= multiplier  # noqa: PLW2901 - as the algorithm is written
        multiplier = multiplier * MULT_B & MASK_32
        word = word * multiplier & MASK_32  # noqa: PLW2901
        words.append(word ^ word >> 16)
    return words
