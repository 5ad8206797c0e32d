"""The compact model on disk: ``model.safetensors`` (float16), ``config.json``, ``tokenizer.json``, a model card."""

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from indexer.compact_checkpoint import checkpoint_identity
from indexer.errors import CheckpointInvalid
from indexer.model.compact._adapter import CompactModel
from indexer.model.compact._network import CompactNetwork
from indexer.model.compact._qformer import MAX_TEXT_TOKENS

MODEL_TYPE = "photoseek-compact"


def load_compact(directory: Path, device: str, name: str | None = None) -> CompactModel:
    """Load the checkpoint in ``directory`` onto ``device``; ``name`` goes into its identity, by default the path.

    Raises CheckpointInvalid, with a message that names what is missing, unexpected or of a wrong shape.
    """
    identity = checkpoint_identity(directory, name or str(directory))
    weights = directory / "model.safetensors"
    try:
        match_weight = float(json.loads((directory / "config.json").read_text(encoding="utf-8"))["match_weight"])
        state = load_file(weights)
        tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise CheckpointInvalid(f"The checkpoint in {directory} cannot be read: {error}") from error
    except Exception as error:  # tokenizers raises nothing narrower
        raise CheckpointInvalid(f"{directory / 'tokenizer.json'} is not a tokenizer: {error}") from error
    network = CompactNetwork(tokenizer.get_vocab_size())
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointInvalid(f"{weights} does not fit the compact model: {error}") from error
    tokenizer.enable_truncation(MAX_TEXT_TOKENS)
    tokenizer.enable_padding()
    return CompactModel(network.eval().requires_grad_(False).to(device), tokenizer, identity, match_weight, device)


def save_compact(network: CompactNetwork, tokenizer: Path, directory: Path, revision: str, match_weight: float) -> None:
    """Write a checkpoint that ``load_compact`` reads; ``tokenizer`` is the ``tokenizer.json`` to copy."""
    directory.mkdir(parents=True, exist_ok=True)
    # Half precision halves the download; the vectors move by less than the 16-bit rounding of a library's own.
    state = {name: value.detach().cpu().half().contiguous() for name, value in network.state_dict().items()}
    save_file(state, directory / "model.safetensors")
    config = {"model_type": MODEL_TYPE, "revision": revision, "match_weight": match_weight}
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (directory / "tokenizer.json").write_bytes(tokenizer.read_bytes())
