from __future__ import annotations

import pytest

from predilect.presets import Presets
from seqrec_diffusion import DreamRec

PRESETS = Presets("seqrec_diffusion.presets")
LISTED = PRESETS.names()


@pytest.mark.parametrize("name", LISTED)
def test_every_preset_makes_a_recommender(name):
    options = PRESETS.read(name)["set"]
    config = DreamRec(**options).config
    assert {key: getattr(config, key) for key in options} == options


@pytest.mark.parametrize(
    ("name", "timesteps", "learning_rate", "schedule", "guidance"),
    [
        ("yoochoose", 500, 1e-3, "exp", 2),
        ("kuairec", 2000, 5e-5, "cosine", 2),
        ("zhihu", 500, 1e-2, "linear", 4),
    ],
)
def test_the_papers_settings(name, timesteps, learning_rate, schedule, guidance):
    config = DreamRec(**PRESETS.read(name)["set"]).config
    assert (config.timesteps, config.learning_rate, config.schedule) == (timesteps, learning_rate, schedule)
    assert (config.batch_size, config.hidden_size, config.dropout, config.null_probability) == (256, 64, 0.1, 0.1)
    sampling = config.sampling
    assert (sampling.sampler, sampling.steps, sampling.guidance) == ("ddpm", None, guidance)
    assert config.objective == "diffusion"
    assert (config.error, config.detach_target, config.item_norm) == ("squared", False, None)
    assert config.cross_entropy_weight == config.preference_weight == 0


def test_the_list_tells_what_each_is_for():
    assert set(LISTED) == {"yoochoose", "kuairec", "zhihu"}
    assert "YooChoose" in PRESETS.describe()


def test_an_unknown_preset_is_named_with_close_ones():
    with pytest.raises(ValueError, match="no preset 'zhiu'; did you mean zhihu"):
        PRESETS.read("zhiu")
