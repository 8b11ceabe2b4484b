import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BloomConfig, BloomForCausalLM, PreTrainedModel

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.manifest import describe_files
from coolbits.models.build import build_model
from coolbits.models.files import load_model, save_model, stored_dtypes, weight_files
from coolbits.models.presets import preset

EVERY_ARCHITECTURE = pytest.mark.parametrize(
    "name", ["micro-neox", "micro-llama", "micro-olmo2", "micro-qwen3", "micro-gpt2"]
)
TOKENS = torch.arange(32)[None]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """A tokenizer artifact: its files, with a second template of chats, and a manifest that belongs to it alone."""
    directory = tmp_path / "tokenizer"
    directory.mkdir()
    (directory / "tokenizer.json").write_text("{}")
    (directory / "tokenizer_config.json").write_text("{}")
    (directory / "additional_chat_templates").mkdir()
    (directory / "additional_chat_templates" / "tool_use.jinja").write_text("{{ messages }}")
    (directory / "manifest.json").write_text("{}")
    return directory


@pytest.fixture
def saved(tmp_path: Path, tokenizer: Path) -> Path:
    save_model(model("micro-neox"), tokenizer, tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture
def in_several_files(saved: Path) -> Path:
    """The model in bfloat16, in three files."""
    load_model(saved).bfloat16().save_pretrained(saved, max_shard_size="200KB")
    (saved / "model.safetensors").unlink()
    return saved


def model(name: str) -> PreTrainedModel:
    return build_model(preset(name, 96, 32), seed=3).eval()


def logits(one: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return one(input_ids=TOKENS).logits


@EVERY_ARCHITECTURE
def test_what_is_loaded_scores_like_what_was_saved_bit_for_bit(name: str, tmp_path: Path, tokenizer: Path) -> None:
    original = model(name)
    save_model(original, tokenizer, tmp_path / "saved")
    assert torch.equal(logits(load_model(tmp_path / "saved")), logits(original))


@EVERY_ARCHITECTURE
def test_transformers_opens_it_by_itself(name: str, tmp_path: Path, tokenizer: Path) -> None:
    original = model(name)
    save_model(original, tokenizer, tmp_path / "saved")
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.float32).eval()
    assert torch.equal(logits(opened), logits(original))


@EVERY_ARCHITECTURE
def test_equal_models_give_equal_bytes_wherever_they_are_written(name: str, tmp_path: Path, tokenizer: Path) -> None:
    for place in ("here", "there/deeper"):
        save_model(model(name), tokenizer, tmp_path / place)
    assert describe_files(tmp_path / "here") == describe_files(tmp_path / "there/deeper")


def test_saving_what_was_loaded_changes_nothing(saved: Path, tmp_path: Path) -> None:
    save_model(load_model(saved), saved, tmp_path / "again")
    assert describe_files(saved) == describe_files(tmp_path / "again")


def test_config_names_no_path(saved: Path, tmp_path: Path) -> None:
    save_model(load_model(saved), saved, tmp_path / "again")
    for directory in (saved, tmp_path / "again"):
        text = (directory / "config.json").read_text()
        assert str(tmp_path) not in text and "_name_or_path" not in json.loads(text)


def test_the_tokenizer_comes_along_without_its_manifest(saved: Path) -> None:
    names = {path.name for path in saved.iterdir()}
    assert {"tokenizer.json", "tokenizer_config.json", "config.json", "model.safetensors"} <= names
    assert "manifest.json" not in names
    assert (saved / "additional_chat_templates" / "tool_use.jinja").read_text() == "{{ messages }}"


def test_so_does_one_whose_vocabulary_is_a_plain_list(saved: Path, tmp_path: Path) -> None:
    """As those of GPT-2s in Chinese: without its list, it opens and takes every word for unknown."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    (source / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "word"]))
    save_model(load_model(saved), source, tmp_path / "copy")
    assert AutoTokenizer.from_pretrained(tmp_path / "copy")("word").input_ids == [2, 5, 3]


def test_a_loaded_model_is_in_evaluation_mode_and_in_the_dtype_asked_for(saved: Path) -> None:
    loaded = load_model(saved, dtype=torch.bfloat16)
    assert not loaded.training and {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}


def test_attention_is_pytorchs_own_or_eager_where_the_library_has_no_other(saved: Path, tmp_path: Path) -> None:
    BloomForCausalLM(BloomConfig(vocab_size=96, hidden_size=32, n_layer=1, n_head=2)).save_pretrained(
        tmp_path / "bloom"
    )
    assert load_model(saved).config._attn_implementation == "sdpa"
    assert load_model(tmp_path / "bloom").config._attn_implementation == "eager"


def test_tied_weights_stay_tied(tmp_path: Path, tokenizer: Path) -> None:
    save_model(model("micro-gpt2"), tokenizer, tmp_path / "saved")
    loaded = load_model(tmp_path / "saved")
    assert loaded.lm_head.weight is loaded.transformer.wte.weight


def test_generation_uses_the_cache_that_training_does_not_keep(saved: Path) -> None:
    loaded = load_model(saved)
    assert loaded.generation_config.use_cache and not loaded.config.use_cache


def test_saving_and_loading_say_nothing(saved: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    save_model(load_model(saved), saved, tmp_path / "again")
    assert capfd.readouterr() == ("", "")


class TestErrors:
    @pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
    def test_a_missing_file_is_named(self, saved: Path, name: str) -> None:
        (saved / name).unlink()
        with pytest.raises(CoolbitsError, match=f"{name}: no such file"):
            load_model(saved)

    @pytest.mark.parametrize("error", [ImportError("needs a package"), ValueError("needs a package")])
    def test_what_the_library_has_against_a_model_is_not_held_against_its_weights(
        self, saved: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", refuse)
        with pytest.raises(CoolbitsError, match=r"model\.safetensors: .* \(needs a package\)$"):
            load_model(saved)

    def test_pickled_weights_are_not_loaded(self, saved: Path) -> None:
        torch.save(load_file(saved / "model.safetensors"), saved / "pytorch_model.bin")
        (saved / "model.safetensors").unlink()
        with pytest.raises(CoolbitsError, match=r"model\.safetensors: no such file"):
            load_model(saved)

    def test_an_adapter_beside_the_weights_is_refused(self, saved: Path) -> None:
        (saved / "adapter_config.json").write_text('{"peft_type": "LORA"}')
        with pytest.raises(CoolbitsError, match=r"adapter_config\.json: an adapter, .*; merge it into them, or move"):
            load_model(saved)

    def test_a_weight_too_large_for_the_dtype_asked_for_is_told_from_one_that_is_not_finite(self, saved: Path) -> None:
        tensors = load_file(saved / "model.safetensors")
        largest = next(name for name in tensors if name.endswith("layernorm.weight"))
        tensors[largest][0] = 1e6
        save_file(tensors, saved / "model.safetensors", metadata={"format": "pt"})
        load_model(saved)
        with pytest.raises(CoolbitsError, match=rf"{largest} holds values that are not finite in float16$"):
            load_model(saved, dtype=torch.float16)

    def test_a_truncated_file_is_refused(self, saved: Path) -> None:
        weights = saved / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        with pytest.raises(CoolbitsError, match=r"model\.safetensors: cannot be read") as caught:
            load_model(saved)
        assert "\n" not in str(caught.value)

    def test_a_config_that_is_no_json_is_refused(self, saved: Path) -> None:
        (saved / "config.json").write_text("{")
        with pytest.raises(CoolbitsError, match=r"config\.json: cannot be read"):
            load_model(saved)

    def test_a_config_of_another_kind_of_model_is_refused(self, saved: Path) -> None:
        (saved / "config.json").write_text('{"model_type": "t5"}')
        with pytest.raises(
            CoolbitsError, match=r"config\.json: model_type: t5 is none of the library's causal language"
        ):
            load_model(saved)

    def test_a_missing_tensor_is_named(self, saved: Path) -> None:
        tensors = load_file(saved / "model.safetensors")
        name = next(name for name in tensors if name.endswith("0.attention.dense.bias"))
        save_file(
            {key: value for key, value in tensors.items() if key != name}, saved / "model.safetensors", {"format": "pt"}
        )
        with pytest.raises(
            CoolbitsError, match=r"does not fit config\.json beside it: .*missing.*0\.attention\.dense\.bias"
        ):
            load_model(saved)

    def test_a_missing_file_of_several_is_named(self, in_several_files: Path) -> None:
        (in_several_files / "model-00002-of-00003.safetensors").unlink()
        with pytest.raises(CoolbitsError, match=r"model-00002-of-00003\.safetensors: no such file$"):
            load_model(in_several_files)

    @pytest.mark.parametrize("content", ["{", "[]", "{}"])
    def test_an_index_that_names_no_files_is_refused(self, in_several_files: Path, content: str) -> None:
        (in_several_files / "model.safetensors.index.json").write_text(content)
        with pytest.raises(CoolbitsError, match=r"index\.json: cannot be read as an index of weights"):
            load_model(in_several_files)

    def test_tensors_of_another_shape_are_refused(self, saved: Path) -> None:
        config = json.loads((saved / "config.json").read_text())
        (saved / "config.json").write_text(json.dumps(config | {"intermediate_size": 128}))
        with pytest.raises(CoolbitsError, match=r"model\.safetensors: .*0\.mlp\.dense_4h_to_h"):
            load_model(saved)


class TestTheDtypeOfTheFiles:
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
    def test_is_kept_where_none_is_asked_for(self, saved: Path, dtype: torch.dtype) -> None:
        stored = {name: tensor.to(dtype) for name, tensor in load_file(saved / "model.safetensors").items()}
        save_file(stored, saved / "model.safetensors", {"format": "pt"})
        loaded = load_model(saved, dtype=None)
        assert {parameter.dtype for parameter in loaded.parameters()} == {dtype}
        wide = load_model(saved, dtype=torch.float32).state_dict()
        assert all(torch.equal(tensor.float(), wide[name]) for name, tensor in loaded.state_dict().items())

    def test_is_float32_where_there_are_several(self, saved: Path) -> None:
        stored = load_file(saved / "model.safetensors")
        first = next(iter(stored))
        save_file(stored | {first: stored[first].bfloat16()}, saved / "model.safetensors", {"format": "pt"})
        assert {parameter.dtype for parameter in load_model(saved, dtype=None).parameters()} == {torch.float32}

    def test_is_that_of_all_files_where_there_are_several_files(self, in_several_files: Path) -> None:
        loaded = load_model(in_several_files, dtype=None)
        assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}

    def test_is_not_that_of_masks_which_older_files_hold(self, saved: Path) -> None:
        """Pythia's on the hub do; in float32 such a model takes twice the memory."""
        stored = {name: tensor.half() for name, tensor in load_file(saved / "model.safetensors").items()}
        mask = {"gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 32, 32, dtype=torch.bool)}
        save_file(stored | mask, saved / "model.safetensors", {"format": "pt"})
        assert {parameter.dtype for parameter in load_model(saved, dtype=None).parameters()} == {torch.float16}
        assert stored_dtypes(saved) == {torch.float16: sum(tensor.numel() for tensor in stored.values())}


class TestSeveralFiles:
    def test_are_those_that_the_index_names(self, in_several_files: Path) -> None:
        (in_several_files / "consolidated.safetensors").write_bytes(b"")
        names = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
        assert [path.name for path in weight_files(in_several_files)] == names

    def test_are_not_read_where_one_file_holds_it_all(self, saved: Path) -> None:
        """As the library chooses; saving a model anew leaves an older index where it is."""
        (saved / "model.safetensors.index.json").write_text('{"weight_map": {"a": "gone.safetensors"}}')
        assert weight_files(saved) == [saved / "model.safetensors"]
        assert torch.equal(logits(load_model(saved, dtype=None)), logits(model("micro-neox")))
