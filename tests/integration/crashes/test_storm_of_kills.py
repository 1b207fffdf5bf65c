"""Every role is killed and stopped at random moments while the network is bad; the books decide whether all is well.

A failure says its seed; STORM_SEED=… draws the same blows and the same harms again. The moments stay the machine's.
"""

from pathlib import Path

import pytest

from tests.budget import BUDGET, budget
from tests.integration.crashes.storm import STORMY, Storm, run_storm, used_seed


@pytest.mark.full
async def test_few_kills_and_a_bad_network_lose_and_double_nothing(tmp_path: Path) -> None:  # P1, P2, P3, R2, R4, R12, R24, R25, R29
    storm = Storm(seed=used_seed(), sagas=60, clients=1, kills=5, stops=1, stop_s_max=1.0, weather=STORMY, time_limit_s=90)
    place = await run_storm(storm, tmp_path)
    assert place.kills == storm.kills


@pytest.mark.full
@pytest.mark.timeout(1_200 * max(1.0, BUDGET))
async def test_many_kills_and_a_bad_network_lose_and_double_nothing(tmp_path: Path) -> None:  # P1, P2, P3, R2, R4, R24, R29
    storm = Storm(
        seed=used_seed(),
        sagas=budget(1_500),
        clients=4,
        kills=budget(40),
        stops=budget(8),
        weather=STORMY,
        time_limit_s=1_100 * max(1.0, BUDGET),
    )
    place = await run_storm(storm, tmp_path)
    assert place.kills == storm.kills
