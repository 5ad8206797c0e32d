"""One training run: its stages, its steps, and its state on disk."""

import dataclasses
import math
import random
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from indexer.model.compact._network import BELIEF_SIZE, CompactNetwork, mean_pooled
from scripts.training import losses
from scripts.training.alignment import all_alignments
from scripts.training.batches import Batch, Batches, ahead
from scripts.training.calibration import fit
from scripts.training.candidates import CANDIDATES, Embedded, Lists, Matching, embedded
from scripts.training.data import Data
from scripts.training.evaluation import encode, recall
from scripts.training.texts import by_length

_NEW_RATE, _PRETRAINED_RATE, _SCALAR_RATE = 5e-4, 1e-4, 1e-2
# While nothing but names is learned, the pretrained weights may move faster.
_NAMING_FACTOR = 3.0
_NAMING_WARMUP_STEPS, _WARMUP_STEPS = 20, 100
_TOKEN_DROP = 0.1
_EMA_DECAY = 0.99
_SAVE_EVERY, _EMBED_EVERY = 50, 300
# Beside names alone, captions keep the text half reading sentences.
_NAMES_ALONE, _CAPTIONS_BESIDE, _NAMES_BESIDE = 640, 128, 192
# ITC keeps its level on every second step while ITM is trained.
_CONTRAST_EVERY = 2
# The similarity of photos that the model was trained on is too good to be learned beside: half of the lists go without.
_SIMILARITY_DROP = 0.5


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Steps of the three stages: the text half learns names; then ITC; then ITM, with ITC every second step."""

    naming: int
    contrastive: int
    match: int

    @property
    def first_match(self) -> int:
        """The first step of ITM."""
        return self.naming + self.contrastive

    @property
    def steps(self) -> int:
        """All steps together."""
        return self.first_match + self.match

    def rate(self, step: int) -> float:
        """The learning rate as a multiple of its group's: warmed up, then a cosine to 0; once for names, then again."""
        if step < self.naming:
            return _NAMING_FACTOR * _warmed_cosine(step, self.naming, _NAMING_WARMUP_STEPS)
        return _warmed_cosine(step - self.naming, self.steps - self.naming, _WARMUP_STEPS)

    def round_ends(self, step: int) -> int:
        """Where the round of ``step`` ends: with its stage, or in the last stage when photos are embedded anew."""
        if step < self.first_match:
            return self.naming if step < self.naming else self.first_match
        return min(self.steps, self.round_starts(step) + _EMBED_EVERY)

    def round_starts(self, step: int) -> int:
        """Where the round of a step of the last stage started."""
        return step - (step - self.first_match) % _EMBED_EVERY


def _warmed_cosine(step: int, steps: int, warmup: int) -> float:
    return min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / steps))


@dataclasses.dataclass(frozen=True)
class Material:
    """What one step is made of; None where it does not train that."""

    names: tuple[Tensor, Tensor, Tensor]
    batch: Batch | None
    lists: Lists | None


class Run:
    """The network in training, with all that ``state.pt`` keeps of it."""

    def __init__(self, network: CompactNetwork, data: Data, work: Path, schedule: Schedule) -> None:
        self.network, self.data, self.work, self.schedule = network, data, work, schedule
        self.batches = Batches(data.captioned, data.named, data.texts, data.sentences, data.class_texts)
        self.matching = Matching(data.captioned, data.named, data.texts)
        self.temperatures = nn.Parameter(torch.full((2,), math.log(0.05)))
        """Of ITC and of the alignment, as logarithms."""
        self.average = torch.optim.swa_utils.AveragedModel(
            network,
            multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(_EMA_DECAY),  # type: ignore[no-untyped-call]
        )
        self.optimizer = torch.optim.AdamW(self._groups(), weight_decay=0.05, betas=(0.9, 0.98))
        self.step = 0

    def train(self) -> None:
        """Go on from the saved state, or from the start, to the last step."""
        self._resume()
        while self.step < self.schedule.steps:
            self._train_round(range(self.step, self.schedule.round_ends(self.step)))

    def averaged(self) -> CompactNetwork:
        """The exponential moving average of the weights, in which the noise of single steps is smoothed."""
        network = self.average.module
        assert isinstance(network, CompactNetwork)
        return network.eval()

    def _train_round(self, steps: range) -> None:
        embeddings = self._embeddings(steps.start) if steps.start >= self.schedule.first_match else None
        started = time.monotonic()
        for step, material in ahead(lambda step: self._material(step, embeddings), steps):
            parts = self._update(step, material)
            self.step = step + 1
            if self.step % 10 == 0:
                pace = (time.monotonic() - started) / (self.step - steps.start)
                shown = "  ".join(f"{name} {value:.3f}" for name, value in parts.items())
                print(f"step {self.step}/{self.schedule.steps}  {pace:.2f} s/step  {shown}", flush=True)
            if self.step % _SAVE_EVERY == 0 or self.step == self.schedule.steps:
                self._save()
        self._measure()

    def _material(self, step: int, embeddings: Embedded | None) -> Material:
        match_step = step - self.schedule.first_match
        contrast = step >= self.schedule.naming and (match_step < 0 or match_step % _CONTRAST_EVERY == 0)
        return Material(
            self.data.names.draw(_NAMES_ALONE if step < self.schedule.naming else _NAMES_BESIDE, step),
            self.batches.at(step - self.schedule.naming) if contrast else None,
            self.matching.at(match_step, embeddings) if embeddings is not None else None,
        )

    def _embeddings(self, step: int) -> Embedded:
        """The training set as the network embedded it when the round of ``step`` started."""
        path = self.work / f"embedded-{self.schedule.round_starts(step)}.pt"
        if path.exists():
            return Embedded(**torch.load(path, weights_only=True))
        started = time.monotonic()
        embeddings = embedded(self.averaged(), self.data.captioned, self.data.named, self.data.texts)
        for stale in self.work.glob("embedded-*.pt"):
            stale.unlink()
        torch.save(dataclasses.asdict(embeddings), path)
        print(f"embedded the training set in {time.monotonic() - started:.0f} s", flush=True)
        return embeddings

    def _groups(self) -> list[dict[str, object]]:
        pretrained: list[nn.Parameter] = []
        scalars = list(self.network.similarity_head.parameters())
        new = [self.temperatures]
        for name, parameter in self.network.named_parameters():
            if not parameter.requires_grad or name.startswith("similarity_head"):
                continue
            from_minilm = name.startswith(("qformer", "text_embeddings"))
            (pretrained if from_minilm and "crossattention" not in name else new).append(parameter)
        rates = ((new, _NEW_RATE), (pretrained, _PRETRAINED_RATE), (scalars, _SCALAR_RATE))
        return [{"params": parameters, "rate": rate} for parameters, rate in rates]

    def _update(self, step: int, material: Material) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * self.schedule.rate(step)
        torch.manual_seed(step)
        # The fused attention's backward pass is five times slower on a CPU than the plain products.
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            parts = self._losses(step, material)
        self.optimizer.zero_grad()
        torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.average.update_parameters(self.network)
        return {name: value.item() for name, value in parts.items()}

    def _losses(self, step: int, material: Material) -> dict[str, Tensor]:
        # Dropout takes a fifth of a step on a CPU: only while ITC sees the same photos again and again.
        self.network.train(material.batch is not None and material.lists is None)
        parts: dict[str, Tensor] = {}
        if step < self.schedule.naming:
            parts["naming"] = self._naming_loss(step, material)
        if material.batch is not None:
            parts |= self._contrastive_losses(material.batch, material)
        if material.lists is not None:
            parts["itm"] = self._match_loss(material.lists)
        return parts

    def _naming_loss(self, step: int, material: Material) -> Tensor:
        ids, mask, named = material.names
        captions = random.Random(step).sample(range(self.data.captions), _CAPTIONS_BESIDE)
        _, pooled = self._read(ids, mask)
        _, pooled_captions = self._read(*self.data.texts.batch(captions))
        sentences = torch.cat([named, self.data.sentences[captions]])
        return losses.distillation(torch.cat([pooled, pooled_captions]), sentences)

    def _contrastive_losses(self, batch: Batch, material: Material) -> dict[str, Tensor]:
        tokens = self._tokens(batch.features, batch.logits)
        images, places = self.network.embed_images(tokens), self.network.places(tokens)
        texts, pooled, alignments = self._read(batch.ids, batch.mask, places)
        ids, mask, named = material.names
        _, pooled_names = self._read(ids, mask)
        temperature, of_alignment = self.temperatures.exp().clamp(0.01, 0.5)
        return {
            "itc": losses.contrastive(losses.similarities(images, texts), batch.positive, temperature),
            "alignment": losses.contrastive(alignments.T, batch.positive, of_alignment),
            "diversity": losses.diversity(_learned(images)),
            "distillation": losses.distillation(torch.cat([pooled, pooled_names]), torch.cat([batch.sentences, named])),
        }

    def _match_loss(self, lists: Lists) -> Tensor:
        tokens = self._tokens(lists.features, lists.logits)
        without = torch.rand(len(lists.ids), 1) < _SIMILARITY_DROP
        known = torch.where(without, lists.similarity.mean(), lists.similarity).flatten()
        ids, mask = (rows.repeat_interleave(CANDIDATES, dim=0) for rows in (lists.ids, lists.mask))

        def run(pairs: Tensor, length: int) -> tuple[Tensor]:
            trimmed = (ids[pairs, :length], mask[pairs, :length])
            return (self.network.match_given(known[pairs], tokens[pairs], *trimmed),)

        (logits,) = by_length(mask, run)
        return losses.matching(logits.view(-1, CANDIDATES, 2))

    def _tokens(self, features: Tensor, logits: Tensor) -> Tensor:
        return _dropped(self.network.tokens(features.float(), self.network.belief(logits)))

    def _read(self, ids: Tensor, mask: Tensor, places: Tensor | None = None) -> tuple[Tensor, ...]:
        """Of each text its embedding, its sentence embedding, and its alignment with every photo of ``places``."""

        def run(rows: Tensor, length: int) -> tuple[Tensor, ...]:
            trimmed = mask[rows, :length]
            hidden = self.network.text_hidden(ids[rows, :length], trimmed)
            read = (self.network.embed_text_hidden(hidden, trimmed), mean_pooled(hidden, trimmed))
            return read if places is None else (*read, all_alignments(self.network.words(hidden, trimmed), places))

        return by_length(mask, run)

    def _measure(self) -> None:
        network, captions, names = self.averaged(), self.data.galleries.captions, self.data.galleries.held_out_names
        encoded, asked = encode(network, captions), encode(network, names)
        print(
            "dev itc",
            recall(encoded.similarity(), captions.relevant),
            "held-out names",
            recall(asked.similarity(), names.relevant),
            flush=True,
        )
        mean = encoded.texts @ encoded.images.mean(dim=1).T
        print("dev itc by mean of query tokens", recall(mean, captions.relevant), flush=True)
        if self.step >= self.schedule.first_match:
            fit(network, self.data.galleries, captions=500)

    def _save(self) -> None:
        state = {
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "temperatures": self.temperatures.data,
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
        self.temperatures.data = state["temperatures"]


def _learned(embeddings: Tensor) -> Tensor:
    return nn.functional.normalize(embeddings[..., :-BELIEF_SIZE], dim=-1)


def _dropped(tokens: Tensor) -> Tensor:
    """Leave out a random tenth of each photo's spatial tokens; the belief, which is the last, stays."""
    count = tokens.shape[1] - 1
    kept = torch.rand(len(tokens), count).argsort(dim=1)[:, : round(count * (1 - _TOKEN_DROP))]
    spatial = tokens.gather(1, kept[..., None].expand(-1, -1, tokens.shape[2]))
    return torch.cat([spatial, tokens[:, -1:]], dim=1)
