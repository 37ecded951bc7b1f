from helios_model.text import PAD, START, tokenize


def test_words_have_stable_numbers() -> None:
    """The same word has the same number in every process, in any case and beside any punctuation."""
    first, second = tokenize(["Red shirt, red HAIR", "hair; shirt"], buckets=1024, length=6).tolist()
    assert first == [START, first[1], first[2], first[1], first[4], PAD]
    assert second == [START, first[4], first[2], PAD, PAD, PAD]
    assert first[1] == 759


def test_long_and_empty_prompts_fit() -> None:
    """Words beyond the length fall away; no prompt is the start mark alone."""
    long, empty = tokenize(["a b c d e f g", ""], buckets=64, length=4).tolist()
    assert PAD not in long
    assert empty == [START, PAD, PAD, PAD]
    assert max(long) < 64
