"""The BLIP-2 adapter against ``Blip2ForImageTextRetrieval.forward``, on tiny checkpoints in the Hub's format."""

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from indexer.errors import CheckpointInvalid
from indexer.model import load_model
from indexer.model.blip2 import Blip2Model, EncoderOptions, load_blip2
from tests.indexer.model.blip2_checkpoint import IMAGE_TOKEN_ID, save_checkpoint
from tests.indexer.model.blip2_reference import reference

TEXTS = [
    "a man and a dog",
    "A woman, her dog: sitting (on) a beach!",
    "dog",
    "what is <image> doing in a [SEP] query with [MASK]?",
    "two 🐕 on a 🏖️",
    "собака на пляже, 犬が浜辺で走る",
    "",
    "beach " * 2000,
]


@pytest.fixture(
    scope="module", params=[(224, None), (364, None), (224, IMAGE_TOKEN_ID)], ids=["224px", "364px", "image-token"]
)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    size, image_token = request.param
    return save_checkpoint(tmp_path_factory.mktemp("tiny"), image_size=size, image_token_index=image_token)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("small"), image_size=56)


def load(directory: Path) -> Blip2Model:
    return load_blip2(directory, "cpu", encoder=EncoderOptions(dtype=torch.float32))


def some_pixels(count: int, size: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_similarities_equal_the_reference_model(checkpoint: Path) -> None:
    model = load(checkpoint)
    pixels = some_pixels(2, model.image_size)
    embeddings = model.encode_images(pixels).embeddings
    similarities = (embeddings @ model.encode_texts(TEXTS).T).amax(dim=1)
    torch.testing.assert_close(similarities, reference(checkpoint, pixels, TEXTS, itm=False), atol=1e-5, rtol=0)


def test_match_logits_equal_the_reference_model(checkpoint: Path) -> None:
    model = load(checkpoint)
    pixels = some_pixels(len(TEXTS), model.image_size)
    logits = model.match(model.encode_images(pixels).tokens, TEXTS)
    torch.testing.assert_close(logits, reference(checkpoint, pixels, TEXTS, itm=True), atol=1e-5, rtol=0)


def test_features_have_the_shapes_of_the_interface(checkpoint: Path) -> None:
    model = load(checkpoint)
    features = model.encode_images(some_pixels(2, model.image_size))
    texts = model.encode_texts(TEXTS)
    assert tuple(features.tokens.shape) == (2, *model.token_shape)
    assert model.token_shape[0] == (model.image_size // 14) ** 2 + 1
    assert tuple(features.embeddings.shape) == (2, 32, 256)
    assert tuple(texts.shape) == (len(TEXTS), 256)
    assert features.embeddings.dtype == texts.dtype == torch.float32
    torch.testing.assert_close(features.embeddings.norm(dim=-1), torch.ones(2, 32))
    torch.testing.assert_close(texts.norm(dim=-1), torch.ones(len(TEXTS)))
    assert model.match_weight == 1.0


def test_a_text_does_not_depend_on_its_batch_mates(small: Path) -> None:
    model = load(small)
    alone = torch.cat([model.encode_texts([text]) for text in TEXTS])
    torch.testing.assert_close(model.encode_texts(TEXTS), alone, atol=1e-5, rtol=0)


def test_a_text_that_is_there_twice_has_both_its_rows(small: Path) -> None:
    model = load(small)
    texts = ["dog", "her beach", "dog", "", "her beach"]
    alone = torch.cat([model.encode_texts([text]) for text in texts])
    torch.testing.assert_close(model.encode_texts(texts), alone, atol=1e-5, rtol=0)


def test_a_pair_does_not_depend_on_its_batch_mates(small: Path) -> None:
    model = load(small)
    tokens = model.encode_images(some_pixels(len(TEXTS), 56)).tokens
    alone = torch.cat([model.match(tokens[[i]], [text]) for i, text in enumerate(TEXTS)])
    torch.testing.assert_close(model.match(tokens, TEXTS), alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A dog, on a beach!", "a dog, on a beach"),
        ("a dog <image>", "a dog < image >"),
        ("[SEP] a dog", "[ sep ] a dog"),
        ("beach " * 2000, "beach " * 40),
    ],
)
def test_texts_that_read_the_same_have_the_same_embedding(small: Path, one: str, other: str) -> None:
    model = load(small)
    torch.testing.assert_close(model.encode_texts([one]), model.encode_texts([other]), atol=1e-6, rtol=0)


def test_a_text_never_runs_the_image_encoder(small: Path, tmp_path: Path) -> None:
    broken = save_checkpoint(tmp_path, image_size=56, spoil=lambda name: name.startswith("vision_model."))
    texts = load(broken).encode_texts(TEXTS)
    torch.testing.assert_close(texts, load(small).encode_texts(TEXTS))


def test_several_threads_get_the_same_as_one(small: Path) -> None:
    model = load(small)
    pixels = some_pixels(len(TEXTS), 56)

    def work(_: int) -> tuple[Tensor, Tensor]:
        return model.encode_texts(TEXTS), model.match(model.encode_images(pixels).tokens, TEXTS)

    expected = work(0)
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(work, range(20)):
            torch.testing.assert_close(result, expected)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_a_faster_image_encoder_stays_close(small: Path, dtype: torch.dtype, tolerance: float) -> None:
    pixels = some_pixels(len(TEXTS), 56)
    exact, fast = load(small), load_blip2(small, "cpu", encoder=EncoderOptions(dtype=dtype))
    features, expected = fast.encode_images(pixels), exact.encode_images(pixels)
    assert features.tokens.dtype == dtype
    assert features.embeddings.dtype == torch.float32
    torch.testing.assert_close(features.embeddings, expected.embeddings, atol=tolerance, rtol=0)
    texts = exact.encode_texts(TEXTS)
    torch.testing.assert_close(fast.encode_texts(TEXTS), texts)
    similarities = [(each.embeddings @ texts.T).amax(dim=1) for each in (features, expected)]
    torch.testing.assert_close(*similarities, atol=tolerance, rtol=0)
    logits, wanted = fast.match(features.tokens, TEXTS), exact.match(expected.tokens, TEXTS)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, wanted, atol=tolerance * wanted.abs().max().item(), rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_keys_and_values_in_the_encoders_precision_move_little(small: Path, dtype: torch.dtype) -> None:
    exact, fast = load(small), load_blip2(small, "cpu", encoder=EncoderOptions(dtype=dtype))
    tokens = fast.encode_images(some_pixels(len(TEXTS), 56)).tokens
    wanted = exact.match(tokens.float(), TEXTS)
    last_digit = torch.finfo(dtype).eps * wanted.abs().max().item()
    torch.testing.assert_close(fast.match(tokens, TEXTS), wanted, atol=last_digit, rtol=0)


@pytest.mark.parametrize(
    "pixels",
    [
        torch.zeros(1, 3, 28, 28, dtype=torch.uint8),
        torch.zeros(1, 56, 56, 3, dtype=torch.uint8),
        torch.zeros(1, 3, 56, 56),
    ],
)
def test_pixels_of_another_size_are_refused(small: Path, pixels: Tensor) -> None:
    with pytest.raises(ValueError, match=r"\(B, 3, 56, 56\)"):
        load(small).encode_images(pixels)


def test_config_with_the_older_name_of_the_text_half(small: Path, tmp_path: Path) -> None:
    directory = save_checkpoint(tmp_path, image_size=56)
    path = directory / "config.json"
    document = json.loads(path.read_text())
    document["qformer_config"]["qformer_text_input"] = document["qformer_config"].pop("use_qformer_text_input")
    path.write_text(json.dumps(document))
    torch.testing.assert_close(load(directory).encode_texts(TEXTS), load(small).encode_texts(TEXTS))


def test_identity_names_the_directory_and_digests_the_weights(small: Path, tmp_path: Path) -> None:
    first = load_model(str(small), "cpu").identity
    assert (first.name, first.revision) == (str(small), "local")
    assert load_model(str(small), "cpu").identity == first
    other = load_model(str(save_checkpoint(tmp_path, image_size=56, seed=1)), "cpu").identity
    assert other.digest != first.digest


def test_pickled_and_sharded_weights_load_as_well(small: Path, tmp_path: Path) -> None:
    expected = load(small).encode_texts(TEXTS)
    pickled = save_checkpoint(tmp_path / "pickled", image_size=56, form="pickled")
    sharded = save_checkpoint(tmp_path / "sharded", image_size=56, form="sharded")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    for directory in (pickled, sharded):
        torch.testing.assert_close(load(directory).encode_texts(TEXTS), expected)


class TestBrokenCheckpoints:
    """Each fails at load with a message that says what is wrong."""

    def test_missing_weights_are_named(self, tmp_path: Path) -> None:
        save_checkpoint(tmp_path, image_size=56, drop=lambda name: name.startswith("itm_head."))
        with pytest.raises(CheckpointInvalid, match=r"missing: itm_head\.bias, itm_head\.weight\b"):
            load(tmp_path)

    def test_missing_text_half_is_named(self, tmp_path: Path) -> None:
        save_checkpoint(tmp_path, image_size=56, drop=lambda name: ".intermediate." in name or ".output." in name)
        with pytest.raises(CheckpointInvalid, match=r"missing: qformer\.encoder\.layer\.0\..* and \d+ more"):
            load(tmp_path)

    def test_unexpected_weights_are_named(self, tmp_path: Path) -> None:
        save_checkpoint(tmp_path, image_size=56, add={"language_projection.weight": torch.zeros(2, 2)})
        with pytest.raises(CheckpointInvalid, match=r"unexpected: language_projection\.weight"):
            load(tmp_path)

    @pytest.mark.parametrize("form", ["whole", "pickled"])
    def test_text_embeddings_that_stand_there_twice_do_no_harm(
        self, tmp_path: Path, form: Literal["whole", "pickled"]
    ) -> None:
        save_checkpoint(tmp_path / "plain", image_size=56)
        plain = load_file(tmp_path / "plain" / "model.safetensors")
        names = ("embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight")
        more = {f"qformer.{name}": plain[name].clone() for name in names}
        more |= {f"{part}embeddings.position_ids": torch.arange(64)[None] for part in ("", "qformer.")}
        twice = load(save_checkpoint(tmp_path / "twice", image_size=56, form=form, add=more))
        torch.testing.assert_close(twice.encode_texts(TEXTS), load(tmp_path / "plain").encode_texts(TEXTS))

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("qformer.embeddings.word_embeddings.weight", torch.zeros(1)),
            ("qformer.embeddings.position_embeddings.weight", torch.zeros(64, 48)),
            ("qformer.embeddings.LayerNorm.weight", torch.ones(48)),
            ("embeddings.LayerNorm.weight", torch.ones(48)),
            ("qformer.embeddings.position_ids", torch.arange(1, 65)[None]),
            ("vision_model.embeddings.position_ids", torch.arange(17)[None]),
        ],
    )
    def test_text_embeddings_that_stand_there_twice_but_differ(self, tmp_path: Path, name: str, value: Tensor) -> None:
        save_checkpoint(tmp_path, image_size=56, add={name: value})
        with pytest.raises(CheckpointInvalid, match=f"unexpected: {re.escape(name)}"):
            load(tmp_path)

    def test_weights_of_another_shape_are_named(self, tmp_path: Path) -> None:
        save_checkpoint(tmp_path, image_size=56, add={"itm_head.weight": torch.zeros(3, 48)})
        with pytest.raises(CheckpointInvalid, match=r"itm_head\.weight is \(3, 48\), not \(2, 48\)"):
            load(tmp_path)

    def test_a_cut_off_file(self, tmp_path: Path) -> None:
        path = save_checkpoint(tmp_path, image_size=56) / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-1000])
        with pytest.raises(CheckpointInvalid, match=r"model\.safetensors cannot be read"):
            load(tmp_path)

    def test_a_pickle_that_would_run_code(self, tmp_path: Path) -> None:
        save_checkpoint(tmp_path, image_size=56, form="pickled")
        torch.save({"itm_head.bias": threading.Barrier}, tmp_path / "pytorch_model.bin")
        with pytest.raises(CheckpointInvalid, match="unpickles nothing else"):
            load(tmp_path)
        (tmp_path / "pytorch_model.bin").write_text("version https://git-lfs.github.com/spec/v1\n")
        with pytest.raises(CheckpointInvalid, match=r"damaged .* Download the checkpoint again"):
            load(tmp_path)

    def test_a_missing_shard(self, tmp_path: Path) -> None:
        shards = sorted(save_checkpoint(tmp_path, image_size=56, form="sharded").glob("model-*.safetensors"))
        shards[0].unlink()
        with pytest.raises(CheckpointInvalid, match=shards[0].name):
            load(tmp_path)

    @pytest.mark.parametrize(
        ("files", "message"),
        [
            (["model.safetensors"], "no weights"),
            (["tokenizer.json", "tokenizer_config.json"], "no tokenizer"),
        ],
    )
    def test_missing_files(self, tmp_path: Path, files: list[str], message: str) -> None:
        save_checkpoint(tmp_path, image_size=56)
        for file in files:
            (tmp_path / file).unlink()
        with pytest.raises(CheckpointInvalid, match=message):
            load(tmp_path)

    def test_a_tokenizer_of_another_model(self, tmp_path: Path) -> None:
        save_checkpoint(tmp_path, image_size=56, more_words=["one", "too", "many"])
        with pytest.raises(CheckpointInvalid, match="another model's"):
            load(tmp_path)

    def test_another_number_of_query_tokens(self, tmp_path: Path) -> None:
        save_checkpoint(tmp_path, image_size=56, query_tokens=16)
        with pytest.raises(CheckpointInvalid, match="16 query tokens"):
            load(tmp_path)

    def test_a_tokenizer_without_its_special_words(self, tmp_path: Path) -> None:
        save_checkpoint(tmp_path, image_size=56)
        for file in tmp_path.glob("tokenizer*"):
            file.unlink()
        (tmp_path / "vocab.txt").write_text("a\ndog\n[UNK]")
        with pytest.raises(CheckpointInvalid, match=r"lacks \[CLS\], \[PAD\], \[SEP\]: its files are incomplete"):
            load(tmp_path)

    @pytest.mark.parametrize(
        ("part", "name", "value"),
        [
            ("vision_config", "num_attention_heads", 5),
            ("vision_config", "num_attention_heads", 0),
            ("vision_config", "patch_size", 0),
            ("vision_config", "hidden_act", "nonsense"),
            ("qformer_config", "num_attention_heads", 5),
        ],
    )
    def test_a_config_of_no_network(self, tmp_path: Path, part: str, name: str, value: object) -> None:
        path = save_checkpoint(tmp_path, image_size=56) / "config.json"
        document = json.loads(path.read_text())
        document[part][name] = value
        path.write_text(json.dumps(document))
        with pytest.raises(CheckpointInvalid, match=r"config\.json describes no network that can be built"):
            load(tmp_path)

    def test_values_that_are_not_finite(self, tmp_path: Path) -> None:
        save_checkpoint(tmp_path / "text", image_size=56, spoil=lambda name: name == "itm_head.bias")
        with pytest.raises(CheckpointInvalid, match=r"itm_head\.bias in .* has values that are not finite"):
            load(tmp_path / "text")
        spoiled = "vision_model.post_layernorm.bias"
        model = load(save_checkpoint(tmp_path / "image", image_size=56, spoil=lambda name: name == spoiled))
        with pytest.raises(CheckpointInvalid, match=r"post_layernorm\.bias in .* has values that are not finite"):
            model.encode_images(some_pixels(1, 56))

    def test_a_config_that_is_not_one(self, tmp_path: Path) -> None:
        save_checkpoint(tmp_path, image_size=56)
        (tmp_path / "config.json").write_text('{"model_type": "blip-2"}')
        with pytest.raises(CheckpointInvalid, match=r"config\.json"):
            load(tmp_path)
