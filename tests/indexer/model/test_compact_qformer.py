"""The compact model's Q-Former against the published implementation, with the same weights."""

import pytest
import torch
from transformers import Blip2QFormerConfig, Blip2QFormerModel
from transformers.models.blip_2.modeling_blip_2 import Blip2TextEmbeddings

from indexer.model.compact._qformer import HIDDEN_SIZE, MAX_TEXT_TOKENS, TOKEN_SIZE, QFormer, TextEmbeddings

_VOCABULARY = 50
_QUERIES = 32
_MASK = torch.tensor([[1] * 6, [1] * 4 + [0] * 2, [1] + [0] * 5])


@pytest.fixture(scope="module")
def published() -> tuple[Blip2TextEmbeddings, Blip2QFormerModel]:
    torch.manual_seed(0)
    config = Blip2QFormerConfig(
        vocab_size=_VOCABULARY,
        hidden_size=HIDDEN_SIZE,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
        max_position_embeddings=MAX_TEXT_TOKENS,
        encoder_hidden_size=TOKEN_SIZE,
        cross_attention_frequency=2,
        use_qformer_text_input=True,
        initializer_range=0.2,
    )
    return Blip2TextEmbeddings(config).eval(), Blip2QFormerModel(config).eval()  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def ours(published: tuple[Blip2TextEmbeddings, Blip2QFormerModel]) -> tuple[TextEmbeddings, QFormer]:
    embeddings, qformer = TextEmbeddings(_VOCABULARY), QFormer()
    embeddings.load_state_dict(published[0].state_dict())
    qformer.load_state_dict(published[1].state_dict())
    return embeddings.eval(), qformer.eval()


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def test_photos(published: tuple[Blip2TextEmbeddings, Blip2QFormerModel], ours: tuple[TextEmbeddings, QFormer]) -> None:
    queries, tokens = random(3, _QUERIES, HIDDEN_SIZE), random(3, 50, TOKEN_SIZE)
    expected = published[1](query_embeds=queries, query_length=_QUERIES, encoder_hidden_states=tokens)
    torch.testing.assert_close(ours[1](queries, _QUERIES, tokens=tokens), expected.last_hidden_state)


@torch.inference_mode()
def test_texts(published: tuple[Blip2TextEmbeddings, Blip2QFormerModel], ours: tuple[TextEmbeddings, QFormer]) -> None:
    ids = torch.randint(_VOCABULARY, _MASK.shape, generator=torch.Generator().manual_seed(2))
    embedded = published[0](input_ids=ids)
    expected = published[1](query_embeds=embedded, query_length=0, attention_mask=_MASK)
    torch.testing.assert_close(ours[0](ids), embedded)
    torch.testing.assert_close(ours[1](ours[0](ids), 0, _MASK), expected.last_hidden_state)


@torch.inference_mode()
def test_photos_with_texts(
    published: tuple[Blip2TextEmbeddings, Blip2QFormerModel], ours: tuple[TextEmbeddings, QFormer]
) -> None:
    queries, tokens = random(3, _QUERIES, HIDDEN_SIZE), random(3, 50, TOKEN_SIZE)
    ids = torch.randint(_VOCABULARY, _MASK.shape, generator=torch.Generator().manual_seed(2))
    mask = torch.cat([torch.ones(3, _QUERIES, dtype=torch.long), _MASK], dim=1)
    embedded = published[0](input_ids=ids, query_embeds=queries)
    expected = published[1](
        query_embeds=embedded, query_length=_QUERIES, attention_mask=mask, encoder_hidden_states=tokens
    )
    torch.testing.assert_close(ours[0](ids, queries), embedded)
    torch.testing.assert_close(ours[1](embedded, _QUERIES, mask, tokens), expected.last_hidden_state)
