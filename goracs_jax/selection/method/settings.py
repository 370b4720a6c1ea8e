"""Settings of the stages of `Goracs`.

The defaults were found by trial on 15,000 x 5,000 rows, n = 1,000, lambda 0, 0.1 and
0.5.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class PairMoves:
    """Settings of the moves, in which two neighbouring slots choose their rows anew."""

    drawn: int = 24
    """Candidates drawn from the lists of a pair's units."""
    kept: int = 6
    """Candidates kept of these: the ones whose cheapest units cost least."""
    neighbours: int = 5
    """Nearest slots that a slot may be paired with."""


@dataclass(frozen=True, kw_only=True)
class SimulatedAnnealing:
    """Settings that say how hot, how long and how often pairs of slots are annealed.

    Temperatures are in units of the gap: the least that another choice of rows costs a
    pair once a quench at temperature zero has ended.
    """

    gap: float = 5e-4
    """The annealing runs where POO is above the lower bound by more than this, in the
    units of C,"""
    slot_gap: float = 5e-6
    """or by more than this for each slot: of few slots, each weighs much."""
    heat: float = 0.27
    """First temperature of an annealing."""
    hotter: float = 16.0
    """Factor on `heat` in every second start, where the gap may be a low step."""
    cold: float = 0.06
    """Temperature before the last epoch, which runs at zero."""
    epochs: int = 15
    """Epochs of an annealing; the transport is solved anew after each."""
    fewest_epochs: int = 5
    """Epochs of an annealing of the largest problems."""
    sweeps: int = 2400
    """Sweeps of an epoch at most; there are never more than 4 n."""
    effort: float = 1.0
    """Multiplier on the sweeps of all epochs and on `idle_slots`; below 1 there are
    fewer epochs, too."""
    epoch_entries: int = 40_000_000
    """Entries of C that the sweeps of an epoch look at: larger problems get fewer
    sweeps, so that their time stays near that of smaller ones."""
    transport_entries: int = 75_000_000
    """Entries of C in the transports of all epochs: larger problems get fewer."""
    least_share: float = 0.1
    """Share of the sweeps of all epochs below which a shortened annealing is left out:
    it finds next to nothing that the exchange of groups has not found."""
    starts: int = 16
    """Annealings at most, since few slots freeze into a different subset each time."""
    idle_slots: int = 128
    """Slots in all starts together that may find nothing better, in a row, before no
    more begin."""
    started_slots: int = 512
    """Slots in all starts together: n above half of this is annealed once."""
    listed: int = 16
    """Cheapest training rows listed per validation point: the candidates of moves."""
    pool_sizes: int = 16
    """Number of sizes that the pool of candidates is rounded up to: each size compiles
    a program of its own."""
    dense_entries: int = 1 << 28
    """Entries of C of the pool that are kept in memory at most (1 GiB of float32)."""
    uneven: float = 0.05
    """Share of the validation mass that equal units may misplace."""
    moves: PairMoves = field(default_factory=PairMoves)
    """Settings of the moves of a pair of slots."""


@dataclass(frozen=True, kw_only=True)
class GroupExchange:
    """Settings of the exchange of whole groups of validation mass."""

    candidates: int = 16
    """Best rows kept for each slot at first; more where these do not suffice."""
    max_rounds: int = 100
    """Rounds after which the exchange gives up."""
    swaps: int = 300
    """Pairs of a row inside and one outside that are tried by their own transports
    where groups find nothing; none where there are more."""
    halvings: int = 4
    """Passes over part of the groups are padded to the size of all, halved up to this
    many times: each size compiles a program of its own."""


@dataclass(frozen=True, kw_only=True)
class LowerBound:
    """Settings of the Lagrangian relaxation: the lower bound and the rows it wants."""

    max_rounds: int = 4
    """Ascents at most, each over a core that is chosen by a pass over C."""
    fewest_rounds: int = 3
    """Ascents that the largest problems may still take."""
    passed_entries: int = 300_000_000
    """Entries of C in the passes of all rounds: larger problems get fewer rounds."""
    steps: int = 40
    """Steps of the first ascent; each further one has twice as many."""
    core: int = 4
    """Rows of the core for each row that is to be chosen."""
    least_core: int = 64
    """Rows of the core at least, where there are as many."""
    listing: int = 8
    """Rows of the core that see a validation point at least."""


#: The bound that one short ascent gives.
QUICK = LowerBound(max_rounds=1, fewest_rounds=1)
