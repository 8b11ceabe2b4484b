import subprocess
import sys

import pytest

from coolbits.artifacts.errors import CoolbitsError
from coolbits.models.counts import parameter_counts
from coolbits.models.presets import preset


def test_a_preset_takes_vocabulary_and_context_from_the_data() -> None:
    model = preset("pythia-160m", 50_277, 2048)
    assert model.architecture == "gpt_neox"
    assert (model.config["vocab_size"], model.config["max_position_embeddings"]) == (50_277, 2048)


def test_overrides_win() -> None:
    assert preset("pythia-160m", 50_277, 2048, vocab_size=50_304).config["vocab_size"] == 50_304
    assert preset("micro-neox", 512, 128, num_hidden_layers=2).config["num_hidden_layers"] == 2


def test_an_override_of_one_argument_of_the_rotation_leaves_the_others() -> None:
    """The library's own share of a head is a quarter, that of the GPT shapes the whole."""
    rope = preset("gpt-162m", 50_257, 1024, rope_parameters={"rope_theta": 5e5}).config["rope_parameters"]
    assert rope == {"rope_type": "default", "rope_theta": 5e5, "partial_rotary_factor": 1.0}


def test_an_override_leaves_the_preset_as_it_was() -> None:
    before = preset("micro-neox", 512, 128)
    preset("micro-neox", 512, 128, hidden_size=8, rope_parameters={"rope_theta": 5e5})
    assert preset("micro-neox", 512, 128) == before


def test_pythia_rotates_a_quarter_of_each_head_and_runs_attention_and_mlp_in_parallel() -> None:
    config = preset("pythia-70m", 50_277, 2048).config
    assert config["rope_parameters"]["partial_rotary_factor"] == 0.25 and config["use_parallel_residual"] is True


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(CoolbitsError, match=r"'pythia-1b' is unknown; there are pythia-70m, .*micro-neox"):
        preset("pythia-1b", 512, 128)


@pytest.mark.parametrize(
    ("name", "vocabulary", "total"),
    [
        ("plainlm-115m", 50_277, 115_158_400),
        ("plainlm-162m", 50_277, 162_179_328),
        ("plainlm-263m", 50_277, 262_449_600),
        ("plainlm-402m", 50_277, 402_535_296),
        ("pythia-160m", 50_304, 162_322_944),
        ("pythia-70m", 50_304, 70_426_624),
    ],
)
def test_sizes_published_exactly(name: str, vocabulary: int, total: int) -> None:
    assert parameter_counts(preset(name, vocabulary, 2048)).total == total


@pytest.mark.parametrize(
    ("name", "millions", "matrices"),
    [
        ("gpt-162m", 162.1, 84.9),
        ("gpt-405m", 404.9, 302.0),
        ("gpt-834m", 833.9, 679.5),
        ("gpt-1.4b", 1413.8, 1208.0),
        ("gpt-2.7b", 2773.9, 2516.6),
    ],
)
def test_sizes_of_the_gpt_shapes_but_for_biases_and_norms(name: str, millions: float, matrices: float) -> None:
    counts = parameter_counts(preset(name, 50_257, 2048))
    assert round(counts.matrices / 1e6, 1) == matrices
    assert round((counts.total - counts.vectors) / 1e6, 1) == pytest.approx(millions, abs=0.11)


def test_planning_needs_no_torch() -> None:
    code = (
        "import sys; import coolbits.models.presets, coolbits.models.counts, coolbits.optim.schedules; "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
