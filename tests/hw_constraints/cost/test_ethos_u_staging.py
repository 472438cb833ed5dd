import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.hw_constraints.cost.ethos_u.figures import CONFIGURATIONS, Channel, Memory
from bitwright.hw_constraints.cost.ethos_u.live import Lifetimes, Range
from bitwright.hw_constraints.cost.ethos_u.staging import best_subset
from bitwright.hw_constraints.cost.ethos_u.traffic import Traffic, channel_bandwidth, copy_cycles

U55, U85 = CONFIGURATIONS["ethos-u55-128"], CONFIGURATIONS["ethos-u85-1024"]
LIMIT = 100
PIECES = st.lists(
    st.tuples(st.integers(1, 90), st.integers(0, 12), st.integers(0, 6), st.integers(0, 1000)), min_size=1, max_size=9
)


@settings(max_examples=200, deadline=None)
@given(PIECES)
def test_what_stays_fits_and_nothing_that_fits_is_worth_more(drawn):
    pieces = [Range(size=size, first=first, last=first + length) for size, first, length, _ in drawn]
    worth = [value for *_, value in drawn]
    end = max(piece.last for piece in pieces)
    alive = Lifetimes(ranges=pieces, ticks=[], end=end)
    chosen = best_subset(pieces, [0] * (end + 1), alive.usage(), LIMIT, worth)

    def peak(kept):
        return max(
            sum(
                piece.size
                for piece, stays in zip(pieces, kept, strict=True)
                if stays and piece.first <= t <= piece.last
            )
            for t in range(end + 1)
        )

    def value(kept):
        return sum(each for each, stays in zip(worth, kept, strict=True) if stays)

    assert peak(chosen) <= LIMIT
    best = max(value(kept) for kept in itertools.product((False, True), repeat=len(pieces)) if peak(kept) <= LIMIT)
    assert value(chosen) == best


def test_a_channel_of_the_u85_is_limited_by_its_reorder_buffer_and_by_latency():
    dram = Memory(
        name="dram", bandwidth=12, read_latency=500, write_latency=250, burst=128, ports=1, max_reads=64, max_writes=32
    )
    # 16 words of 16 bytes hold 2 bursts of 128 bytes: 2 x 128 B / 500 cycles, of which 80 % carry data.
    assert channel_bandwidth(dram, Channel.SCALE, U85) == 2 * 128 / 500 * 0.8
    # 64 reads under way, of which 80 % are: 51.2 x 128 / 500 x 0.8; the weights' buffer would hold 52 bursts.
    assert round(channel_bandwidth(dram, Channel.WEIGHT, U85), 4) == round(51.2 * 128 / 500 * 0.8, 4)
    assert channel_bandwidth(dram, Channel.SCALE, U55) == 12


def test_a_copy_takes_the_slower_side():
    flash = Memory(
        name="flash", bandwidth=1, read_latency=64, write_latency=0, burst=128, ports=1, max_reads=2, max_writes=0
    )
    sram = Memory(
        name="sram", bandwidth=8, read_latency=32, write_latency=32, burst=32, ports=1, max_reads=4, max_writes=4
    )
    assert copy_cycles(flash, sram, 1000, U55) == 1064


def test_traffic_of_a_memory_counts_all_channels():
    sram = Memory(
        name="sram", bandwidth=8, read_latency=32, write_latency=32, burst=32, ports=1, max_reads=4, max_writes=4
    )
    traffic = Traffic()
    traffic.add(sram, Channel.IFM, "features", 800)
    traffic.add(sram, Channel.WEIGHT, "weights", 160)
    assert (traffic.of(sram), traffic.of(sram, "weights"), traffic.cycles(sram, U55)) == (960, 160, 120)
