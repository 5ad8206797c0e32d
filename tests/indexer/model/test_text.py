import pytest

from indexer.model._text import clean_text


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("A woman and her dog.", "a woman and her dog"),
        ('.!"()*#:;~', ""),
        ("one.two!three", "one two three"),
        ("  spaces\t and\n\nlines  ", "spaces and lines"),
        ("dog's, left-right and/or what?", "dog's, left-right and/or what?"),
        ("<image> [SEP]", "<image> [sep]"),
        ("ÉTÉ à la plage", "été à la plage"),
        ("a \udcff dog \ud83d", "a dog"),
        ("", ""),
    ],
)
def test_text_is_cleaned_as_the_reference_does(text: str, cleaned: str) -> None:
    assert clean_text(text) == cleaned


def test_the_first_fifty_words_are_kept() -> None:
    words = [f"word{n}" for n in range(2000)]
    assert clean_text(" . ".join(words)).split() == words[:50]
