"""The shipped compact model: its three verbs, and what a broken checkpoint says."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import indexer.model
from indexer.errors import CheckpointInvalid
from indexer.model import Model, load_model
from indexer.model.compact import CompactModel, load_compact

_SHIPPED = Path(indexer.model.__file__).parent / "checkpoints" / "compact"


def _pixels(*names: str) -> torch.Tensor:
    folder = Path(skimage.__file__).parent / "data"
    squares = [Image.open(folder / name).convert("RGB").resize((224, 224), Image.Resampling.BICUBIC) for name in names]
    return torch.from_numpy(np.stack([np.asarray(square) for square in squares])).permute(0, 3, 1, 2)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return Path(shutil.copytree(_SHIPPED, tmp_path / "compact"))


def test_embeddings_have_unit_length(model: Model) -> None:
    features = model.encode_images(_pixels("coffee.png", "astronaut.png"))
    assert features.embeddings.shape == (2, 32, 256)
    assert features.embeddings.dtype == torch.float32
    assert features.tokens.shape == (2, *model.token_shape)
    texts = model.encode_texts(["a cup of coffee", ""])
    assert texts.shape == (2, 256)
    for vectors in (features.embeddings, texts):
        torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(vectors.shape[:-1]), atol=1e-5, rtol=0)


def test_words_find_their_photo(model: Model) -> None:
    images = model.encode_images(_pixels("coffee.png", "astronaut.png", "chelsea.png", "rocket.jpg")).embeddings
    texts = model.encode_texts(["a cup of coffee", "a woman in an orange suit", "a cat", "a rocket on the launch pad"])
    similarity = torch.einsum("iqd,td->tiq", images, texts).amax(dim=-1)
    assert similarity.argmax(dim=1).tolist() == [0, 1, 2, 3]


def test_query_tokens_say_different_things(model: Model) -> None:
    embeddings = model.encode_images(_pixels("coffee.png", "astronaut.png", "chelsea.png")).embeddings
    cosines = embeddings @ embeddings.transpose(1, 2)
    others = cosines[:, ~torch.eye(32, dtype=torch.bool)]
    assert others.mean() < 0.9


def test_matched_pairs_score_higher_than_unmatched_ones(model: Model) -> None:
    tokens = model.encode_images(_pixels("coffee.png", "chelsea.png")).tokens
    matched = model.match(tokens, ["a cup of coffee on a table", "a cat looks at the camera"])
    unmatched = model.match(tokens, ["a cat looks at the camera", "a cup of coffee on a table"])
    assert (matched.softmax(dim=-1)[:, 1] > unmatched.softmax(dim=-1)[:, 1]).all()


def test_neither_texts_nor_photos_depend_on_their_batch_mates(model: Model) -> None:
    texts = ["a cat", "a very long sentence about many things that happen in the mountains in winter , with snow"]
    torch.testing.assert_close(model.encode_texts(texts)[:1], model.encode_texts(texts[:1]), atol=1e-5, rtol=0)
    pixels = _pixels("coffee.png", "chelsea.png")
    together, alone = model.encode_images(pixels), model.encode_images(pixels[:1])
    torch.testing.assert_close(together.embeddings[:1], alone.embeddings, atol=1e-5, rtol=0)
    pairs = model.match(together.tokens, texts)
    torch.testing.assert_close(pairs[:1], model.match(together.tokens[:1], texts[:1]), atol=1e-4, rtol=0)


def test_embeddings_at_hand_change_no_match(model: Model) -> None:
    features = model.encode_images(_pixels("coffee.png", "chelsea.png", "coffee.png"))
    texts = ["a cup of coffee", "a cat looks at the camera", "a cat looks at the camera"]
    alone = torch.cat([model.match(features.tokens[[row]], [text]) for row, text in enumerate(texts)])
    torch.testing.assert_close(model.match(features.tokens, texts, features.embeddings), alone, atol=1e-4, rtol=0)
    kept = features.embeddings.half()  # as a library keeps them
    torch.testing.assert_close(model.match(features.tokens, texts, kept), alone, atol=5e-3, rtol=0)
    other = model.match(features.tokens, texts, features.embeddings.flip(1).roll(1, 0))
    assert (other - alone).abs().max() > 0.5  # it is the ones handed over that are used


@pytest.mark.parametrize("text", ["", "[SEP] [MASK] <image>", "🐈 🐈", "山の中の猫", "word " * 2000, "\x00\n\t"])
def test_any_text_is_read(model: Model, text: str) -> None:
    assert torch.isfinite(model.encode_texts([text])).all()


def test_a_text_is_cleaned_before_it_is_read(model: Model) -> None:
    first, second = model.encode_texts(["A cat (sleeping)!", "a cat sleeping"])
    torch.testing.assert_close(first, second, atol=1e-6, rtol=0)


def test_a_text_never_runs_the_image_encoder(checkpoint: Path) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    broken = {n: torch.full_like(w, torch.nan) if n.startswith("encoder.") else w for n, w in weights.items()}
    save_file(broken, checkpoint / "model.safetensors")
    assert torch.isfinite(load_compact(checkpoint, "cpu").encode_texts(["a cat"])).all()


@pytest.mark.parametrize("pixels", [torch.zeros(1, 3, 200, 224, dtype=torch.uint8), torch.zeros(1, 3, 224, 224)])
def test_pixels_of_another_size_or_dtype_are_refused(model: Model, pixels: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"uint8 pixels of shape \(B, 3, 224, 224\)"):
        model.encode_images(pixels)


def test_a_copy_of_the_checkpoint_is_the_same_model_by_another_name(model: Model, checkpoint: Path) -> None:
    copy = load_model(str(checkpoint), "cpu")
    assert isinstance(copy, CompactModel)
    assert copy.identity.digest == model.identity.digest
    assert copy.identity.name == str(checkpoint)
    torch.testing.assert_close(copy.encode_texts(["a cat"]), model.encode_texts(["a cat"]))


def test_missing_weights_are_named(checkpoint: Path) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    del weights["itm_head.weight"]
    save_file(weights, checkpoint / "model.safetensors")
    with pytest.raises(CheckpointInvalid, match=r"itm_head\.weight"):
        load_compact(checkpoint, "cpu")


def test_truncated_weights_are_refused(checkpoint: Path) -> None:
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    with pytest.raises(CheckpointInvalid, match="cannot be read"):
        load_compact(checkpoint, "cpu")


def test_a_config_without_its_settings_is_refused(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text(json.dumps({"model_type": "photoseek-compact"}))
    with pytest.raises(CheckpointInvalid, match="revision"):
        load_compact(checkpoint, "cpu")


def test_a_broken_tokenizer_is_named(checkpoint: Path) -> None:
    (checkpoint / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointInvalid, match=r"tokenizer\.json"):
        load_compact(checkpoint, "cpu")


def test_vectors_have_not_drifted(model: Model) -> None:
    """Recorded when the checkpoint was made. A new checkpoint needs new numbers, and a new revision in its config."""
    features = model.encode_images(_pixels("coffee.png", "astronaut.png", "chelsea.png", "rocket.jpg"))
    texts = ["a cup of coffee", "a woman in an orange suit", "a cat", "a rocket on the launch pad"]
    embeddings = model.encode_texts(texts)
    similarity = torch.einsum("iqd,td->tiq", features.embeddings, embeddings).amax(dim=-1)
    expected = [
        [0.5686, 0.1942, 0.2166, 0.1747],
        [0.1758, 0.2479, 0.1511, 0.1718],
        [0.1627, 0.1311, 0.5642, 0.1567],
        [0.1895, 0.2082, 0.1867, 0.4202],
    ]
    torch.testing.assert_close(similarity, torch.tensor(expected), atol=1e-3, rtol=0)
    logits = model.match(features.tokens, texts)
    torch.testing.assert_close(
        logits[:, 1] - logits[:, 0], torch.tensor([6.063, 0.815, 5.087, 2.975]), atol=0.02, rtol=0
    )
    few = torch.stack([features.embeddings[0, 5, ::32], embeddings[0, ::32]])
    recorded = [
        [-0.0290, 0.0133, -0.0805, -0.0022, 0.0694, 0.0059, -0.0321, -0.0160],
        [-0.0288, 0.1094, 0.0025, 0.0010, 0.0930, 0.0516, -0.0151, -0.0545],
    ]
    torch.testing.assert_close(few, torch.tensor(recorded), atol=1e-3, rtol=0)
