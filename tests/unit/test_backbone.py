"""Checkpoints in local folders: valid ones load, invalid ones are rejected with a message."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import (
    bert_config,
    bert_tensors,
    google,
    old_names,
    prajjwal,
    to_safetensors,
    vocabulary,
    write_vocabulary,
)
from safetensors.torch import load_file, save_file
from stand_ins import KINDS, by_transformers
from torch import Tensor

from loralet.errors import CheckpointError
from loralet.hub.backbone import Backbone, load_backbone
from loralet.hub.checkpoint import fingerprint_of
from loralet.models.families import FAMILIES

HALF = 2**-11
"""Relative error of rounding to fp16's 11 significant bits."""


def same(a: Backbone, b: Backbone) -> bool:
    return a.weights.keys() == b.weights.keys() and all(
        torch.equal(a.weights[name], b.weights[name]) for name in a.weights
    )


def change(folder: Path, **keys: Any) -> None:
    """Set keys of config.json; None removes a key."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | keys
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def rewrite(folder: Path, edit: Callable[[dict[str, Tensor]], None]) -> None:
    """Change the tensors of a folder's pytorch_model.bin."""
    tensors = torch.load(folder / "pytorch_model.bin", weights_only=True)
    edit(tensors)
    torch.save(tensors, folder / "pytorch_model.bin")


def refusal(folder: Path | str) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_backbone(str(folder))
    return str(caught.value)


def test_the_bare_checkpoint_loads(tmp_path: Path) -> None:
    folder = prajjwal(tmp_path / "a")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "pytorch_model.bin", "vocab.txt"]
    assert "model_type" not in json.loads((folder / "config.json").read_text())
    backbone = load_backbone(str(folder))
    raw = bert_tensors(bert_config())
    assert backbone.family.model_type == "bert"
    assert (backbone.table.layers, backbone.table.width, backbone.table.heads, backbone.table.feed_forward) == (
        2,
        32,
        2,
        128,
    )
    assert (backbone.table.positions, backbone.table.longest, backbone.table.epsilon, backbone.table.activation) == (
        64,
        64,
        1e-12,
        "gelu",
    )
    assert backbone.has_pooler
    assert backbone.config == bert_config()
    assert torch.equal(backbone.weights["embeddings.word"], raw["bert.embeddings.word_embeddings.weight"])
    assert torch.equal(
        backbone.weights["layers.1.attention-output.weight"], raw["bert.encoder.layer.1.attention.output.dense.weight"]
    )
    assert torch.equal(backbone.weights["layers.0.output-norm.bias"], raw["bert.encoder.layer.0.output.LayerNorm.bias"])
    assert torch.equal(backbone.weights["pooler.weight"], raw["bert.pooler.dense.weight"])
    # Each encoder tensor of the file is read once; the buffer and the pretraining heads are not read.
    assert backbone.parameters == sum(
        t.numel() for n, t in raw.items() if n.startswith("bert.") and not n.endswith("position_ids")
    )
    assert {tensor.dtype for tensor in backbone.weights.values()} == {torch.float32}


def test_the_test_checkpoints_have_the_sizes_of_the_real_ones(tmp_path: Path) -> None:
    real = bert_config(layers=2, width=128, heads=2, rows=30522, positions=512)
    assert len(json.dumps(real)) == 285
    assert (google(tmp_path / "b", config=real) / "config.json").stat().st_size == 382
    assert (tmp_path / "b" / "pytorch_model.bin").stat().st_size == pytest.approx(17.7e6, abs=0.05e6)
    assert load_backbone(str(tmp_path / "b")).parameters == 4_385_920


def test_both_published_checkpoints_are_one_model(tmp_path: Path) -> None:
    a, b, c = (
        load_backbone(str(f))
        for f in (prajjwal(tmp_path / "a"), google(tmp_path / "b"), prajjwal(tmp_path / "c", seed=1))
    )
    assert same(a, b)
    assert a.fingerprint == b.fingerprint
    assert not same(a, c)
    assert a.fingerprint != c.fingerprint


def test_gamma_and_beta_are_weight_and_bias(tmp_path: Path) -> None:
    modern, old = (
        load_backbone(str(f)) for f in (prajjwal(tmp_path / "a"), prajjwal(tmp_path / "b", rename=old_names))
    )
    assert any(
        name.endswith("LayerNorm.gamma") for name in torch.load(tmp_path / "b" / "pytorch_model.bin", weights_only=True)
    )
    assert same(modern, old)
    assert not torch.equal(old.weights["layers.0.output-norm.weight"], old.weights["layers.0.output-norm.bias"])


def test_names_without_a_prefix_are_read_as_bert(tmp_path: Path) -> None:
    def bare(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name.removeprefix("bert."): tensor for name, tensor in tensors.items() if name.startswith("bert.")}

    prefixed, plain = (load_backbone(str(f)) for f in (prajjwal(tmp_path / "a"), prajjwal(tmp_path / "b", rename=bare)))
    assert same(prefixed, plain)
    assert plain.family.model_type == "bert"


@pytest.mark.parametrize("kind", KINDS)
def test_a_config_without_a_model_type(kind: str, tmp_path: Path) -> None:
    folder = by_transformers(tmp_path / "a", kind)
    said = load_backbone(str(folder))
    change(folder, model_type=None, architectures=None)
    unsaid = load_backbone(str(folder))
    assert said.family.model_type == kind
    assert unsaid.family.prefix == said.family.prefix
    assert unsaid.table == said.table
    assert unsaid.fingerprint == said.fingerprint


class TestFingerprint:
    def test_it_depends_on_values_not_on_the_file_format(self, tmp_path: Path) -> None:
        first = load_backbone(str(prajjwal(tmp_path / "a")))
        other_format = load_backbone(str(to_safetensors(prajjwal(tmp_path / "b"))))
        assert not (tmp_path / "b" / "pytorch_model.bin").exists()
        assert first.fingerprint == other_format.fingerprint == fingerprint_of(dict(reversed(first.weights.items())))

    def test_one_changed_value_changes_it(self, tmp_path: Path) -> None:
        folder = prajjwal(tmp_path / "a")
        before = load_backbone(str(folder)).fingerprint

        def nudge(tensors: dict[str, Tensor]) -> None:
            value = tensors["bert.encoder.layer.1.output.dense.bias"][7]
            value.copy_(torch.nextafter(value, torch.tensor(torch.inf)))

        rewrite(folder, nudge)
        assert load_backbone(str(folder)).fingerprint != before

    def test_a_value_outside_the_encoder_does_not_change_it(self, tmp_path: Path) -> None:
        folder = prajjwal(tmp_path / "a")
        before = load_backbone(str(folder)).fingerprint
        rewrite(folder, lambda tensors: tensors["cls.seq_relationship.weight"].zero_())
        assert load_backbone(str(folder)).fingerprint == before

    def test_a_name_or_a_shape_changes_it(self) -> None:
        tensor = torch.arange(4.0)
        assert fingerprint_of({"a": tensor}) == fingerprint_of({"a": tensor.clone()})
        assert len({fingerprint_of(w) for w in ({"a": tensor}, {"b": tensor}, {"a": tensor.view(2, 2)})}) == 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_fp32(dtype: torch.dtype, tmp_path: Path) -> None:
    full, half = (
        load_backbone(str(prajjwal(tmp_path / "a"))),
        load_backbone(str(to_safetensors(prajjwal(tmp_path / "b"), dtype))),
    )
    assert {tensor.dtype for tensor in half.weights.values()} == {torch.float32}
    assert half.fingerprint != full.fingerprint
    for name, tensor in half.weights.items():
        assert torch.equal(tensor, full.weights[name].to(dtype).float()), name
    if dtype == torch.float16:
        torch.testing.assert_close(
            half.weights["embeddings.norm.weight"], full.weights["embeddings.norm.weight"], rtol=HALF, atol=0
        )


def test_safetensors_is_read_before_bin(tmp_path: Path) -> None:
    folder = to_safetensors(prajjwal(tmp_path / "a"), keep_bin=True)
    expected = load_backbone(str(folder)).fingerprint
    (folder / "pytorch_model.bin").write_bytes(b"not read")
    assert load_backbone(str(folder)).fingerprint == expected
    (folder / "model.safetensors").unlink()
    assert "pytorch_model.bin" in refusal(folder)


class TestRefused:
    def test_code_in_a_pickle_is_not_executed(self, tmp_path: Path) -> None:
        folder, trace = prajjwal(tmp_path / "a"), tmp_path / "it-ran"

        class Payload:
            def __reduce__(self) -> tuple[Any, ...]:
                return Path.touch, (trace,)

        torch.save({"payload": Payload()} | bert_tensors(bert_config()), folder / "pytorch_model.bin")
        message = refusal(folder)
        assert not trace.exists()
        assert str(folder / "pytorch_model.bin") in message
        assert "never executed" in message
        torch.load(folder / "pytorch_model.bin", weights_only=False)
        assert trace.exists()  # the payload works if it is executed

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
    @pytest.mark.parametrize("kept", [0, 7, 100, 3000])
    def test_a_truncated_download(self, name: str, kept: int, tmp_path: Path) -> None:
        folder = prajjwal(tmp_path / "a")
        path = (to_safetensors(folder) if name == "model.safetensors" else folder) / name
        path.write_bytes(path.read_bytes()[:kept])
        message = refusal(folder)
        assert str(path) in message
        assert "incomplete" in message

    def test_a_pointer_file_instead_of_weights(self, tmp_path: Path) -> None:
        folder = prajjwal(tmp_path / "a")
        (folder / "pytorch_model.bin").write_text(
            "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 17756393\n"
        )
        assert f"{folder / 'pytorch_model.bin'}: cannot be read as weights" in refusal(folder)

    def test_a_list_of_tensors(self, tmp_path: Path) -> None:
        folder = prajjwal(tmp_path / "a")
        torch.save([torch.zeros(2)], folder / "pytorch_model.bin")
        assert f"{folder / 'pytorch_model.bin'}: cannot be read as weights (contains a list, not a mapping" in refusal(
            folder
        )

    def test_a_missing_tensor(self, tmp_path: Path) -> None:
        folder = prajjwal(tmp_path / "a")
        rewrite(folder, lambda tensors: tensors.pop("bert.encoder.layer.1.attention.self.value.weight"))
        message = refusal(folder)
        assert str(folder) in message
        assert "  - encoder.layer.1.attention.self.value.weight is missing" in message
        assert message.count("\n  - ") == 1

    def test_several_problems_are_one_message(self, tmp_path: Path) -> None:
        folder = prajjwal(tmp_path / "a")

        def spoil(tensors: dict[str, Tensor]) -> None:
            del tensors["bert.embeddings.LayerNorm.bias"]
            tensors["bert.embeddings.word_embeddings.weight"] = torch.zeros(199, 32)
            tensors["bert.pooler.dense.weight"] = torch.zeros(32, 31)

        rewrite(folder, spoil)
        message = refusal(folder)
        assert "do not match this bert config" in message
        assert "embeddings.LayerNorm.bias is missing" in message
        assert "embeddings.word_embeddings.weight has shape [199, 32], expected [200, 32]" in message
        assert "pooler.dense.weight has shape [32, 31], expected [32, 32]" in message
        assert message.count("\n  - ") == 3

    def test_a_config_of_another_size_lists_twenty_problems(self, tmp_path: Path) -> None:
        folder = prajjwal(tmp_path / "a")
        change(folder, hidden_size=64)
        message = refusal(folder)
        assert message.count("\n  - ") == 20
        assert message.endswith("... and 17 more")

    def test_more_layers_than_the_file_has(self, tmp_path: Path) -> None:
        folder = prajjwal(tmp_path / "a")
        change(folder, num_hidden_layers=3)
        assert "encoder.layer.2.attention.self.query.weight is missing" in refusal(folder)

    def test_half_a_pooler(self, tmp_path: Path) -> None:
        folder = prajjwal(tmp_path / "a")
        rewrite(folder, lambda tensors: tensors.pop("bert.pooler.dense.bias"))
        assert "pooler.dense.bias is missing" in refusal(folder)
        rewrite(folder, lambda tensors: tensors.pop("bert.pooler.dense.weight"))
        assert not load_backbone(str(folder)).has_pooler

    def test_no_weights(self, tmp_path: Path) -> None:
        folder = prajjwal(tmp_path / "a")
        (folder / "pytorch_model.bin").rename(folder / "tf_model.h5")
        message = refusal(folder)
        assert str(folder) in message
        assert "expected model.safetensors or pytorch_model.bin, found config.json, tf_model.h5, vocab.txt" in message

    def test_no_config(self, tmp_path: Path) -> None:
        folder = prajjwal(tmp_path / "a")
        (folder / "config.json").unlink()
        assert f"{folder}: not a model folder" in refusal(folder)

    @pytest.mark.parametrize(
        ("text", "reason"),
        [("{", "not valid JSON"), ("", "not valid JSON"), ("\udcff", "not valid JSON"), ("[1]", "not a JSON object")],
    )
    def test_an_invalid_config(self, text: str, reason: str, tmp_path: Path) -> None:
        folder = prajjwal(tmp_path / "a")
        (folder / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
        message = refusal(folder)
        assert str(folder / "config.json") in message
        assert reason in message

    @pytest.mark.parametrize(
        "key", ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"]
    )
    def test_a_missing_key_of_the_config(self, key: str, tmp_path: Path) -> None:
        folder = prajjwal(tmp_path / "a")
        change(folder, **{key: None})
        message = refusal(folder)
        assert str(folder / "config.json") in message
        assert f"the key {key!r} is missing" in message

    @pytest.mark.parametrize("value", ["many", "2", [2], {}, 2.5, True, 0, -1])
    def test_a_size_that_is_not_a_number(self, value: Any, tmp_path: Path) -> None:
        folder = prajjwal(tmp_path / "a")
        change(folder, num_hidden_layers=value)
        message = refusal(folder)
        assert str(folder / "config.json") in message
        assert "num_hidden_layers" in message
        assert repr(value) in message

    def test_a_width_not_divisible_by_the_heads(self, tmp_path: Path) -> None:
        folder = prajjwal(tmp_path / "a")
        change(folder, num_attention_heads=5)
        message = refusal(folder)
        assert str(folder / "config.json") in message
        assert "num_attention_heads (5)" in message
        assert "32" in message

    @pytest.mark.parametrize("given", ["gpt2", "albert", ["bert"]])
    def test_another_model_type(self, given: Any, tmp_path: Path) -> None:
        folder = prajjwal(tmp_path / "a")
        change(folder, model_type=given)
        message = refusal(folder)
        assert str(folder) in message
        assert f"model type {given!r} is not supported; supported: {', '.join(FAMILIES)}" in message
        assert set(KINDS) == FAMILIES.keys()

    def test_another_activation(self, tmp_path: Path) -> None:
        folder = prajjwal(tmp_path / "a")
        change(folder, hidden_act="swish")
        message = refusal(folder)
        assert str(folder / "config.json") in message
        assert "'swish' is not one of gelu, " in message

    def test_another_number_of_relative_buckets(self, tmp_path: Path) -> None:
        folder = by_transformers(tmp_path / "a", "mpnet")
        change(folder, relative_attention_num_buckets=None)
        assert load_backbone(str(folder)).table.relative_buckets == 32
        change(folder, relative_attention_num_buckets=64)
        message = refusal(folder)
        assert str(folder / "config.json") in message
        assert "relative_attention_num_buckets is 64" in message

    @pytest.mark.parametrize("kind", ["relative_key", "relative_key_query"])
    def test_relative_positions(self, kind: str, tmp_path: Path) -> None:
        folder = prajjwal(tmp_path / "a")
        change(folder, position_embedding_type="absolute")
        assert load_backbone(str(folder)).has_pooler
        change(folder, position_embedding_type=kind)
        message = refusal(folder)
        assert str(folder / "config.json") in message
        assert "only absolute position embeddings" in message

    def test_no_vocabulary(self, tmp_path: Path) -> None:
        folder = prajjwal(tmp_path / "a")
        (folder / "vocab.txt").unlink()
        message = refusal(folder)
        assert str(folder) in message
        assert "no vocabulary; expected tokenizer.json, vocab.txt, or vocab.json with merges.txt" in message

    def test_a_vocabulary_of_another_model(self, tmp_path: Path) -> None:
        folder = prajjwal(tmp_path / "a")
        write_vocabulary(folder, vocabulary(200))
        assert load_backbone(str(folder)).table.vocabulary == 200
        write_vocabulary(folder, vocabulary(201))
        message = refusal(folder)
        assert str(folder) in message
        assert "the vocabulary has 201 tokens, but there are 200 word embeddings" in message

    @pytest.mark.parametrize("name", ["./nowhere", "a/b/c", "no such name", "~/model"])
    def test_a_name_that_is_neither_a_folder_nor_a_hub_id(self, name: str) -> None:
        message = refusal(name)
        assert repr(name) in message
        assert "no such folder" in message
        assert "owner/name" in message


def test_a_smaller_vocabulary_than_the_embedding_is_fine(tmp_path: Path) -> None:
    folder = prajjwal(tmp_path / "a")
    write_vocabulary(folder, vocabulary())
    assert load_backbone(str(folder)).tokenizer.get_vocab_size() == len(vocabulary()) < 200


def test_electra_without_a_narrow_embedding_has_no_projection(tmp_path: Path) -> None:
    narrow, wide = (
        load_backbone(str(by_transformers(tmp_path / str(size), "electra", embedding_size=size))) for size in (16, 32)
    )
    assert narrow.table.embedding_width == 16
    assert "embeddings.projection.weight" in narrow.weights
    assert wide.table.embedding_width == 0
    assert "embeddings.projection.weight" not in wide.weights


def test_safetensors_written_by_hand_with_metadata(tmp_path: Path) -> None:
    folder = to_safetensors(prajjwal(tmp_path / "a"))
    before = load_backbone(str(folder)).fingerprint
    save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors", metadata={"format": "pt"})
    assert load_backbone(str(folder)).fingerprint == before


def test_tensors_of_other_types_do_not_matter(tmp_path: Path) -> None:
    """A checkpoint may contain buffers of any type that the encoder does not need."""
    folder = to_safetensors(prajjwal(tmp_path / "a"))
    before = load_backbone(str(folder)).fingerprint
    tensors = load_file(folder / "model.safetensors")
    extra = {str(kind): torch.zeros(2, dtype=kind) for kind in (torch.bool, torch.int8, torch.int16, torch.uint16)}
    extra |= {"wide": torch.zeros(2, dtype=torch.float64), "eight": torch.zeros(2).to(torch.float8_e4m3fn)}
    save_file(tensors | extra, folder / "model.safetensors")
    assert load_backbone(str(folder)).fingerprint == before
    torch.save(tensors | extra, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert load_backbone(str(folder)).fingerprint == before
