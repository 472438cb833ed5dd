"""What a family of networks reaches at a latency, and the interval of a mean over seeds."""

import pytest
from scipy import stats

from bitwright.experiments.benchmarks.camvid_contest import mean_interval, reference_miou

FRONT = {1.0: 40.0, 2.0: 50.0, 3.0: 48.0, 4.0: 60.0}


@pytest.mark.parametrize(
    ("latency", "miou"),
    [(2.0, 50.0), (1.5, 45.0), (3.0, 55.0), (0.5, 40.0), (9.0, 60.0)],
    ids=["a member", "between two", "past one that others beat", "faster than all", "slower than all"],
)
def test_a_family_counts_with_its_best_members(latency: float, miou: float) -> None:
    assert reference_miou(latency, FRONT) == pytest.approx(miou)


def test_the_interval_is_students() -> None:
    values = [2.0, 3.5, 3.0]
    wanted = stats.t.interval(0.95, 2, loc=sum(values) / 3, scale=stats.sem(values))
    assert mean_interval(values) == pytest.approx(wanted)
