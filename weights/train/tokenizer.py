"""Build the tokenizer: bytes, plus merges that make every word of the tasks one token, bare and after a space."""
import json
import sys
from collections import Counter

from tasks import SYSTEMS, all_words

SPECIAL = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>",
           "<｜deepseek_image｜>"]
BOS, EOS, USER, ASSISTANT, THINK, END_THINK, PLACEHOLDER = range(7)
PATTERN = r"[\r\n]+| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def byte_letters():
    """The printable stand-ins of the 256 bytes that byte-level BPE writes in its vocabulary."""
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    table, extra = {}, 0
    for b in range(256):
        if b in keep:
            table[b] = chr(b)
        else:
            table[b] = chr(256 + extra)
            extra += 1
    return table


def bpe(symbols, rank):
    symbols = list(symbols)
    while len(symbols) > 1:
        best = min(range(len(symbols) - 1), key=lambda i: rank.get((symbols[i], symbols[i + 1]), 1 << 30))
        if (symbols[best], symbols[best + 1]) not in rank:
            break
        symbols[best:best + 2] = [symbols[best] + symbols[best + 1]]
    return symbols


def merges_for(words):
    """Greedy merges, commonest pair first, until each word is one symbol; then the space before each word.

    A later merge has a lower rank, so it can't disturb a word that earlier ones already complete.
    """
    merges, parts = [], {w: list(w) for w in words}
    while True:
        pairs = Counter()
        for p in parts.values():
            pairs.update(set(zip(p, p[1:])))
        if not pairs:
            break
        best = min(pairs, key=lambda p: (-pairs[p], len(p[0] + p[1]), p))
        merges.append(best)
        for w, p in parts.items():
            i = 0
            while i + 1 < len(p):
                if (p[i], p[i + 1]) == best:
                    p[i:i + 2] = [p[i] + p[i + 1]]
                i += 1
    space = byte_letters()[32]
    return merges + [(space, w) for w in words]


def build():
    words = all_words()
    first = ["What", "Is", "How", "Which", "Does", "The", "Describe", "Repeat", "Reverse", "You", "Answer", "Hello"]
    words += [w for w in first if w not in words]
    merges = merges_for(words)
    newline = byte_letters()[10]
    merges.append((newline, newline))
    vocab = {t: i for i, t in enumerate(SPECIAL)}
    for b, s in sorted(byte_letters().items()):
        vocab[s] = len(vocab)
    for a, b in merges:
        vocab.setdefault(a + b, len(vocab))
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [dict(id=i, content=t, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
                         for i, t in enumerate(SPECIAL)],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": r"\p{N}"}, "behavior": "Isolated", "invert": False},
            {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": vocab, "merges": [list(m) for m in merges]}}


def check(path):
    from tokenizers import Tokenizer
    t = Tokenizer.from_file(path)
    for w in all_words():
        assert len(t.encode(w).ids) == 1 and len(t.encode(" " + w).ids) == 1, w
    for s in ["what color is the circle?", "<0.5 seconds>", "12 + 34 = 46", "naïve café 東京 🙂\r\n\ttabs  two", "\n\nwhat is 7-12?", *SYSTEMS]:
        e = t.encode(s)
        assert t.decode(e.ids) == s, (s, t.decode(e.ids))
        print(len(e.ids), e.tokens)
    assert t.encode("<｜User｜>a</think>").ids[0] == USER
    print("vocabulary", t.get_vocab_size())


if __name__ == "__main__":
    out = sys.argv[1]
    with open(out, "w", encoding="utf-8") as f:
        json.dump(build(), f, ensure_ascii=False, indent=0)
    check(out)
