"""What of BLIP-2 is in memory when, and how it makes do with little."""

import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import Blip2Config, Blip2ForImageTextRetrieval, Blip2QFormerConfig, Blip2VisionModel

from indexer.errors import CheckpointInvalid
from indexer.model import _batches, load_model, quantised, restored
from indexer.model.blip2 import Blip2Model, EncoderOptions, _adapter, load_blip2
from indexer.model.blip2._image_encoder import ImageEncoder
from tests.indexer.model.blip2_checkpoint import save_checkpoint

TEXTS = ["a man and a dog", "her beach"]
SIZE = 56


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("tiny"), image_size=SIZE)


def load(directory: Path, keep_loaded: float | None = None) -> Blip2Model:
    return load_blip2(directory, "cpu", encoder=EncoderOptions(dtype=torch.float32, keep_loaded=keep_loaded))


def some_pixels(count: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def encoder_parameters(model: Blip2Model) -> int:
    network = Blip2VisionModel(model._vision_config)
    return sum(each.numel() for each in network.parameters())


def test_the_image_encoder_is_loaded_when_it_is_needed(checkpoint: Path) -> None:
    model = load(checkpoint)
    before = model.parameters_loaded
    assert (model.image_size, model.token_shape) == (SIZE, (17, 32))
    tokens = load(checkpoint).encode_images(some_pixels(2)).tokens
    model.encode_texts(TEXTS)
    model.match(restored(quantised(tokens), "cpu"), TEXTS)
    assert model.parameters_loaded == before
    model.encode_images(some_pixels(1))
    assert model.parameters_loaded == before + encoder_parameters(model)


def test_without_the_image_encoder_186_of_1172_million_parameters_are_left() -> None:
    qformer = Blip2QFormerConfig(vocab_size=30523, use_qformer_text_input=True)
    with torch.device("meta"):
        network = Blip2ForImageTextRetrieval(Blip2Config(qformer_config=qformer))
    whole = sum(each.numel() for each in network.parameters())
    encoder = sum(each.numel() for each in network.vision_model.parameters())
    assert (round(whole / 1e6), round((whole - encoder) / 1e6)) == (1172, 186)


def test_the_image_encoder_is_unloaded_when_idle_and_loaded_again(checkpoint: Path) -> None:
    model = load(checkpoint, keep_loaded=0.05)
    before = model.parameters_loaded
    first = model.encode_images(some_pixels(3))
    wait_until(lambda: model.parameters_loaded == before)
    again = model.encode_images(some_pixels(3))
    assert torch.equal(first.tokens, again.tokens)
    assert torch.equal(first.embeddings, again.embeddings)
    wait_until(lambda: model.parameters_loaded == before)


def test_without_a_limit_it_stays(checkpoint: Path) -> None:
    model = load(checkpoint)
    model.encode_images(some_pixels(1))
    loaded = model.parameters_loaded
    model.encode_texts(TEXTS)
    assert model.parameters_loaded == loaded
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


def test_many_threads_load_it_once_and_never_lose_it(checkpoint: Path) -> None:
    network = Blip2VisionModel(load(checkpoint)._vision_config)
    loads: list[float] = []

    def slow_load() -> Blip2VisionModel:
        time.sleep(0.05)
        loads.append(time.monotonic())
        return network

    encoder = ImageEncoder(slow_load, keep_loaded=0.01)

    def use(_: int) -> bool:
        with encoder.in_use() as held:
            time.sleep(0.05)
            return encoder.parameters > 0 and held is network

    with encoder.in_use(), ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(24)))
        assert len(loads) == 1
    wait_until(lambda: encoder.parameters == 0)


def test_a_load_that_fails_is_tried_again(checkpoint: Path) -> None:
    network = Blip2VisionModel(load(checkpoint)._vision_config)
    answers: list[Blip2VisionModel | None] = [None, network]

    def unreliable() -> Blip2VisionModel:
        if (answer := answers.pop(0)) is None:
            raise CheckpointInvalid("the disk is away")
        return answer

    encoder = ImageEncoder(unreliable)
    with pytest.raises(CheckpointInvalid), encoder.in_use():
        pass
    with encoder.in_use() as held:
        assert held is network


@pytest.mark.parametrize("form", ["whole", "sharded", "pickled"])
def test_what_the_image_encoder_lacks_is_said_at_once(tmp_path: Path, form: str) -> None:
    if form == "sharded":
        save_checkpoint(tmp_path, image_size=SIZE, form="sharded")
        shards = sorted(tmp_path.glob("model-*.safetensors"))
        shards[0].write_bytes(shards[1].read_bytes())
        message = "missing: "
    else:
        drop = "vision_model.encoder.layers.0.mlp.fc1.weight"
        save_checkpoint(tmp_path, image_size=SIZE, form=form, drop=lambda name: name == drop)  # type: ignore[arg-type]
        message = r"missing: vision_model\.encoder\.layers\.0\.mlp\.fc1\.weight"
    with pytest.raises(CheckpointInvalid, match=message):
        load(tmp_path)


def test_a_wrong_shape_in_the_image_encoder_is_said_at_once(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, image_size=SIZE, add={"vision_model.post_layernorm.bias": torch.zeros(31)})
    with pytest.raises(CheckpointInvalid, match=r"post_layernorm\.bias is \(31,\), not \(32,\)"):
        load(tmp_path)


def test_weights_that_changed_meanwhile_are_refused(tmp_path: Path) -> None:
    model = load(save_checkpoint(tmp_path, image_size=SIZE))
    save_checkpoint(tmp_path, image_size=SIZE, seed=1)
    with pytest.raises(CheckpointInvalid, match="has changed since"):
        model.encode_images(some_pixels(1))


def test_a_replica_is_the_same_checkpoint_with_weights_of_its_own(tmp_path: Path) -> None:
    model = load(save_checkpoint(tmp_path, image_size=SIZE))
    replica = model.replica("cpu")
    assert replica.identity == model.identity
    pixels = some_pixels(2)
    assert torch.equal(replica.encode_images(pixels).embeddings, model.encode_images(pixels).embeddings)
    assert not {each.data_ptr() for each in replica._network.parameters()} & {
        each.data_ptr() for each in model._network.parameters()
    }
    save_checkpoint(tmp_path, image_size=SIZE, seed=1)
    with pytest.raises(CheckpointInvalid, match="has changed since"):
        model.replica("cpu")


def test_a_file_of_the_hub_cache_is_known_by_its_name(tmp_path: Path) -> None:
    saved = save_checkpoint(tmp_path / "snapshots" / "main", image_size=SIZE) / "model.safetensors"
    blob = tmp_path / "blobs" / ("0123456789abcdef" * 4)
    blob.parent.mkdir()
    saved.rename(blob)
    saved.symlink_to(blob)
    assert load(saved.parent).identity.digest == blob.name


def test_registry_passes_on_how_long_to_keep_it(checkpoint: Path) -> None:
    model = load_model(str(checkpoint), "cpu", keep_loaded=0.01)
    assert isinstance(model, Blip2Model)
    before = model.parameters_loaded
    model.encode_images(some_pixels(1))
    wait_until(lambda: model.parameters_loaded == before)


def limit_memory(monkeypatch: pytest.MonkeyPatch, photos: int) -> list[int]:
    """Let the image encoder run out of memory above so many photos; returns the batches it is given from now on."""
    whole = Blip2VisionModel.forward
    given: list[int] = []

    def forward(self: Blip2VisionModel, pixel_values: Tensor, **more: object) -> object:
        given.append(len(pixel_values))
        if len(pixel_values) > photos:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, pixel_values, **more)

    monkeypatch.setattr(Blip2VisionModel, "forward", forward)
    return given


def test_a_device_with_little_memory_gets_smaller_batches(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(checkpoint)
    pixels = some_pixels(7)
    texts = (TEXTS * 4)[:7]
    expected = model.encode_images(pixels)
    logits = model.match(expected.tokens, texts)
    limit_memory(monkeypatch, 2)
    small = load(checkpoint)
    features = small.encode_images(pixels)
    assert small.batch_size == 2
    torch.testing.assert_close(features.tokens, expected.tokens)
    torch.testing.assert_close(features.embeddings, expected.embeddings)
    torch.testing.assert_close(small.match(features.tokens, texts), logits)


def test_the_first_whole_batch_finds_out_how_large_one_may_be(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = some_pixels(20)
    expected = load(checkpoint).encode_images(pixels)
    monkeypatch.setattr(_adapter, "_PHOTOS_ON_CPU", (2, 64))
    monkeypatch.setattr(_batches, "_WORTH", 0.0)  # however fast they are
    given = limit_memory(monkeypatch, 8)
    model = load(checkpoint)
    model.encode_images(pixels[:1])
    assert given == [1], "a search that lacks a photo waits for no trial"
    features = model.encode_images(pixels)
    assert given == [1, 2, 2, 4, 4, 8, 8, 16, 8, 8, 4]
    assert model.batch_size == 8
    torch.testing.assert_close(features.tokens, expected.tokens)
    torch.testing.assert_close(features.embeddings, expected.embeddings)
    model.encode_images(pixels)
    assert given[-3:] == [8, 8, 4]
    assert len(given) == 14


def test_on_a_cpu_no_batch_is_tried(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = limit_memory(monkeypatch, 100)
    model = load(checkpoint)
    model.encode_images(some_pixels(6))
    assert given == [4, 2]
    assert model.batch_size == 4


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own use of it
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_image_encoder_gives_the_same(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    pixels = some_pixels(3)
    compiled = load_blip2(checkpoint, "cpu", encoder=EncoderOptions(dtype=torch.float32, compiled=True))
    features, expected = compiled.encode_images(pixels), load(checkpoint).encode_images(pixels)
    torch.testing.assert_close(features.tokens, expected.tokens, atol=1e-5, rtol=0)
    torch.testing.assert_close(features.embeddings, expected.embeddings, atol=1e-5, rtol=0)
    with torch.compiler.set_stance("fail_on_recompile"), pytest.raises(RuntimeError, match="recompil"):
        compiled.encode_images(some_pixels(2))
