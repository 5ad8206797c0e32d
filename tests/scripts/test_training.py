"""The training objectives against plain computations, and the order that bucketing keeps."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

import indexer.model
from indexer.model.compact._network import CompactNetwork
from scripts.training import losses
from scripts.training.alignment import all_alignments
from scripts.training.batches import Source
from scripts.training.calibration import expected_calibration_error, platt, rank_weights
from scripts.training.candidates import CANDIDATES, Embedded, Lists, Matching
from scripts.training.dictionary import Dictionary
from scripts.training.evaluation import area_under_curve, recall
from scripts.training.features import Features
from scripts.training.run import Schedule
from scripts.training.texts import Texts, by_length
from scripts.training.words import unused_names

TOKENIZER = Path(indexer.model.__file__).parent / "checkpoints" / "compact" / "tokenizer.json"


def test_the_soft_maximum_is_near_the_maximum() -> None:
    torch.manual_seed(0)
    images = torch.nn.functional.normalize(torch.randn(3, 32, 256), dim=-1)
    texts = torch.nn.functional.normalize(torch.randn(4, 256), dim=-1)
    hard = torch.einsum("iqd,td->itq", images, texts).amax(dim=-1)
    soft = losses.similarities(images, texts)
    assert (soft >= hard).all()
    assert (soft - hard).max() <= 0.02 * math.log(32)


def test_contrastive_loss_is_the_cross_entropy_of_both_directions() -> None:
    similarity = torch.tensor([[0.9, 0.1, 0.2], [0.3, 0.8, 0.7]])
    positive = torch.tensor([[True, False, False], [False, True, True]])
    temperature = 0.1

    def one_way(rows: np.ndarray, right: np.ndarray) -> float:
        logits = rows / temperature
        log_probability = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        target = right / right.sum(axis=1, keepdims=True) * 0.9 + 0.1 / rows.shape[1]
        return float(-(target * log_probability).sum(axis=1).mean())

    rows, right = similarity.numpy().astype(float), positive.numpy().astype(float)
    expected = (one_way(rows, right) + one_way(rows.T, right.T)) / 2
    assert losses.contrastive(similarity, positive, torch.tensor(temperature)).item() == pytest.approx(
        expected, rel=1e-5
    )


def test_equal_query_tokens_pay_and_different_ones_do_not() -> None:
    equal = torch.ones(2, 32, 1)
    assert losses.diversity(equal).item() == pytest.approx(0.25)
    assert losses.diversity(torch.eye(32, 128).expand(2, -1, -1)).item() == 0


def test_matching_loss_is_the_sum_of_both_cross_entropies() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 2)
    exponentials = np.exp(logits.numpy().astype(float))
    match = exponentials[..., 1] / exponentials.sum(axis=-1)
    pairwise = -(np.log(match[:, 0]).sum() + np.log(1 - match[:, 1:]).sum()) / 6
    odds = exponentials[..., 1] / exponentials[..., 0]
    listwise = -np.log(odds[:, 0] / odds.sum(axis=1)).mean()
    assert losses.matching(logits).item() == pytest.approx(pairwise + listwise, rel=1e-5)


@pytest.fixture
def wordnet(tmp_path: Path) -> Dictionary:
    (tmp_path / "data.noun").write_text(
        "  1 This software and database is being provided to you, the LICENSEE\n"
        '03612010 06 n 01 ketch 0 001 @ 04128837 n 0000 | a sailing vessel with two masts; the mizzen is aft; "a k"  \n'
        "01440764 05 n 02 tench 0 Tinca_tinca 0 000 | freshwater fish  \n"
        "07777512 13 n 01 bass 0 000 | lean flesh of a fish  \n"
        "07032292 10 n 02 bass 0 cellphone_case 0 000 | a low voice  \n"
        "02565573 05 n 01 bass 1 000 | spiny-finned fish  \n"
    )
    (tmp_path / "index.noun").write_text(
        "  1 This software and database is being provided to you, the LICENSEE\n"
        "bass n 3 2 @ ~ 3 2 07032292 07777512 02565573  \n"
        "ketch n 1 1 @ 1 0 03612010  \n"
        "tench n 1 1 @ 1 0 01440764  \n"
        "tinca_tinca n 1 1 @ 1 0 01440764  \n"
    )
    return Dictionary(tmp_path)


def test_a_name_is_defined_by_what_can_be_photographed(wordnet: Dictionary) -> None:
    assert wordnet.definitions("bass") == ["lean flesh of a fish", "spiny-finned fish"]
    assert wordnet.definitions("ketch") == ["a sailing vessel with two masts; the mizzen is aft"]
    assert wordnet.definitions("flamingo head") == []


def test_a_class_is_defined_by_its_synset(wordnet: Dictionary) -> None:
    assert wordnet.definition_of_synset("n01440764") == "freshwater fish"


def test_only_plain_names_are_learned(wordnet: Dictionary) -> None:
    assert wordnet.names == ["bass", "ketch", "tench"]


def test_names_that_begin_no_word_of_a_caption_are_unused(wordnet: Dictionary) -> None:
    assert unused_names(wordnet, ["Two tenches swim", "a basset"]) == ["ketch"]


def test_a_folder_without_wordnet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no WordNet"):
        Dictionary(tmp_path / "nothing")


PHOTOS, NAMED = 600, 24
NAMES = [f"name {index % 12}" if index % 12 else None for index in range(NAMED)]


def source(count: int, names: Sequence[str | None], first_text: int, texts_each: int) -> Source:
    features = Features(np.zeros((count, 1, 49, 1808), np.float16), np.zeros((count, 1, 1000), np.float16))
    features.logits[:, 0, 0] = first_text + np.arange(count)  # tells whose they are
    return Source(
        features, [range(first_text + i * texts_each, first_text + (i + 1) * texts_each) for i in range(count)], names
    )


@pytest.fixture(scope="module")
def embeddings() -> Embedded:
    """Two captions for each of 600 photos, four prompts for each of 24 more."""
    torch.manual_seed(0)
    nearest = torch.stack([torch.randperm(PHOTOS - 1)[:512] for _ in range(2 * PHOTOS)])
    nearest += nearest >= torch.arange(2 * PHOTOS)[:, None] // 2
    images, texts = torch.randn(PHOTOS + NAMED, 32, 256), torch.randn(2 * PHOTOS + 4 * NAMED, 256)
    return Embedded(images.bfloat16(), texts.bfloat16(), nearest)


@pytest.fixture(scope="module")
def matching() -> Matching:
    texts = Texts((f"{index}" for index in range(2 * PHOTOS + 4 * NAMED)), TOKENIZER)
    return Matching(source(PHOTOS, [None] * PHOTOS, 0, 2), source(NAMED, NAMES, 2 * PHOTOS, 4), texts)


def photos_of(lists: Lists) -> list[list[int]]:
    return lists.logits[:, 0].view(-1, CANDIDATES).int().tolist()


@pytest.mark.parametrize("step", [0, 49, 50, 300, 5000])
def test_a_list_has_its_own_photo_once_and_no_other_of_that_name(
    matching: Matching, embeddings: Embedded, step: int
) -> None:
    lists = matching.at(step, embeddings)
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    for ids, (own, *others) in zip(lists.ids.tolist(), photos_of(lists), strict=True):
        text = int(tokenizer.decode(ids).replace(" ", ""))
        if own < PHOTOS:
            assert text // 2 == own
            assert own not in others
            assert len(set(others)) >= CANDIDATES - 2
        else:
            index = own - 2 * PHOTOS
            assert (text - 2 * PHOTOS) // 4 == index
            assert NAMES[index] not in {NAMES[other - 2 * PHOTOS] for other in others}


def test_lists_get_harder(matching: Matching, embeddings: Embedded) -> None:
    tokenizer = Tokenizer.from_file(str(TOKENIZER))

    def ranks(step: int) -> list[int]:
        lists = matching.at(step, embeddings)
        found = []
        for ids, (own, *others) in zip(lists.ids.tolist(), photos_of(lists), strict=True):
            if own < PHOTOS:
                nearest = embeddings.nearest[int(tokenizer.decode(ids).replace(" ", ""))].tolist()
                found += [nearest.index(other) for other in others[:-1] if other in nearest]
        return found

    assert max(ranks(0)) > 450
    assert 120 < max(ranks(150)) < 450
    assert max(ranks(300)) < 120


def test_the_same_step_gives_the_same_lists(matching: Matching, embeddings: Embedded) -> None:
    again, first = matching.at(7, embeddings), matching.at(7, embeddings)
    assert torch.equal(again.logits, first.logits)
    assert torch.equal(again.ids, first.ids)
    assert not torch.equal(again.ids, matching.at(8, embeddings).ids)


def test_the_similarity_of_a_pair_is_the_maximum_over_its_query_tokens(
    matching: Matching, embeddings: Embedded
) -> None:
    lists = matching.at(3, embeddings)
    text = int(Tokenizer.from_file(str(TOKENIZER)).decode(lists.ids[0].tolist()).replace(" ", ""))
    own = photos_of(lists)[0][0]
    expected = (embeddings.images[own].float() @ embeddings.texts[text].float()).max()
    assert lists.similarity[0, 0].item() == pytest.approx(expected.item(), rel=1e-5)


def test_bucketing_by_length_gives_the_rows_back_in_order() -> None:
    mask = (torch.arange(9) < torch.tensor([[3], [9], [5], [1], [7], [2]])).long()
    (lengths,) = by_length(mask, lambda rows, length: (mask[rows, :length].sum(dim=1),), parts=3)
    assert lengths.tolist() == [3, 9, 5, 1, 7, 2]


def test_recall_counts_the_best_of_several_right_photos() -> None:
    scores = torch.tensor([[0.1, 0.9, 0.8], [0.9, 0.8, 0.1]])
    relevant = torch.tensor([[True, False, True], [False, False, True]])
    assert recall(scores, relevant) == {"r1": 0.0, "r5": 100.0, "r10": 100.0}


def test_area_under_curve_is_the_share_of_pairs_in_order() -> None:
    assert area_under_curve(torch.tensor([0.9, 0.4]), torch.tensor([0.5, 0.1])) == pytest.approx(0.75)


def test_calibration_error_of_a_known_case() -> None:
    probability = torch.tensor([0.9] * 10 + [0.1] * 10)
    matched = torch.tensor([True] * 7 + [False] * 3 + [False] * 10)
    assert expected_calibration_error(probability, matched) == pytest.approx(0.5 * 0.2 + 0.5 * 0.1, abs=1e-6)


def test_the_rate_warms_up_twice_and_ends_at_zero() -> None:
    schedule = Schedule(naming=250, contrastive=220, match=600)
    rates = [schedule.rate(step) for step in range(schedule.steps)]
    assert rates[0] < rates[19] > rates[249]
    assert rates[250] < rates[349] > rates[-1]
    assert max(rates[249], rates[-1]) < 0.001


def test_rounds_follow_one_another_to_the_end() -> None:
    schedule, step, ends = Schedule(naming=250, contrastive=220, match=700), 0, []
    while step < schedule.steps:
        step = schedule.round_ends(step)
        ends.append(step)
    assert ends == [250, 470, 770, 1070, 1170]
    assert schedule.round_ends(900) == 1070
    assert schedule.round_starts(900) == 770


def test_the_alignment_of_a_batch_is_that_of_each_pair() -> None:
    torch.manual_seed(0)
    words = (torch.nn.functional.normalize(torch.randn(3, 5, 128), dim=-1), torch.randn(3, 5).softmax(dim=-1))
    places = torch.nn.functional.normalize(torch.randn(4, 50, 128), dim=-1)
    pairs = all_alignments(words, places)
    for text in range(3):
        one_text = (words[0][text : text + 1], words[1][text : text + 1])
        for photo in range(4):
            expected = CompactNetwork.alignment(one_text, places[photo : photo + 1])
            torch.testing.assert_close(pairs[text, photo], expected[0], atol=5e-3, rtol=0)


def test_the_alignment_takes_the_best_place_of_every_word() -> None:
    words = (torch.eye(128)[None, :2], torch.tensor([[0.25, 0.75]]))
    places = torch.stack([torch.eye(128)[0], torch.nn.functional.normalize(torch.eye(128)[:2].sum(dim=0), dim=0)])[None]
    assert CompactNetwork.alignment(words, places).item() == pytest.approx(0.25 + 0.75 / math.sqrt(2))


def test_rank_weights_find_what_tells_the_right_candidate() -> None:
    torch.manual_seed(0)
    evidence = torch.randn(2000, 5, 3)
    chances = (evidence @ torch.tensor([2.0, 0.0, -1.0])).softmax(dim=1)
    right = torch.nn.functional.one_hot(torch.multinomial(chances, 1).squeeze(1), 5).bool()
    right[:500] = False  # lists whose photo is not among the candidates say nothing
    torch.testing.assert_close(rank_weights(evidence, right), torch.tensor([2.0, 0.0, -1.0]), atol=0.2, rtol=0)


def test_platt_finds_the_temperature_and_offset_of_its_data() -> None:
    torch.manual_seed(0)
    margins = torch.randn(20_000) * 4
    matched = torch.rand(20_000) < torch.sigmoid(margins / 2 + 1)
    calibration = platt(margins, matched)
    assert calibration.temperature == pytest.approx(2, rel=0.1)
    assert calibration.offset == pytest.approx(1, rel=0.15)
